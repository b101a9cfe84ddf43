"""The inference track: scores from records, and a real measurement of small networks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import string

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bibench_tf import algorithms, datasets, files
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.cli import tracks
from bibench_tf.deploy import conversion, flatbuffer
from bibench_tf.deploy.targets import Device, Measurement, Round, Settings, host
from bibench_tf.deploy.targets import record as latencies
from bibench_tf.deploy.targets.record import Latency
from bibench_tf.errors import BibenchError
from bibench_tf.results import environment, records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import metrics
from bibench_tf.tracks.hardware_inference import Options, measuring, tables
from bibench_tf.tracks.hardware_inference import record as inference_record
from bibench_tf.training.session import Session

layers = tf.keras.layers
ASKED = Benchmark(algorithms=("bnn", "xnor"))
BENCHMARK = ResolvedBenchmark(ASKED)
SPECS = BENCHMARK.specs(BENCHMARK.first)
TRACK = TRACKS.get("inference")
FINGERPRINT = "f1"


def write_result(store, spec, **changes):
    data = {"name": "tiny", "fingerprint": FINGERPRINT, "train_examples": 8, "test_examples": 60}
    result = RunResult(spec.id, spec, "completed", accuracy=0.5, dataset=data)
    records.write(store.folder(spec) / "result.json", dataclasses.replace(result, **changes))


HOST = Device("host", "a CPU", None, "x86_64", 2, "Linux x86_64")
PHONE = Device("adb:SER/1", "a phone", "kirin_990", "arm64-v8a", 8, "Android 13")
STUB = dataclasses.replace(PHONE, target="ssh:me@stub", emulated=True)


def measurement(device, *medians_ms):
    rounds = [Round(2 * ms, 0.1, ms / 2, 3 * ms, 50, ms, 1.2 * ms, 1.5 * ms) for ms in medians_ms]
    return Measurement(device, Settings(), tuple(rounds), (), 3.5, "a kernel", ("a note",))


def write_record(store, algorithm, **changes):
    """The record of a file of which the digest is the name of the algorithm."""
    spec = SPECS[algorithm]
    record = dataclasses.replace(
        inference_record.settings(store, spec),
        input_shape=(32, 32, 3),
        file_sha256=algorithm,
        size_bytes=SIZES[algorithm],
        binary_layers=18,
        binary_operations=18,
        parity=inference_record.Parity(60, 1e-7, 2e-3, 1.0, 0.5, 0.5),
    )
    path = store.folder(spec) / inference_record.FILE
    records.write(path, dataclasses.replace(record, **changes))
    return path


def write_device(store, algorithm, device, ms, baseline_ms=None, **changes):
    record = Latency(
        run_id=SPECS[algorithm].id,
        target=device.target,
        version=inference_record.VERSION,
        file_sha256=algorithm,
        baseline_sha256=None if algorithm == "full_precision" else "full_precision",
        network=measurement(device, ms),
        baseline=None if baseline_ms is None else measurement(device, baseline_ms),
    )
    path = store.folder(SPECS[algorithm]) / latencies.file_name(device.target)
    records.write(path, dataclasses.replace(record, **changes))
    return path


SIZES = {"full_precision": 4000, "bnn": 400, "xnor": 500}


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path)
    for algorithm, spec in SPECS.items():
        write_result(store, spec)
        write_record(store, algorithm)
    write_device(store, "full_precision", HOST, 2.0)
    # Full precision took 3 ms while bnn was measured: that is what bnn is compared with.
    write_device(store, "bnn", HOST, 1.0, 3.0)
    write_device(store, "xnor", HOST, 4.0, 2.0)
    return store


def add_phone(store, *algorithms):
    times = {"full_precision": (20.0,), "bnn": (2.0, 20.0), "xnor": (5.0, 20.0)}
    for algorithm in algorithms:
        write_device(store, algorithm, PHONE, *times[algorithm])


def test_plan_is_the_main_runs():
    assert TRACK.plan(BENCHMARK) == list(SPECS.values())


def test_scores_by_hand(store):
    score = TRACK.score(BENCHMARK, store)
    assert score.scores == {
        "full_precision": 1,
        "bnn": pytest.approx(metrics.om_infer([3], [1], [4000], [400])),
        "xnor": pytest.approx(metrics.om_infer([2], [4], [4000], [500])),
    }
    assert not score.failures
    row = score.table.set_index("algorithm").loc["bnn"]
    assert (row["device"], row["speed-up"], row["times smaller"], row["latency (ms)"]) == ("host", 3, 10, 1)
    assert score.conditions["device: host"] == "a CPU, 2 cores, x86_64, Linux x86_64"
    assert score.notes.count("a note") == 1
    assert any("this is one" in note for note in score.notes)
    assert not score.complete


def test_the_score_is_over_all_devices(store):
    add_phone(store, *SPECS)
    score = TRACK.score(BENCHMARK, store)
    assert not score.failures
    # T is the mean over both devices, S the same on both.
    assert score.scores["bnn"] == pytest.approx((((3 / 1 + 20 / 2) / 2) ** 2 / 2 + 10**2 / 2) ** 0.5)
    assert score.scores["xnor"] == pytest.approx((((2 / 4 + 20 / 5) / 2) ** 2 / 2 + 8**2 / 2) ** 0.5)
    assert score.scores["full_precision"] == 1
    assert score.complete
    assert len(score.table) == 6
    assert {chart.title for chart in score.charts} >= {
        "Latency of one image on this computer",
        "Latency of one image on adb:SER/1",
    }
    assert "a phone (kirin_990)" in score.conditions["device: adb:SER/1"]


def test_without_one_of_the_devices_there_is_no_score(store):
    add_phone(store, "full_precision", "bnn")
    score = TRACK.score(BENCHMARK, store)
    assert score.scores["xnor"] is None
    assert score.scores["bnn"] > 1
    assert score.failures[0].startswith("xnor: not measured on adb:SER/1, where other networks are")


def test_a_device_that_failed_is_told(store):
    add_phone(store, "full_precision", "bnn")
    write_device(store, "xnor", PHONE, 5.0, network=None, error="The device vanished.")
    score = TRACK.score(BENCHMARK, store)
    assert "xnor on adb:SER/1: The device vanished." in score.failures
    assert score.scores["xnor"] is None


def test_an_emulator_is_neither_shown_nor_scored(store):
    before = TRACK.score(BENCHMARK, store)
    write_device(store, "full_precision", STUB, 123.456)
    write_device(store, "bnn", STUB, 0.001, 123.456)
    score = TRACK.score(BENCHMARK, store)
    assert score.scores == before.scores
    assert score.table.equals(before.table)
    assert score.charts == before.charts
    assert any(note.startswith("emulated: full_precision, bnn ran on ssh:me@stub") for note in score.notes)
    assert "123" not in repr(score)


def test_published_figures_stand_beside_the_same_network_only(store):
    assert not any(note.startswith("published") for note in TRACK.score(BENCHMARK, store).notes)
    deployed = {
        "bnn": inference_record.Inference("id", "r", "d", 1, inference_record.VERSION, input_shape=(224, 224, 3))
    }
    for network, shown in (("resnet18", True), ("resnet18@0.5", False), ("vgg_small", False)):
        benchmark = ResolvedBenchmark(dataclasses.replace(ASKED, networks=(network,)))
        notes = tables._published(benchmark, deployed)
        assert bool(notes) == shown
        assert all(note.startswith("published: ") and "@" in note for note in notes)


def test_files_of_devices():
    names = [latencies.file_name(name) for name in ("host", "adb:a/b", "adb:a:b", "ssh:pi@board", "../x")]
    assert names[0] == "latency-host.json"
    assert len(set(names)) == 5
    assert all(set(name) <= set(string.ascii_letters + string.digits + "-._") for name in names)


def test_layers_that_run_as_float_are_told(store):
    write_record(store, "bnn", binary_operations=17)
    assert any("bnn: 17 of its 18" in note for note in TRACK.score(BENCHMARK, store).notes)


def test_a_failed_conversion_has_no_score(store):
    write_record(store, "xnor", error="The converter crashed (SIGSEGV).")
    score = TRACK.score(BENCHMARK, store)
    assert score.scores["xnor"] is None
    assert score.failures == ["xnor: not converted: The converter crashed (SIGSEGV)."]
    assert list(score.table["algorithm"]) == ["full_precision", "bnn"]


def test_a_flipped_sign_is_no_wrong_conversion(store):
    for median, agreement in ((0.04, 0.99), (1e-6, 0.9)):
        write_record(store, "bnn", parity=inference_record.Parity(60, median, 0.3, agreement, 0.5, 0.5))
        assert TRACK.score(BENCHMARK, store).scores["bnn"] is not None


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "median, largest, agreement, said",
    [
        (0.2, 0.2, 0.1, "differ by 20.0 % of their spread (median of the test examples), and they agree on 10 %"),
        (0.3, 0.3, 1.0, "differ by 30.0 %"),  # one class everywhere, in Keras and in the file
        (0.04, 0.3, 0.9, "differ by 4.0 %"),
        (0.04, 0.3, None, "differ by 4.0 %"),
        (1e-6, 0.9, 0.6, "agree on 60 %"),  # wrong for less than half of the images
        (NAN, NAN, 1.0, "not finite numbers"),
        (1e-6, NAN, 1.0, "not finite numbers"),
        (1e-6, INFINITE, 1.0, "not finite numbers"),
        (1e-6, INFINITE, None, "not finite numbers"),
        (1e-6, 1e-6, NAN, "differ by 0.0 %"),
    ],
)
def test_a_wrong_conversion_has_no_score(store, median, largest, agreement, said):
    """Notices that equal classes alone, or NaN in any value of a comparison, are taken for parity."""
    write_record(store, "bnn", parity=inference_record.Parity(60, median, largest, agreement, 0.5, 0.1))
    score = TRACK.score(BENCHMARK, store)
    assert score.scores["bnn"] is None
    assert "bnn: the file does not compute what the trained network does" in score.failures[0]
    assert said in score.failures[0]


def test_without_a_baseline_there_is_no_score(store):
    (store.folder(SPECS["full_precision"]) / inference_record.FILE).unlink()
    score = TRACK.score(BENCHMARK, store)
    assert set(score.scores.values()) == {None}
    assert score.failures[0] == "full_precision: trained, but its inference is not measured yet."
    assert any("bnn" in failure and "measured with other files" in failure for failure in score.failures)


def test_another_file_needs_another_measurement(store):
    write_record(store, "bnn", file_sha256="another")
    score = TRACK.score(BENCHMARK, store)
    assert score.scores["bnn"] is None
    assert "measured with other files: measure again on host" in score.failures[0]


def test_runs_that_are_not_there(store):
    write_result(store, SPECS["bnn"], status="diverged", error="the loss is NaN")
    path = store.folder(SPECS["xnor"]) / inference_record.FILE
    path.write_text(path.read_text().replace("500", "5"))
    score = TRACK.score(BENCHMARK, store)
    assert score.scores == {"full_precision": 1, "bnn": None, "xnor": None}
    assert any("bnn: the training diverged (the loss is NaN)" in failure for failure in score.failures)
    assert any(str(path) in failure for failure in score.failures)


def test_a_damaged_device_record_is_named(store):
    path = store.folder(SPECS["bnn"]) / "latency-host.json"
    path.write_text(path.read_text().replace("host", "toast"))
    score = TRACK.score(BENCHMARK, store)
    assert score.scores["bnn"] is None
    assert any(str(path) in failure and "checksum" in failure for failure in score.failures)


def newer_schema(path):
    content = records.read_envelope(path)
    content["schema"] = records.SCHEMA + 1
    path.write_text(json.dumps({**content, "sha256": files.digest(content)}))


@pytest.mark.parametrize("name", [inference_record.FILE, "latency-host.json", "result.json"])
def test_records_of_a_newer_version_are_never_taken_for_missing(store, name):
    newer_schema(store.folder(SPECS["bnn"]) / name)
    with pytest.raises(records.NewerRecordError, match="update bibench-tf"):
        TRACK.score(BENCHMARK, store)
    with pytest.raises(records.NewerRecordError, match="update bibench-tf"):
        list(measuring._to_measure(BENCHMARK, store, "host", ()))
    if name != "latency-host.json":
        with pytest.raises(records.NewerRecordError, match="update bibench-tf"):
            measure(store)


def test_a_newer_version_of_this_track_is_refused_too(store):
    write_record(store, "bnn", version=inference_record.VERSION + 1)
    with pytest.raises(records.NewerRecordError, match="update bibench-tf"):
        TRACK.score(BENCHMARK, store)


def test_a_new_training_needs_a_new_measurement(store):
    write_result(store, SPECS["bnn"], accuracy=0.6)
    score = TRACK.score(BENCHMARK, store)
    assert score.scores["bnn"] is None
    assert "other settings" in score.failures[0]


def test_the_same_device_twice_is_refused(tmp_path):
    with pytest.raises(BibenchError, match="named twice: host, host"):
        check(tmp_path, targets=("host", "host"))


def check(folder, **options):
    TRACK.check(job(folder, **options))


def job(folder, **options):
    benchmark = dataclasses.replace(ASKED, options={"inference": Options(**options)})
    return Job(ResolvedBenchmark(benchmark), Session(folder, quiet=True))


def test_a_device_that_does_not_exist_is_refused_before_any_training(tmp_path):
    result = CliRunner().invoke(tracks.command_of(TRACK), ["--target", "toaster", "--results", str(tmp_path / "r")])
    assert "Unknown kind of target 'toaster'" in str(result.exception)
    assert not (tmp_path / "r").exists()


def test_programs_are_one_for_all_or_one_for_each(tmp_path):
    with pytest.raises(BibenchError, match="2 programs for 1 devices"):
        check(tmp_path, targets=("host", "adb"), binaries=(str(tmp_path / "a"), str(tmp_path / "b")))


def network(algorithm, seed):
    tf.keras.utils.set_random_seed(seed)
    image = layers.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(image))
    x = layers.BatchNormalization()(algorithms.get(algorithm).conv2d(32, 3)(x))
    return tf.keras.Model(image, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)))


class Tiny:
    """Sixty random images."""

    name, fingerprint, task, num_classes = "tiny", FINGERPRINT, "image_classification", 5

    def for_network(self, network):
        return self

    def check_unchanged(self):
        pass

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
    settings = Settings(warm_up_s=0.0, minimum_runs=5, minimum_s=0.0, rounds=2)
    monkeypatch.setattr(measuring, "HOST_SETTINGS", settings)
    monkeypatch.setattr(measuring, "DEVICE_SETTINGS", settings)
    return store


class Fake:
    """A device that takes a millisecond for each KiB and cannot run files in `refused`."""

    def __init__(self, device, refused=()):
        self.device, self.refused, self.measured = device, refused, 0

    def describe(self):
        return self.device

    def measure(self, flatbuffers, settings):
        self.measured += 1
        if any(content in self.refused for content in flatbuffers.values()):
            raise BibenchError("The device ran out of memory.")
        return {
            name: dataclasses.replace(measurement(self.device, len(content) / 1024), settings=settings)
            for name, content in flatbuffers.items()
        }

    def close(self):
        pass


def measure(store, **devices):
    TRACK.measure(job(store.root, **devices))


def snapshot(store, name):
    return {algorithm: (store.folder(spec) / name).read_bytes() for algorithm, spec in SPECS.items()}


def test_measures_once_and_keeps_the_file(trained, monkeypatch):
    measure(trained)
    score = TRACK.score(BENCHMARK, trained)
    assert not score.failures
    assert score.scores["full_precision"] == 1
    assert all(value > 0 for value in score.scores.values())
    for algorithm, spec in SPECS.items():
        record = inference_record.read(trained.folder(spec) / inference_record.FILE)
        content = (trained.folder(spec) / inference_record.MODEL_FILE).read_bytes()
        assert record.size_bytes == len(content)
        binary = 0 if algorithm == "full_precision" else 1
        assert (record.binary_layers, record.binary_operations) == (binary, binary)
        assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == binary
        assert record.parity.images == 60
        assert record.parity.median_difference < 1e-5
        assert record.parity.deployed_accuracy == pytest.approx(record.parity.keras_accuracy, abs=0.05)
        on_host = latencies.read(trained.folder(spec) / "latency-host.json")
        assert [each.count >= 5 for each in on_host.network.rounds] == [True, True]
        assert (on_host.baseline is None) == (algorithm == "full_precision")
        envelope = records.read_envelope(trained.folder(spec) / "latency-host.json")
        assert (envelope["provenance"], envelope["environment"]["cpu"]) == ("measured", on_host.network.device.model)
    monkeypatch.setattr(conversion, "Converter", None)
    monkeypatch.setattr(host.HostTarget, "measure", None)
    measure(trained)

    # A device more, of which only the times are missing.
    phone = Fake(PHONE, refused=((trained.folder(SPECS["xnor"]) / inference_record.MODEL_FILE).read_bytes(),))
    monkeypatch.setattr(measuring, "open_target", lambda name, binary: contextlib.nullcontext(phone))
    before = snapshot(trained, "latency-host.json")
    measure(trained, targets=("adb:SER/1",))
    assert snapshot(trained, "latency-host.json") == before
    assert phone.measured == 3
    score = TRACK.score(BENCHMARK, trained)
    assert score.scores["bnn"] > score.scores["full_precision"]
    assert score.scores["xnor"] is None
    assert "xnor on adb:SER/1: The device ran out of memory." in score.failures

    # What failed is tried again, and nothing else.
    phone.refused = ()
    measure(trained, targets=("adb:SER/1",))
    assert phone.measured == 4
    assert not TRACK.score(BENCHMARK, trained).failures

    # An emulator is stored as one.
    monkeypatch.setattr(measuring, "open_target", lambda name, binary: contextlib.nullcontext(Fake(STUB)))
    before = TRACK.score(BENCHMARK, trained).scores
    measure(trained, targets=("ssh:me@stub",))
    path = trained.folder(SPECS["bnn"]) / latencies.file_name("ssh:me@stub")
    assert records.read_envelope(path)["provenance"] == "emulated"
    assert TRACK.score(BENCHMARK, trained).scores == before


def test_what_is_missing_is_done_again(trained, monkeypatch):
    monkeypatch.setattr(measuring, "open_target", lambda name, binary: contextlib.nullcontext(Fake(HOST)))
    measure(trained)
    before = snapshot(trained, inference_record.FILE)
    (trained.folder(SPECS["bnn"]) / inference_record.MODEL_FILE).write_bytes(b"something else")
    measure(trained)
    after = snapshot(trained, inference_record.FILE)
    assert [name for name in SPECS if before[name] != after[name]] == ["bnn"]
    assert not TRACK.score(BENCHMARK, trained).failures


def other_processor():
    return environment.describe() | {"cpu": "another CPU"}


def other_packages():
    described = environment.describe()
    return described | {"packages": described["packages"] | {"larq-compute-engine": "0.0.1"}}


@pytest.mark.parametrize("described", [other_processor, other_packages])
def test_times_of_another_computer_or_of_other_kernels_are_measured_again(trained, monkeypatch, described):
    """Notices that the record of a folder that was moved, or of older packages, is printed as this computer's."""
    fake = Fake(HOST)
    monkeypatch.setattr(measuring, "open_target", lambda name, binary: contextlib.nullcontext(fake))
    measure(trained)
    measure(trained)
    assert fake.measured == 3
    found = described()
    monkeypatch.setattr(environment, "describe", lambda: found)
    measure(trained)
    assert fake.measured == 6 and not TRACK.score(BENCHMARK, trained).failures


