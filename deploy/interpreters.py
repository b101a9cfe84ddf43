"""Flatbuffers in the interpreters of Larq Compute Engine (LCE) and TensorFlow Lite, in this process."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bibench_tf.deploy import flatbuffer as flatbuffers
from bibench_tf.deploy import ports
from bibench_tf.errors import InvalidOption

_X86 = ("x86_64", "amd64", "AMD64", "i386", "i686")


@dataclass(frozen=True)
class LoadedNetwork:
    """A flatbuffer in an interpreter of this process.

    `run` takes one array per input, in the order of `input_shapes` (batch 1 included) and of the NumPy types
    `input_types`, and returns the list of outputs. `kernel` names the kernels that compute it.
    """

    kernel: str
    threads: int
    input_shapes: tuple[tuple[int, ...], ...]
    run: Callable[[Sequence[np.ndarray]], list[np.ndarray]]
    input_types: tuple[str, ...] = ()


def load(flatbuffer: bytes, runtime: str | None = None, threads: int = 1) -> LoadedNetwork:
    """A flatbuffer, ready to run: in the interpreter of `lce` or of `tflite`.

    Without `runtime`, a file with operations of Larq Compute Engine gets its interpreter, any other file that of
    TensorFlow Lite. Float operations run on XNNPACK in both. On x86 binary convolutions take LCE's indirect BGEMM
    kernel, which is several times faster there than its default; elsewhere they take the default, which is written
    for ARM. Raises InvalidOption for another runtime.
    """
    if runtime is None:
        runtime = "lce" if any(name.startswith("Lce") for name in flatbuffers.operators(flatbuffer)) else "tflite"
    if runtime == "lce":
        return _load_lce(flatbuffer, threads)
    if runtime in ("tflite", "tflite_int8"):
        return _load_tflite(flatbuffer, threads)
    raise InvalidOption(f"A flatbuffer runs on 'lce' or 'tflite', not '{runtime}'.")


def predict(
    flatbuffer: bytes, inputs: np.ndarray | Mapping[str, np.ndarray], runtime: str | None = None
) -> np.ndarray | dict[str, np.ndarray]:
    """The output (N, ...) of a flatbuffer of batch 1 for N examples, or its outputs by name where it has several.

    `inputs` is the array of its only input (N, ...), or arrays by the name of the input, which is that of its layer in
    Keras. Inputs and outputs are numbers: a file of quantized integers gets them by its own scale and zero point
    (`ports.Port`). Raises InvalidOption for other inputs than the file has, and for numbers that it cannot take.
    """
    taken, given = ports.of(flatbuffer)
    if isinstance(inputs, Mapping):
        order = flatbuffers.input_order(flatbuffer)
        if set(order) != set(inputs):
            raise InvalidOption(f"The flatbuffer takes the inputs {', '.join(order)}, not {', '.join(inputs)}.")
        arrays = [inputs[name] for name in order]
    else:
        arrays = [inputs]
    if len(taken) != len(arrays):
        raise InvalidOption(f"The flatbuffer takes {len(taken)} inputs, not one: give them by name.")
    # Before the interpreter is made, which may crash on a file without scales.
    arrays = [port.stored(array) for port, array in zip(taken, arrays, strict=True)]
    network = load(flatbuffer, runtime)
    results = [network.run([value[np.newaxis] for value in example]) for example in zip(*arrays, strict=True)]
    outputs = [
        port.numbers(np.concatenate(values)) for port, values in zip(given, zip(*results, strict=True), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else dict(zip(flatbuffers.output_order(flatbuffer), outputs, strict=True))


def _load_lce(flatbuffer: bytes, threads: int) -> LoadedNetwork:
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    indirect = platform.machine() in _X86
    interpreter = Interpreter(flatbuffer, num_threads=threads, use_indirect_bgemm=indirect, use_xnnpack=True)

    def run(values, keep_alive=flatbuffer):
        # `keep_alive`: no document guarantees that the interpreter copies the file. Its public `predict` splits batches
        # in Python, at a cost that a small network would notice.
        return interpreter.interpreter.predict(list(values))

    return LoadedNetwork(
        kernel=f"LCE {'indirect BGEMM' if indirect else 'default'} kernel, XNNPACK",
        threads=threads,
        input_shapes=tuple(tuple(shape) for shape in interpreter.input_shapes),
        input_types=tuple(np.dtype(kind).name for kind in interpreter.input_types),
        run=run,
    )


def _load_tflite(flatbuffer: bytes, threads: int) -> LoadedNetwork:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=flatbuffer, num_threads=threads)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values):
        for detail, value in zip(inputs, values, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return LoadedNetwork(
        kernel="TensorFlow Lite, XNNPACK",
        threads=threads,
        input_shapes=tuple(tuple(map(int, detail["shape"])) for detail in inputs),
        input_types=tuple(np.dtype(detail["dtype"]).name for detail in inputs),
        run=run,
    )
