from __future__ import annotations

import dataclasses
import itertools
import json
import linecache
import re
import types
from pathlib import Path

import numpy as np
import pytest

from bibench_tf import corruptions, datasets, files, registry
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.cli import tracks
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import bootstrap, metrics
from bibench_tf.tracks.corruption_robustness import Options, measuring, resampling, table_for
from bibench_tf.tracks.corruption_robustness.record import FILE, Answers, keys_of, read, settings
from bibench_tf.training.session import Session

NAMES = ("brightness", "contrast", "gaussian_noise")
OPTIONS = Options(corruptions=NAMES, images=200, severity_table="cifar10")
TRACK = TRACKS.get("robustness")
FINGERPRINT = "f1"


def benchmark_with(algorithms=("bnn", "xnor"), **options):
    options = dataclasses.replace(OPTIONS, **options)
    return ResolvedBenchmark(Benchmark(data=("tiny",), algorithms=algorithms, options={"robustness": options}))


def settled(session, **options):
    """The benchmark as it starts: with the digests of published sets."""
    benchmark = benchmark_with(**options)
    own = TRACK.settle(benchmark.options("robustness"), Job(benchmark, session))
    return ResolvedBenchmark(dataclasses.replace(benchmark.benchmark, options={"robustness": own}))


def score_of(store, **options):
    return TRACK.score(settled(Session(results=store.root), **options), store)


def measure(session, **options):
    TRACK.measure(Job(settled(session, **options), session))


