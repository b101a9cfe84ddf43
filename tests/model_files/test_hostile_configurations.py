"""No code runs that the configuration in a model file names, in whatever way it names it.

Each file would write `ran`, import a module or take memory as soon as Keras made the object that it names. A test fails
when the loader gives Keras another object than the one that it has checked.
"""

from __future__ import annotations

import base64
import json
import marshal
import sys

import pytest
import tensorflow as tf

from bibench_tf import model_files
from bibench_tf.errors import BibenchError

FORMS = pytest.mark.parametrize("form", [".keras", ".h5"])
OURS = "bibench_tf>ShiftedSign"
LAYERS = "keras.src.layers"


def code(ran):
    """Marshalled code as Keras writes a lambda down; it writes `ran`."""

    source = compile(f"lambda values: open({str(ran)!r}, 'w').close() or values", "<file>", "eval").co_consts[0]
    return [base64.b64encode(marshal.dumps(source)).decode(), None, None]


def item(class_name, config, **more):
    return {"class_name": class_name, "config": {"name": "harm", **config}, "name": "harm", **more}


def in_keras(module, class_name, config, mask=None):
    """A class of Keras; with `mask`, under the name of a harmless one in the field that a reader looks at first."""
    return item(mask or class_name, config, module=f"{LAYERS}.{module}", registered_name=class_name)


def called(config, harm, argument, **keywords):
    """Put a layer into the model that is called with constants: Keras would do it while it loads."""
    node = ["_CONSTANT_VALUE", -1, argument, keywords]
    config["config"]["layers"].insert(1, {**harm, "inbound_nodes": [node]})


def refused(path, match):
    with pytest.raises(BibenchError, match=match) as error:
        model_files.load(path)
    assert "\n" not in str(error.value)


@FORMS
@pytest.mark.parametrize("mask", [None, OURS, "SteSign", "Dense", "bibench_tf>Lambda", "Custom>Lambda"])
def test_a_lambda_under_another_name(changed, ran, form, mask):
    """`module` and `registered_name` point at Keras' Lambda, `class_name` at one of ours."""
    harm = in_keras("core.lambda_layer", "Lambda", lambda_of(code(ran), "lambda"), mask)
    refused(changed(form, lambda config: called(config, harm, [[1.0, 2.0, 3.0]])), "Lambda")


@FORMS
@pytest.mark.parametrize("mask", [None, OURS, "SteSign", "Dense"])
@pytest.mark.parametrize("function", ["io.gfile.copy", "io.gfile.rmtree", "keras.utils.get_file"])
def test_a_function_of_tensorflow_under_another_name(changed, tmp_path, ran, form, mask, function):
    """Called with constants while the file is read, it copies a file, deletes a folder, or downloads."""
    (victim := tmp_path / "victim").mkdir()
    (secret := victim / "secret").write_text("secret")
    argument, keywords = {
        "io.gfile.copy": (str(secret), {"dst": str(ran)}),
        "io.gfile.rmtree": (str(victim), {}),
        "keras.utils.get_file": (str(ran), {"origin": secret.as_uri()}),
    }[function]
    harm = in_keras("core.tf_op_layer", "TFOpLambda", {"function": function}, mask)
    refused(changed(form, lambda config: called(config, harm, argument, **keywords)), f"TFOpLambda|{function}")
    assert secret.exists()


def lambda_of(function, kind):
    """The configuration of a Lambda as Keras writes it."""
    rest = {"output_shape": None, "output_shape_type": "raw", "output_shape_module": None, "arguments": {}}
    return {"function": function, "function_type": kind, "module": None, **rest}


@FORMS
@pytest.mark.parametrize("function", ["exec", "eval"])
@pytest.mark.parametrize("holder", ["Lambda", "masked Lambda", "TextVectorization"])
def test_functions_of_python(changed, ran, form, function, holder):
    """`builtins:NAME` is how Keras writes activations down; Python's own functions have the same form."""
    named = {"module": "builtins", "class_name": "function", "config": function, "registered_name": function}
    if holder == "TextVectorization":
        config = {"max_tokens": None, "standardize": named, "split": None, "output_mode": "int"}
        harm = in_keras("preprocessing.text_vectorization", "TextVectorization", config)
    else:
        mask = OURS if holder == "masked Lambda" else None
        harm = in_keras("core.lambda_layer", "Lambda", lambda_of(named, "function"), mask)
    argument = f"open({str(ran)!r}, 'w').close()"
    refused(changed(form, lambda config: called(config, harm, argument)), f"Lambda|{function}|TextVectorization")


@pytest.mark.parametrize("name", ["ResidualWrapper", "DropoutWrapper"])
def test_marshalled_code_in_wrappers_of_cells(changed, ran, name):
    cell = {"class_name": "SimpleRNNCell", "config": {"name": "cell", "units": 3}}
    harm = item(name, {"cell": cell, "residual_fn": code(ran), "residual_fn_type": "lambda"})
    refused(changed(".h5", lambda config: called(config, harm, [[1.0, 2.0, 3.0]])), name)