@pytest.mark.parametrize("change", [{"threads": 2}, {"rounds": 5}, {"cores": (0,)}])
def test_times_measured_in_another_way_are_measured_again(trained, monkeypatch, change):
    """Notices that a record with another number of threads is printed."""
    fake = Fake(PHONE)
    monkeypatch.setattr(measuring, "open_target", lambda name, binary: contextlib.nullcontext(fake))
    measure(trained, targets=("adb:SER/1",))
    monkeypatch.setattr(measuring, "DEVICE_SETTINGS", dataclasses.replace(measuring.DEVICE_SETTINGS, **change))
    measure(trained, targets=("adb:SER/1",))
    assert fake.measured == 6
    measure(trained, targets=("adb:SER/1",))
    assert fake.measured == 6


def test_another_device_or_program_is_measured_again(trained, monkeypatch, tmp_path):
    """Notices that the record of the phone that had this name before, or of an older program, is printed."""
    fake = Fake(PHONE)
    monkeypatch.setattr(measuring, "open_target", lambda name, binary: contextlib.nullcontext(fake))
    program = tmp_path / "lce_benchmark_model"
    options = {"targets": ("adb:SER/1",), "binaries": (str(program),)}
    program.write_bytes(b"release 1")
    measure(trained, **options)
    (tmp_path / "copy").write_bytes(b"release 1")
    measure(trained, **{**options, "binaries": (str(tmp_path / "copy"),)})
    assert fake.measured == 3, "its content counts, not its path"
    program.write_bytes(b"release 2")
    measure(trained, **options)
    assert fake.measured == 6
    fake.device = dataclasses.replace(PHONE, chip="kirin_970")
    measure(trained, **options)
    assert fake.measured == 9
    # A stub that says so in its output is the device that it was before.
    fake.device = dataclasses.replace(fake.device, emulated=True)
    measure(trained, **options)
    assert fake.measured == 9


