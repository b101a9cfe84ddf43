"""The graphs of a SavedModel, checked before TensorFlow reads them: operations on tensors and variables, and no others.

TensorFlow says of each of its operations whether it has effects, and what it takes and gives. An operation without
effects that takes and gives numbers alone, and has no free text among its attributes, can name no file, no program and
no address. These are known, and beside them the variables, calls and loops of exported networks, by list.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from bibench_tf.model_files import containers, known
from bibench_tf.model_files.configurations import keras_package
from bibench_tf.model_files.limits import (
    MAX_CONFIGURATION_BYTES,
    MAX_GRAPH_BYTES,
    Refusal,
    check_length,
    check_unpacked,
)

_FILE = "saved_model.pb"
_NOT_NUMBERS = (types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT)
_LISTS = known.names("operations")
_OF_SAVERS = frozenset(_LISTS.pop("of_savers"))
_KNOWN = frozenset(itertools.chain(*_LISTS.values()))


def keras_configuration(folder: Path) -> str | None:
    """The JSON of the Keras model in a SavedModel, not checked; None where it holds a graph without one.

    Raises Refusal for operations that are not known to be harmless, for a graph or weights that take too much memory,
    and where TensorFlow would read another file than `saved_model.pb`.
    """
    if other := next((file.name for file in sorted(folder.glob("saved_model.*")) if file.name != _FILE), None):
        raise Refusal(f"it holds '{other}' beside '{_FILE}', and programs differ in which of them they read.")
    content = saved_model_pb2.SavedModel.FromString(_read(folder / _FILE, MAX_GRAPH_BYTES))
    for graph in content.meta_graphs:
        _check_graph(graph, alone=len(content.meta_graphs) == 1)
    containers.checkpoint_bytes(folder / "variables" / "variables")
    text = _metadata_of_the_model(folder, content)
    metadata = json.loads(text) if text else None
    if not isinstance(metadata, dict) or metadata.get("class_name") not in ("Functional", "Sequential"):
        return None
    return json.dumps({key: metadata.get(key) for key in ("class_name", "config")})


def _read(path: Path, bound: int) -> bytes:
    check_length(f"'{path.name}'", path.stat().st_size, bound)
    return path.read_bytes()


def _metadata_of_the_model(folder: Path, content: saved_model_pb2.SavedModel) -> str:
    if (folder / "keras_metadata.pb").exists():
        messages = importlib.import_module(f"{keras_package()}.protobuf.saved_metadata_pb2")
        nodes = messages.SavedMetadata.FromString(_read(folder / "keras_metadata.pb", MAX_CONFIGURATION_BYTES)).nodes
        return next((node.metadata for node in nodes if node.node_id == 0), "")
    for graph in content.meta_graphs:  # where TensorFlow 2.4 and older keep it
        for node in graph.object_graph_def.nodes[:1]:
            return node.user_object.metadata
    return ""


def _check_graph(graph: Any, alone: bool) -> None:
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    # TensorFlow runs the savers of a graph without objects, and of one among several.
    savers = _savers(graph, functions) if alone and graph.HasField("object_graph_def") else set()
    constants = 0
    for name, nodes in [("", graph.graph_def.node), *((name, each.node_def) for name, each in functions.items())]:
        if op_def_registry.get(name):
            raise Refusal(f"its function '{name}' has the name of an operation.")
        for node in nodes:
            is_function = node.op in functions and not op_def_registry.get(node.op)
            of_saver = name in savers and node.op in _OF_SAVERS
            if not (_is_known(node.op) or is_function or of_saver):
                raise Refusal(
                    f"it contains the operation {node.op}, which is not among those on tensors and variables and could "
                    "reach files or run code; export the network without it."
                )
            if node.op == "Const":
                constants += _bytes(node.attr["value"].tensor)
    check_unpacked("its constants together", constants, graph.ByteSize())


@functools.cache
def _is_known(name: str) -> bool:
    operation = op_def_registry.get(name)
    if name in _KNOWN or operation is None:
        return name in _KNOWN
    return not (
        operation.is_stateful
        or name.startswith("_")
        or any(each.type in _NOT_NUMBERS for each in (*operation.input_arg, *operation.output_arg))
        or any(
            "func" in each.type or ("string" in each.type and not each.allowed_values.list.s) for each in operation.attr
        )
    )


def _savers(graph: Any, functions: dict[str, Any]) -> set[str]:
    """The functions that nothing but the saver of the graph calls."""
    named = {graph.saver_def.save_tensor_name.partition(":")[0], graph.saver_def.restore_op_name}
    calls = [node for node in graph.graph_def.node if node.name in named]
    others = [node for node in graph.graph_def.node if node.name not in named]
    others += [node for function in functions.values() for node in function.node_def]
    library = graph.graph_def.library
    elsewhere = {
        *graph.object_graph_def.concrete_functions,
        *(node.op for node in others),
        *(name for node in others for name in _functions_named(node.attr.values())),
        *(gradient.gradient_func for gradient in (*library.gradient, *library.registered_gradients)),
        # TensorFlow may put functions of one interface in place of each other.
        *(name for name, function in functions.items() if "api_implements" in function.attr),
    }
    return {name for node in calls for name in _functions_named(node.attr.values())} - elsewhere


def _functions_named(attributes: Iterable[Any]) -> Iterator[str]:
    for value in attributes:
        for function in (value.func, *value.list.func):
            yield function.name
            yield from _functions_named(function.attr.values())


def _bytes(tensor: Any) -> int:
    if tensor.dtype in _NOT_NUMBERS:
        return tensor.ByteSize()
    sizes = [max(dimension.size, 0) for dimension in tensor.tensor_shape.dim]
    return int(np.prod(sizes, dtype=object)) * tf.as_dtype(tensor.dtype).size
