"""Access to ONNX models as graphs: constants as arrays, nodes by their tensors."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import onnx


def require(package: str) -> ModuleType:
    """The package, imported. Raises BibenchError with the command to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BibenchError(f"This needs the package {package}: pip install 'bibench-tf[dabnn]'.") from error


def require_packages() -> None:
    """Raise BibenchError, with the command to install them, unless the packages of `bibench-tf[dabnn]` are there."""
    require("onnx")
    require("onnxruntime")


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
        self._attribute = helper.get_attribute_value

    def attributes(self, node: Any) -> dict[str, Any]:
        """The attributes of a node by name."""
        return {attribute.name: self._attribute(attribute) for attribute in node.attribute}

    def producer(self, node: Any, *, through_pad: bool = False) -> Any:
        """The node before the first input of a node, or before the Pad there; None for an input of the graph."""
        before = self.writers.get(node.input[0]) if node.input else None
        if through_pad and before is not None and before.op_type == "Pad":
            return self.writers.get(before.input[0])
        return before

    def kernel(self, node: Any) -> np.ndarray:
        """The kernel of a convolution, also behind a Sign; empty for a kernel that is no constant."""
        name = node.input[1]
        sign = self.writers.get(name)
        return self.constants.get(sign.input[0] if sign is not None and sign.op_type == "Sign" else name, np.zeros(0))

    def is_binary(self, node: Any) -> bool:
        """Whether onnx2bnn (aggressive) takes a node for a binary convolution."""
        if node.op_type != "Conv":
            return False
        kernel = self.kernel(node)
        return bool(kernel.size) and bool((np.abs(kernel) == 1).all())