def test_times_of_two_devices_under_one_name_are_not_compared(store):
    """Notices a score of networks that two computers called `host` have measured."""
    write_device(store, "xnor", dataclasses.replace(HOST, model="another CPU"), 4.0, 2.0)
    score = TRACK.score(BENCHMARK, store)
    assert score.scores["xnor"] is None and score.scores["bnn"] is not None
    assert any(line.startswith("xnor: ") and "another device" in line for line in score.failures)


def test_a_failure_is_kept_with_its_reason_and_tried_again(trained, monkeypatch):
    monkeypatch.setattr(measuring, "open_target", lambda name, binary: contextlib.nullcontext(Fake(HOST)))
    spec = SPECS["bnn"]
    image = layers.Input((4, 4, 1), name="image")
    tf.keras.Model(image, layers.DepthwiseConv2D(2, dtype="mixed_float16")(image)).save(trained.model_path(spec))
    measure(trained)
    score = TRACK.score(BENCHMARK, trained)
    assert score.scores["bnn"] is None
    assert score.scores["xnor"] > 0
    assert "bnn: not converted:" in score.failures[0]
    network("bnn", 0).save(trained.model_path(spec))
    measure(trained)
    assert TRACK.score(BENCHMARK, trained).scores["bnn"] > 0


def one_class_network(seed):
    """A network whose bias makes class 2 the answer to every image; the other numbers depend on the image."""
    model = network("bnn", seed)
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([0.01 * kernel, bias + 100 * np.eye(5)[2]])
    return model


