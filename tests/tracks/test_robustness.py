from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bibench_tf import corruptions, datasets, records
from bibench_tf.benchmark import Benchmark, Session
from bibench_tf.errors import BibenchError
from bibench_tf.runs import RunResult, RunStore
from bibench_tf.tracks import base, robustness

NAMES = ("brightness", "contrast", "gaussian_noise")
BENCHMARK = Benchmark(tasks=("tiny",), algorithms=("bnn", "xnor"), corruptions=NAMES, corrupted_images=300)
FINGERPRINT = "f1"


def write_result(store, spec, **changes):
    result = RunResult(
        **{
            "run_id": spec.id,
            "spec": dataclasses.asdict(spec),
            "status": "completed",
            "accuracy": 0.5,
            "dataset": {
                "name": "tiny",
                "fingerprint": FINGERPRINT,
                "train_examples": 8,
                "test_examples": 400,
            },
            **changes,
        }
    )
    records.write(store.folder(spec) / "result.json", result)
    return store.result(spec)


def write_record(store, spec, clean, accuracies, **changes):
    settings = robustness._settings(BENCHMARK, spec, store.result(spec))
    record = dataclasses.replace(settings, clean_accuracy=clean, accuracies=accuracies, **changes)
    records.write(store.folder(spec) / robustness.FILE, record)


ACCURACIES = {
    "full_precision": (0.9, {name: [0.8, 0.7, 0.6, 0.5, 0.4] for name in NAMES}),
    "bnn": (0.8, {name: [0.7, 0.6, 0.4, 0.2, 0.1] for name in NAMES}),
    "xnor": (
        0.6,
        dict(zip(NAMES, ([0.6, 0.5, 0.4, 0.3, 0.2], [0.3] * 5, [0.5, 0.5, 0.4, 0.4, 0.2]), strict=True)),
    ),
}


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path)
    for algorithm, spec in base.main_specs(BENCHMARK).items():
        write_result(store, spec)
        write_record(store, spec, *ACCURACIES[algorithm])
    return store


@pytest.fixture
def specs():
    return base.main_specs(BENCHMARK)


def test_the_plan_is_the_main_runs_and_knows_the_corruptions(specs):
    assert robustness.plan(BENCHMARK) == list(specs.values())
    with pytest.raises(BibenchError, match="Did you mean 'contrast'"):
        robustness.plan(dataclasses.replace(BENCHMARK, corruptions=("contrats",)))


def test_scores_follow_the_formula(store):
    score = robustness.score(BENCHMARK, store)
    gaps = {
        algorithm: np.array([1 - np.mean(rows[name]) / clean for name in NAMES])
        for algorithm, (clean, rows) in ACCURACIES.items()
    }
    for algorithm, own in gaps.items():
        expected = np.sqrt(np.mean((gaps["full_precision"] / own) ** 2))
        assert score.scores[algorithm] == pytest.approx(expected, rel=1e-12)
    assert score.scores["full_precision"] == 1 and not score.failures and not score.complete
    table = score.table.set_index("algorithm")
    assert list(table.index) == ["full_precision", "bnn", "xnor"]
    assert table.loc["xnor", "clean accuracy (%)"] == pytest.approx(60)
    assert table.loc["bnn", "contrast (%)"] == pytest.approx(40)
    assert table.loc["bnn", "mean gap"] == pytest.approx(0.5)
    (chart,) = score.charts
    assert chart.series["bnn"][0] == (0, pytest.approx(80)) and chart.series["bnn"][5] == (
        5,
        pytest.approx(10),
    )


def test_a_network_that_loses_nothing_has_no_score_and_a_note(store, specs):
    write_record(store, specs["bnn"], 0.4, {name: [0.4] * 5 for name in NAMES})
    score = robustness.score(BENCHMARK, store)
    assert score.scores["bnn"] is None and score.scores["xnor"] is not None
    assert any("bnn" in note for note in score.notes)


