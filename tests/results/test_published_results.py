"""The published results: every record is intact, and every network does what its record says."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bibench_tf import datasets, files
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.names import BASELINE
from bibench_tf.results import records
from bibench_tf.results.runs import RunStore
from bibench_tf.training.session import Session

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "cifar10_resnet20"
IMAGES = 1000
SCORES = json.loads((Path(__file__).parents[1] / "golden" / "published_scores.json").read_text())
title = engine._title


def benchmark_of(folder):
    return ResolvedBenchmark(engine.stored_benchmark(folder).benchmark)


def score_of(folder, track):
    """The score of a track from the records of a folder."""
    return TRACKS.get(track).score(benchmark_of(folder), RunStore(folder))


def main_specs(benchmark, dataset=None):
    (setup,) = [each for each in benchmark.setups if each.dataset == (dataset or benchmark.first.dataset)]
    return benchmark.specs(setup)


@pytest.fixture(scope="module")
def benchmark():
    return benchmark_of(FOLDER)


def test_nine_networks_are_kept_with_their_records(benchmark):
    store = RunStore(FOLDER)
    assert len(main_specs(benchmark)) == 9
    for algorithm, spec in main_specs(benchmark).items():
        result = store.result(spec)
        assert result.status == "completed" and result.spec == spec
        assert result.epochs_completed >= 3
        assert result.accuracy > 0.3, f"{algorithm} is near chance"
        assert store.model_path(spec).stat().st_size < 3_000_000
        assert records.read_envelope(store.folder(spec) / "result.json")["provenance"] == "measured"


def every_score(folder):
    stored = engine.stored_benchmark(folder)
    return {track: score_of(folder, track) for track in stored.tracks}


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_the_first_report_to_the_last_digit(name):
    found = {track: dict(score.scores) for track, score in every_score(FOLDER.parent / name).items()}
    assert found == SCORES[name]


def test_robustness_is_scored_from_the_answers_kept(benchmark):
    score, names = score_of(FOLDER, "robustness"), benchmark.options("robustness").corruptions
    assert not score.failures and len(names) == 19
    # The words of the README follow the table.
    text = " ".join((FOLDER.parent / "README.md").read_text(encoding="utf-8").split())
    for row in score.table.to_dict("records"):
        accuracies = f"{row['clean accuracy (%)']:.2f} | {row['mean corrupted accuracy (%)']:.1f} ("
        cells = f"| {title(row['algorithm'])} | {accuracies}"
        assert cells in text and f"| {100 * row['mean gap']:.1f} (" in text
    assert any("smaller for bnn, dorefa, bireal, recu; larger for none;" in note for note in score.notes)
    table = score.table.set_index("algorithm")
    binary = table.drop(index=BASELINE)
    corruptions = [f"{name} (%)" for name in names]
    assert (table.loc[BASELINE, corruptions] > binary[corruptions]).all(axis=None)
    assert (binary["relative mCE high (%)"] < 100).all() and (table["hurt most by"] == "contrast").all()
    assert set(binary["rank by OM_robust"]) == {"1-9"}


@pytest.mark.slow
def test_the_networks_reach_the_recorded_accuracy(benchmark, shared):
    store = RunStore(FOLDER)
    data = datasets.get("cifar10", shared / "data" / "tensorflow_datasets")
    images, labels = (
        np.concatenate(parts) for parts in zip(*data.test_batches(500, limit=IMAGES).as_numpy_iterator(), strict=True)
    )
    for algorithm, spec in main_specs(benchmark).items():
        if algorithm not in (BASELINE, "xnorpp", "fda", "recu"):
            continue  # the others have no layer that these do not have
        result = store.result(spec)
        # At that time the fingerprint was the digest of the record files, one after the other.
        assert result.dataset["fingerprint"] == files.fingerprint_files(data.contents.files)
        accuracy = np.mean(store.model(spec).predict(images, verbose=0).argmax(-1) == labels)
        # Four standard errors of a share over IMAGES images.
        assert accuracy == pytest.approx(result.accuracy, abs=4 * (0.25 / IMAGES) ** 0.5), algorithm


def test_the_training_grid_is_scored_from_its_records():
    folder = FOLDER.parent / "fashion_mini_training"
    benchmark = benchmark_of(folder)
    assert (
        benchmark.seeds == 2
        and len(benchmark.options("training").grid) == 4
        and len(list(folder.glob("runs/*/result.json"))) == 72
    )
    score = score_of(folder, "training")
    assert not score.failures
    # The words of the README follow the table.
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    for row in score.table.to_dict("records"):
        assert (
            f"| {title(row['algorithm'])} | {row['step / full precision']:.2f} ({row['lower quartile']:.2f} to " in text
        )
        assert f" | {row['accuracy mean (%)']:.1f} | {row['settings without seeds (points)']:.1f} | " in text


# How far above chance every network has to be, by data set: what saying always the same gives, and four standard
# errors of a share over the test examples; of points' parts, what the most frequent part of a category gives.
ABOVE_CHANCE = {
    "fashion_mini": 0.1 + 4 * (0.09 / 2000) ** 0.5,
    "keywords_mini": 0.1 + 4 * (0.09 / 400) ** 0.5,
    "sentiment_mini": 0.5 + 4 * (0.25 / 1000) ** 0.5,
    "shapes_mini": 0.1 + 4 * (0.09 / 400) ** 0.5,
    "shapes_mini_parts": 0.38,
}


def assert_scored_from_records(folder):
    """The task track again from the records, equal to the table; every row stands in the README."""
    benchmark, score = benchmark_of(folder), score_of(folder, "task")
    assert not score.failures
    text = (folder.parent / "README.md").read_text(encoding="utf-8")
    section = text[text.index(f"## {folder.name}\n") :].partition("\n## ")[0]
    # Of each data set the first column is the task's main metric.
    columns = [next(name for name in score.table if name.startswith(f"{setup.dataset} ")) for setup in benchmark.setups]
    for row in score.table.to_dict("records"):
        cells = " | ".join(f"{row[column]:.1f}" for column in columns)
        assert f"| {title(row['algorithm'])} | {cells} |" in section
    return benchmark


def test_the_embedded_tasks_are_scored_from_their_records_and_learnt():
    folder = FOLDER.parent / "quick"
    benchmark = assert_scored_from_records(folder)
    data = [setup.dataset for setup in benchmark.setups]
    assert set(data) == set(ABOVE_CHANCE)
    store = RunStore(folder)
    for dataset in data:
        networks = main_specs(benchmark, dataset)
        assert len(networks) == 9
        accuracies = {algorithm: store.result(spec).accuracy for algorithm, spec in networks.items()}
        assert min(accuracies.values()) > ABOVE_CHANCE[dataset], accuracies
        assert accuracies[BASELINE] == max(accuracies.values()), accuracies


# Results of one task each: how many networks, and the least main metric in full precision and with any algorithm.
# On SST-2 most binarized networks are at chance after the short training.
OF_ONE_TASK = {
    "bccd": (5, 0.3, 0.3),
    "canvas_mini": (9, 0.5, 0.3),
    "furniture": (9, 0.6, 0.4),
    "spoken_digits": (9, 0.85, 0.5),
    "sst2": (9, 0.8, 0.45),
}


@pytest.mark.parametrize("name", OF_ONE_TASK)
def test_a_task_is_scored_from_its_records_and_learnt(name):
    folder = FOLDER.parent / name
    benchmark = assert_scored_from_records(folder)
    store = RunStore(folder)
    accuracies = {algorithm: store.result(spec).accuracy for algorithm, spec in main_specs(benchmark).items()}
    networks, least, least_binary = OF_ONE_TASK[name]
    assert len(accuracies) == networks and accuracies[BASELINE] > least and min(accuracies.values()) > least_binary


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_the_report_is_made_from_the_records(name, tmp_path):
    published = FOLDER.parent / name
    folder = Path(shutil.copytree(published, tmp_path / name))
    shutil.rmtree(folder / "report")
    assert engine.rescore(Session(folder, quiet=True)).report == folder / "report" / "report.html"
    # The published Markdown has no plots beside it.
    without = re.compile(r"^[^\n]*\n\n!\[.*\n\n", re.MULTILINE)
    found = without.sub("", (folder / "report" / "report.md").read_text())
    assert found == (published / "report" / "report.md").read_text()
    if (published / "report" / "report.html").exists():
        assert (folder / "report" / "report.html").read_text() == (published / "report" / "report.html").read_text()