def write_result(store, spec, **changes):
    result = RunResult(
        **{
            "run_id": spec.id,
            "spec": spec,
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


def write_record(store, spec, clean, accuracies, seen="same", labels="order", **changes):
    """Answers of 200 images, the first of them right; an accuracy is a multiple of 0.5 %."""
    expected = settings(OPTIONS, 0, spec, store.result(spec))

    def answers(accuracy):
        return Answers.pack(np.arange(200) < round(200 * accuracy), seen, labels)

    sets = {"clean": answers(clean)} | {
        f"{name}-{severity}": answers(accuracy)
        for name, row in accuracies.items()
        for severity, accuracy in enumerate(row, 1)
    }
    path = store.folder(spec) / FILE
    records.write(path, dataclasses.replace(expected, answers=sets, **changes))
    return path


ACCURACIES = {
    "full_precision": (0.9, {name: [0.8, 0.7, 0.6, 0.5, 0.4] for name in NAMES}),
    "bnn": (0.8, {name: [0.7, 0.6, 0.4, 0.2, 0.1] for name in NAMES}),
    "xnor": (
        0.6,
        dict(zip(NAMES, ([0.3] * 5, [0.6, 0.5, 0.4, 0.3, 0.2], [0.5, 0.5, 0.4, 0.4, 0.2]), strict=True)),
    ),
}


@pytest.fixture(autouse=True)
def tiny_is_known(registered_data):
    """The data set of the records is registered; nothing loads it."""
    with registered_data("tiny", lambda *given: pytest.fail("not for scoring"), "image_classification"):
        yield


@pytest.fixture
def specs(tiny_is_known):
    benchmark = benchmark_with()
    return benchmark.specs(benchmark.first)


@pytest.fixture
def store(tmp_path, specs):
    store = RunStore(tmp_path)
    for algorithm, spec in specs.items():
        write_result(store, spec)
        write_record(store, spec, *ACCURACIES[algorithm])
    return store


def test_the_plan_is_the_main_runs(specs):
    assert TRACK.plan(benchmark_with()) == list(specs.values())


def test_unknown_corruptions_are_refused_before_anything_is_trained(session):
    with pytest.raises(BibenchError, match="Did you mean 'contrast'"):
        TRACK.check(Job(benchmark_with(corruptions=("contrats",)), session[0]))


def test_groups_stand_for_their_corruptions():
    assert (
        corruptions.expand(("standard",)) == tuple(corruptions.names("standard"))
        and len(tuple(corruptions.names("standard"))) == 15
    )
    assert corruptions.expand(("all",)) == (*tuple(corruptions.names("standard")), *corruptions.names("extra"))
    assert corruptions.expand(("fog", "extra", "fog")) == ("fog", *corruptions.names("extra"))
    assert corruptions.expand(("fogg",)) == ("fogg",)


def test_the_table_follows_the_size_of_the_images():
    assert table_for((32, 32, 3)) == table_for((28, 28, 1)) == "cifar10"
    assert table_for((63, 200, 3)) == "cifar10"
    assert table_for((64, 64, 3)) == table_for((224, 224, 3)) == "imagenet"


@pytest.mark.parametrize("count", [1, 7, 8, 9, 200])
def test_answers_are_packed_without_loss(count):
    right = np.random.default_rng(count).random(count) < 0.5
    packed = Answers.pack(right, "0" * 64, "1" * 64)
    np.testing.assert_array_equal(packed.unpack(count), right)
    assert len(packed.right) <= 4 * (count // 24 + 1) and (packed.images, packed.labels) == ("0" * 16, "1" * 16)
    with pytest.raises(ValueError):
        packed.unpack(count + 8)


def test_an_image_is_right_where_the_largest_logit_is_that_of_its_label():
    """Logits NaN are no answer, also where the first class is the label."""
    logits = np.array([[1, 2, 0], [3, 1, 2], [0, 0, 1], [np.nan] * 3], np.float32)
    network = types.SimpleNamespace(
        model=types.SimpleNamespace(predict_on_batch=lambda images: logits[images]),
        record=types.SimpleNamespace(images=4),
    )
    (found,) = measuring._answers([network], [(np.array([0, 1]), [1, 2]), (np.array([2, 3]), [2, 0])])
    assert found.unpack(4).tolist() == [True, False, True, False]


def test_scores_follow_the_formula(store):
    score = score_of(store)
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
    assert table.loc["xnor", "mean corrupted accuracy (%)"] == pytest.approx(100 * (0.4 + 0.3 + 0.4) / 3)
    assert table.loc["xnor", "severity 2 (%)"] == pytest.approx(100 * (0.5 + 0.3 + 0.5) / 3)
    # By hand: errors over severities 2.0 in full precision; 3.0 for bnn; 3.0, 3.5 and 3.0 for xnor.
    assert table.loc["bnn", "mCE (%)"] == pytest.approx(150)
    assert table.loc["xnor", "mCE (%)"] == pytest.approx(100 * (1.5 + 1.75 + 1.5) / 3)
    # Less the clean errors, five times: 2.0 - 0.5 in full precision; 3.0 - 1.0; 3.0 - 2.0, 3.5 - 2.0, 3.0 - 2.0.
    assert table.loc["bnn", "relative mCE (%)"] == pytest.approx(100 * 2 / 1.5)
    assert table.loc["xnor", "relative mCE (%)"] == pytest.approx(100 * (1 + 1.5 + 1) / 4.5)
    assert table.loc["xnor", "hurt most by"] == "brightness"
    assert table.loc["full_precision", ["mCE (%)", "relative mCE (%)"]].tolist() == pytest.approx([100, 100])


def test_charts_show_curves_intervals_and_the_gap_of_every_corruption(store):
    curves, overall, gaps, scores, lost = score_of(store).charts
    assert [chart.kind for chart in (curves, overall, gaps, scores, lost)] == ["lines", *["bars"] * 3, "heat"]
    assert curves.series["bnn"][0] == (0, pytest.approx(80)) and curves.series["bnn"][5] == (5, pytest.approx(10))
    assert dict(overall.series["corrupted images"])["xnor"] == pytest.approx(110 / 3)
    assert dict(lost.series["xnor"]) == pytest.approx(
        {"brightness": 50, "contrast": 100 / 3, "gaussian_noise": 100 / 3}
    )
    assert dict(gaps.series["mean gap"])["bnn"] == pytest.approx(50)
    for chart in (curves, overall, gaps, scores):
        assert set(chart.intervals) == set(chart.series)
        for name, points in chart.series.items():
            bounds = {x: (low, high) for x, low, high in chart.intervals[name]}
            for x, y in points:
                low, high = bounds[x]
                assert low <= y + 1e-9 and y <= high + 1e-9
                # The baseline's own score is 1 in every resample.
                assert low < high or (chart is scores and x == "full_precision")


def test_networks_are_ranked_with_ties(store, specs):
    write_record(store, specs["xnor"], *ACCURACIES["bnn"])
    table = score_of(store).table.set_index("algorithm")
    assert list(table["rank by accuracy"]) == ["1", "2-3", "2-3"]
    assert list(table["rank by OM_robust"]) == ["1", "2-3", "2-3"]
    notes = " ".join(score_of(store).notes)
    assert list(table["rank by mean gap"]) == ["1", "2-3", "2-3"]
    assert "smaller for none; larger for bnn, xnor; not significantly different: none." in notes


def test_a_network_that_keeps_more_than_full_precision_is_named(store, specs):
    steady = {name: [0.4, 0.4, 0.4, 0.4, 0.35] for name in NAMES}
    write_record(store, specs["bnn"], 0.4, steady)
    write_record(store, specs["xnor"], *ACCURACIES["full_precision"])
    score = score_of(store)
    assert score.scores["bnn"] > 5 and score.scores["xnor"] == 1
    notes = " ".join(score.notes)
    assert "smaller for bnn; larger for none; not significantly different: xnor." in notes
    assert list(score.table["rank by mean gap"]) == ["2-3", "1", "2-3"]
    assert score.table.set_index("algorithm").loc["bnn", "rank by OM_robust"] == "1"


def test_a_network_that_loses_nothing_has_no_score_and_a_note(store, specs):
    write_record(store, specs["bnn"], 0.4, {name: [0.4] * 5 for name in NAMES})
    score = score_of(store)
    assert score.scores["bnn"] is None and score.scores["xnor"] is not None
    assert any("bnn has no OM_robust" in note for note in score.notes)
    assert score.table.set_index("algorithm").loc["bnn", "relative mCE (%)"] == pytest.approx(0, abs=1e-9)


def test_without_the_baseline_nothing_is_scored(store, specs):
    (store.folder(specs["full_precision"]) / "result.json").unlink()
    score = score_of(store)
    assert set(score.scores.values()) == {None} and len(score.failures) == 1
    table = score.table.set_index("algorithm")
    assert table.loc["bnn", "rank by accuracy"] == "1" and "mCE low (%)" not in table


def test_without_any_record_there_is_a_table_of_names(tmp_path):
    score = score_of(RunStore(tmp_path))
    assert list(score.table["algorithm"]) == ["full_precision", "bnn", "xnor"] and not score.charts


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_runs_that_failed_are_named_and_not_scored(store, specs, status):
    write_result(store, specs["bnn"], status=status, error="NaN loss")
    score = score_of(store)
    assert score.scores["bnn"] is None and score.scores["xnor"] is not None
    assert len(score.failures) == 1 and "bnn" in score.failures[0] and status in score.failures[0]


def with_data(path, change):
    """Change the data of a record and sign it again."""
    content = json.loads(path.read_text())
    change(content)
    content["sha256"] = files.digest({key: value for key, value in content.items() if key != "sha256"})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.write_text(path.read_text()[:-40]), "robustness.json"),
        (lambda path: path.write_text(path.read_text().replace("fog", "frog").replace("////", "///+", 1)), "checksum"),
        (lambda path: with_data(path, lambda all: all["data"]["answers"]["clean"].update(right="AAAA")), "answers for"),
        (lambda path: with_data(path, lambda all: all["data"]["answers"]["clean"].update(right="?")), "does not fit"),
        (lambda path: path.unlink(), "has not been measured"),
    ],
)
def test_damaged_and_missing_records_are_named_and_not_scored(store, specs, damage, said):
    damage(store.folder(specs["bnn"]) / FILE)
    score = score_of(store)
    assert score.scores["bnn"] is None and score.scores["xnor"] is not None
    assert len(score.failures) == 1 and said in score.failures[0]


