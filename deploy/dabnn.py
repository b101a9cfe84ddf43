"""Networks as ONNX files for daBNN's converter `onnx2bnn`, built from the Keras graph, and the rules such files keep.

The rules are those of daBNN's documents and of the source of its converter and runtime (JDAI-CV/dabnn, 2019);
nothing was run on daBNN itself. What daBNN has no operation for is refused by the name of the layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import larq as lq
import numpy as np
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.capabilities import capabilities_of
from bibench_tf.algorithms.layers import BinaryConv1D, BinaryDense
from bibench_tf.deploy.dabnn_graph import EPSILON, IN_PLACE, Step, arrange, merge_affines, to_onnx
from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import onnx

Level = Literal["strict", "aggressive"]

_POOLS = ("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool")
_OPERATORS = frozenset(
    ("Conv", *_POOLS, "PRelu", "Relu", "Add", "Gemm", "Softmax", "Concat", "BatchNormalization", "Reshape")
)
_layers = tf.keras.layers
_UNCHANGED = (_layers.Dropout, _layers.SpatialDropout2D, _layers.GaussianNoise, _layers.GaussianDropout)
_SMALL_PADDING = "build it with padding=1 and pad_values=-1 (networks of the zoo: padding='minus_one')"


class NotExpressible(BibenchError):
    """A network daBNN cannot compute; `reasons` has one for each layer by name."""

    def __init__(self, reasons: dict[str, str]):
        """Tell the first layer, and how many others there are."""
        self.reasons = dict(reasons)
        name, reason = next(iter(reasons.items()))
        same = Counter(reasons.values())[reason] - 1
        others = len(reasons) - 1 - same
        also = (f" (the same for {same} more)" if same else "") + (
            f" (and {others} for other reasons)" if others else ""
        )
        super().__init__(f"daBNN cannot express layer '{name}'{also}: {reason}.")


def export(model: tf.keras.Model, level: Level = "strict") -> onnx.ModelProto:
    """The ONNX model (NCHW, batch 1) of a network for `onnx2bnn`.

    `strict` marks a binary convolution by Sign and Pad of -1 before it and Sign on its kernel; ONNX runtimes compute
    such a file as daBNN does. `aggressive` has no Sign: daBNN binarizes what meets a kernel of +1 and -1 by itself,
    also without padding, and an ONNX runtime needs `with_signs`.

    Raises NotExpressible for what daBNN has no operation for, and BibenchError without the package `onnx`.
    """
    onnx = _require("onnx")
    image, output = _single(model.inputs, "input"), _single(model.outputs, "output")
    if len(image.shape) != 4 or None in image.shape[1:] or image.dtype != tf.float32:
        raise BibenchError(f"daBNN takes float32 images of a fixed size, not {image.dtype.name} {tuple(image.shape)}.")
    reader = _Reader(model, level)
    last = reader.finish(output)
    steps = arrange(merge_affines(reader.steps, last), last)
    height, width, channels = image.shape[1:]
    shape = output.shape[1:]
    output_shape = [1, shape[-1], *shape[:-1]]
    signs = level == "strict"
    exported = to_onnx(steps, reader.image, (1, channels, height, width), last, output_shape, signs)
    onnx.checker.check_model(exported, full_check=True)
    violations = check_rules(exported)
    if violations:
        raise BibenchError(f"The exported graph breaks a rule of daBNN: {violations[0]}")
    return exported


def with_signs(exported: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with a Sign before each binary convolution that has none, as daBNN computes it."""
    onnx = _require("onnx")
    result = onnx.ModelProto()
    result.CopyFrom(exported)
    graph = _Graph(result)
    nodes = []
    for node in graph.nodes:
        padded = graph.producer(node) is not None and graph.producer(node).op_type == "Pad"
        convolution = graph.readers[node.output[0]][0] if node.op_type == "Pad" else node
        before = graph.producer(convolution, through_pad=True)
        signed = before is not None and before.op_type == "Sign"
        if graph.is_binary(convolution) and not padded and not signed:
            name = f"{node.output[0]}/sign"
            nodes.append(onnx.helper.make_node("Sign", [node.input[0]], [name], name=name))
            node.input[0] = name
        nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def predict(exported: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The outputs (N, ...) of an exported network in onnxruntime for images (N, H, W, C), as Keras gives them."""
    runtime = _require("onnxruntime")
    options = runtime.SessionOptions()
    # Optimizations fuse scales into kernels, which is not what the file says.
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
    """How far onnxruntime is from Keras: the largest difference of an image's outputs, relative to the range of all.

    The median over `images` (N, H, W, C), by default eight of noise: where a value lies within rounding of zero, one
    sign can change an image's output though the graph is right.
    """
    if images is None:
        shape = model.inputs[0].shape[1:]
        images = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    expected, given = model.predict(images, verbose=0), predict(exported, images)
    gaps = np.abs(expected - given).reshape(len(images), -1).max(axis=1)
    return float(np.median(gaps) / max(np.ptp(expected), np.finfo(np.float32).tiny))


def zoo_options(algorithm: str | None) -> dict[str, str]:
    """The options that fit a network of the zoo to daBNN; none for an algorithm that is refused for another reason."""
    scales = algorithm is not None and capabilities_of(algorithms.get(algorithm).input_quantizer()).has_output_factor
    return {} if scales else {"padding": "minus_one"}


def binary_convolutions(exported: onnx.ModelProto) -> int:
    """How many convolutions onnx2bnn takes for binary."""
    graph = _Graph(exported)
    return sum(graph.is_binary(node) for node in graph.nodes)


def require() -> None:
    """Raise BibenchError, with what to install, unless the packages of `bibench-tf[dabnn]` are there."""
    for package in ("onnx", "onnxruntime"):
        _require(package)


def notes(exported: onnx.ModelProto) -> list[str]:
    """What is no rule of daBNN any more, or costs time on it, in sentences."""
    graph = _Graph(exported)
    odd = {}
    for node in graph.nodes:
        if graph.is_binary(node):
            channels = graph.kernel(node).shape[1]
            if channels != 64 and channels % 128:
                odd.setdefault(channels, node.output[0])
    return [
        f"Binary convolutions of {channels} input channels, such as '{name}': daBNN's documents once asked for 64 or a "
        "multiple of 128."
        for channels, name in odd.items()
    ]


# Rules


def check_rules(exported: onnx.ModelProto) -> list[str]:
    """What in an ONNX model daBNN does not take or would compute differently, one sentence each; empty when nothing."""
    _require("onnx")
    graph = _Graph(exported)
    return [*_file_rules(graph), *(text for node in graph.nodes for text in _node_rules(graph, node)), *_order(graph)]


class _Graph:
    """An ONNX model with its constants as arrays and its nodes by what they read and write."""

    def __init__(self, model: onnx.ModelProto):
        from onnx import helper, numpy_helper

        self.model, self.nodes = model, list(model.graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in self.constants]
        self.outputs = {value.name for value in model.graph.output}
        self.writers = {name: node for node in self.nodes for name in node.output}
        self.readers = {name: [] for node in self.nodes for name in (*node.input, *node.output)}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self._attribute = helper.get_attribute_value

    def attributes(self, node) -> dict:
        return {attribute.name: self._attribute(attribute) for attribute in node.attribute}

    def producer(self, node, *, through_pad: bool = False):
        before = self.writers.get(node.input[0]) if node.input else None
        if through_pad and before is not None and before.op_type == "Pad":
            return self.writers.get(before.input[0])
        return before

    def kernel(self, node) -> np.ndarray:
        """The kernel of a convolution, where it stands behind a Sign too; empty for one that is not a constant."""
        name = node.input[1]
        sign = self.writers.get(name)
        return self.constants.get(sign.input[0] if sign is not None and sign.op_type == "Sign" else name, np.zeros(0))

    def is_binary(self, node) -> bool:
        """Whether onnx2bnn (aggressive) takes a node for a binary convolution."""
        if node.op_type != "Conv":
            return False
        kernel = self.kernel(node)
        return bool(kernel.size) and bool((np.abs(kernel) == 1).all())


def _file_rules(graph: _Graph) -> Iterator[str]:
    opset = next((entry.version for entry in graph.model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not 7 <= opset <= 10:
        yield f"The file is of opset {opset}; Pad has its value as an attribute up to opset 10, as onnx2bnn reads it."
    for value in graph.inputs:
        sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        if len(sizes) != 4 or 0 in sizes:
            yield f"Input '{value.name}' needs four fixed sizes (NCHW)."
    if len(graph.inputs) != 1:
        yield f"The graph has {len(graph.inputs)} inputs; daBNN takes one."


def _node_rules(graph: _Graph, node) -> Iterator[str]:
    kind, name, attributes = node.op_type, node.output[0], graph.attributes(node)
    if kind in ("Sign", "Pad"):
        yield from _marker_rules(graph, node, attributes)
        return
    if kind not in _OPERATORS:
        yield f"'{name}' is a {kind}, which onnx2bnn does not know."
        return
    if "auto_pad" in attributes:
        yield f"{kind} '{name}' uses auto_pad."
    pads = attributes.get("pads", [0, 0, 0, 0])
    if kind in ("Conv", "AveragePool", "MaxPool") and (len(pads) != 4 or list(pads[:2]) != list(pads[2:])):
        yield f"{kind} '{name}' pads {list(pads)}; daBNN pads the same on both sides."
    if kind == "Conv":
        yield from _convolution_rules(graph, node, attributes)
    elif kind == "BatchNormalization":
        if len(node.input) != 5 or any(parameter not in graph.constants for parameter in node.input[1:]):
            yield f"BatchNormalization '{name}' needs four constants."
        if abs(attributes.get("epsilon", EPSILON) - EPSILON) > 1e-12:
            yield f"BatchNormalization '{name}' has an epsilon of its own; onnx2bnn counts with {EPSILON}."
    elif kind == "MaxPool":
        if list(attributes.get("kernel_shape", [])) not in ([2, 2], [3, 3]):
            yield f"MaxPool '{name}' is not 2x2 or 3x3."
        if attributes.get("storage_order", 0):
            yield f"MaxPool '{name}' has a storage_order."
    elif kind == "AveragePool" and attributes.get("count_include_pad", 0):
        yield f"AveragePool '{name}' counts its padding (count_include_pad)."
    elif kind == "Gemm":
        wanted = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
        if {key: attributes.get(key) for key in wanted} != wanted:
            yield f"Gemm '{name}' needs transA=0, transB=1, alpha=1 and beta=1, written out."
        if any(parameter not in graph.constants for parameter in node.input[1:]):
            yield f"Gemm '{name}' needs constant weights."
    elif kind == "PRelu":
        if node.input[1] not in graph.constants:
            yield f"PRelu '{name}' needs a constant slope."
    elif kind == "Concat" and (attributes.get("axis") != 1 or len(node.input) != 2):
        yield f"Concat '{name}' must join two tensors along the channels."
    elif kind == "Add" and any(operand in graph.constants for operand in node.input):
        yield f"Add '{name}' adds a constant; only tensors are added, constants belong in a BatchNormalization."
    elif kind == "Reshape" and node.input[1] not in graph.constants:
        yield f"Reshape '{name}' needs a constant shape."


def _convolution_rules(graph: _Graph, node, attributes) -> Iterator[str]:
    name = node.output[0]
    if attributes.get("group", 1) != 1:
        yield f"Conv '{name}' has groups."
    if not graph.kernel(node).size:
        yield f"Conv '{name}' needs a constant kernel."
    if any(rate != 1 for rate in attributes.get("dilations", [1, 1])):
        yield f"Conv '{name}' is dilated."
    before = graph.producer(node, through_pad=True)
    signs = [
        before is not None and before.op_type == "Sign",
        node.input[1] in graph.writers and graph.writers[node.input[1]].op_type == "Sign",
    ]
    if not graph.is_binary(node):
        if any(signs):
            yield f"Conv '{name}' has a Sign, but its kernel is not of +1 and -1."
        return
    if any(signs) and not all(signs):
        yield f"Binary Conv '{name}' has a Sign on its {'input' if signs[0] else 'kernel'} only."
    padded = graph.producer(node) is not None and graph.producer(node).op_type == "Pad"
    if any(signs) and not padded:
        yield f"Binary Conv '{name}' has Sign without Pad, which onnx2bnn does not recognise (--strict)."
    if any(attributes.get("pads", [0])):
        yield f"Binary Conv '{name}' pads with 0 in ONNX, where daBNN pads with -1; it needs a Pad of -1."
    if len(node.input) > 2:
        yield f"Binary Conv '{name}' has a bias; it belongs in the BatchNormalization."
    readers = graph.readers[name]
    if len(readers) != 1 or readers[0].op_type != "BatchNormalization" or name in graph.outputs:
        yield f"Binary Conv '{name}' must be followed directly, and only, by a BatchNormalization."


def _marker_rules(graph: _Graph, node, attributes) -> Iterator[str]:
    name, readers = node.output[0], graph.readers[node.output[0]]
    target = readers[0] if len(readers) == 1 else None
    if target is not None and node.op_type == "Sign" and target.op_type == "Pad":
        after = graph.readers[target.output[0]]
        target = after[0] if len(after) == 1 else None
    if target is None or not graph.is_binary(target):
        yield f"{node.op_type} '{name}' does not lead to one binary convolution alone."
    if node.op_type == "Pad":
        pads = list(attributes.get("pads", []))
        if attributes.get("mode", b"constant") != b"constant" or attributes.get("value", 0.0) != -1.0:
            yield f"Pad '{name}' does not pad with the constant -1."
        if len(pads) != 8 or any(pads[:2]) or pads[:4] != pads[4:]:
            yield f"Pad '{name}' pads {pads}; daBNN pads height and width, the same on both sides."


def _order(graph: _Graph) -> Iterator[str]:
    """Rules about what comes after what."""
    positions = {node.output[0]: index for index, node in enumerate(graph.nodes)}
    moments = {}
    for node in graph.nodes:
        follower = node
        # These two vanish: their input is read when the convolution runs.
        while follower.op_type in ("Sign", "Pad") and graph.readers[follower.output[0]]:
            follower = graph.readers[follower.output[0]][0]
        moments[node.output[0]] = positions[follower.output[0]]
    reshaped = False
    for index, node in enumerate(graph.nodes):
        if reshaped and node.op_type not in ("Gemm", "Softmax"):
            yield f"{node.op_type} '{node.output[0]}' comes after Reshape, which only Gemm and Softmax may."
        reshaped = reshaped or node.op_type == "Reshape"
        if node.op_type == "Gemm" and (graph.producer(node) is None or graph.producer(node).op_type != "Reshape"):
            yield f"Gemm '{node.output[0]}' does not follow a Reshape."
        if node.op_type not in IN_PLACE:
            continue
        for reader in graph.readers[node.input[0]]:
            if reader is not node and moments[reader.output[0]] > index:
                yield (
                    f"'{reader.output[0]}' reads '{node.input[0]}' after {node.op_type} '{node.output[0]}', which "
                    "daBNN computes in place, has overwritten it."
                )
        if node.input[0] in graph.outputs:
            yield f"{node.op_type} '{node.output[0]}' overwrites the output '{node.input[0]}'."


# From Keras


@dataclass(frozen=True)
class _Binary:
    """A binary convolution: +1/-1 kernel (O, I, kh, kw), y = scale * conv(sign(x + shift), kernel) + bias.

    Padding is -1, or +1 with `flipped`.
    """

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    strides: list[int]
    padding: tuple[int, int]
    flipped: bool
    shift: np.ndarray | None


class _Refusal(Exception):
    """Why daBNN has no operation for a layer."""


class _Reader:
    """Turns Keras tensors, from the last one back, into steps."""

    def __init__(self, model: tf.keras.Model, level: Level):
        self.level, self.image = level, model.inputs[0].node.layer.name
        self.steps: list[Step] = []
        self._names: dict[tuple, str] = {}
        self._used = Counter()
        self._binary: dict[int, _Binary] = {}
        self._signed: set[tuple] = set()
        reasons = {}
        for node in _nodes(model):
            layer = node.layer
            try:
                if _is_binary(layer):
                    self._binary[id(node)] = binary = _analyse(layer, node, level)
                    if binary.shift is None and not binary.flipped:
                        self._signed.add(_key(self._source(node.keras_inputs[0], binary)))
                elif type(layer) not in _HANDLERS and not isinstance(layer, _UNCHANGED):
                    raise _Refusal(_no_operation(layer))
            except _Refusal as refusal:
                reasons.setdefault(layer.name, str(refusal))
        if reasons:
            raise NotExpressible(reasons)

    def finish(self, tensor) -> str:
        """The output of the network."""
        layer = tensor.node.layer
        kind, source = type(layer), tensor.node.keras_inputs[0] if tensor.node.keras_inputs else None
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if kind is _layers.Softmax or (kind is _layers.Activation and activation == "softmax"):
            return self._add("Softmax", layer, [self.finish(source)], axis=1)
        if kind is _layers.Dense and activation in ("linear", "softmax"):
            x = self.value(source)
            if _spatial(source) == (1, 1):
                rows = self._reshape(layer, x, layer.input_spec.axes[-1])
                weights = {"weight": layer.kernel.numpy().T, "bias": _bias(layer, layer.units)}
                result = self._add("Gemm", layer, [rows], weights, transA=0, transB=1, alpha=1.0, beta=1.0)
            else:
                result = self._reshape(layer, self._dense(layer, x, source), layer.units)
            return self._add("Softmax", layer, [result], axis=1) if activation == "softmax" else result
        x = self.value(tensor)
        return x if len(tensor.shape) == 4 else self._reshape(layer, x, int(np.prod(tensor.shape[1:])))

    def value(self, tensor) -> str:
        """The name of the NCHW tensor that holds a Keras tensor; rows of numbers stay images until the end."""
        key = _key(tensor)
        if key not in self._names:
            node = tensor.node
            try:
                if id(node) in self._binary:
                    name = self._convolve(node)
                elif isinstance(node.layer, _UNCHANGED):
                    name = self.value(node.keras_inputs[0])
                else:
                    name = _HANDLERS[type(node.layer)](self, node.layer, node.keras_inputs)
            except _Refusal as refusal:
                raise NotExpressible({node.layer.name: str(refusal)}) from refusal
            if key in self._signed:
                channels = tensor.shape[-1]
                name = self._affine(node.layer, name, np.ones(channels), np.zeros(channels), part="no_zero", side=1)
            self._names[key] = name
        return self._names[key]

    def _add(self, kind, layer, inputs, weights=None, *, part="", side=0, **attributes) -> str:
        """A step named after the layer, or after a `part` of its work."""
        name = f"{layer.name}/{part}" if part else layer.name
        self._used[name] += 1
        name = name if self._used[name] == 1 else f"{name}/{self._used[name]}"
        weights = {key: np.asarray(value, np.float32) for key, value in (weights or {}).items()}
        self.steps.append(Step(kind, tuple(inputs), name, weights, attributes, side))
        return name

    def _affine(self, layer, x, scale, bias, *, part="", side=0) -> str:
        name = self._add("Affine", layer, [x], part=part, side=side)
        self.steps[-1].weights.update(scale=np.asarray(scale, np.float64), bias=np.asarray(bias, np.float64))
        return name

    def _reshape(self, layer, x, size) -> str:
        name = self._add("Reshape", layer, [x], part="rows")
        self.steps[-1].weights["shape"] = np.array([1, size], np.int64)
        return name

    def _source(self, tensor, binary: _Binary):
        """What a sign may read in place of a tensor: what comes before layers that keep every sign."""
        keeps_thresholds = binary.shift is None or (np.abs(binary.shift) < 1).all()
        while True:
            layer = tensor.node.layer
            function = _function(layer) if type(layer) is _layers.Activation else None
            if isinstance(layer, _UNCHANGED) or function == "linear" or (function == "hard_tanh" and keeps_thresholds):
                tensor = tensor.node.keras_inputs[0]
            else:
                return tensor

    def _convolve(self, node) -> str:
        binary, layer = self._binary[id(node)], node.layer
        x = self.value(self._source(node.keras_inputs[0], binary))
        if binary.shift is not None or binary.flipped:
            turn = -1 if binary.flipped else 1
            shift = np.zeros(binary.kernel.shape[1]) if binary.shift is None else binary.shift
            x = self._affine(layer, x, np.full(shift.shape, turn), turn * shift, part="shift", side=turn)
        kernel = -binary.kernel if binary.flipped else binary.kernel
        size = list(kernel.shape[2:])
        attributes = {"kernel_shape": size, "strides": binary.strides, "padding": binary.padding}
        x = self._add("BinaryConv", layer, [x], {"kernel": kernel}, **attributes)
        x = self._affine(layer, x, binary.scale, binary.bias, part="scale")
        return self._activate(layer, x)

    def _activate(self, layer, x) -> str:
        function = _function(layer)
        if function == "linear":
            return x
        if function == "relu":
            return self._add("Relu", layer, [x])
        if function == "hard_tanh":
            # clip(x, -1, 1) = 1 - relu(2 - relu(x + 1))
            channels = self._channels(layer)
            for scale, bias, relu in ((1, 1, True), (-1, 2, True), (-1, 1, False)):
                x = self._affine(layer, x, np.full(channels, scale), np.full(channels, bias), part="clip")
                x = self._add("Relu", layer, [x], part="relu") if relu else x
            return x
        raise _Refusal(f"it has no activation '{function}'; linear, relu, hard_tanh and PReLU layers can be expressed")

    def _channels(self, layer) -> int:
        shape = layer.output_shape[0] if isinstance(layer.output_shape, list) else layer.output_shape
        if len(shape) == 2:
            raise _Refusal("rows of numbers take relu only")
        return shape[-1]

    # The layers of Keras

    def _input(self, layer, inputs) -> str:
        return self.image

    def _activation(self, layer, inputs) -> str:
        return self._activate(layer, self.value(inputs[0]))

    def _relu(self, layer, inputs) -> str:
        if layer.max_value is not None or layer.threshold or layer.negative_slope:
            raise _Refusal("it has only the plain relu")
        return self._add("Relu", layer, [self.value(inputs[0])])

    def _prelu(self, layer, inputs) -> str:
        slope = layer.alpha.numpy()
        if slope.size not in (1, slope.shape[-1]):
            raise _Refusal("it has one slope for each channel; share the other axes (shared_axes=[1, 2])")
        return self._add("PRelu", layer, [self.value(inputs[0])], {"slope": slope.reshape(-1, 1, 1)})

    def _add_up(self, layer, inputs) -> str:
        first, *others = [self.value(tensor) for tensor in inputs]
        if len({tuple(tensor.shape) for tensor in inputs}) > 1:
            raise _Refusal("it adds tensors of the same shape only")
        for other in others:
            first = self._add("Add", layer, [first, other])
        return first

    def _join(self, layer, inputs) -> str:
        if layer.axis not in (-1, 3) or len(inputs[0].shape) != 4:
            raise _Refusal("it joins images along the channels only")
        first, *others = [self.value(tensor) for tensor in inputs]
        for other in others:
            first = self._add("Concat", layer, [first, other], axis=1)
        return first

    def _normalize(self, layer, inputs) -> str:
        if list(layer.axis) != [len(inputs[0].shape) - 1] or _spatial(inputs[0]) not in (None, (1, 1)):
            raise _Refusal("it normalizes the channels of images")
        mean, variance = (np.asarray(value, np.float64) for value in (layer.moving_mean, layer.moving_variance))
        scale = 1 / np.sqrt(variance + layer.epsilon)
        scale = scale * np.asarray(layer.gamma, np.float64) if layer.scale else scale
        bias = np.asarray(layer.beta, np.float64) if layer.center else 0.0
        return self._affine(layer, self.value(inputs[0]), scale, bias - mean * scale)

    def _float_convolution(self, layer, inputs) -> str:
        if layer.data_format != "channels_last" or layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1):
            raise _Refusal("it has convolutions without groups and dilation, of images with channels last")
        source, pairs = inputs[0], _paddings(layer, inputs[0].shape)
        if type(source.node.layer) is _layers.ZeroPadding2D and not any(map(any, pairs)):
            pairs, source = source.node.layer.padding, source.node.keras_inputs[0]
        pads = [max(pair) for pair in pairs]
        # daBNN pads both sides alike; rows of zeros in the kernel make up for the difference.
        margins = [(max(pair) - before, max(pair) - after) for pair in pairs for before, after in [pair]]
        kernel = np.pad(layer.kernel.numpy(), [*margins, (0, 0), (0, 0)])
        x = self._conv(layer, self.value(source), kernel, list(layer.strides), pads)
        return self._activate(layer, x)

    def _conv(self, layer, x, kernel, strides, pads) -> str:
        """A float convolution; the kernel (kh, kw, I, O) is Keras'."""
        if (np.abs(kernel) == 1).all():
            raise _Refusal("its kernel has no values but +1 and -1, so onnx2bnn would binarize its input")
        weights = {"kernel": kernel.transpose(3, 2, 0, 1)}
        if layer.use_bias:
            weights["bias"] = layer.bias.numpy()
        size = list(kernel.shape[:2])
        return self._add("Conv", layer, [x], weights, kernel_shape=size, strides=strides, pads=[*pads, *pads])

    def _pool(self, layer, inputs) -> str:
        pairs = _paddings(layer, inputs[0].shape)
        if any(before != after for before, after in pairs):
            raise _Refusal(
                f"its pooling pads {pairs}, and daBNN pads the same on both sides; choose sizes that need no padding "
                "(networks of the zoo: padding='minus_one')"
            )
        average = isinstance(layer, _layers.AveragePooling2D)
        if not average and tuple(layer.pool_size) not in ((2, 2), (3, 3)):
            raise _Refusal("it has max-pools of 2x2 and 3x3")
        attributes = {"kernel_shape": list(layer.pool_size), "strides": list(layer.strides)}
        pads = [pair[0] for pair in pairs]
        kind = "AveragePool" if average else "MaxPool"
        return self._add(kind, layer, [self.value(inputs[0])], pads=[*pads, *pads], **attributes)

    def _global_pool(self, layer, inputs) -> str:
        kind = "GlobalMaxPool" if isinstance(layer, _layers.GlobalMaxPooling2D) else "GlobalAveragePool"
        return self._add(kind, layer, [self.value(inputs[0])])

    def _zero_padding(self, layer, inputs) -> str:
        raise _Refusal("it pads as a part of convolutions; follow the padding by a float convolution alone")

    def _flatten(self, layer, inputs) -> str:
        return self.value(inputs[0])

    def _dense_layer(self, layer, inputs) -> str:
        return self._activate(layer, self._dense(layer, self.value(inputs[0]), inputs[0]))

    def _dense(self, layer, x, source) -> str:
        """A Dense layer as the convolution of the whole image: onnx2bnn makes a 1x1 convolution of a Gemm."""
        spatial = _spatial(source)
        if spatial is None:
            raise _Refusal("a Dense layer needs rows; put Flatten or a global pool before it")
        kernel = layer.kernel.numpy()
        return self._conv(layer, x, kernel.reshape(*spatial, -1, layer.units), [1, 1], [0, 0])


_HANDLERS = {
    _layers.InputLayer: _Reader._input,
    _layers.Conv2D: _Reader._float_convolution,
    lq.layers.QuantConv2D: _Reader._float_convolution,
    _layers.Dense: _Reader._dense_layer,
    _layers.BatchNormalization: _Reader._normalize,
    _layers.Activation: _Reader._activation,
    _layers.ReLU: _Reader._relu,
    _layers.PReLU: _Reader._prelu,
    _layers.Add: _Reader._add_up,
    _layers.Concatenate: _Reader._join,
    _layers.ZeroPadding2D: _Reader._zero_padding,
    _layers.MaxPooling2D: _Reader._pool,
    _layers.AveragePooling2D: _Reader._pool,
    _layers.GlobalAveragePooling2D: _Reader._global_pool,
    _layers.GlobalMaxPooling2D: _Reader._global_pool,
    _layers.Flatten: _Reader._flatten,
    _layers.Softmax: _Reader._activation,
}


def _analyse(layer, node, level: Level) -> _Binary:
    """What a binary layer computes in inference; raises _Refusal where daBNN cannot."""
    if isinstance(layer, (BinaryConv1D, BinaryDense)):
        raise _Refusal("it has binary convolutions of images only, no binary sequences and rows")
    if layer.input_quantizer is None or layer.kernel_quantizer is None:
        raise _Refusal("inputs and kernel of a convolution are both binary or both float")
    if layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1) or layer.data_format != "channels_last":
        raise _Refusal("it has binary convolutions without groups and dilation, of images with channels last")
    if capabilities_of(layer.input_quantizer).has_output_factor:
        raise _Refusal(
            "it multiplies its output by a factor computed from its input, and daBNN multiplies by constants"
        )
    kernel = np.asarray(layer.kernel_quantizer(tf.convert_to_tensor(layer.kernel)))
    scale = np.abs(kernel).max(axis=(0, 1, 2))
    if not (np.abs(kernel) == scale).all():
        raise _Refusal("its kernel is not one scale times +1 or -1 for each output channel")
    padding, value = _binary_padding(layer, node.keras_inputs[0].shape, level)
    factor, bias = _output_scale(layer), _bias(layer, layer.filters).astype(np.float64)
    return _Binary(
        kernel=np.where(kernel >= 0, 1.0, -1.0).transpose(3, 2, 0, 1).astype(np.float32),
        scale=scale.astype(np.float64) * factor,
        bias=bias * factor if getattr(layer, "scale_bias", False) else bias,
        strides=list(layer.strides),
        padding=padding,
        flipped=value == 1,
        shift=_threshold(layer, kernel.shape[2]),
    )