def test_without_the_baseline_nothing_is_scored(store, specs):
    (store.folder(specs["full_precision"]) / "result.json").unlink()
    score = robustness.score(BENCHMARK, store)
    assert set(score.scores.values()) == {None} and len(score.failures) == 1


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_runs_that_failed_are_named_and_not_scored(store, specs, status):
    write_result(store, specs["bnn"], status=status, error="NaN loss")
    score = robustness.score(BENCHMARK, store)
    assert score.scores["bnn"] is None and score.scores["xnor"] is not None
    assert len(score.failures) == 1 and "bnn" in score.failures[0] and status in score.failures[0]


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.write_text(path.read_text()[:-40]), "robustness.json"),
        (lambda path: path.write_text(path.read_text().replace("0.7", "0.8", 1)), "robustness.json"),
        (lambda path: path.unlink(), "has not been measured"),
    ],
)
def test_damaged_and_missing_records_are_named_and_not_scored(store, specs, damage, said):
    damage(store.folder(specs["bnn"]) / robustness.FILE)
    score = robustness.score(BENCHMARK, store)
    assert score.scores["bnn"] is None and score.scores["xnor"] is not None
    assert len(score.failures) == 1 and said in score.failures[0]


@pytest.mark.parametrize("change", [{"images": 200}, {"seed": 1}, {"dataset": "f2"}, {"version": 0}])
def test_records_of_other_settings_are_not_scored(store, specs, change):
    write_record(store, specs["bnn"], *ACCURACIES["bnn"], **change)
    score = robustness.score(BENCHMARK, store)
    assert score.scores["bnn"] is None and "other settings" in score.failures[0]


def test_a_network_trained_again_is_not_scored_by_its_old_record(store, specs):
    write_result(store, specs["bnn"], accuracy=0.51)
    assert "other settings" in robustness.score(BENCHMARK, store).failures[0]


class Threshold:
    """A network of two classes that tells dark from bright images, wrongly above its own limit."""

    def __init__(self, limit):
        self.limit, self.calls = limit, 0

    def predict_on_batch(self, images):
        self.calls += 1
        bright = np.asarray(images).mean(axis=(1, 2, 3)) > self.limit
        return np.stack([~bright, bright], axis=1).astype(np.float32)


@pytest.fixture
def session(tmp_path, monkeypatch, specs):
    """Three trained networks without measurements, on 400 grey test images of two levels."""
    levels = np.random.default_rng(0).integers(0, 256, 400)
    images = np.broadcast_to(levels[:, None, None, None], (400, 5, 5, 1)).astype(np.uint8)
    labels = (levels > 127).astype(int)
    dataset = datasets.ArrayImages(
        name="tiny",
        title="",
        source="",
        licence="",
        input_shape=(5, 5, 1),
        class_names=("dark", "bright"),
        train_examples=8,
        test_examples=400,
        mean=(0.0,),
        std=(1.0,),
        fingerprint=FINGERPRINT,
        load=lambda: datasets.Splits(images[:8], labels[:8], images, labels),
    )
    monkeypatch.setattr(datasets, "_FACTORIES", {"tiny": lambda data_dir, download: dataset})
    models = {spec.id: Threshold(limit) for spec, limit in zip(specs.values(), (127, 150, 90), strict=True)}
    monkeypatch.setattr(RunStore, "model", lambda store, spec: models[spec.id])
    store = RunStore(tmp_path)
    for spec in specs.values():
        write_result(store, spec)
    session = Session(results=tmp_path, quiet=True)
    return session, store, models, images[:300], labels[:300]


