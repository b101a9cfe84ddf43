"""daBNN: networks as ONNX files for its converter `onnx2bnn`, run in onnxruntime and compared with Keras.

The rules are those of daBNN's documents and of the source of its converter and runtime (JDAI-CV/dabnn, 2019); nothing
was run on daBNN itself. A network with an operation that daBNN lacks is refused by the name of the layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.capabilities import capabilities_of
from bibench_tf.deploy.exports.dabnn.reader import Level, Reader
from bibench_tf.deploy.exports.dabnn.rules import Graph, check_rules, notes, require
from bibench_tf.deploy.exports.dabnn.steps import arrange, merge_affines, to_onnx
from bibench_tf.errors import BibenchError
from bibench_tf.files import write_atomically

if TYPE_CHECKING:
    import onnx

# The largest difference, relative to the range of outputs, that is rounding.
_ROUNDING = 1e-3


def require_packages() -> None:
    """Raise BibenchError, with the command to install them, unless the packages of `bibench-tf[dabnn]` are there."""
    require("onnx")
    require("onnxruntime")


def export(model: tf.keras.Model, level: Level = "strict") -> onnx.ModelProto:
    """The ONNX model (NCHW, batch 1) of a network for `onnx2bnn`.

    `strict` marks a binary convolution by Sign and Pad of -1 before it and Sign on its kernel; ONNX runtimes compute
    such a file as daBNN does. `aggressive` has no Sign: daBNN itself binarizes the input of a kernel of +1 and -1, also
    without padding, and an ONNX runtime needs `with_signs`.

    Raises NotExpressible for an operation that daBNN lacks, and BibenchError without the package `onnx`.
    """
    onnx = require("onnx")
    image, output = _single(model.inputs, "input"), _single(model.outputs, "output")
    if len(image.shape) != 4 or None in image.shape[1:] or image.dtype != tf.float32:
        raise BibenchError(f"daBNN takes float32 images of a fixed size, not {image.dtype.name} {tuple(image.shape)}.")
    reader = Reader(model, level)
    last = reader.finish(output)
    steps = arrange(merge_affines(reader.steps, last), last)
    shapes = ([1, tensor.shape[-1], *tensor.shape[1:-1]] for tensor in (image, output))
    exported = to_onnx(steps, {reader.image: next(shapes)}, {last: next(shapes)}, signs=level == "strict")
    onnx.checker.check_model(exported, full_check=True)
    if violations := check_rules(exported):
        raise BibenchError(f"The exported graph breaks a rule of daBNN: {violations[0]}")
    return exported


def with_signs(exported: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with a Sign before each binary convolution that has none, as daBNN computes it."""
    onnx = require("onnx")
    result = onnx.ModelProto()
    result.CopyFrom(exported)
    graph = Graph(result)
    nodes = []
    for node in graph.nodes:
        convolution = graph.readers[node.output[0]][0] if node.op_type == "Pad" else node
        if graph.is_binary(convolution) and not graph.padded(node) and not graph.signs(convolution)[0]:
            name = f"{node.output[0]}/sign"
            nodes.append(onnx.helper.make_node("Sign", [node.input[0]], [name], name=name))
            node.input[0] = name
        nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def predict(exported: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The outputs (N, ...) of an exported network in onnxruntime for images (N, H, W, C), as Keras gives them."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    # Optimizations would fuse scales into kernels, which changes the computation.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = with_signs(exported).SerializeToString()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batch = np.ascontiguousarray(np.transpose(np.asarray(images, np.float32), (0, 3, 1, 2)))
    outputs = np.concatenate([session.run(None, {name: image[np.newaxis]})[0] for image in batch])
    return np.transpose(outputs, (0, 2, 3, 1)) if outputs.ndim == 4 else outputs


def difference(model: tf.keras.Model, exported: onnx.ModelProto, images: np.ndarray | None = None) -> float:
    """The largest difference between onnxruntime and Keras in an image's outputs, relative to the range of all outputs.

    The median over `images` (N, H, W, C), by default eight of noise: where a value lies within rounding of zero, one
    sign can change an image's output though the graph is right. Infinite where an output is not a finite number.
    """
    if images is None:
        shape = model.inputs[0].shape[1:]
        images = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    expected, given = model.predict(images, verbose=0), predict(exported, images)
    if not (np.isfinite(expected).all() and np.isfinite(given).all()):
        return np.inf
    gaps = np.abs(expected - given).reshape(len(images), -1).max(axis=1)
    return float(np.median(gaps) / max(np.ptp(expected), np.finfo(np.float32).tiny))


def zoo_options(algorithm: str | None) -> dict[str, Any]:
    """The options that fit a network of the zoo to daBNN; none for an algorithm that is refused for another reason."""
    scales = algorithm is not None and capabilities_of(algorithms.get(algorithm).input_quantizer()).has_output_factor
    return {} if scales else {"padding": "minus_one"}


def binary_convolutions(exported: onnx.ModelProto) -> int:
    """The number of convolutions that onnx2bnn takes for binary."""
    graph = Graph(exported)
    return sum(graph.is_binary(node) for node in graph.nodes)


def write(model: tf.keras.Model, path: Path, level: Level = "strict") -> tuple[onnx.ModelProto, float]:
    """Export a network to an ONNX file; the exported model, and its `difference` from Keras.

    Raises BibenchError as `export`, and StorageError when the file cannot be written.
    """
    exported = export(model, level)
    apart = difference(model, exported)
    write_atomically(path, lambda temporary: temporary.write_bytes(exported.SerializeToString()))
    return exported, apart


def summary(exported: onnx.ModelProto, difference: float, path: Path, level: Level) -> str:
    """A text about the file that was written to `path`: sizes, `difference`, hints, and the next command."""
    lines = [
        f"{path}: {path.stat().st_size} bytes, {binary_convolutions(exported)} binary convolutions.",
        f"On 8 random images onnxruntime and Keras differ by {difference:.1e} of the range of outputs (median).",
    ]
    if difference > _ROUNDING:
        lines.append(
            "That is more than rounding. Without training many sums are exactly zero, and rounding decides their sign; "
            "otherwise compare on real images: bibench_tf.deploy.exports.dabnn.difference."
        )
    lines += notes(exported)
    lines.append(f"Next: onnx2bnn {path} {path.with_suffix('.dab')} --{level}   (onnx2bnn comes with daBNN)")
    return "\n".join(lines)


def _single(tensors: Any, what: str) -> Any:
    if not tensors:
        raise BibenchError("daBNN needs a graph of layers: build the network with the functional API or as Sequential.")
    if len(tensors) != 1:
        raise BibenchError(f"daBNN runs networks with one {what}; this one has {len(tensors)}.")
    return tensors[0]