def _binary_padding(layer, shape, level: Level) -> tuple[tuple[int, int], float]:
    pairs, value = _paddings(layer, shape), float(layer.pad_values)
    if not any(map(any, pairs)):
        if level == "strict":
            raise _Refusal("without padding it is recognised at the level 'aggressive' only (--level aggressive)")
        return (0, 0), -1.0
    if value not in (-1.0, 1.0):
        raise _Refusal(f"it pads with {value:g}, which is not a bit; {_SMALL_PADDING}")
    if any(before != after for before, after in pairs):
        raise _Refusal(f"it pads {pairs}, and daBNN pads the same on both sides; {_SMALL_PADDING}")
    return tuple(pair[0] for pair in pairs), value


def _output_scale(layer) -> np.ndarray:
    """The learned factor of each output channel."""
    factor = np.ones(layer.filters)
    kind = getattr(layer, "output_scale_kind", None)
    if kind is not None:
        factor = np.asarray(layer.output_scale, np.float64)
    if kind == "spatial":
        for weight in (layer.height_scale, layer.width_scale):
            values = np.ones(1) if weight is None else np.asarray(weight, np.float64)
            if np.ptp(values):
                raise _Refusal("it scales output rows and columns differently, and daBNN has one factor for a channel")
            factor = factor * values[0]
    return factor


