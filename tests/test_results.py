"""The published results: every record is intact, and every network does what its record says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bibench_tf import datasets, records
from bibench_tf.benchmark import BASELINE
from bibench_tf.runs import RunSpec, RunStore
from bibench_tf.tracks import execution

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "cifar10_resnet20"
IMAGES = 1000


@pytest.fixture(scope="module")
def stored():
    return execution.stored_benchmark(FOLDER)


def specs(benchmark):
    from bibench_tf.tracks.base import main_specs

    return main_specs(benchmark)


def test_nine_networks_are_kept_with_their_records(stored):
    store = RunStore(FOLDER)
    assert len(specs(stored.benchmark)) == 9
    for algorithm, spec in specs(stored.benchmark).items():
        result = store.result(spec)
        assert result.status == "completed" and RunSpec.from_dict(result.spec) == spec
        assert result.epochs_completed >= 3
        assert result.accuracy > 0.3, f"{algorithm} is near chance"
        assert store.model_path(spec).stat().st_size < 3_000_000
        assert records.read_envelope(store.folder(spec) / "result.json")["provenance"] == "measured"


def test_the_table_is_made_of_the_records(stored):
    scores = {score.track: score for score in execution.score(stored.tracks, stored.benchmark, FOLDER)}
    table = (FOLDER / "report" / "task.csv").read_text()
    for algorithm, spec in specs(stored.benchmark).items():
        accuracy = RunStore(FOLDER).result(spec).accuracy
        row = next(line for line in table.splitlines() if line.startswith(algorithm))
        assert float(row.split(",")[1]) == pytest.approx(100 * accuracy)
    assert not scores["task"].failures


def test_robustness_is_scored_from_the_answers_kept(stored):
    (score,) = execution.score(["robustness"], stored.benchmark, FOLDER)
    assert not score.failures and len(stored.benchmark.corruptions) == 19
    published = pd.read_csv(FOLDER / "report" / "robustness.csv")
    pd.testing.assert_frame_equal(score.table, published, check_dtype=False, rtol=1e-9)
    # The words of the README follow the table.
    text = " ".join((FOLDER.parent / "README.md").read_text(encoding="utf-8").split())
    for row in score.table.to_dict("records"):
        cells = f"| {row['algorithm']} | {row['clean accuracy (%)']:.2f} | {row['mean corrupted accuracy (%)']:.1f} ("
        assert cells in text and f"| {100 * row['mean gap']:.1f} (" in text
    assert any("smaller for bnn, dorefa, bireal, recu; larger for none;" in note for note in score.notes)
    table = score.table.set_index("algorithm")
    binary = table.drop(index=BASELINE)
    corruptions = [f"{name} (%)" for name in stored.benchmark.corruptions]
    assert (table.loc[BASELINE, corruptions] > binary[corruptions]).all(axis=None)
    assert (binary["relative mCE high (%)"] < 100).all() and (table["hurt most by"] == "contrast").all()
    assert set(binary["rank by OM_robust"]) == {"1-9"}


@pytest.mark.slow
def test_the_networks_reach_the_recorded_accuracy(stored, shared):
    store = RunStore(FOLDER)
    data = datasets.get("cifar10", shared / "data" / "tensorflow_datasets")
    images, labels = (
        np.concatenate(parts) for parts in zip(*data.test_batches(500, limit=IMAGES).as_numpy_iterator(), strict=True)
    )
    for algorithm, spec in specs(stored.benchmark).items():
        if algorithm not in (BASELINE, "xnorpp", "fda", "recu"):
            continue  # the others have no layer that these do not have
        result = store.result(spec)
        assert result.dataset["fingerprint"] == data.fingerprint
        accuracy = np.mean(store.model(spec).predict(images, verbose=0).argmax(-1) == labels)
        # Four standard errors of a share over IMAGES images.
        assert accuracy == pytest.approx(result.accuracy, abs=4 * (0.25 / IMAGES) ** 0.5), algorithm


def test_the_training_grid_is_scored_from_its_records():
    folder = FOLDER.parent / "fashion_mini_training"
    benchmark = execution.stored_benchmark(folder).benchmark
    assert benchmark.seeds == 2 and len(benchmark.grid) == 4 and len(list(folder.glob("runs/*/result.json"))) == 72
    (score,) = execution.score(["training"], benchmark, folder)
    assert not score.failures
    published = pd.read_csv(folder / "report" / "training.csv")
    pd.testing.assert_frame_equal(score.table, published, check_dtype=False, rtol=1e-9)
    # The words of the README follow the table.
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    for row in score.table.to_dict("records"):
        assert f"| {row['algorithm']} | {row['step / full precision']:.2f} ({row['lower quartile']:.2f} to " in text
        assert f" | {row['accuracy mean (%)']:.1f} | {row['settings without seeds (points)']:.1f} | " in text
