"""The configuration of a Keras model, checked and rewritten so that Keras makes exactly the objects that were checked.

Keras finds the class of an object by three fields (`module`, `class_name`, `registered_name`) in an order that depends
on the format, imports any module, and looks among Python's own functions. So every object of a file is looked up here,
among the classes listed below and those that are registered with Keras, and is written down anew by the one name under
which Keras finds that class first. What only training needs is left out.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from bibench_tf.model_files import known
from bibench_tf.model_files.limits import MAX_DEPTH, MAX_LAYERS, Refusal

_CLASSES, _FUNCTIONS_BY_MODULE = known.names("classes"), known.names("functions")
_MODULES = {
    name: [key for key, names in _CLASSES.items() if name in names] for name in itertools.chain(*_CLASSES.values())
}
_ACTIVATIONS = frozenset(_FUNCTIONS_BY_MODULE["keras.activations"])
_FUNCTIONS = frozenset(
    f"{module}.{name}".lstrip(".")
    for key, names in _FUNCTIONS_BY_MODULE.items()
    for name in names
    for module in ((key, "") if key in ("math", "linalg") else (key,))
)
_OPERATION_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_CODE = ("Lambda", "__lambda__")
_METHOD_LAYERS = ("ClassMethod", "InstanceMethod", "InstanceProperty")
_READERS = ("StringLookup", "IntegerLookup", "TextVectorization", "DenseFeatures", "SequenceFeatures")
# What Keras writes in place of values that JSON does not have, and the types of their arrays.
_MARKERS = ("TensorShape", "__tuple__", "__ellipsis__", "__bytes__", "__numpy__", "__tensor__")
_ARRAY_TYPES = frozenset(
    ("bool", "float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
)
_CONSTANT = "_CONSTANT_VALUE"
# Keras decodes the text after this mark as JSON, types of TensorFlow included.
_COMPOSITE = "_COMPOSITE_TYPE"
_NAMED_FUNCTION = {"module": "builtins", "class_name": "function", "registered_name": "function"}
# The fields of an object that Keras reads beside its class. Among those left out is `compile_config`.
_FIELDS = ("name", "inbound_nodes", "build_config", "shared_object_id", "__passive_serialization__")


def checked(text: str | bytes) -> dict[str, Any]:
    """The configuration in the JSON of a model, with nothing in it but what was looked up here.

    Raises Refusal when it names anything but known classes and functions, and when it is no JSON, nested too deeply, or
    of too many layers.
    """
    try:
        config = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise Refusal("its configuration is not JSON.") from error
    if not isinstance(config, dict) or "class_name" not in config:
        raise Refusal("its configuration is not that of a model.")
    layers = sum(len(item["layers"]) for item in _dictionaries(config) if isinstance(item.get("layers"), list))
    if layers > MAX_LAYERS:
        raise Refusal(
            f"it has {layers:,} layers, more than the {MAX_LAYERS:,} that are read from a file; build such a network "
            "in Python and load its weights."
        )
    return _object(config)


def keras_package() -> str:
    """The package of Keras 2 in use: `keras`, or `tf_keras` beside TensorFlow 2.16 and later."""
    return tf.keras.Model.__module__.partition(".")[0]


def _too_deep() -> Refusal:
    return Refusal(f"its configuration is nested more than {MAX_DEPTH} levels deep, which no network needs.")


def _dictionaries(config: Any) -> Iterator[dict[str, Any]]:
    level = [config]
    for _ in range(MAX_DEPTH):
        yield from (each for each in level if isinstance(each, dict))
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _value(value: Any) -> Any:
    if value == _COMPOSITE:
        raise Refusal("it holds a composite tensor; networks are read with plain numbers as constants.")
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return _object(value) if "class_name" in value else {key: _value(each) for key, each in value.items()}
    return value


def _object(item: dict[str, Any]) -> dict[str, Any]:
    kind = item["class_name"]
    if not isinstance(kind, str):
        raise Refusal("an object in it has a class whose name is not a text.")
    if kind in _MARKERS:
        return _marker(item)
    if kind == "function":
        return _function(item)
    module, name = _found(item)
    found = {"class_name": name, "config": _value(item.get("config"))}
    if "module" in item:  # the form of Keras 2.11 and later; older ones find the name by its place in the model
        found |= {"module": module, "registered_name": None if module else name}
    found |= {field: _value(item[field]) for field in _FIELDS if field in item}
    if not all(any(_references(node)) for node in _list(found.get("inbound_nodes"))):
        raise Refusal(f"{_label(item)} is called with constants alone, which is computed while the file is read.")
    if isinstance(found["config"], dict):
        _check_order(_list(found["config"].get("layers")))
    return found


def _label(item: dict[str, Any]) -> str:
    config = item.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return f"layer '{name}'" if isinstance(name, str) else "an object in it"


def _found(item: dict[str, Any]) -> tuple[str | None, str]:
    """The class of an object as the module of Keras and the name there; without a module, the name it is registered by.

    As Keras does, registered classes come first, by `registered_name`, or by `class_name` where that is not given.
    """
    kind, module, registered = item["class_name"], item.get("module"), item.get("registered_name")
    own = tf.keras.utils.get_registered_object(registered or kind) if isinstance(registered or kind, str) else None
    if inspect.isclass(own) and not issubclass(own, tf.keras.layers.Lambda):
        return None, registered or kind
    if own is not None or kind in _CODE or registered in _CODE:
        raise Refusal(
            f"{_label(item)} is a Lambda, which holds Python code; write it as a layer class or with Keras layers."
        )
    parts = module.split(".") if isinstance(module, str) else ["keras"]
    if parts[0] in ("keras", "tf_keras") and registered in (None, kind):
        if kind == "Functional":
            return "keras", "Model"  # a model of layers, which makes itself a Functional
        if kind in _MODULES:
            # Identity is a layer and an initializer.
            modules = _MODULES[kind]
            return next((each for each in modules if each.rpartition(".")[2] in parts), modules[0]), kind
        if kind in _OPERATION_LAYERS:
            _check_operation(item)
            return f"{keras_package()}.src.layers.core.tf_op_layer", kind
        if kind in _METHOD_LAYERS:
            raise Refusal(f"{_label(item)} calls a method of TensorFlow by name; write it with Keras layers.")
        if kind in _READERS:
            raise Refusal(f"{_label(item)} is a {kind}, which can read files; prepare words outside of the network.")
        if module is not None:
            raise Refusal(
                f"it uses '{kind}' of the Python module '{module}', which is not among the classes of Keras that are "
                "known to run no code; write it with other layers, or save the graph alone with model.export."
            )
    alias = "" if registered in (None, kind) else f", registered as '{registered}',"
    of_module = f" of the Python module '{module}'" if module else ""
    raise Refusal(
        f"it uses '{kind}'{alias}{of_module}, which is not registered; name the file that registers it with --plugin."
    )


def _check_operation(item: dict[str, Any]) -> None:
    config = item.get("config")
    function = config.get("function") if isinstance(config, dict) else None
    if str(function).removeprefix("compat.v1.") not in _FUNCTIONS:
        raise Refusal(
            f"{_label(item)} calls the TensorFlow function '{function}', which is not a known operation on tensors; "
            "write it with Keras layers, or save the graph alone with model.export."
        )


def _function(item: dict[str, Any]) -> dict[str, Any]:
    name = item.get("config")
    if isinstance(name, str):
        registered = tf.keras.utils.get_custom_objects()
        # Keras writes the bare name of a registered function.
        keys = [name, *(key for key in registered if key.rpartition(">")[2] == name)]
        for key in keys:
            if key in registered and not inspect.isclass(registered[key]):
                return {**_NAMED_FUNCTION, "config": key}
        if name in _ACTIVATIONS:
            return {**_NAMED_FUNCTION, "config": name}
    raise Refusal(
        f"it uses '{name}' of the Python module '{item.get('module')}', which is neither an activation of Keras nor "
        "registered; name the file that registers it with --plugin."
    )


def _marker(item: dict[str, Any]) -> dict[str, Any]:
    config = item.get("config")
    if item["class_name"] in ("__numpy__", "__tensor__") and (
        not isinstance(config, dict) or config.get("dtype") not in _ARRAY_TYPES
    ):
        raise Refusal("it holds an array that is not of numbers.")
    return {field: _value(item[field]) for field in ("class_name", "config", "items", "value") if field in item}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _references(node: Any) -> Iterator[tuple[str, Any]]:
    """The outputs of layers that a call takes, as the name of the layer and the number of its call.

    Keras writes an output as [layer, call, output], a constant as ["_CONSTANT_VALUE", -1, value], and further arguments
    as a fourth element.
    """
    if isinstance(node, list) and len(node) in (3, 4) and isinstance(node[0], str):
        if node[0] != _CONSTANT:
            yield node[0], node[1]
        node = node[3:]
    for each in _inside(node):
        yield from _references(each)


def _check_order(layers: list[Any]) -> None:
    """Raise Refusal where calls of layers wait for each other, or for a call that is not made: Keras waits for ever."""
    waiting: dict[str, list[list[tuple[str, Any]]]] = {}
    first, done, inputs = {}, {}, set()
    for layer in layers:
        if isinstance(layer, dict) and isinstance(name := layer.get("name"), str):
            calls = [list(_references(node)) for node in _list(layer.get("inbound_nodes"))]
            waiting.setdefault(name, []).extend(calls)
            first[name] = done[name] = _first_call(layer)
            if layer.get("class_name") == "InputLayer":
                inputs.add(name)

    def is_made(name: str, call: Any) -> bool:
        return name in inputs or (name in done and call in range(first[name], done[name]))

    while any(waiting.values()):
        before = sum(map(len, waiting.values()))
        for name, calls in waiting.items():
            while calls and all(is_made(*reference) for reference in calls[0]):
                calls.pop(0)
                done[name] += 1
        if sum(map(len, waiting.values())) == before:
            stuck = next(name for name, calls in waiting.items() if calls)
            raise Refusal(f"layer '{stuck}' waits for an output that is never computed, of itself or of a later layer.")


def _first_call(layer: dict[str, Any]) -> int:
    """The number of the first call of a layer in a file: a network that knows its inputs was called once before."""
    config = layer.get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(layers, list):
        return 0
    if "input_layers" in config:
        return 1
    if layer.get("class_name") != "Sequential":
        return 0
    built = layer.get("build_config") if "module" in layer else None
    if not layers or config.get("build_input_shape") or (isinstance(built, dict) and built.get("input_shape")):
        return 1
    inner = layers[0].get("config") if isinstance(layers[0], dict) else None
    known = isinstance(inner, dict) and inner.get("batch_input_shape")
    return 1 if known or layers[0].get("class_name") == "InputLayer" else _first_call(layers[0])
