"""Measurement on this computer: real networks, known delays, crashes, and sums by hand."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
import time

import msgspec
import numpy as np
import psutil
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bibench_tf import algorithms
from bibench_tf.cli.deploy import deploy
from bibench_tf.deploy import conversion, flatbuffer, interpreters, latencies
from bibench_tf.deploy.targets import Measurement, Settings, host
from bibench_tf.errors import BibenchError

layers = tf.keras.layers
QUICK = Settings(warm_up_s=0.0, minimum_runs=7, minimum_s=0.01, rounds=2, timeout_s=60)


def network(algorithm="bnn", channels=32):
    tf.keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(channels, 3, padding="same")(image)
    x = layers.BatchNormalization()(algorithms.get(algorithm).conv2d(channels, 3)(x))
    return tf.keras.Model(image, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def files():
    with conversion.Converter() as converter:
        content = {"binary": converter.convert(network(), "lce")}
    return content | conversion.baselines(network("full_precision"))


@pytest.fixture(scope="module")
def target():
    target = host.HostTarget()
    yield target
    target.close()


def test_networks_are_measured_in_rounds(files, target):
    measured = target.measure(files, QUICK)
    assert list(measured) == ["binary", "float", "int8"]
    for measurement in measured.values():
        assert len(measurement.rounds) == 2
        for each in measurement.rounds:
            assert each.count >= 7
            assert each.count * each.mean_ms >= 9.999
            assert 0 < each.min_ms <= each.p50_ms <= each.p90_ms <= each.p99_ms <= each.max_ms
        assert measurement.provenance == "measured"
        assert measurement.device == target.describe()
        assert msgspec.convert(dataclasses.asdict(measurement), Measurement) == measurement
    assert "LCE" in measured["binary"].kernel
    assert "LCE" not in measured["float"].kernel
    warned = [any("ARM" in note for note in measurement.notes) for measurement in measured.values()]
    assert warned == [platform.machine() in ("x86_64", "AMD64"), False, False]


def test_memory_is_that_of_the_network(target):
    def content(channels):
        image = layers.Input((4, 4, 512), name="image")
        model = tf.keras.Model(image, layers.Conv2D(channels, 3)(image))
        return tf.lite.TFLiteConverter.from_keras_model(model).convert()

    measured = target.measure({"wide": content(1024), "narrow": content(8)}, QUICK)
    difference = measured["wide"].peak_memory_mib - measured["narrow"].peak_memory_mib
    # The kernel of 18 MiB is in the file, and once more as XNNPACK packs it.
    assert 0.95 * 18 < difference < 4 * 18


def test_turns_of_networks_whose_time_is_known(monkeypatch):
    """The rounds themselves, with a worker that sleeps."""
    calls = []

    class Sleeper:
        seconds = {"slow": 0.004, "quick": 0.001}

        def run(self, name, runs, seconds, timeout_s):
            calls.append((name, runs))
            times_ms = []
            while len(times_ms) < runs or sum(times_ms) < 1e3 * seconds:
                start = time.perf_counter()
                time.sleep(self.seconds[name])
                times_ms.append(1e3 * (time.perf_counter() - start))
            return times_ms, None

    settings = Settings(warm_up_s=0.0, minimum_runs=25, minimum_s=0.05, rounds=1)
    rounds = host.HostTarget()._round(Sleeper(), ["slow", "quick"], settings)
    assert rounds["slow"][0].count >= 25
    assert rounds["quick"][0].count * rounds["quick"][0].mean_ms >= 50
    # A sleep is at least as long as asked for.
    assert rounds["slow"][0].p50_ms >= 4
    assert 1 <= rounds["quick"][0].p50_ms < rounds["slow"][0].p50_ms
    names = [name for name, _ in calls]
    assert sum(before != after for before, after in zip(names, names[1:], strict=False)) >= 8


def test_summary_by_hand():
    summary = host.summary([float(value) for value in range(1, 102)], temperature_c_before=40.0)
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == (51, 91, 100)
    assert (summary.min_ms, summary.max_ms, summary.mean_ms, summary.count) == (1, 101, 51, 101)
    assert summary.std_ms == pytest.approx(((101**2 - 1) / 12) ** 0.5)
    assert (summary.temperature_c_before, summary.temperature_c_after) == (40, None)


def test_times_of_operations_by_hand():
    kinds = {"a": "CONV_2D", "b": "ADD", "c": "MEAN"}
    operations = [flatbuffer.Operation(kind, (), (), {}, name) for name, kind in kinds.items()]
    times, note = host.operation_times(operations, [0.5, 2.5, 2.25, 3.25], 3.5)
    assert [(each.name, each.kind, each.mean_ms) for each in times] == [
        ("a", "CONV_2D", 2.0),
        ("b", "ADD", 0.0),
        ("c", "MEAN", 1.0),
    ]
    # 3.5 of the whole less 0.5 of the call and 3.0 of the operations.
    assert "a residual of +0.000 ms" in note
    assert "1 differences were negative by noise (-0.250 ms in all)" in note


class Noisy:
    """A worker whose networks take 2 ms for the call and 1 ms for each operation, mostly with delays on top."""

    def __init__(self):
        self.random, self.operations = np.random.default_rng(0), 0

    def load(self, name, content, settings):
        self.operations = sum(each.kind != "SHAPE" for each in flatbuffer.graph(content).operations)

    def unload(self, name):
        self.operations = None

    def run(self, name, runs, seconds, timeout_s):
        delays = np.where(self.random.random(runs) < 0.3, 0.0, self.random.exponential(3.0, runs))
        return list(2.0 + self.operations + delays), None


def test_times_of_operations_survive_a_busy_computer(files):
    operations, note = host.HostTarget()._profile(Noisy(), files["float"], dataclasses.replace(QUICK, minimum_runs=40))
    assert [each.kind for each in operations] == [each.kind for each in flatbuffer.graph(files["float"]).operations]
    assert [each.mean_ms for each in operations] == pytest.approx([1.0] * len(operations))
    assert f"They add up to {len(operations):.3f} ms, the call itself takes 2.000 ms" in note
    assert "residual of +0.000 ms" in note


def test_operations_of_a_network_that_runs(files, target):
    settings = dataclasses.replace(QUICK, minimum_runs=2, minimum_s=0.0, rounds=1, profile=True)
    measured = target.measure({"binary": files["binary"]}, settings)["binary"]
    kinds = [each.kind for each in measured.operations]
    assert {"CONV_2D", "LceQuantize", "LceBconv2d"} <= set(kinds)
    assert all(each.mean_ms >= 0 and each.name for each in measured.operations)
    assert "residual" in measured.notes[-1]


def test_a_crash_is_an_error_and_the_next_measurement_goes_on(files, target, tmp_path):
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    # A tensor that no buffer backs: TensorFlow Lite reads beyond the file.
    model = schema.ModelT.InitFromPackedBuf(files["float"], 0)
    for tensor in model.subgraphs[0].tensors:
        tensor.buffer = 10**6
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(BibenchError, match="'broken' cannot be measured on this computer") as caught:
        target.measure({"whole": files["binary"], "broken": bytes(builder.Output())}, QUICK)
    assert "crashed (SIG" in str(caught.value) or "Error" in str(caught.value)
    assert target.measure({"whole": files["binary"]}, QUICK)["whole"].latency_ms > 0


def test_the_end_of_a_child_is_an_error_that_names_the_signal(files, target):
    target._worker = worker = host.HostWorker()
    worker.load("network", files["binary"], QUICK)
    for child in psutil.Process(worker.worker.process.pid).children():
        child.kill()
    with pytest.raises(BibenchError, match=r"'network' .* crashed \(SIGKILL\)"):
        worker.run("network", 1, 0.0, 60)
    target.close()


def test_a_turn_that_takes_too_long_is_stopped(files, target):
    settings = Settings(warm_up_s=30.0, minimum_runs=1, minimum_s=0.0, rounds=1, timeout_s=2.0)
    start = time.perf_counter()
    with pytest.raises(BibenchError, match="stopped after 2 s"):
        target.measure({"network": files["binary"]}, settings)
    assert time.perf_counter() - start < 25
    target.close()


def test_nothing_is_left_running(files):
    target = host.HostTarget()
    target.measure({"network": files["binary"]}, QUICK)
    worker = psutil.Process(target._worker.worker.process.pid)
    family = [worker, *worker.children(recursive=True)]
    target.close()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def test_a_signal_leaves_no_process_and_no_folder(files, tmp_path):
    """Notices SIGTERM that ends the command at once: its processes and its folder would stay."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "a.tflite").write_bytes(files["binary"])
    command = [sys.executable, "-m", "bibench_tf", "deploy", "benchmark", "a.tflite", "--seconds", "600"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    family = []
    while len(family) < 2:  # the process of measurements, and that of the network
        assert time.monotonic() < deadline and process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "ended by SIGTERM" in errors
    assert not list((tmp_path / "temporary").iterdir())
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def test_what_is_no_file(target):
    with pytest.raises(BibenchError, match="'text' cannot be measured"):
        target.measure({"text": b"not a flatbuffer"}, QUICK)


def test_int8_runs_on_integers_and_keeps_the_network(files):
    from bibench_tf.deploy import flatbuffer

    assert {"QUANTIZE", "DEQUANTIZE"} <= set(flatbuffer.operators(files["int8"]))
    assert len(files["int8"]) < 0.7 * len(files["float"])
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
    exact, rounded = (interpreters.predict(files[name], images) for name in ("float", "int8"))
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.ptp(exact)


def test_the_comparison_has_the_input_and_classes_of_the_file(files, monkeypatch):
    monkeypatch.setattr(conversion, "baselines", lambda model: {"float": model})
    [(name, model)] = latencies.comparison("zoo:resnet20@0.25", files["binary"]).items()
    assert name == "zoo:resnet20@0.25 float"
    assert (model.input_shape, model.output_shape) == ((None, 8, 8, 3), (None, 5))


def test_a_comparison_with_another_input_is_refused(files, tmp_path):
    image = layers.Input((4, 4, 3))
    tf.keras.Model(image, layers.Dense(5)(layers.Flatten()(image))).save(tmp_path / "other.keras")
    with pytest.raises(BibenchError, match=r"takes inputs \(4, 4, 3\) and the file \(8, 8, 3\)"):
        latencies.comparison(str(tmp_path / "other.keras"), files["binary"])


def test_a_comparison_is_made_for_this_computer_only(files, tmp_path):
    (tmp_path / "a.tflite").write_bytes(files["binary"])
    arguments = ["benchmark", str(tmp_path / "a.tflite"), "--compare", "zoo:resnet20", "--target", "adb"]
    assert "--target host" in str(CliRunner().invoke(deploy, arguments).exception)


def test_the_interpreter_is_chosen_by_the_operations(files):
    assert "LCE" in interpreters.load(files["binary"]).kernel
    assert "TensorFlow Lite" in interpreters.load(files["float"]).kernel


def test_unknown_runtime():
    with pytest.raises(BibenchError, match="'lce' or 'tflite', not 'onnx'"):
        interpreters.load(b"", "onnx")


@pytest.mark.parametrize(("machine", "kernel"), [("x86_64", "indirect"), ("AMD64", "indirect"), ("aarch64", "default")])
def test_kernel_by_machine(monkeypatch, machine, kernel):
    import larq_compute_engine.tflite.python.interpreter as lce

    asked = {}

    class Interpreter:
        input_shapes, input_types = [(1, 2)], [np.float32]

        def __init__(self, flatbuffer, **options):
            asked.update(options)

    monkeypatch.setattr(lce, "Interpreter", Interpreter)
    monkeypatch.setattr(interpreters.platform, "machine", lambda: machine)
    network = interpreters.load(b"", "lce", threads=2)
    assert kernel in network.kernel
    assert asked == {"num_threads": 2, "use_indirect_bgemm": kernel == "indirect", "use_xnnpack": True}