def _threshold(layer, channels: int) -> np.ndarray | None:
    """The shift t of an input quantizer sign(x + t), None for 0; found by trying it."""
    quantizer = layer.input_quantizer
    shift = np.asarray(getattr(quantizer, "input_shift", np.zeros(channels)), np.float32)
    rng = np.random.default_rng(0)
    trial = rng.normal(0, 2, (1, 6, 6, channels)).astype(np.float32)
    trial[0, 0] = 0
    trial[0, 1] = -shift
    if not np.array_equal(np.asarray(quantizer(tf.constant(trial))), np.where(trial + shift >= 0, 1, -1)):
        raise _Refusal(f"its input quantizer {type(quantizer).__name__} is not a sign")
    return shift.astype(np.float64) if shift.any() else None


def _paddings(layer, shape) -> list[tuple[int, int]]:
    """(before, after) for height and width."""
    explicit = getattr(layer, "explicit_padding", None)
    if explicit is not None:
        return [(explicit, explicit)] * 2
    if layer.padding == "valid":
        return [(0, 0), (0, 0)]
    pairs = []
    window = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
    for size, kernel, stride in zip(shape[1:3], window, layer.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pairs.append((total // 2, total - total // 2))
    return pairs


def _spatial(tensor) -> tuple[int, int] | None:
    """Height and width of the image that rows of numbers come from; None for images."""
    if len(tensor.shape) != 2:
        return None
    while type(tensor.node.layer) is not _layers.Flatten:
        if isinstance(tensor.node.layer, (_layers.GlobalAveragePooling2D, _layers.GlobalMaxPooling2D, _layers.Dense)):
            return (1, 1)
        tensor = tensor.node.keras_inputs[0]
    before = tensor.node.keras_inputs[0]
    return tuple(before.shape[1:3]) if len(before.shape) == 4 else _spatial(before)


def _bias(layer, size: int) -> np.ndarray:
    return layer.bias.numpy() if layer.use_bias else np.zeros(size, np.float32)


def _function(layer) -> str:
    return getattr(layer.activation, "__name__", "linear") if hasattr(layer, "activation") else "softmax"


def _is_binary(layer) -> bool:
    quantizers = (getattr(layer, "input_quantizer", None), getattr(layer, "kernel_quantizer", None))
    return isinstance(layer, lq.layers.QuantConv2D) and any(quantizer is not None for quantizer in quantizers)


def _no_operation(layer) -> str:
    kind = type(layer).__name__
    if isinstance(layer, tf.keras.Model):
        return "it is a model inside a model; build the network as one"
    return f"it has no operation for {kind}"


def _nodes(model: tf.keras.Model) -> list:
    """The calls of layers that lead to the output, first ones first."""
    found, waiting = {}, [model.outputs[0].node]
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting.extend(tensor.node for tensor in node.keras_inputs)
    position = {id(layer): index for index, layer in enumerate(model.layers)}
    return sorted(found.values(), key=lambda node: position.get(id(node.layer), 0))


def _key(tensor) -> tuple:
    return id(tensor.node), tensor._keras_history.tensor_index


def _single(tensors, what: str):
    if not tensors:
        raise BibenchError("daBNN needs a graph of layers: build the network with the functional API or as Sequential.")
    if len(tensors) != 1:
        raise BibenchError(f"daBNN runs networks with one {what}; this one has {len(tensors)}.")
    return tensors[0]


def _require(package: str):
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BibenchError(f"This needs the package {package}: pip install 'bibench-tf[dabnn]'.") from error