def test_a_function_of_keras_called_in_place_of_a_class(changed, ran):
    """Keras calls a function that is named where a regularizer is expected, with the arguments of the file."""
    harm = in_keras("core.lambda_layer", "Lambda", lambda_of(code(ran), "lambda"), OURS)

    def change(config):
        call = {"class_name": "deserialize_keras_object", "config": {"config": harm, "safe_mode": False}}
        config["config"]["layers"][1]["config"]["kernel_regularizer"] = call

    refused(changed(".h5", change), "deserialize_keras_object|Lambda")


WRAPPERS = {
    "TimeDistributed": lambda harm: item("TimeDistributed", {"layer": harm}),
    "Bidirectional": lambda harm: item("Bidirectional", {"layer": harm}),
    "RNN": lambda harm: item("RNN", {"cell": harm}),
    "StackedRNNCells": lambda harm: item("StackedRNNCells", {"cells": [harm]}),
    "Sequential": lambda harm: item("Sequential", {"layers": [harm]}),
    "Model": lambda harm: item("Functional", {"layers": [harm], "input_layers": [], "output_layers": []}),
    "initializer": lambda harm: item("Dense", {"units": 2, "kernel_initializer": harm}),
    "regularizer": lambda harm: item("Dense", {"units": 2, "kernel_regularizer": harm}),
    "constraint": lambda harm: item("Dense", {"units": 2, "kernel_constraint": harm}),
    "activation": lambda harm: item("Dense", {"units": 2, "activation": harm}),
    "dtype": lambda harm: item("Dense", {"units": 2, "dtype": harm}),
    "quantizer": lambda harm: item("QuantDense", {"units": 2, "kernel_quantizer": harm}),
    "build_config": lambda harm: item("Dense", {"units": 2}, build_config={"input_shape": harm}),
    "tuple": lambda harm: {"class_name": "__tuple__", "items": [harm]},
    "constant": lambda harm: item("Add", {}, inbound_nodes=[[["row", 0, 0, {"y": harm}]]]),
}


