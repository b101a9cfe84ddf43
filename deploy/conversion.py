"""Conversion of Keras models to flatbuffers of Larq Compute Engine (LCE) and TensorFlow Lite.

A converter can end the whole process with a segmentation fault, and so can an interpreter given a file that it does not
understand. Both therefore run in a process of their own, on a SavedModel that holds the inference graph alone and no
Python class of an algorithm.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from larq.quantized_variable import QuantizedVariable

from bibench_tf import files, model_files
from bibench_tf.deploy import interpreters, ports
from bibench_tf.deploy.flatbuffer import input_order, output_order, same_padding
from bibench_tf.errors import BibenchError, StorageError
from bibench_tf.workers import Ended, JobError, Worker

Runtime = Literal["lce", "tflite", "tflite_int8"]

_WORKER = "bibench_tf.deploy.conversion_worker"
_SIGNATURE = "serving_default"
_OTHER_FLOATS = ("float16", "bfloat16", "float64")
# Above this size of its operands TensorFlow leaves the arithmetic of constants, such as a kernel's scale, to every run.
_COMPUTED_AHEAD_BYTES = 2**27


class ConversionError(BibenchError):
    """A model that could not be converted, or whose conversion cannot be run; the message has the reason."""


def convert(
    model: tf.keras.Model | str | Path, runtime: Runtime = "lce", *, timeout_s: float = 600, **options: Any
) -> bytes:
    """The flatbuffer of a model, for one sample at a time (batch 1), float32 (or int32) in and out.

    `model` is a Keras model, or a source that `model_files.load` reads with `options`. `lce` runs binary layers on
    bits, `tflite` everything in float32. The flatbuffer has been allocated and run once. Inputs and outputs are named
    after the layers they come from. Raises ConversionError when the model is not float32 or has an unknown size besides
    the batch, when the converter fails, crashes or takes longer than `timeout_s`, and when the interpreter does not run
    the result; BibenchError for a source that cannot be loaded.
    """
    loaded = model if isinstance(model, tf.keras.Model) else load(model, **options)
    with Converter(timeout_s) as converter:
        return converter.convert(loaded, runtime)


def load(source: str | Path, **options: Any) -> tf.keras.Model | Path:
    """The model of a source as `model_files.load`; the path of a SavedModel without Keras layers, whose graph is used.

    Raises BibenchError as `model_files.load`.
    """
    return Path(source) if model_files.plain_saved_model(source) else model_files.load(source, **options)


def baselines(model: tf.keras.Model, *, timeout_s: float = 600) -> dict[str, bytes]:
    """The TensorFlow Lite files, `float` and `int8`, of a full-precision network with one input, to compare with.

    The ranges of int8 come from random inputs, which is right for its latency but not for its accuracy. Raises
    ConversionError.
    """
    samples = np.random.default_rng(0).normal(size=(8, *model.inputs[0].shape[1:]))
    with Converter(timeout_s) as converter:
        return {
            "float": converter.convert(model, "tflite"),
            "int8": converter.convert(model, "tflite_int8", samples=samples),
        }


class Converter:
    """Converts several models, one after the other, in one process beside this one.

    Starting that process takes longer than converting a small network. When it crashes or is stopped at
    `timeout_s`, only its current model is lost: the next model gets a new process. Use it in a `with` statement.
    """

    def __init__(self, timeout_s: float = 600) -> None:
        """`timeout_s` is the time limit of each conversion in seconds."""
        self.timeout_s = timeout_s

    def __enter__(self) -> Converter:
        """Start the process, which imports its libraries while the first model is prepared."""
        self._worker = Worker(_WORKER)
        return self

    def __exit__(self, *exception: object) -> None:
        """End the process and delete its files."""
        self._worker.close()

    def convert(
        self, model: tf.keras.Model | Path, runtime: Runtime = "lce", *, samples: np.ndarray | None = None
    ) -> bytes:
        """The flatbuffer for one runtime; see the function `convert`. Raises ConversionError.

        A path is a SavedModel folder, whose graph `serving_default` is converted. `tflite_int8` runs on integers
        between a float32 input and output; it needs `samples`, float32 inputs (N, ...) of a model with one input,
        for their ranges.
        """
        if (samples is None) == (runtime == "tflite_int8"):
            raise ConversionError("A conversion to int8 needs samples of the input, and no other takes them.")
        if self._worker.process.poll() is not None:
            self._worker.close()
            self._worker = Worker(_WORKER)
        with files.room_in(self._worker.folder), tempfile.TemporaryDirectory(dir=self._worker.folder) as folder:
            job = {name: f"{folder}/{name}" for name in ("source", "target")} | {"runtime": runtime}
            export(model, Path(job["source"]), runtime)
            if samples is not None:
                job["samples"] = f"{folder}/samples.npy"
                np.save(job["samples"], np.asarray(samples, np.float32))
            try:
                self._worker.ask(job, self.timeout_s)
                return Path(job["target"]).read_bytes()
            except JobError as error:
                raise ConversionError(f"The conversion failed: {error}") from error
            except TimeoutError as error:
                self._worker.close()
                raise ConversionError(f"The conversion was stopped after {self.timeout_s:g} s.") from error
            except Ended as error:
                raise ConversionError(f"The converter {error}") from error


def order(model: tf.keras.Model) -> tuple[list[str], list[str]]:
    """The names of the inputs and outputs in the flatbuffer of a model, in the order of Keras.

    The names are those of the layers, or of the tensors that a subclassed model was called with. Raises ConversionError
    as `convert`.
    """
    call = _call(model)
    return list(call.inputs), list(call.outputs)


def runner(
    flatbuffer: bytes, model: tf.keras.Model, runtime: Runtime = "lce", threads: int = 1
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Runs the flatbuffer of a model with inputs and outputs in the order of Keras.

    The function takes one array per input of the model, batch 1 included, and returns the list of outputs; the order of
    an interpreter may differ. Both are numbers, as in `interpreters.predict`.
    """
    taken, given = ports.of(flatbuffer)
    network = interpreters.load(flatbuffer, runtime, threads)
    inputs, outputs = order(model)
    input_ports = dict(zip(input_order(flatbuffer), taken, strict=True))
    output_ports = dict(zip(output_order(flatbuffer), given, strict=True))

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        by_name = dict(zip(inputs, arrays, strict=True))
        results = network.run([port.stored(by_name[name]) for name, port in input_ports.items()])
        numbers = {name: port.numbers(value) for (name, port), value in zip(output_ports.items(), results, strict=True)}
        return [numbers[name] for name in outputs]

    return run