def test_measured_accuracies_are_those_of_the_corrupted_images(session, specs):
    session, store, models, images, labels = session
    robustness.measure(BENCHMARK, session)
    for spec in specs.values():
        record = records.read(store.folder(spec) / robustness.FILE, robustness.Robustness)
        limit = models[spec.id].limit
        assert record.clean_accuracy == np.mean((images.mean(axis=(1, 2, 3)) > limit) == labels)
        assert set(record.accuracies) == set(NAMES) and record.images == 300
        for name, accuracies in record.accuracies.items():
            for severity, accuracy in zip(corruptions.SEVERITIES, accuracies, strict=True):
                corrupted = corruptions.apply(name, images, severity).astype(np.float32)
                assert accuracy == np.mean((corrupted.mean(axis=(1, 2, 3)) > limit) == labels)
    assert "cpu" in records.read_envelope(store.folder(spec) / robustness.FILE)["environment"]
    assert not robustness.score(BENCHMARK, store).failures


def test_what_is_measured_is_not_measured_again(session, monkeypatch):
    session, store, models, *_ = session
    robustness.measure(BENCHMARK, session)
    calls = [model.calls for model in models.values()]
    monkeypatch.setattr(datasets, "get", lambda *arguments: pytest.fail("nothing is left to measure"))
    robustness.measure(BENCHMARK, session)
    robustness.measure(dataclasses.replace(BENCHMARK, corruptions=NAMES[:1]), session)
    assert [model.calls for model in models.values()] == calls


def test_an_interrupted_measurement_goes_on_with_the_next_corruption(session, specs, monkeypatch):
    session, store, *_ = session
    path = store.folder(specs["bnn"]) / robustness.FILE
    measured = robustness._accuracies
    steps = iter(range(1 + 2 * 5 + 3))

    def interrupted(*arguments):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return measured(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(robustness, "_accuracies", interrupted)
        with pytest.raises(KeyboardInterrupt):
            robustness.measure(BENCHMARK, session)
    before = records.read(path, robustness.Robustness)
    assert list(before.accuracies) == list(NAMES[:2])
    assert "to gaussian_noise has not been measured" in robustness.score(BENCHMARK, store).failures[0]

    corrupted = []
    apply = corruptions.apply
    monkeypatch.setattr(
        corruptions,
        "apply",
        lambda name, *rest, **options: corrupted.append(name) or apply(name, *rest, **options),
    )
    robustness.measure(BENCHMARK, session)
    after = records.read(path, robustness.Robustness)
    assert set(corrupted) == {NAMES[2]} and set(after.accuracies) == set(NAMES)
    assert {name: after.accuracies[name] for name in NAMES[:2]} == before.accuracies


def test_a_damaged_record_is_set_aside_and_made_again(session, specs, capsys):
    session, store, *_ = session
    robustness.measure(BENCHMARK, session)
    path = store.folder(specs["bnn"]) / robustness.FILE
    before = records.read(path, robustness.Robustness)
    path.write_text(path.read_text()[:-40])
    robustness.measure(BENCHMARK, session)
    assert records.read(path, robustness.Robustness) == before
    assert str(path) in capsys.readouterr().err and path.with_suffix(".json.damaged").exists()


def test_networks_that_did_not_complete_are_left_out(session, specs):
    session, store, *_ = session
    write_result(store, specs["bnn"], status="diverged", error="NaN loss")
    (store.folder(specs["xnor"]) / "result.json").unlink()
    robustness.measure(BENCHMARK, session)
    found = [algorithm for algorithm, spec in specs.items() if (store.folder(spec) / robustness.FILE).exists()]
    assert found == ["full_precision"]


def test_other_data_than_those_of_the_training_are_refused(session, specs):
    session, store, *_ = session
    dataset = {"name": "tiny", "fingerprint": "other", "train_examples": 8, "test_examples": 400}
    write_result(store, specs["bnn"], dataset=dataset)
    with pytest.raises(BibenchError, match="trained on"):
        robustness.measure(BENCHMARK, session)


def test_a_corruption_that_does_not_fit_the_images_is_refused(session):
    with pytest.raises(BibenchError, match="colour"):
        robustness.measure(dataclasses.replace(BENCHMARK, corruptions=("saturate",)), session[0])
