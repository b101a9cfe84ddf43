"""The inference track: scores from records, and a real measurement of small networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, datasets, metrics, records
from bibench_tf.benchmark import Benchmark, Session
from bibench_tf.deploy import convert, flatbuffer, host
from bibench_tf.deploy.host import Latency
from bibench_tf.errors import BibenchError
from bibench_tf.runs import RunResult, RunStore
from bibench_tf.tracks import base, inference

layers = tf.keras.layers
BENCHMARK = Benchmark(algorithms=("bnn", "xnor"))
SPECS = base.main_specs(BENCHMARK)
FINGERPRINT = "f1"


def write_result(store, spec, **changes):
    data = {"name": "tiny", "fingerprint": FINGERPRINT, "train_examples": 8, "test_examples": 60}
    result = RunResult(spec.id, dataclasses.asdict(spec), "completed", accuracy=0.5, dataset=data)
    records.write(store.folder(spec) / "result.json", dataclasses.replace(result, **changes))


def latency(median_ms):
    return Latency(median_ms, 0.9 * median_ms, 1.2 * median_ms, 50)


def write_record(store, spec, **changes):
    record = dataclasses.replace(
        inference._settings(BENCHMARK, store, spec),
        host={"cpu": "a CPU", "cores": 2, "system": "Linux x86_64"},
        kernel="a kernel",
        threads=1,
        binary_layers=18,
        binary_operations=18,
        parity=inference.Parity(60, 1e-7, 2e-3, 1.0, 0.5, 0.5),
    )
    path = store.folder(spec) / inference.FILE
    records.write(path, dataclasses.replace(record, **changes))
    return path


FIGURES = {
    "full_precision": {"size_bytes": 4000, "latency": latency(2.0), "baseline_latency": latency(2.0)},
    # The twin took 3 ms while bnn was measured: that is what bnn is compared with.
    "bnn": {"size_bytes": 400, "latency": latency(1.0), "baseline_latency": latency(3.0)},
    "xnor": {"size_bytes": 500, "latency": latency(4.0), "baseline_latency": latency(2.0)},
}


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path)
    for spec in SPECS.values():
        write_result(store, spec)
    for algorithm, spec in SPECS.items():
        write_record(store, spec, **FIGURES[algorithm])
    return store


def test_plan_is_the_main_runs():
    assert inference.plan(BENCHMARK) == list(SPECS.values())


def test_scores_by_hand(store):
    score = inference.score(BENCHMARK, store)
    assert score.scores == {
        "full_precision": 1,
        "bnn": pytest.approx(metrics.om_infer([3], [1], [4000], [400])),
        "xnor": pytest.approx(metrics.om_infer([2], [4], [4000], [500])),
    }
    assert not score.failures
    row = score.table.set_index("algorithm").loc["bnn"]
    assert (row["speed-up"], row["times smaller"], row["latency (ms)"]) == (3, 10, 1)
    assert score.conditions["computer"] == "a CPU, 2 cores, Linux x86_64"
    assert score.conditions["threads"] == "1"
    assert any("ARM" in note for note in score.notes)
    assert not score.complete


def test_layers_that_run_as_float_are_told(store):
    write_record(store, SPECS["bnn"], **FIGURES["bnn"], binary_operations=17)
    assert any("bnn: 17 of its 18" in note for note in inference.score(BENCHMARK, store).notes)


def test_a_failed_conversion_has_no_score(store):
    write_record(store, SPECS["xnor"], error="The converter crashed (SIGSEGV).")
    score = inference.score(BENCHMARK, store)
    assert score.scores["xnor"] is None
    assert score.failures == ["xnor: not converted: The converter crashed (SIGSEGV)."]
    assert list(score.table["algorithm"]) == ["full_precision", "bnn"]


def test_a_flipped_sign_is_no_wrong_conversion(store):
    for median, agreement in ((0.04, 0.99), (1e-6, 0.9)):
        parity = inference.Parity(60, median, 0.3, agreement, 0.5, 0.5)
        write_record(store, SPECS["bnn"], **FIGURES["bnn"] | {"parity": parity})
        assert inference.score(BENCHMARK, store).scores["bnn"] is not None


def test_a_wrong_conversion_has_no_score(store):
    for difference in (0.2, float("nan")):
        parity = inference.Parity(60, difference, difference, 0.1, 0.5, 0.1)
        write_record(store, SPECS["bnn"], **FIGURES["bnn"] | {"parity": parity})
        score = inference.score(BENCHMARK, store)
        assert score.scores["bnn"] is None
        assert "bnn: the file does not compute what the trained network does" in score.failures[0]


def test_without_a_baseline_there_is_no_score(store):
    (store.folder(SPECS["full_precision"]) / inference.FILE).unlink()
    score = inference.score(BENCHMARK, store)
    assert set(score.scores.values()) == {None}
    assert len(score.failures) == 3


def test_runs_that_are_not_there(store):
    write_result(store, SPECS["bnn"], status="diverged", error="the loss is NaN")
    path = store.folder(SPECS["xnor"]) / inference.FILE
    path.write_text(path.read_text().replace("500", "5"))
    score = inference.score(BENCHMARK, store)
    assert score.scores == {"full_precision": 1, "bnn": None, "xnor": None}
    assert any("bnn: the training diverged (the loss is NaN)" in failure for failure in score.failures)
    assert any(str(path) in failure for failure in score.failures)


def test_a_new_training_needs_a_new_measurement(store):
    write_result(store, SPECS["bnn"], accuracy=0.6)
    score = inference.score(BENCHMARK, store)
    assert score.scores["bnn"] is None
    assert "other settings" in score.failures[0]
    write_result(store, SPECS["full_precision"], accuracy=0.6)
    assert set(inference.score(BENCHMARK, store).scores.values()) == {None}


def network(algorithm, seed):
    tf.keras.utils.set_random_seed(seed)
    image = layers.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(image))
    x = layers.BatchNormalization()(algorithms.get(algorithm).conv2d(32, 3)(x))
    return tf.keras.Model(image, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)))


class Tiny:
    """Sixty random images."""

    name, fingerprint = "tiny", FINGERPRINT

    def test_batches(self, batch_size, *, limit=None, corrupt=None):
        rng = np.random.default_rng(0)
        images = rng.normal(size=(60, 8, 8, 3)).astype(np.float32)
        labels = rng.integers(0, 5, 60).astype(np.int32)
        return tf.data.Dataset.from_tensor_slices((images, labels)).take(limit).batch(batch_size)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Three runs that count as trained, and quick timing."""
    store = RunStore(tmp_path)
    for number, (algorithm, spec) in enumerate(SPECS.items()):
        write_result(store, spec)
        network(algorithm, number).save(store.model_path(spec))
    monkeypatch.setattr(datasets, "get", lambda *arguments: Tiny())
    timing = host.Timing(warm_up_s=0.0, minimum_s=0.01, minimum_repetitions=5, turn_s=0.002)
    monkeypatch.setattr(host, "Timing", lambda: timing)
    return store