def test_a_record_of_a_newer_version_stops_the_score_and_the_measurement(session, specs):
    session, store, *_ = session
    measure(session)
    path = store.folder(specs["bnn"]) / FILE
    with_data(path, lambda content: content.update(schema=records.SCHEMA + 1))
    before = path.read_text()
    for call in (lambda: score_of(store), lambda: measure(session)):
        with pytest.raises(records.NewerRecordError, match="update bibench-tf"):
            call()
    assert path.read_text() == before


@pytest.mark.parametrize(
    "change",
    [{"images": 199}, {"seed": 1}, {"dataset": "f2"}, {"version": 0}, {"source": "tfds"}, {"severities": "imagenet"}],
)
def test_records_of_other_settings_are_not_scored(store, specs, change):
    write_record(store, specs["bnn"], *ACCURACIES["bnn"], **change)
    score = score_of(store)
    assert score.scores["bnn"] is None and "other settings" in score.failures[0]


def test_a_network_trained_again_is_not_scored_by_its_old_record(store, specs):
    write_result(store, specs["bnn"], accuracy=0.51)
    assert "other settings" in score_of(store).failures[0]


@pytest.mark.parametrize("change", [{"seen": "other"}, {"labels": "other"}])
def test_a_network_that_saw_other_images_is_not_compared(store, specs, change):
    write_record(store, specs["bnn"], *ACCURACIES["bnn"], **change)
    score = score_of(store)
    assert score.scores["bnn"] is None and score.scores["xnor"] is not None
    (failure,) = score.failures
    assert "bnn saw other images than full_precision (clean)" in failure


def test_another_order_of_the_published_images_is_told_and_drawn_apart(store, specs):
    together = score_of(store)
    for algorithm, spec in specs.items():
        path = write_record(store, spec, *ACCURACIES[algorithm])
        with_data(path, lambda content: content["data"]["answers"]["clean"].update(labels="clean order"))
    apart = score_of(store)
    assert apart.scores == together.scores
    assert any("order of their own" in note for note in apart.notes)
    assert not any("order of their own" in note for note in together.notes)

    def width(score):
        table = score.table.set_index("algorithm")
        return table.loc["bnn", "OM_robust high"] - table.loc["bnn", "OM_robust low"]

    assert width(apart) != width(together)


