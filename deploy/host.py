"""This computer as a target: run flatbuffers, compare them, and take their time side by side."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bibench_tf.errors import BibenchError

_X86 = ("x86_64", "amd64", "AMD64", "i386", "i686")


@dataclass(frozen=True)
class HostNetwork:
    """A flatbuffer in an interpreter of this process.

    `run` takes one array per input, in the order of `input_shapes` (batch 1 included), and gives the list of
    outputs. `kernel` says what computes it.
    """

    kernel: str
    threads: int
    input_shapes: tuple[tuple[int, ...], ...]
    run: Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Latency:
    """The time of one inference: the median and, as its spread, the 10th and 90th percentile."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repetitions: int


@dataclass(frozen=True)
class Timing:
    """How long and how often to measure each network: both minima are met, after the warm-up.

    Networks take turns of about `turn_s`, so that a busy moment of the computer falls on all of them.
    """

    warm_up_s: float = 0.2
    minimum_s: float = 0.6
    minimum_repetitions: int = 30
    turn_s: float = 0.05


def load(flatbuffer: bytes, runtime: str, threads: int = 1) -> HostNetwork:
    """A flatbuffer made by `convert` (runtime `lce`) or `convert_float` (`tflite`), ready to run.

    Float operations run on XNNPACK in both. On x86 binary convolutions take LCE's indirect BGEMM kernel,
    which is several times faster there than its default; elsewhere they take the default, which is written
    for ARM.
    """
    if runtime == "lce":
        return _load_lce(flatbuffer, threads)
    if runtime == "tflite":
        return _load_tflite(flatbuffer, threads)
    raise BibenchError(f"A flatbuffer runs on 'lce' or 'tflite', not '{runtime}'.")


def predict(flatbuffer: bytes, images: np.ndarray, runtime: str = "lce") -> np.ndarray:
    """The output (N, ...) of a flatbuffer with one input and one output, for float32 images (N, H, W, C)."""
    network = load(flatbuffer, runtime)
    if len(network.input_shapes) != 1:
        raise BibenchError(f"The flatbuffer takes {len(network.input_shapes)} inputs; one is needed to predict.")
    images = np.ascontiguousarray(images, np.float32)
    return np.concatenate([network.run([image[np.newaxis]])[0] for image in images])


def latency(
    networks: Mapping[str, HostNetwork],
    inputs: Sequence[np.ndarray],
    timing: Timing | None = None,
) -> dict[str, Latency]:
    """The latency of each network on the same `inputs` (one array per input, batch 1), measured in turns.

    The time of one inference includes copying the inputs in and the outputs out.
    """
    timing = timing or Timing()
    samples: dict[str, list[float]] = {name: [] for name in networks}
    for network in networks.values():
        _turn(network, inputs, timing.warm_up_s)
    order = list(networks)
    while any(sum(times) < timing.minimum_s or len(times) < timing.minimum_repetitions for times in samples.values()):
        for name in order:
            # The first inference of a turn finds the caches as another network left them.
            networks[name].run(inputs)
            samples[name].extend(_turn(networks[name], inputs, timing.turn_s))
        order.reverse()
    return {name: _latency(times) for name, times in samples.items()}


def _load_lce(flatbuffer: bytes, threads: int) -> HostNetwork:
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    indirect = platform.machine() in _X86
    interpreter = Interpreter(flatbuffer, num_threads=threads, use_indirect_bgemm=indirect, use_xnnpack=True)

    def run(values, keep_alive=flatbuffer):
        # `keep_alive`: nothing says that the interpreter copies the file. Its public `predict` splits batches in
        # Python, at a cost that a small network would notice.
        return interpreter.interpreter.predict(list(values))

    return HostNetwork(
        kernel=f"LCE {'indirect BGEMM' if indirect else 'default'} kernel, XNNPACK",
        threads=threads,
        input_shapes=tuple(tuple(shape) for shape in interpreter.input_shapes),
        run=run,
    )


def _load_tflite(flatbuffer: bytes, threads: int) -> HostNetwork:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=flatbuffer, num_threads=threads)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values):
        for detail, value in zip(inputs, values, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return HostNetwork(
        kernel="TensorFlow Lite, XNNPACK",
        threads=threads,
        input_shapes=tuple(tuple(map(int, detail["shape"])) for detail in inputs),
        run=run,
    )


def _turn(network: HostNetwork, inputs: Sequence[np.ndarray], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        network.run(inputs)
        times.append(time.perf_counter() - start)
    return times


def _latency(times: list[float]) -> Latency:
    p10, median, p90 = (1e3 * float(value) for value in np.percentile(times, [10, 50, 90]))
    return Latency(median_ms=median, p10_ms=p10, p90_ms=p90, repetitions=len(times))