def forbid(monkeypatch):
    monkeypatch.setattr(convert, "Converter", None)


def test_measures_once_and_keeps_the_file(trained, monkeypatch):
    session = Session(trained.root, quiet=True)
    inference.measure(BENCHMARK, session)
    score = inference.score(BENCHMARK, trained)
    assert not score.failures
    assert score.scores["full_precision"] == 1
    assert all(value > 0 for value in score.scores.values())
    for algorithm, spec in SPECS.items():
        record = inference._read(trained.folder(spec) / inference.FILE)
        content = (trained.folder(spec) / inference.MODEL_FILE).read_bytes()
        assert record.size_bytes == len(content)
        binary = 0 if algorithm == "full_precision" else 1
        assert (record.binary_layers, record.binary_operations) == (binary, binary)
        assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == binary
        assert record.parity.images == 60
        assert record.parity.median_difference < 1e-5
        assert record.parity.deployed_accuracy == pytest.approx(record.parity.keras_accuracy, abs=0.05)
        assert record.baseline_latency.repetitions >= 5
        envelope = records.read_envelope(trained.folder(spec) / inference.FILE)
        assert envelope["environment"]["cpu"] == record.host["cpu"]
    forbid(monkeypatch)
    inference.measure(BENCHMARK, session)


def test_what_is_missing_is_measured_again(trained, monkeypatch):
    session = Session(trained.root, quiet=True)
    inference.measure(BENCHMARK, session)
    folders = {algorithm: trained.folder(spec) for algorithm, spec in SPECS.items()}
    before = {name: (folder / inference.FILE).read_bytes() for name, folder in folders.items()}
    (folders["bnn"] / inference.MODEL_FILE).write_bytes(b"something else")
    inference.measure(BENCHMARK, session)
    after = {name: (folder / inference.FILE).read_bytes() for name, folder in folders.items()}
    assert [name for name in folders if before[name] != after[name]] == ["bnn"]


def test_a_failure_is_kept_with_its_reason_and_tried_again(trained):
    session = Session(trained.root, quiet=True)
    spec = SPECS["bnn"]
    image = layers.Input((4, 4, 1), name="image")
    tf.keras.Model(image, layers.DepthwiseConv2D(2, dtype="mixed_float16")(image)).save(trained.model_path(spec))
    inference.measure(BENCHMARK, session)
    score = inference.score(BENCHMARK, trained)
    assert score.scores["bnn"] is None
    assert score.scores["xnor"] > 0
    assert "bnn: not converted:" in score.failures[0]
    network("bnn", 0).save(trained.model_path(spec))
    inference.measure(BENCHMARK, session)
    assert inference.score(BENCHMARK, trained).scores["bnn"] > 0


def test_other_data_are_refused(trained, monkeypatch):
    monkeypatch.setattr(Tiny, "fingerprint", "f2")
    forbid(monkeypatch)
    with pytest.raises(BibenchError, match="'tiny' are not those"):
        inference.measure(BENCHMARK, Session(trained.root, quiet=True))
