"""The lists of known.toml: Keras finds under each name the class that was checked, and real networks load."""

from __future__ import annotations

import importlib
import inspect
import json
import types

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, model_files
from bibench_tf.model_files import configurations, known

layers = tf.keras.layers
PACKAGE = configurations.keras_package()
CLASSES = [(module, name) for module, names in known.names("classes").items() for name in names]
# Where Keras looks for a class that is named without its module, by the place in the model.
PLACES = (
    "layers.serialization",
    "initializers",
    "regularizers",
    "constraints",
    "activations",
    "mixed_precision.policy",
)


@pytest.mark.parametrize(("module", "name"), [*CLASSES, ("keras.src.engine.functional", "Functional")])
def test_keras_finds_the_class_that_was_checked(module, name):
    """Fails when Keras makes another object of a checked configuration than the class on the list."""
    library = importlib.import_module(f"{PACKAGE}.src.saving.serialization_lib")
    item = {"module": module, "class_name": name, "config": {}, "registered_name": None}
    item = configurations.checked(json.dumps(item))
    found = library._retrieve_class_or_fn(
        item["class_name"], item["registered_name"], item["module"], "class", item, {}
    )
    assert inspect.isclass(found) and found.__module__.startswith(PACKAGE)
    assert found.__name__ == name or (name, found) == ("Functional", tf.keras.Model)


@pytest.mark.parametrize("place", PLACES)
def test_keras_finds_the_class_without_a_module(place):
    """Older files name the class alone; a name of the list means no function anywhere."""
    module = importlib.import_module(f"{PACKAGE}.src.{place}")
    if place == "layers.serialization":
        module.populate_deserializable_objects()
    known_there = {**vars(module), **getattr(getattr(module, "LOCAL", None), "ALL_OBJECTS", {})}
    for _, name in CLASSES:
        assert inspect.isclass(known_there.get(name, object)), name
        assert not issubclass(known_there.get(name, object), layers.Lambda)


def test_functions_of_tensorflow_exist():
    """A misspelt name in the list, or one that is a class, would be of no use."""
    for module, names in known.names("functions").items():
        for name in names:
            found = tf
            for part in filter(None, [*module.split("."), name]):
                found = getattr(found, part, None) or getattr(tf.compat.v1, part, None) or getattr(tf.nn, part)
            assert isinstance(found, types.FunctionType) or callable(found) and not inspect.isclass(found), name


def sequential():
    return tf.keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten()])


def sequentials_in_models():
    """Keras counts the calls of one whose input is known from 1, and of one that learns it when called from 0."""
    image = layers.Input((8, 8, 3))
    late = tf.keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()], name="late")
    known_by_input = tf.keras.Sequential([layers.Input((8, 8, 4)), layers.ReLU(6.0)], name="by_input")
    known_by_option = tf.keras.Sequential([layers.Dense(4, input_shape=(8, 8, 4))], name="by_option")
    inner = tf.keras.Model(image, known_by_option(known_by_option(known_by_input(late(image)))), name="inner")
    return tf.keras.Sequential([layers.Input((8, 8, 3)), inner, layers.GlobalMaxPooling2D()])


def shared_layers():
    image = layers.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, name="shared")
    twice = tf.keras.Model(image, shared(shared(image)), name="twice")
    outer = layers.PReLU(name="outer")
    return tf.keras.Model(image, layers.Add()([outer(twice(image)), outer(twice(twice(image)))]))


def sequences():
    sequence = layers.Input((6, 5))
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(sequence)
    x = layers.TimeDistributed(layers.Dense(4, activation="gelu"))(layers.Masking()(x))
    x = layers.MultiHeadAttention(2, 4)(x, x)
    return tf.keras.Model(sequence, layers.RNN(layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(2)]))(x))


def options():
    dense = layers.Dense(
        3,
        kernel_initializer=tf.keras.initializers.Orthogonal(seed=1),
        bias_initializer=tf.keras.initializers.Constant([1.0, 2.0, 3.0]),
        kernel_regularizer=tf.keras.regularizers.OrthogonalRegularizer(),
        bias_regularizer=tf.keras.regularizers.L1L2(0.1, 0.2),
        kernel_constraint=tf.keras.constraints.MinMaxNorm(),
        activation=tf.nn.relu6,
        dtype=tf.keras.mixed_precision.Policy("float32"),
    )
    return tf.keras.Sequential([layers.Input((6, 5)), dense])


def of_larq():
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": lq.quantizers.SteSign(clip_value=1.5)}
    binary = lq.layers.QuantConv2D(4, 3, **quantizers, kernel_constraint="weight_clip")
    return tf.keras.Sequential([layers.Input((8, 8, 3)), binary, layers.Activation("relu")])


def ours():
    image = layers.Input((8, 8, 3))
    x = algorithms.get("reactnet").conv2d(4, 3)(layers.Activation(lq.activations.hard_tanh)(image))
    return tf.keras.Model(image, layers.Normalization(mean=[0.0] * 4, variance=[1.0] * 4)(x))


NETWORKS = (sequential, sequentials_in_models, shared_layers, sequences, options, of_larq, ours)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_networks_of_users(tmp_path, build, suffix):
    """Fails when a part of a real file is refused or changed: Keras 2.15 says that Sequential is of `keras`."""
    tf.keras.utils.set_random_seed(4)
    model = build()
    for weight in model.weights:
        weight.assign(weight + tf.cast(tf.random.uniform(weight.shape), weight.dtype))
    path = tmp_path / f"network{suffix}"
    model.save(path, save_format=None if suffix else "tf")
    values = np.random.default_rng(3).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    loaded = model_files.load(path)
    np.testing.assert_array_equal(loaded(values), model(values))
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    assert loaded.count_params() == model.count_params()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_operations_with_constants(tmp_path, suffix):
    """Slices, axes and numbers beside a tensor are what real networks call functions with."""
    image = tf.keras.Input((8, 8, 3))
    x = tf.concat([image[:, 1:, ::2, :2], image[:, :-1, 1::2, 1:]], axis=-1) * 2.0 + 1.0
    x = tf.nn.relu6(tf.reduce_mean(x, axis=[1, 2], keepdims=True)) - tf.constant([1.0, 2.0, 3.0, 4.0])
    x = tf.reshape(2.0 / (1.0 + tf.exp(-x)), [-1, tf.shape(x)[-1]])
    model = tf.keras.Model(image, tf.clip_by_value(tf.cast(x, tf.float32), -1.0, 0.5))
    model.save(tmp_path / f"network{suffix}")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(model_files.load(tmp_path / f"network{suffix}")(images), model(images))