def test_a_network_of_one_class_is_compared_by_its_outputs():
    """Notices a comparison by classes alone, which takes the file of any such network for the right one."""
    examples, model = measuring._Examples.of(Tiny()), one_class_network(0)
    with conversion.Converter() as converter:
        right, wrong = (converter.convert(each) for each in (model, one_class_network(1)))
    same, other = (measuring._parity(model, content, "lce", examples) for content in (right, wrong))
    assert same.top1_agreement == other.top1_agreement == 1
    assert same.same and not other.same
    # Relative to the range of all outputs, which the bias alone makes, both are small.
    assert other.median_difference > 0.05


def test_a_network_whose_outputs_are_not_numbers_has_no_parity():
    """Notices that a file of NaN is taken for right where Keras gives NaN too."""
    model = network("full_precision", 0)
    with conversion.Converter() as converter:
        content = converter.convert(model, "tflite")
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel, np.full_like(bias, NAN)])
    parity = measuring._parity(model, content, "tflite", measuring._Examples.of(Tiny()))
    assert parity.top1_agreement == 0 and parity.median_difference == INFINITE and not parity.same


def test_other_data_are_refused(trained, monkeypatch):
    monkeypatch.setattr(Tiny, "fingerprint", "f2")
    monkeypatch.setattr(conversion, "Converter", None)
    with pytest.raises(BibenchError, match="'tiny' are not those"):
        measure(trained)
