"""Saved names carry the package: a user's class of the same name is never taken for ours, nor ours for theirs."""

import json
import zipfile

import h5py
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, model_files
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.algorithms.quantizers import ChannelScaledSign
from bibench_tf.algorithms.reactnet import ShiftedSign as Ours

SUFFIXES = (".keras", ".h5", "")
PACKAGE = "bibench_tf>"


@pytest.fixture
def theirs():
    """A user's class with the name of one of ours, registered in both ways that Larq and Keras offer."""
    before = dict(tf.keras.utils.get_custom_objects())

    @lq.utils.register_keras_custom_object
    @tf.keras.utils.register_keras_serializable("mine")
    class ShiftedSign(algorithms.Quantizer):
        precision = 1

        def call(self, inputs):
            return -lq.math.sign(inputs)

    yield ShiftedSign
    tf.keras.utils.get_custom_objects().clear()
    tf.keras.utils.get_custom_objects().update(before)


def network(quantizer):
    x = tf.keras.Input((6, 6, 3))
    y = BinaryConv2D(4, 3, input_quantizer=quantizer, kernel_quantizer=ChannelScaledSign(), name="layer")(x)
    return tf.keras.Model(x, y)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ours_and_theirs_are_told_apart(suffix, theirs, tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    for quantizer in (Ours, theirs):
        model = network(quantizer())
        path = tmp_path / f"{quantizer.__module__}{suffix}"
        model.save(path)
        loaded = tf.keras.models.load_model(path, compile=False)
        assert type(loaded.get_layer("layer").input_quantizer).__qualname__ == quantizer.__qualname__
        np.testing.assert_array_equal(loaded(x), model(x))


def test_clones_and_configurations_keep_the_classes(theirs):
    for quantizer in (Ours, theirs):
        model = network(quantizer())
        layer = model.get_layer("layer")
        copies = [
            tf.keras.models.clone_model(model).get_layer("layer"),
            type(model).from_config(model.get_config()).get_layer("layer"),
            type(layer).from_config(layer.get_config()),
        ]
        assert all(type(copy) is BinaryConv2D and type(copy.input_quantizer) is quantizer for copy in copies)
        assert all(type(copy.kernel_quantizer) is ChannelScaledSign for copy in copies)


def test_the_activation_is_ours_though_larq_has_one_of_the_same_name(tmp_path):
    x = tf.keras.Input((4,))
    model = tf.keras.Model(x, tf.keras.layers.Activation(algorithms.hard_tanh)(x))
    for suffix in SUFFIXES:  # Keras' own loader finds no registered functions in the last two
        model.save(tmp_path / f"model{suffix}")
        loaded = model_files.load(tmp_path / f"model{suffix}")
        assert loaded.layers[-1].activation is algorithms.hard_tanh


def test_quantizers_are_found_by_their_aliases():
    layer = BinaryConv2D(4, 3, input_quantizer="shifted_sign", kernel_quantizer="channel_scaled_sign")
    assert type(layer.input_quantizer) is Ours and type(layer.kernel_quantizer) is ChannelScaledSign


def objects(value):
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for item in value.values():
            yield from objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from objects(item)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("key", algorithms.names())
def test_every_saved_class_is_keras_own_or_carries_the_package(key, suffix, tmp_path):
    x = tf.keras.Input((6, 6, 3))
    model = tf.keras.Model(x, algorithms.get(key).conv2d(4, 3)(x))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    if suffix == ".h5":
        with h5py.File(path) as file:
            config = json.loads(file.attrs["model_config"])
    else:
        config = json.loads(zipfile.ZipFile(path).read("config.json"))
    larqs = {name for module in (lq.quantizers, lq.layers, lq.constraints) for name in dir(module)}
    for item in objects(config):
        name = item.get("registered_name") or item["class_name"]
        known = hasattr(tf.keras.layers, name) or hasattr(tf.keras.initializers, name) or name in larqs
        assert name.startswith(PACKAGE) or known or name == "Functional", name
