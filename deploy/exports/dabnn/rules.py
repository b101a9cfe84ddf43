"""The rules that an ONNX file for daBNN keeps, from daBNN's documents and the source of its converter and runtime."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.deploy.exports.dabnn.steps import EPSILON, IN_PLACE
from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import onnx

_POOLS = ("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool")
_OPERATORS = (*_POOLS, "Conv", "PRelu", "Relu", "Add", "Gemm", "Softmax", "Concat", "BatchNormalization", "Reshape")
_MARKERS = ("Sign", "Pad")
_GEMM = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}


def require(package: str) -> ModuleType:
    """The package, imported. Raises BibenchError with the command to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BibenchError(f"This needs the package {package}: pip install 'bibench-tf[dabnn]'.") from error


class Graph:
    """An ONNX model with its constants as arrays and its nodes by the tensors that they read and write."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index the nodes of `model`."""
        from onnx import helper, numpy_helper

        self.model, self.nodes = model, list(model.graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in self.constants]
        self.outputs = {value.name for value in model.graph.output}
        self.writers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {name: [] for node in self.nodes for name in (*node.input, *node.output)}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self._value = helper.get_attribute_value

    def get(self, node: Any, name: str, default: Any = None) -> Any:
        """An attribute of a node."""
        return next((self._value(each) for each in reversed(node.attribute) if each.name == name), default)

    def before(self, name: str) -> str:
        """The operator that writes a tensor; empty for inputs and constants."""
        return self.writers[name].op_type if name in self.writers else ""

    def padded(self, node: Any) -> bool:
        """Whether a Pad is before the first input of a node."""
        return self.before(node.input[0]) == "Pad"

    def signs(self, node: Any) -> tuple[bool, bool]:
        """Whether a Sign is before the input of a convolution, or before the Pad there, and before its kernel."""
        source = self.writers[node.input[0]].input[0] if self.padded(node) else node.input[0]
        return self.before(source) == "Sign", self.before(node.input[1]) == "Sign"

    def kernel(self, node: Any) -> np.ndarray:
        """The kernel of a convolution, also behind a Sign; empty for a kernel that is no constant."""
        name = node.input[1]
        return self.constants.get(self.writers[name].input[0] if self.before(name) == "Sign" else name, np.zeros(0))

    def is_binary(self, node: Any) -> bool:
        """Whether onnx2bnn (aggressive) takes a node for a binary convolution."""
        if node.op_type != "Conv":
            return False
        kernel = self.kernel(node)
        return bool(kernel.size) and bool((np.abs(kernel) == 1).all())


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
    kind, name = node.op_type, node.output[0]
    if kind not in (*_OPERATORS, *_MARKERS):
        yield f"'{name}' is a {kind}, which onnx2bnn does not know."
        return
    yield from (f"{kind} '{name}' {rule}." for rule, broken in _rules(graph, node).items() if broken)
    if graph.is_binary(node):
        rules = _binary_rules(graph, node)
        yield from (f"Binary Conv '{name}' {rule}." for rule, broken in rules.items() if broken)


