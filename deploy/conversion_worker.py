"""The process of conversions, started by `conversion.Converter`.

A job names the runtime (`lce`, `tflite` or `tflite_int8`), the folder of a SavedModel, the file (.npy) of samples of
its input, for int8, and the file to write: the flatbuffer, which has run once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from bibench_tf.deploy import interpreters
from bibench_tf.deploy.flatbuffer import BINARY_CONVOLUTION, Graph, graph, unknown_operators

_SAME = 0  # `padding` of an LceBconv2d


def answer(job: Mapping[str, str]) -> None:
    """Do one job. Raises what the converter raises, and ValueError for a file that does not run."""
    runtime, source = job["runtime"], job["source"]
    if runtime == "lce":
        import larq_compute_engine as lce

        flatbuffer = lce.convert_saved_model(source)
    else:
        converter = tf.lite.TFLiteConverter.from_saved_model(source)
        if "samples" in job:
            samples = np.load(job["samples"], allow_pickle=False)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in samples)
            # Without this an operation that has no int8 form would silently stay float.
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        flatbuffer = converter.convert()
    _check(flatbuffer, runtime)
    Path(job["target"]).write_bytes(flatbuffer)


def _check(flatbuffer: bytes, runtime: str) -> None:
    if unknown := unknown_operators(flatbuffer):
        raise ValueError(f"TensorFlow Lite has no operation for {', '.join(unknown)}.")
    content = graph(flatbuffer)
    if wrong := _computed_wrong(content):
        raise ValueError(wrong)
    try:
        network = interpreters.load(flatbuffer, runtime)
        sizes = zip(network.input_shapes, network.input_types, strict=True)
        outputs = network.run([np.zeros(shape, kind) for shape, kind in sizes])
    except Exception as error:
        raise ValueError(_why_not_run(content) or str(error)) from error
    if not all(np.isfinite(output).all() for output in outputs):
        raise ValueError("The converted model gives numbers that are not finite for an input of zeros.")


def _computed_wrong(content: Graph) -> str | None:
    """The reason why the fast kernels of Larq Compute Engine 0.16 silently compute a wrong result; None if they do not.

    They do for a binary convolution that pads with zeros an input smaller than the span of the kernel. Found by
    comparison with Keras and with the engine's reference kernel, for every size, kernel and dilation that was tried.
    """
    for operation in content.operations:
        options = operation.options
        if operation.kind != BINARY_CONVOLUTION or options["padding"] != _SAME or options["pad_values"] != 0:
            continue
        kernel = content.tensors[operation.inputs[1]].shape[1:3]
        sizes = content.tensors[operation.inputs[0]].shape[1:3]
        dilations = options["dilation_height_factor"], options["dilation_width_factor"]
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
        if any(size < span for size, span in zip(sizes, spans, strict=True)):
            return (
                f"the binary convolution '{operation.name}' pads an input of {sizes[0]} x {sizes[1]} with zeros, which "
                f"is less than the {spans[0]} x {spans[1]} that its kernel spans, and Larq Compute Engine would "
                "compute a wrong result; give the network larger images, or pad with -1 or +1."
            )
    return None


def _why_not_run(content: Graph) -> str | None:
    """The reason why the interpreter refuses a file of the converter; None for an unknown reason."""
    for operation in content.operations:
        if operation.kind != BINARY_CONVOLUTION:
            continue
        channels = content.tensors[operation.outputs[0]].shape[-1:]
        for index in operation.inputs[2:4]:
            shape = content.tensors[index].shape if index >= 0 else ()
            if shape not in ((), (1,), channels):
                return (
                    f"a factor or summand of shape {shape} follows the binary convolution '{operation.name}', and Larq "
                    f"Compute Engine fuses it although it can only fuse one of shape {channels}; give it that "
                    "shape, or put tf.maximum(x, -3e38) in between."
                )
    return None