@FORMS
@pytest.mark.parametrize("place", WRAPPERS)
@pytest.mark.parametrize("module", ["payload", "keras.src.layers.core.lambda_layer", "builtins", "keras.utils"])
def test_wherever_it_is_put(changed, tmp_path, ran, monkeypatch, form, place, module):
    (tmp_path / "payload.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    harm = {"module": module, "class_name": "Thing", "config": {}, "registered_name": "Thing"}
    outer = WRAPPERS[place](harm)
    outer = {"inbound_nodes": [], "name": "harm", **outer} if isinstance(outer, dict) else outer
    refused(changed(form, lambda config: config["config"]["layers"].insert(1, outer)), f"'Thing' of .*'{module}'")
    assert "payload" not in sys.modules


@FORMS
@pytest.mark.parametrize(
    "marker",
    [
        {"class_name": "__lambda__", "config": {"value": ["4w==", None, None]}},
        {
            "class_name": "__typespec__",
            "spec_name": "Thing",
            "module": "payload",
            "config": [],
            "registered_name": None,
        },
        {"class_name": "TypeSpec", "type_spec": "tf.TensorSpec", "serialized": []},
        {"class_name": "CompositeTensor", "spec": {}, "tensors": []},
        {"class_name": "__numpy__", "config": {"value": ["a"] * 9, "dtype": "U1000000"}},
        {"class_name": "__tensor__", "config": {"value": [[1]], "dtype": "variant"}},
        {"class_name": "__surprise__", "config": {}},
        {"class_name": ["Dense"], "config": {}},
        {"class_name": {"class_name": "Dense"}, "config": {}},
        {"class_name": "function", "config": ["relu"], "module": "builtins"},
        {"class_name": None, "config": {}},
    ],
    ids=lambda marker: str(marker["class_name"]),
)
def test_markers_of_keras(changed, form, marker):
    """What Keras puts in place of an object in JSON: tuples are read, types of TensorFlow and code are not."""

    def change(config):
        config["config"]["layers"][1]["config"]["kernel_initializer"] = marker

    refused(changed(form, change), "is not loaded")


def test_json_within_a_string(changed):
    """Keras decodes the text of a composite tensor once more."""
    text = json.dumps({"class_name": "TypeSpec", "type_spec": "tf.TensorSpec", "serialized": []})
    value = {"class_name": "__tuple__", "items": ["_COMPOSITE_TYPE", text]}
    refused(changed(".h5", lambda config: called(config, item("Flatten", {}), value)), "composite")


@FORMS
def test_constants_alone_are_not_given_to_a_layer(changed, form):
    """A call without a tensor is computed while the file is read: here 40 GB."""
    harm = item("TFOpLambda", {"function": "fill"}, module="keras.layers", registered_name="TFOpLambda")
    refused(changed(form, lambda config: called(config, harm, [10**5, 10**5], value=1.0)), "layer 'harm' .* constants")


@FORMS
@pytest.mark.parametrize(
    "nodes",
    [[[["harm", 0, 0, {}]]], [[["row", 0, 0, {"y": ["harm", 0, 0]}]]], [[["row", 0, 0, {}]], [["harm", 7, 0, {}]]]],
)
def test_a_circle_of_layers_is_seen(changed, form, nodes):
    """Keras tries for ever to make a layer that waits for itself."""
    harm = item("Flatten", {}, inbound_nodes=nodes, module="keras.layers", registered_name=None)
    refused(changed(form, lambda config: config["config"]["layers"].insert(1, harm)), "layer 'harm' .* itself")


@FORMS
def test_what_is_only_for_training_is_not_read(changed, form, ran, tmp_path, monkeypatch):
    """Losses, metrics and optimizers may be of any module, in the model and in a model within it."""
    (tmp_path / "payload.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    thing = {"module": "payload", "class_name": "Thing", "config": {}, "registered_name": "Thing"}

    def change(config):
        config["compile_config"] = {"optimizer": thing, "loss": thing}
        config["config"]["layers"][1]["compile_config"] = {"optimizer": thing, "loss": thing}

    assert model_files.load(changed(form, change)).get_layer("head").units == 2


@FORMS
def test_a_registered_class_whatever_its_module(changed, form, ran, tmp_path, monkeypatch):
    """Keras looks among registered classes first, so the module in the file is of no use, and is not imported."""
    (tmp_path / "payload.py").write_text(f"open({str(ran)!r}, 'w').close()\nClippedSign = print\n")
    monkeypatch.syspath_prepend(tmp_path)

    def change(config):
        layer = {"module": "payload", "class_name": "ClippedSign", "registered_name": "bibench_tf>ClippedSign"}
        layer |= {"config": {"name": "sign"}, "name": "sign", "inbound_nodes": [[["row", 0, 0, {}]]]}
        config["config"]["layers"].append(layer)

    model = model_files.load(changed(form, change))
    assert "payload" not in sys.modules and [layer.name for layer in model.layers] == ["row", "head", "sign"]


def test_a_lambda_that_somebody_registered(changed, ran):
    """A plug-in that registers Keras' Lambda, or a subclass, does not make its code harmless."""
    from bibench_tf import algorithms

    algorithms.names()
    harm = item("Harmless", lambda_of(code(ran), "lambda"))
    with tf.keras.utils.custom_object_scope({"Harmless": tf.keras.layers.Lambda}):
        refused(changed(".h5", lambda config: called(config, harm, [[1.0, 2.0, 3.0]])), "Lambda")


@FORMS
@pytest.mark.parametrize("name", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_layers_that_read_files(changed, tmp_path, form, name):
    (tmp_path / "words").write_text("secret\n")
    modules = {"StringLookup": "string_lookup", "IntegerLookup": "integer_lookup"}
    harm = in_keras(
        f"preprocessing.{modules.get(name, 'text_vectorization')}", name, {"vocabulary": str(tmp_path / "words")}
    )
    refused(
        changed(form, lambda config: config["config"]["layers"].insert(1, {**harm, "inbound_nodes": []})),
        f"'harm' is a {name}.*files",
    )


@FORMS
def test_json_that_is_nested_deeply(changed, form):
    def change(config):
        config["config"]["layers"][1]["config"]["deep"] = json.loads("[" * 500 + "]" * 500)

    refused(changed(form, change), "nested more than 100 levels")


@FORMS
def test_a_network_of_very_many_layers(changed, form):
    flat = item("Flatten", {}, inbound_nodes=[])
    many = [{**flat, "name": f"flat{number}", "config": {"name": f"flat{number}"}} for number in range(10_001)]
    refused(
        changed(form, lambda config: config["config"]["layers"].extend(many)), "10,003 layers, more than the 10,000"
    )


@FORMS
def test_weights_that_the_file_does_not_hold(changed, form):
    """A file of 20 KB would take 40 GB: a layer of 10^10 weights is refused before it is made."""

    def change(config):
        head = config["config"]["layers"][1]["config"]
        head["units"] = 3 * 10**9
        config["config"]["layers"][1].pop("build_config", None)

    refused(changed(form, change), "weights of 33.5 GiB and more, and the file holds")


@FORMS
@pytest.mark.parametrize(
    "root",
    [
        [1],
        "text",
        7,
        {"layers": []},
        {"class_name": "Functional"},
        {"class_name": "Sequential", "config": {"name": "empty", "layers": []}},
        {"class_name": "Dense", "config": {"units": 2}},
    ],
)
def test_what_is_no_model(changed, form, root):
    refused(changed(form, lambda config: root), "is not loaded|cannot be loaded|without layers")