def test_orders_that_differ_between_corruptions_leave_no_intervals(store, specs):
    for algorithm, spec in specs.items():
        path = write_record(store, spec, *ACCURACIES[algorithm])
        with_data(path, lambda content: content["data"]["answers"]["contrast-2"].update(labels="x"))
    score = score_of(store)
    assert score.scores["bnn"] is not None and "rank by accuracy" not in score.table
    assert any("different orders" in note for note in score.notes)
    assert not any(list(chart.intervals.get("bnn", ())) for chart in score.charts)


class Threshold:
    """A network of two classes that tells dark from bright images, wrongly above its own limit."""

    def __init__(self, limit):
        self.limit, self.calls = limit, 0

    def predict_on_batch(self, images):
        self.calls += 1
        bright = np.asarray(images).mean(axis=(1, 2, 3)) > self.limit
        return np.stack([~bright, bright], axis=1).astype(np.float32)


@pytest.fixture
def session(tmp_path, monkeypatch, specs, registered_data):
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
    models = {spec.id: Threshold(limit) for spec, limit in zip(specs.values(), (127, 150, 90), strict=True)}
    monkeypatch.setattr(RunStore, "model", lambda store, spec: models[spec.id])
    store = RunStore(tmp_path)
    for spec in specs.values():
        write_result(store, spec)
    session = Session(results=tmp_path, quiet=True)
    with registered_data("tiny", lambda *given: dataset, "image_classification"):
        yield session, store, models, images[:200], labels[:200]


def test_measured_accuracies_are_those_of_the_corrupted_images(session, specs):
    session, store, models, images, labels = session
    measure(session)
    for spec in specs.values():
        path = store.folder(spec) / FILE
        record = read(path)
        limit = models[spec.id].limit
        np.testing.assert_array_equal(record.right("clean"), (images.mean(axis=(1, 2, 3)) > limit) == labels)
        assert len(record.answers) == 1 + 5 * len(NAMES) and record.images == 200
        for name, severity in itertools.product(NAMES, corruptions.SEVERITIES):
            corrupted = corruptions.apply(name, images, severity).astype(np.float32)
            expected = (corrupted.mean(axis=(1, 2, 3)) > limit) == labels
            np.testing.assert_array_equal(record.right(f"{name}-{severity}"), expected)
            assert record.accuracies(name)[severity - 1] == expected.mean()
        assert len({record.answers[key].images for key in keys_of(["brightness"])}) == 5
        assert len({each.labels for each in record.answers.values()}) == 1
    assert "cpu" in records.read_envelope(path)["environment"]
    assert not score_of(store).failures


def test_logits_that_are_not_numbers_are_no_answer(session, specs):
    """Notices `argmax` of NaN, which is class 0 and right for half of the images."""
    session, store, models, *_ = session
    models[specs["bnn"].id].predict_on_batch = lambda images: np.full((len(images), 2), np.nan, np.float32)
    measure(session)
    record = read(store.folder(specs["bnn"]) / FILE)
    assert record.clean_accuracy == 0 and record.accuracies("contrast") == [0.0] * 5


def test_the_table_of_severities_is_that_of_the_benchmark(session, specs):
    session, store, models, images, labels = session
    measure(session, corruptions=("brightness",), severity_table="imagenet")
    record = read(store.folder(specs["bnn"]) / FILE)
    corrupted = corruptions.apply("brightness", images, 5, table="imagenet").astype(np.float32)
    assert not np.array_equal(corrupted, corruptions.apply("brightness", images, 5))
    expected = (corrupted.mean(axis=(1, 2, 3)) > models[specs["bnn"].id].limit) == labels
    np.testing.assert_array_equal(record.right("brightness-5"), expected)


def test_the_noise_is_that_of_the_benchmarks_seed(session):
    """The seed that the record names; another one gives other images."""
    images = session[3]
    job = types.SimpleNamespace(benchmark=types.SimpleNamespace(seed=4))
    corrupted = measuring._corrupted(job, OPTIONS, datasets.get("tiny"), images=200)
    (found,) = (batch.numpy() for batch, _ in corrupted("gaussian_noise", 3))
    np.testing.assert_array_equal(found, corruptions.apply("gaussian_noise", images, 3, seed=4))
    assert not np.array_equal(found, corruptions.apply("gaussian_noise", images, 3, seed=0))


def test_every_corrupted_batch_is_made_once_for_all_networks(session, monkeypatch):
    session, _, models, *_ = session
    made = []
    apply = corruptions.apply
    monkeypatch.setattr(
        corruptions,
        "apply",
        lambda name, images, severity, **options: (
            made.append((name, severity, options["first_index"])) or apply(name, images, severity, **options)
        ),
    )
    measure(session)
    assert sorted(made) == sorted(itertools.product(NAMES, corruptions.SEVERITIES, [0]))
    assert {model.calls for model in models.values()} == {1 + 5 * len(NAMES)}