def export(model: tf.keras.Model | Path, folder: Path, runtime: Runtime = "lce") -> None:
    """Write the inference graph of a model with static batch 1 as a SavedModel to `folder`.

    Raises ConversionError when the model is not float32 apart from int32 inputs, has an unknown size besides the batch,
    has two outputs of one layer, is a subclassed model that cannot be traced, or pads in a way that the converter of
    the runtime misreads.
    """
    call = _call_of_saved_model(model) if isinstance(model, Path) else _call(model)
    for name, spec in call.inputs.items():
        if spec.dtype not in (tf.float32, tf.int32):
            raise ConversionError(
                f"Input '{name}' is {spec.dtype.name}; only models with inputs of float32 or int32 are converted."
            )
        if spec.shape.rank is None or None in spec.shape[1:]:
            raise ConversionError(f"Input '{name}' has the unknown size {spec.shape}; only the batch may be open.")
    signature = {name: tf.TensorSpec((1, *spec.shape[1:]), spec.dtype, name=name) for name, spec in call.inputs.items()}
    # A module with the variables alone: saving the Keras model would trace every layer again, training
    # included.
    module = tf.Module()
    with _large_kernels_binarized(model) as kernels:
        module.held = [call.held, kernels]
        try:
            function = tf.function(call.infer).get_concrete_function(**signature)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ConversionError(f"The model cannot be traced for a batch of 1: {reason}") from error
    if runtime == "lce":
        _check_paddings(function, nested=isinstance(model, Path))
    try:
        tf.saved_model.save(module, str(folder), function)
    except tf.errors.OpError as error:  # saving runs operations that write, and no others
        raise StorageError.of(folder, error) from error


@contextlib.contextmanager
def _large_kernels_binarized(model: tf.keras.Model | Path) -> Iterator[list[tf.Variable]]:
    """Within the block the model reads stored binarized values of its largest kernels; yields these values.

    Without them the converter leaves such a layer in float: XNOR-Net's 6 x 6 x 256 x 4096 takes 288 MiB, not 4.5.
    """
    values = []
    with contextlib.ExitStack() as restored:
        for kernel in [] if isinstance(model, Path) else model.weights:
            if not isinstance(kernel, QuantizedVariable) or kernel.quantizer is None:
                continue
            if kernel.shape.num_elements() * kernel.dtype.size > _COMPUTED_AHEAD_BYTES:
                value = tf.Variable(kernel.quantizer(kernel.latent_variable), trainable=False)
                restored.callback(setattr, kernel, "quantizer", kernel.quantizer)
                kernel.quantizer = lambda _, value=value: value.value()
                values.append(value)
        yield values


