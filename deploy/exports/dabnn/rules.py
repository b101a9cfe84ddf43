"""The rules that an ONNX file for daBNN keeps, from daBNN's documents and the source of its converter and runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bibench_tf.deploy.exports.dabnn.onnx_graph import Graph, require
from bibench_tf.deploy.exports.dabnn.steps import EPSILON, IN_PLACE

if TYPE_CHECKING:
    import onnx

_OPERATORS = frozenset(
    ("Conv", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "PRelu", "Relu", "Add", "Gemm", "Softmax")
    + ("Concat", "BatchNormalization", "Reshape")
)


def check_rules(exported: onnx.ModelProto) -> list[str]:
    """The parts of an ONNX model that daBNN refuses or computes differently, one sentence each."""
    require("onnx")
    graph = Graph(exported)
    return [*_file_rules(graph), *(text for node in graph.nodes for text in _node_rules(graph, node)), *_order(graph)]


def notes(exported: onnx.ModelProto) -> list[str]:
    """Performance hints and obsolete rules, one sentence each."""
    graph = Graph(exported)
    odd: dict[int, str] = {}
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


def _file_rules(graph: Graph) -> Iterator[str]:
    opset = next((entry.version for entry in graph.model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not 7 <= opset <= 10:
        yield f"The file is of opset {opset}; Pad has its value as an attribute up to opset 10, as onnx2bnn reads it."
    for value in graph.inputs:
        sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        if len(sizes) != 4 or 0 in sizes:
            yield f"Input '{value.name}' needs four fixed sizes (NCHW)."
    if len(graph.inputs) != 1:
        yield f"The graph has {len(graph.inputs)} inputs; daBNN takes one."


def _node_rules(graph: Graph, node: Any) -> Iterator[str]:
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


def _convolution_rules(graph: Graph, node: Any, attributes: dict[str, Any]) -> Iterator[str]:
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


def _marker_rules(graph: Graph, node: Any, attributes: dict[str, Any]) -> Iterator[str]:
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


def _order(graph: Graph) -> Iterator[str]:
    """Rules on the order of the nodes."""
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
