"""Measurement on this computer, with networks whose time is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bibench_tf.deploy import host
from bibench_tf.errors import BibenchError


def sleeper(seconds, calls, name):
    def run(inputs):
        calls.append(name)
        time.sleep(seconds)
        return [inputs[0]]

    return host.HostNetwork(kernel="sleep", threads=1, input_shapes=((1, 2),), run=run)


def test_networks_take_turns_until_both_minima_are_met():
    calls = []
    networks = {name: sleeper(seconds, calls, name) for name, seconds in (("slow", 0.004), ("quick", 0.001))}
    timing = host.Timing(warm_up_s=0.01, minimum_s=0.05, minimum_repetitions=10, turn_s=0.01)
    measured = host.latency(networks, [np.zeros((1, 2), np.float32)], timing)
    assert list(measured) == ["slow", "quick"]
    assert all(result.repetitions >= 10 for result in measured.values())
    assert measured["quick"].repetitions * 0.001 >= 0.03
    for result in measured.values():
        assert result.p10_ms <= result.median_ms <= result.p90_ms
    # A sleep is at least as long as asked for.
    assert measured["slow"].median_ms >= 4
    assert 1 <= measured["quick"].median_ms < measured["slow"].median_ms
    changes = sum(before != after for before, after in zip(calls, calls[1:], strict=False))
    assert changes >= 4


def test_median_and_percentiles():
    assert host._latency([0.001 * value for value in range(1, 102)]) == host.Latency(
        median_ms=pytest.approx(51), p10_ms=pytest.approx(11), p90_ms=pytest.approx(91), repetitions=101
    )


def test_unknown_runtime():
    with pytest.raises(BibenchError, match="'lce' or 'tflite', not 'onnx'"):
        host.load(b"", "onnx")


@pytest.mark.parametrize(("machine", "kernel"), [("x86_64", "indirect"), ("AMD64", "indirect"), ("aarch64", "default")])
def test_kernel_by_machine(monkeypatch, machine, kernel):
    import larq_compute_engine.tflite.python.interpreter as lce

    asked = {}

    class Interpreter:
        input_shapes = [(1, 2)]

        def __init__(self, flatbuffer, **options):
            asked.update(options)

    monkeypatch.setattr(lce, "Interpreter", Interpreter)
    monkeypatch.setattr(host.platform, "machine", lambda: machine)
    network = host.load(b"", "lce", threads=2)
    assert kernel in network.kernel
    assert asked == {"num_threads": 2, "use_indirect_bgemm": kernel == "indirect", "use_xnnpack": True}