def _check_paddings(function: Any, nested: bool) -> None:
    """Refuse a padding before a strided convolution that LCE 0.16 takes for `same`, which begins elsewhere.

    The converter checks that the output has the size of `same` and that both sides are padded alike, but not that
    `same` pads by this amount. Verified: ZeroPadding2D(1), then a 3x3 convolution with stride 2 on 8 x 8.
    """
    if nested:
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        function = convert_variables_to_constants_v2(function)  # also inlines calls of functions
    for operation in function.graph.get_operations():
        if operation.type not in ("Conv2D", "DepthwiseConv2dNative") or operation.get_attr("padding") != b"VALID":
            continue
        pad = operation.inputs[0].op
        if pad.type not in ("Pad", "PadV2") or operation.get_attr("data_format") != b"NHWC":
            continue
        if pad.type == "PadV2" and tf.get_static_value(pad.inputs[2]) not in (0, 1):
            continue
        amounts = tf.get_static_value(pad.inputs[1])
        looks_same, is_same, used = [], [], []
        for axis in (1, 2):
            size, (before, after) = pad.inputs[0].shape[axis], map(int, amounts[axis])
            stride, dilation = (operation.get_attr(name)[axis] for name in ("strides", "dilations"))
            span = (operation.inputs[1].shape[axis - 1] - 1) * dilation + 1
            windows = (size + before + after - span) // stride + 1
            looks_same.append(windows == -(-size // stride) and before == (before + after) // 2)
            is_same.append((before, after) == same_padding(size, span, stride))
            # Of the padding at the end the part that the last window covers.
            used.append((before, max((windows - 1) * stride + span - size - before, 0)))
        if all(looks_same) and not all(is_same):
            raise ConversionError(
                f"'{pad.name}' pads both sides of the input of '{operation.name}' alike, which the converter would "
                f"take for 'same' and compute something else; ZeroPadding2D({tuple(used)}) gives the same numbers, and "
                "is converted rightly."
            )


@dataclass(frozen=True)
class _Call:
    """How to run a model: inputs and outputs by name, in the model's order; `held` keeps what `infer` uses alive."""

    inputs: Mapping[str, tf.TensorSpec]
    outputs: Sequence[str]
    infer: Callable[..., dict[str, tf.Tensor]]
    held: Any


def _call(model: tf.keras.Model) -> _Call:
    for layer in (model, *model.submodules):
        dtype = getattr(layer, "compute_dtype", "float32")
        if dtype in _OTHER_FLOATS:
            raise ConversionError(
                f"Layer '{layer.name}' computes in {dtype}; build the model in float32 and load its weights."
            )
    # Only graphs know the layers of their inputs; of a subclassed model the arguments of its first call are known.
    return _call_of_graph(model) if getattr(model, "_is_graph_network", False) else _call_of_subclass(model)


def _call_of_graph(model: tf.keras.Model) -> _Call:
    inputs = {_layer_name(tensor): tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs}
    outputs = [_layer_name(tensor) for tensor in model.outputs]
    if len(set(outputs)) < len(outputs):
        raise ConversionError("Two outputs come from one layer; give each a layer of its own, which names it.")

    def infer(**tensors):
        values = model([tensors[name] for name in inputs], training=False)
        return dict(zip(outputs, tf.nest.flatten(values), strict=True))

    return _Call(inputs, outputs, infer, list(model.weights))


def _call_of_subclass(model: tf.keras.Model) -> _Call:
    spec = model.save_spec() if model.built else None
    if spec is None:
        raise ConversionError(
            f"Model '{model.name}' is a subclass of tf.keras.Model that has not been called, so its inputs are "
            "unknown: call it once on an example."
        )
    arguments, keywords = spec
    flat = tf.nest.flatten(arguments)
    inputs = {(each.name or f"input_{number}").split(":")[0]: each for number, each in enumerate(flat, start=1)}
    if keywords or len(inputs) < len(flat):
        raise ConversionError(f"Model '{model.name}' has inputs without names; write it with the functional API.")

    def values(tensors):
        packed = tf.nest.pack_sequence_as(arguments, [tensors[name] for name in inputs])
        return model(*packed, training=False) if model._expects_training_arg else model(*packed)

    try:
        shapes = tf.function(values).get_concrete_function(dict(inputs)).structured_outputs
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"Model '{model.name}' cannot be traced: {reason}") from error
    if isinstance(shapes, Mapping) and all(tf.is_tensor(value) for value in shapes.values()):
        outputs = sorted(shapes)  # the order in which tf.nest takes a mapping apart
    else:
        outputs = [f"output_{number}" for number in range(1, len(tf.nest.flatten(shapes)) + 1)]

    def infer(**tensors):
        return dict(zip(outputs, tf.nest.flatten(values(tensors)), strict=True))

    return _Call(inputs, outputs, infer, list(model.weights))


def _call_of_saved_model(folder: Path) -> _Call:
    loaded = model_files.load_graph(folder)
    if _SIGNATURE not in loaded.signatures:
        raise ConversionError(f"{folder} has no signature '{_SIGNATURE}' to convert.")
    function = loaded.signatures[_SIGNATURE]
    return _Call(
        inputs=function.structured_input_signature[1],
        outputs=list(function.structured_outputs),
        infer=lambda **tensors: function(**tensors),
        held=loaded,
    )


def _layer_name(tensor) -> str:
    return tensor.node.layer.name
