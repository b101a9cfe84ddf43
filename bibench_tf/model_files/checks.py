"""The vetting of model files before Keras reads them, against code in a file.

Keras' safe mode covers one of its three formats, and accepts there Python functions given by module and name. So the
configuration in the file is read first, as JSON, and everything but known layers, quantizers and operations is refused.
"""

from __future__ import annotations

import importlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from bibench_tf.errors import BibenchError

_CODE = ("Lambda", "__lambda__")
_OPERATION_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_METHOD_LAYERS = ("ClassMethod", "InstanceMethod")
# Classes, whose names are capitalised; Keras' functions can read and write files.
_KERAS_CLASS = re.compile(
    r"(tf_)?keras\.(layers|models|initializers|regularizers|constraints|losses|metrics|optimizers|mixed_precision"
    r"|src\.(engine|layers|models|mixed_precision|initializers))(\.\w+)*:[A-Z]\w*"
)
_KERAS_FUNCTION = re.compile(r"((tf_)?keras\.(src\.)?(activations|initializers|losses|metrics)(\.\w+)*|builtins):\w+")
# The functions of TensorFlow that Keras writes down as layers, without those that reach files, processes or Python.
_TENSORFLOW_FUNCTION = re.compile(
    r"(compat\.v1\.)?((math|nn|linalg|image|signal|bitwise|keras\.activations)(\.\w+)+|__operators__\.\w+"
    r"|add|subtract|multiply|divide|abs|sign|square|sqrt|pow|exp|matmul|tensordot|einsum|minimum|maximum|clip_by_value"
    r"|reduce_(sum|mean|max|min|prod)|cast|reshape|transpose|concat|stack|unstack|split|squeeze|expand_dims|pad|tile"
    r"|repeat|reverse|roll|slice|strided_slice|gather|gather_nd|where|shape|size|rank|range|fill|ones|zeros|ones_like"
    r"|zeros_like|identity|stop_gradient|one_hot|argmax|argmin|broadcast_to|space_to_batch|batch_to_space"
    r"|convert_to_tensor|equal|not_equal|greater|greater_equal|less|less_equal|logical_(and|or|not)|round|floor"
    r"|cumsum|norm|sin|cos|tanh|negative|eye)"
)
_UNSAFE_OPERATIONS = frozenset(
    ("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc", "PrintV2")
)


def check_keras(path: Path) -> None:
    """Raise BibenchError when a .keras file names anything but known layers and operations, or holds pickles."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickled = [name for name in names if name.endswith((".npz", ".npy", ".pkl"))]
        if pickled:
            raise BibenchError(
                f"{path} keeps weights in '{pickled[0]}', which can hold code; save it with weights in HDF5."
            )
        if "config.json" not in names:
            raise BibenchError(f"{path} is a zip file without a Keras configuration.")
        _check(path, archive.read("config.json"))


def hdf5_config(path: Path) -> dict[str, Any]:
    """The checked configuration of the model in a .h5 file; raises BibenchError as `check_keras`, or for none."""
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise BibenchError(f"{path} holds weights without a model; save the model itself with model.save.")
        return _check(path, file.attrs["model_config"])


def saved_model_config(folder: Path) -> dict[str, Any] | None:
    """The checked configuration of the Keras model in a SavedModel; None where it holds a graph without one.

    Raises BibenchError as `check_keras`, and for operations that reach files or run Python.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in content.meta_graphs:
        functions = [graph.graph_def.node, *(function.node_def for function in graph.graph_def.library.function)]
        for node in (node for nodes in functions for node in nodes):
            # Loading and saving the weights themselves have operations of their own.
            if node.op in _UNSAFE_OPERATIONS:
                raise BibenchError(f"{folder} contains the operation {node.op}, which can run code or touch files.")
    config = None
    for text in _keras_metadata(folder, content):
        metadata = _check(folder, text)
        if config is None and metadata.get("class_name") in ("Functional", "Sequential"):
            config = {"class_name": metadata["class_name"], "config": metadata["config"]}
    return config


def _keras_metadata(folder: Path, content: Any) -> Iterator[str]:
    """The metadata of the objects of a SavedModel, the model itself first."""
    if (folder / "keras_metadata.pb").exists():
        package = tf.keras.Model.__module__.split(".")[0]
        messages = importlib.import_module(f"{package}.protobuf.saved_metadata_pb2")
        nodes = messages.SavedMetadata.FromString((folder / "keras_metadata.pb").read_bytes()).nodes
        yield from (node.metadata for node in sorted(nodes, key=lambda node: node.node_id) if node.metadata)
    for graph in content.meta_graphs:  # where TensorFlow 2.4 and older keep it
        yield from (node.user_object.metadata for node in graph.object_graph_def.nodes if node.user_object.metadata)


def _check(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise BibenchError(f"{path} has a configuration that is not JSON.") from error
    if isinstance(config, dict):
        for training in ("compile_config", "training_config"):
            config.pop(training, None)  # models are loaded without it
    for item in _objects(config):
        if reason := _refusal(item):
            raise BibenchError(f"{path} is not loaded: {reason}")
    return config


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _refusal(item: dict[str, Any]) -> str | None:
    kind, config, module = item["class_name"].split(">")[-1], item.get("config"), item.get("module")
    name = config.get("name", kind) if isinstance(config, dict) else kind
    if kind in _CODE:
        return f"layer '{name}' is a Lambda, which holds Python code; write it as a layer class or with Keras layers."
    if kind in _METHOD_LAYERS:
        return f"layer '{name}' calls a method of TensorFlow by name; write it with Keras layers."
    if kind in _OPERATION_LAYERS:
        function = config.get("function", "") if isinstance(config, dict) else ""
        if not _TENSORFLOW_FUNCTION.fullmatch(str(function)):
            return (
                f"layer '{name}' calls the TensorFlow function '{function}', which is not a known operation on tensors."
            )
        return None
    if not module:
        return None  # looked up among Keras' own and the registered classes only
    if kind == "function":
        called, registered, known = str(config), str(config), _KERAS_FUNCTION
    else:
        called, registered, known = kind, item.get("registered_name"), _KERAS_CLASS
    if tf.keras.utils.get_registered_object(registered) is not None or known.fullmatch(f"{module}:{called}"):
        return None
    return (
        f"it uses '{called}' of the Python module '{module}', which is not registered; name the file that registers it "
        "with --plugin."
    )