def _rules(graph: Graph, node: Any) -> dict[str, Any]:
    """The rules for a node, as the words that follow its name, and whether the node breaks them."""
    get, pads = functools.partial(graph.get, node), list(graph.get(node, "pads", [0] * 4))
    varies = any(name not in graph.constants for name in node.input[1:])
    rules: dict[str, Any] = {"uses auto_pad": node.op_type not in _MARKERS and get("auto_pad") is not None}
    if node.op_type in ("Conv", "AveragePool", "MaxPool"):
        rules[f"pads {pads}; daBNN pads the same on both sides"] = len(pads) != 4 or pads[:2] != pads[2:]
    if node.op_type in _MARKERS:
        rules["does not lead to one binary convolution alone"] = _leads_astray(graph, node)
    match node.op_type:
        case "Conv":
            rules |= {
                "has groups": get("group", 1) != 1,
                "needs a constant kernel": not graph.kernel(node).size,
                "is dilated": any(rate != 1 for rate in get("dilations", [])),
                "has a Sign, but its kernel is not of +1 and -1": any(graph.signs(node)) and not graph.is_binary(node),
            }
        case "BatchNormalization":
            own = abs(get("epsilon", EPSILON) - EPSILON) > 1e-12
            rules["needs four constants"] = len(node.input) != 5 or varies
            rules[f"has an epsilon of its own; onnx2bnn counts with {EPSILON}"] = own
        case "MaxPool":
            rules["is not 2x2 or 3x3"] = get("kernel_shape") not in ([2, 2], [3, 3])
            rules["has a storage_order"] = get("storage_order")
        case "AveragePool":
            rules["counts its padding (count_include_pad)"] = get("count_include_pad")
        case "Gemm":
            wrong = any(get(key) != value for key, value in _GEMM.items())
            rules["needs transA=0, transB=1, alpha=1 and beta=1, written out"] = wrong
            rules["needs constant weights"] = varies
        case "PRelu" | "Reshape":
            rules[f"needs a constant {'slope' if node.op_type == 'PRelu' else 'shape'}"] = varies
        case "Concat":
            rules["must join two tensors along the channels"] = get("axis") != 1 or len(node.input) != 2
        case "Add":
            constant = any(name in graph.constants for name in node.input)
            rules["adds a constant; only tensors are added, constants belong in a BatchNormalization"] = constant
        case "Pad":
            minus_one = get("mode", b"constant") == b"constant" and get("value") == -1.0
            rules["does not pad with the constant -1"] = not minus_one
            odd = len(pads) != 8 or any(pads[:2]) or pads[:4] != pads[4:]
            rules[f"pads {pads}; daBNN pads height and width, the same on both sides"] = odd
    return rules


def _binary_rules(graph: Graph, node: Any) -> dict[str, Any]:
    """The rules for a convolution that onnx2bnn takes for binary, as `_rules`."""
    signs, name = graph.signs(node), node.output[0]
    alone = [reader.op_type for reader in graph.readers[name]] == ["BatchNormalization"] and name not in graph.outputs
    unpadded = any(signs) and not graph.padded(node)
    return {
        "has a Sign on its input only": signs == (True, False),
        "has a Sign on its kernel only": signs == (False, True),
        "has Sign without Pad, which onnx2bnn does not recognise (--strict)": unpadded,
        "pads with 0 in ONNX, where daBNN pads with -1; it needs a Pad of -1": any(graph.get(node, "pads", [])),
        "has a bias; it belongs in the BatchNormalization": len(node.input) > 2,
        "must be followed directly, and only, by a BatchNormalization": not alone,
    }


def _leads_astray(graph: Graph, node: Any) -> bool:
    """Whether a Sign or a Pad does not lead to one binary convolution alone."""
    readers = graph.readers[node.output[0]]
    if node.op_type == "Sign" and len(readers) == 1 and readers[0].op_type == "Pad":
        readers = graph.readers[readers[0].output[0]]
    return len(readers) != 1 or not graph.is_binary(readers[0])


def _order(graph: Graph) -> Iterator[str]:
    """Rules on the order of the nodes."""
    positions = {node.output[0]: index for index, node in enumerate(graph.nodes)}
    moments = {}
    for node in graph.nodes:
        follower = node
        # These two vanish: their input is read when the convolution runs.
        while follower.op_type in _MARKERS and graph.readers[follower.output[0]]:
            follower = graph.readers[follower.output[0]][0]
        moments[node.output[0]] = positions[follower.output[0]]
    reshaped = False
    for index, node in enumerate(graph.nodes):
        kind, name, source = node.op_type, node.output[0], next(iter(node.input), "")
        if reshaped and kind not in ("Gemm", "Softmax"):
            yield f"{kind} '{name}' comes after Reshape, which only Gemm and Softmax may."
        reshaped = reshaped or kind == "Reshape"
        if kind == "Gemm" and graph.before(source) != "Reshape":
            yield f"Gemm '{name}' does not follow a Reshape."
        if kind not in IN_PLACE:
            continue
        for reader in graph.readers[source]:
            if reader is not node and moments[reader.output[0]] > index:
                yield (
                    f"'{reader.output[0]}' reads '{source}' after {kind} '{name}', which daBNN computes in place, has "
                    "overwritten it."
                )
        if source in graph.outputs:
            yield f"{kind} '{name}' overwrites the output '{source}'."
