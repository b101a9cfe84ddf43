"""The process of conversions: `python -m bibench_tf.deploy.conversion_worker`, started by `conversion.Converter`.

Each input line is a job, a JSON object with `runtime` (`lce`, `tflite` or `tflite_int8`), `source` (a SavedModel),
`target`, and for int8 `samples` (a .npy file). The answer is the file `target`, which has run once, or `target.error`
with the reason.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

# Conversion leaves the GPUs to training.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

_SAME = 0  # `padding` of an LceBconv2d


def main() -> None:
    """Do the jobs until the input ends."""
    for line in sys.stdin:
        job = json.loads(line)
        try:
            flatbuffer = _CONVERTERS[job["runtime"]](job)
            _check(flatbuffer, job["runtime"])
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            _write(Path(job["target"] + ".error"), reason.encode())
        else:
            _write(Path(job["target"]), flatbuffer)


def _to_lce(job: dict[str, str]) -> bytes:
    import larq_compute_engine as lce

    return lce.convert_saved_model(job["source"])


def _to_tflite(job: dict[str, str]) -> bytes:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_saved_model(job["source"]).convert()


def _to_tflite_int8(job: dict[str, str]) -> bytes:
    import tensorflow as tf

    samples = np.load(job["samples"], allow_pickle=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(job["source"])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in samples)
    # Without this an operation that has no int8 form would silently stay float.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def _check(flatbuffer: bytes, runtime: str) -> None:
    from bibench_tf.deploy import interpreters
    from bibench_tf.deploy.flatbuffer import unknown_operators

    unknown = unknown_operators(flatbuffer)
    if unknown:
        raise ValueError(f"TensorFlow Lite has no operation for {', '.join(unknown)}.")
    wrong = _computed_wrong(flatbuffer)
    if wrong:
        raise ValueError(wrong)
    try:
        network = interpreters.load(flatbuffer, runtime)
        sizes = zip(network.input_shapes, network.input_types, strict=True)
        outputs = network.run([np.zeros(shape, kind) for shape, kind in sizes])
    except Exception as error:
        raise ValueError(_why_not_run(flatbuffer) or str(error)) from error
    for output in outputs:
        if not np.isfinite(output).all():
            raise ValueError("The converted model gives numbers that are not finite for an input of zeros.")


def _computed_wrong(flatbuffer: bytes) -> str | None:
    """The reason why the fast kernels of Larq Compute Engine 0.16 silently compute a wrong result; None if they do not.

    They do for a binary convolution that pads with zeros an input smaller than the span of the kernel. Found by
    comparison with Keras and with the engine's reference kernel, for every size, kernel and dilation that was tried.
    """
    from bibench_tf.deploy.flatbuffer import BINARY_CONVOLUTION, graph

    content = graph(flatbuffer)
    for operation in content.operations:
        options = operation.options
        if operation.kind != BINARY_CONVOLUTION or options["padding"] != _SAME or options["pad_values"] != 0:
            continue
        kernel = content.tensors[operation.inputs[1]].shape[1:3]
        sizes = content.tensors[operation.inputs[0]].shape[1:3]
        dilations = options["dilation_height_factor"], options["dilation_width_factor"]
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
        if any(size < span for size, span in zip(sizes, spans, strict=True)):
            name = content.tensors[operation.outputs[0]].name
            return (
                f"the binary convolution '{name}' pads an input of {sizes[0]} x {sizes[1]} with zeros, which is less "
                f"than the {spans[0]} x {spans[1]} that its kernel spans, and Larq Compute Engine would compute "
                "a wrong result; give the network larger images, or pad with -1 or +1."
            )
    return None


def _why_not_run(flatbuffer: bytes) -> str | None:
    """The reason why the interpreter refuses a file of the converter; None for an unknown reason."""
    from bibench_tf.deploy.flatbuffer import BINARY_CONVOLUTION, graph

    content = graph(flatbuffer)
    for operation in content.operations:
        if operation.kind != BINARY_CONVOLUTION:
            continue
        output = content.tensors[operation.outputs[0]]
        for index in operation.inputs[2:4]:
            shape = content.tensors[index].shape if index >= 0 else ()
            if shape not in ((), (1,), output.shape[-1:]):
                return (
                    f"a factor or summand of shape {shape} follows the binary convolution '{output.name}', and Larq "
                    f"Compute Engine fuses it although it can only fuse one of shape {output.shape[-1:]}; give it that "
                    "shape, or put tf.maximum(x, -3e38) in between."
                )
    return None


def _write(path: Path, content: bytes) -> None:
    # The other process waits for the name, which may appear only with the whole content.
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


_CONVERTERS = {"lce": _to_lce, "tflite": _to_tflite, "tflite_int8": _to_tflite_int8}

if __name__ == "__main__":
    main()