def test_what_is_measured_is_not_measured_again(session, monkeypatch):
    session, store, models, *_ = session
    measure(session)
    calls = [model.calls for model in models.values()]
    monkeypatch.setattr(datasets, "get", lambda *arguments: pytest.fail("nothing is left to measure"))
    measure(session)
    measure(session, corruptions=NAMES[:1])
    assert [model.calls for model in models.values()] == calls


def test_an_interrupted_measurement_goes_on_with_the_next_severity(session, specs, monkeypatch):
    session, store, models, *_ = session
    path = store.folder(specs["bnn"]) / FILE
    steps = iter(range(1 + 5 + 3))
    measured = measuring._measure_set

    def interrupted(*arguments):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return measured(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(measuring, "_measure_set", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure(session)
    before = read(path)
    done = ["clean", *(f"brightness-{severity}" for severity in range(1, 6)), "contrast-1", "contrast-2", "contrast-3"]
    assert list(before.answers) == done
    said = score_of(store).failures[0]
    assert "to contrast-4, contrast-5, gaussian_noise-1 and 4 more has not been measured" in said
    # One network is a step ahead, as if the end had come between two records.
    ahead = store.folder(specs["xnor"]) / FILE
    record = read(ahead)
    record.answers["contrast-4"] = dataclasses.replace(
        record.answers["contrast-3"], right=record.answers["clean"].right
    )
    records.write(ahead, record)

    for model in models.values():
        model.calls = 0
    measure(session)
    after = read(path)
    assert {key: after.answers[key] for key in done} == before.answers and not after.lacks(NAMES)
    assert [models[specs[algorithm].id].calls for algorithm in ("bnn", "xnor")] == [7, 6]
    assert read(ahead).answers["contrast-4"] == record.answers["contrast-4"]


def test_a_damaged_record_is_set_aside_and_made_again(session, specs, capsys):
    session, store, models, *_ = session
    measure(session)
    path = store.folder(specs["bnn"]) / FILE
    before = read(path)
    path.write_text(path.read_text()[:-40])
    calls = models[specs["xnor"].id].calls
    measure(session)
    assert read(path) == before and models[specs["xnor"].id].calls == calls
    assert str(path) in capsys.readouterr().err and path.with_suffix(".json.damaged").exists()


def test_networks_that_did_not_complete_are_left_out(session, specs):
    session, store, *_ = session
    write_result(store, specs["bnn"], status="diverged", error="NaN loss")
    (store.folder(specs["xnor"]) / "result.json").unlink()
    measure(session)
    found = [algorithm for algorithm, spec in specs.items() if (store.folder(spec) / FILE).exists()]
    assert found == ["full_precision"]


def test_other_data_than_those_of_the_training_are_refused(session, specs):
    session, store, *_ = session
    dataset = {"name": "tiny", "fingerprint": "other", "train_examples": 8, "test_examples": 400}
    write_result(store, specs["bnn"], dataset=dataset)
    with pytest.raises(BibenchError, match="trained on"):
        measure(session)


def test_a_corruption_that_does_not_fit_the_images_is_refused(session):
    with pytest.raises(BibenchError, match="colour"):
        measure(session[0], corruptions=("saturate",))


# Published sets


def publish(folder, corrupted, labels):
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", np.concatenate([corrupted(name, severity) for severity in range(1, 6)]))
    np.save(folder / "labels.npy", np.tile(labels, 5))
    return str(folder)


def test_the_authors_folder_is_measured_in_its_own_order(session, specs, tmp_path, monkeypatch):
    session, store, models, *_ = session
    dataset = datasets.get("tiny")
    order = np.random.default_rng(1).permutation(400)
    images, labels = dataset.splits.test_images[order], dataset.splits.test_labels[order]

    def corrupted(name, severity):
        return corruptions.apply(name, images, severity, seed=7)

    source = publish(tmp_path / "CIFAR-10-C", corrupted, labels)
    with monkeypatch.context() as patch:
        patch.setattr(corruptions, "apply", lambda *given, **options: pytest.fail("nothing is to be made"))
        measure(session, source=source)
    record = read(store.folder(specs["xnor"]) / FILE)
    limit = models[specs["xnor"].id].limit
    versions = settled(session, source=source).options("robustness").versions
    for name, severity in itertools.product(NAMES, range(1, 6)):
        expected = (corrupted(name, severity)[:200].mean(axis=(1, 2, 3)) > limit) == labels[:200]
        np.testing.assert_array_equal(record.right(f"{name}-{severity}@{versions[name]}"), expected)
    assert (record.source, record.seed, record.severities, record.version) == ("folder", None, None, None)
    score = score_of(store, source=source)
    assert not score.failures and not score.complete and "noise seed" not in score.conditions
    assert any("order of their own" in note for note in score.notes)
    assert any("other settings" in failure for failure in score_of(store).failures)


def test_a_missing_published_set_is_refused_before_anything_is_measured(session, specs, tmp_path):
    session, store, *_ = session
    for source, said in ((tmp_path / "none", "lacks brightness.npy"), ("tfds", "no corrupted images of 'tiny'")):
        with pytest.raises(BibenchError, match=said):
            measure(session, source=str(source))
    assert not (store.folder(specs["bnn"]) / FILE).exists()


def test_a_folder_written_by_this_program_gives_the_answers_of_made_images(session, specs, tmp_path):
    session, store, *_ = session
    dataset = datasets.get("tiny")

    def corrupted(name, severity):
        return corruptions.apply(name, dataset.splits.test_images, severity, seed=0)

    measure(session)
    path = store.folder(specs["bnn"]) / FILE
    made, score = read(path), score_of(store)
    source = publish(tmp_path / "C", corrupted, dataset.splits.test_labels)
    measure(session, source=source)
    found = {key.partition("@")[0]: answers for key, answers in read(path).answers.items()}
    assert found == made.answers and read(path) != made
    again = score_of(store, source=source)
    assert again.scores == score.scores and again.table.equals(score.table)


def published_by(folder, seed):
    """A folder with corrupted test images in their order; the noise and the labels are those of a seed."""
    dataset = datasets.get("tiny")

    def corrupted(name, severity):
        return corruptions.apply(name, dataset.splits.test_images, severity, seed=seed) + np.uint8(40 * seed)

    return publish(folder, corrupted, dataset.splits.test_labels)


def corrupted_accuracies(session, source):
    table = score_of(RunStore(session.results), source=source).table.set_index("algorithm")
    return table.loc["xnor", [f"{name} (%)" for name in NAMES]].tolist()


def test_another_corrupted_set_is_measured_anew(session, specs, tmp_path):
    """Notices that the record of a folder is that of any folder: B would get the accuracies of A."""
    session, store, models, *_ = session
    limit = models[specs["xnor"].id].limit
    labels = datasets.get("tiny").splits.test_labels[:200]

    def calls():
        return models[specs["xnor"].id].calls

    sources = [published_by(tmp_path / name, seed) for seed, name in enumerate("AB")]
    for source in sources:
        measure(session, source=source)
        for name, accuracy in zip(NAMES, corrupted_accuracies(session, source), strict=True):
            images = np.load(Path(source) / f"{name}.npy").reshape(5, 400, 5, 5, 1)[:, :200]
            right = (images.astype(np.float32).mean(axis=(2, 3, 4)) > limit) == labels
            assert accuracy == pytest.approx(100 * right.mean())
    assert corrupted_accuracies(session, sources[0]) != corrupted_accuracies(session, sources[1])
    before = calls()
    for source in sources:
        measure(session, source=source)
    assert calls() == before, "the answers to both sets are kept"


def test_the_place_of_a_corrupted_set_does_not_matter(session, specs, tmp_path, monkeypatch):
    """Notices that a folder which was moved, or is written otherwise, is measured again."""
    session, store, models, *_ = session
    source = published_by(tmp_path / "A", 1)
    measure(session, source=source)
    before = models[specs["bnn"].id].calls
    (tmp_path / "A").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    for spelling in (tmp_path / "moved", "moved", "./moved"):
        measure(session, source=str(spelling))
    assert models[specs["bnn"].id].calls == before


def change_image(folder):
    images = np.load(folder / "contrast.npy")
    images[7] = 255 - images[7]
    np.save(folder / "contrast.npy", images)


def exchange_labels(folder):
    labels = np.load(folder / "labels.npy").reshape(5, -1)
    dark, bright = np.flatnonzero(labels[0] == 0)[0], np.flatnonzero(labels[0] == 1)[0]
    labels[:, [dark, bright]] = labels[:, [bright, dark]]
    np.save(folder / "labels.npy", labels.ravel())


@pytest.mark.parametrize("change, sets", [(change_image, 5), (exchange_labels, 15)])
def test_a_corrupted_set_that_changed_is_measured_anew(session, specs, tmp_path, change, sets):
    """Notices a set that is known by its path, or by the names and sizes of its files; the other sets are kept."""
    session, store, models, *_ = session
    source = published_by(tmp_path / "A", 1)
    measure(session, source=source)
    old, network = score_of(store, source=source), models[specs["bnn"].id]
    calls = network.calls
    change(tmp_path / "A")
    assert any("has not been measured" in line for line in score_of(store, source=source).failures)
    measure(session, source=source)
    assert network.calls - calls == sets
    new = score_of(store, source=source)
    assert not new.failures and new.conditions["version of contrast"] != old.conditions["version of contrast"]


def test_the_answers_to_two_sets_are_not_mixed(session, tmp_path):
    """Notices a score of which some corruptions are of another folder, as after an interrupted measurement."""
    session, store, *_ = session
    one, other = (published_by(tmp_path / name, seed) for seed, name in enumerate("AB"))
    measure(session, source=one)
    alone = corrupted_accuracies(session, one)
    measure(session, source=other, corruptions=NAMES[:1])
    assert corrupted_accuracies(session, one) == alone
    score = score_of(store, source=other)
    assert set(score.scores.values()) == {None}
    assert all(f"to {NAMES[1]}-1@" in line and "not been measured" in line for line in score.failures)


def test_a_set_of_other_data_or_in_another_order_is_refused_before_the_training(session, tmp_path):
    """Notices that the labels are looked at when the networks are trained already."""
    session, *_ = session
    source = published_by(tmp_path / "A", 0)
    np.save(tmp_path / "A" / "labels.npy", np.zeros(2000, np.uint8))
    with pytest.raises(BibenchError, match="does not hold the labels of the test images of 'tiny'"):
        TRACK.check(Job(settled(session, source=source), session))
    (tmp_path / "A" / "corruptions.json").write_text(json.dumps({"source": "data:other", "fingerprint": "0" * 64}))
    with pytest.raises(BibenchError, match="made from other data than the test images of 'tiny'"):
        settled(session, source=source)


def test_a_corruption_of_a_plug_in_is_measured_again_when_it_changes(session, specs, tmp_path, monkeypatch):
    """Notices that answers to images of older code, or of other severities, are kept under the corruption's name."""
    session, store, models, *_ = session
    monkeypatch.setattr(corruptions.CORRUPTIONS, "_entries", dict(corruptions.CORRUPTIONS._entries))
    monkeypatch.setenv("BIBENCH_PLUGINS", "")
    path, network = tmp_path / "brighter.py", models[specs["bnn"].id]
    calls = []
    for severities, body in (
        ("(1, 2, 3, 4, 5)", "images + 0.0"),
        ("(1, 2, 3, 4, 5)", "images + 0.0"),
        ("(5, 10, 15, 20, 25)", "images + 0.0"),
        ("(5, 10, 15, 20, 25)", "images + amount"),
    ):
        path.write_text(
            "from bibench_tf import corruptions\n\n\n"
            f"@corruptions.register(cifar10={severities})\n"
            f"def brighter(images, amount, draws):\n    return {body}\n"
        )
        with monkeypatch.context() as patch:
            patch.setattr(corruptions.CORRUPTIONS, "_entries", dict(corruptions.CORRUPTIONS._entries))
            patch.setattr(registry, "_plugins", {})
            registry.load_plugin(path)
            measure(session, corruptions=("brighter", "contrast"))
        linecache.clearcache()
        calls.append(network.calls)
    assert np.diff([0, *calls]).tolist() == [1 + 10, 0, 5, 5]


@pytest.mark.parametrize(
    "change, complete",
    [
        ({}, True),
        ({"source": "made"}, False),
        ({"source": "CIFAR-10-C"}, False),
        ({"images": 200}, False),
        ({"corruptions": NAMES}, False),
    ],
)
def test_only_the_whole_published_set_is_complete(tmp_path, change, complete):
    options = {"source": "tfds", "images": None, "corruptions": tuple(corruptions.names("standard")), **change}
    benchmark = benchmark_with((), **options)
    store = RunStore(tmp_path)
    (spec,) = benchmark.specs(benchmark.first).values()
    write_result(store, spec)
    record = settings(benchmark.options("robustness"), 0, spec, store.result(spec))
    answers = Answers.pack(np.arange(record.images) < 99, "a", "b")
    keys = ("clean", *keys_of(benchmark.options("robustness").corruptions))
    records.write(store.folder(spec) / FILE, dataclasses.replace(record, answers=dict.fromkeys(keys, answers)))
    assert TRACK.score(benchmark, store).complete is complete


# Values over resamples


def test_values_over_resamples_are_those_of_the_metrics():
    random = np.random.default_rng(0)
    names = ("a", "b", "c", "d")
    clean = random.random((60, 3)) < 0.9
    corrupted = random.random((60, 3, 4, 5)) < np.array([0.5, 0.7, 0.6])[:, None, None]
    samples = resampling.resampled(clean, corrupted, paired=True, seed=3, resamples=30)
    drawn = np.random.default_rng(3).integers(0, 60, (30, 60))
    for draw in range(30):
        one, many = clean[drawn[draw]], corrupted[drawn[draw]]
        accuracies = many.mean(axis=0)  # [A, C, S]
        gaps = [
            {
                name: metrics.generalization_gap(one[:, a].mean(), accuracies[a, c].mean())
                for c, name in enumerate(names)
            }
            for a in range(3)
        ]
        errors = [{name: list(1 - accuracies[a, c]) for c, name in enumerate(names)} for a in range(3)]
        for a in range(3):
            assert samples.corrupted[draw, a] == pytest.approx(accuracies[a].mean())
            np.testing.assert_allclose(samples.by_severity[draw, a], accuracies[a].mean(axis=0))
            np.testing.assert_allclose(samples.gaps[draw, a], list(gaps[a].values()))
            assert samples.om_robust(1)[draw, a] == pytest.approx(metrics.om_robust(gaps[1], gaps[a]))
            assert samples.mean_corruption_error(1)[draw, a] == pytest.approx(
                metrics.mean_corruption_error(errors[a], errors[1])
            )
            assert samples.relative_mean_corruption_error(1)[draw, a] == pytest.approx(
                metrics.relative_mean_corruption_error(1 - one[:, a].mean(), errors[a], 1 - one[:, 1].mean(), errors[1])
            )


def test_images_are_drawn_together_only_where_they_are_the_same():
    clean = np.random.default_rng(0).random((500, 1)) < 0.7
    corrupted = np.repeat(clean, 10, axis=1).reshape(500, 1, 2, 5)  # every answer as on the clean image
    together, apart = (
        resampling.resampled(clean, corrupted, paired=paired, seed=0, resamples=200) for paired in (True, False)
    )
    np.testing.assert_allclose(together.gaps, 0, atol=1e-9)
    assert apart.gaps.max() > 0.03 and apart.clean.std() == pytest.approx(together.clean.std(), rel=0.3)


def test_resamples_where_nothing_is_lost_count_as_in_the_metric():
    means = resampling.Means(
        clean=np.array([0.5, 0.5, 0.5]),
        by_corruption=np.array([[0.6, 0.25], [0.5, 0.25], [0.5, 0.5]]),
        by_severity=np.zeros((3, 5)),
    )
    np.testing.assert_array_equal(means.gaps, [[0, 0.5], [0, 0.5], [0, 0]])
    np.testing.assert_array_equal(means.om_robust(0), [1, 1, np.inf])
    assert np.isnan(means.relative_mean_corruption_error(0)).all()  # the first corruption does not harm the baseline
    helpless = dataclasses.replace(means, clean=np.array([0.5, 0.0, 0.5]))
    assert np.isnan(helpless.om_robust(0)[1])


def test_a_score_that_is_infinite_in_some_resamples_is_compared_all_the_same():
    random = np.random.default_rng(0)
    # The first network loses so little under the second corruption that its gap is 0 in many resamples.
    accuracies = np.array([[0.6, 0.8], [0.2, 0.4]])[:, :, None]
    clean = random.random((300, 2)) < [0.85, 0.8]
    corrupted = random.random((300, 2, 2, 5)) < accuracies
    algorithms = ["bnn", "full_precision"]
    found = resampling.certainty(algorithms, ("noise", "blur"), clean, corrupted, paired=True)
    assert found.intervals[resampling.OM]["bnn"].high == np.inf and found.intervals[resampling.OM]["bnn"].low > 1
    assert found.ranks[resampling.OM] == {"bnn": (1, 1), "full_precision": (2, 2)}
    assert found.against_baseline == {"bnn": "smaller"}


def test_the_worst_corruption_is_named_with_those_that_may_be_worse():
    random = np.random.default_rng(0)
    names = ("mild", "bad", "worse", "as bad")
    right = random.random((400, 1, 4, 5)) < np.array([0.9, 0.5, 0.2, 0.2])[:, None]
    found = resampling.certainty(["bnn"], names, np.ones((400, 1), bool), right, paired=True)
    assert set(found.worst["bnn"]) == {"worse", "as bad"}
    assert found.worst["bnn"][0] == names[right.mean(axis=(0, 1, 3)).argmin()]
    clear = resampling.certainty(["bnn"], names[:3], np.ones((400, 1), bool), right[:, :, :3], paired=True)
    assert clear.worst["bnn"] == ["worse"] and not clear.against_baseline


def test_the_guide_is_true(capsys):
    text = (Path(__file__).parents[2] / "docs" / "robustness.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(example, {})
    interval, certain = capsys.readouterr().out.splitlines()
    assert certain == "True" and re.fullmatch(r"0\.\d+ to 0\.\d+", interval)
    assert f"{bootstrap.RESAMPLES:,} times" in text and f"at {bootstrap.LEVEL:.0%}".replace("%", " %") in text
    command = tracks.command_of(TRACK)
    options = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"^\| `(--[\w-]+)`", text, re.M)) <= options
