"""A call of a binary layer leaves nothing behind: after exceptions, beside other threads, whatever `training` is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, networks
from bibench_tf.algorithms.layers import BinaryConv2D, is_training, quantized_scope
from bibench_tf.errors import InvalidOption
from bibench_tf.zoo import attention, fsmns, reactnets

KEYS = [key for key in algorithms.names() if key != "full_precision"]
OPTIONS = {"abc": {"weight_bases": 2, "activation_bases": 2}}
# The forms in which a call once changed the layer: own padding, groups, a bias, factors inside of the kernel.
LAYERS = {
    "conv2d": lambda algorithm: algorithm.conv2d(8, 3, padding=1, use_bias=True),
    "groups": lambda algorithm: algorithm.conv2d(8, 3, groups=2, use_bias=True),
    "conv1d": lambda algorithm: algorithm.conv1d(8, 3, padding=1, use_bias=True),
    "dense": lambda algorithm: algorithm.dense(8),
}
SHAPES = {"conv2d": (2, 6, 6, 4), "groups": (2, 6, 6, 4), "conv1d": (2, 6, 4), "dense": (2, 4)}


@pytest.fixture
def rng():
    return np.random.default_rng(8)


class Interrupted(BaseException):
    """Raised in the middle of a call, as Ctrl-C is."""


def layer_and_inputs(key, form, rng):
    tf.keras.utils.set_random_seed(3)
    layer = LAYERS[form](algorithms.get(key, **OPTIONS.get(key, {})))
    inputs = tf.constant(rng.normal(size=SHAPES[form]).astype("float32"))
    layer(inputs)
    layer.bias.assign(rng.normal(size=8).astype("float32"))
    return layer, inputs


def state(layer):
    """All that a later call may see."""
    plain = {name: value for name, value in vars(layer).items() if isinstance(value, (bool, str, int, tuple))}
    weights = [weight.copy() for weight in layer.get_weights()]
    return plain, weights, lq.context.should_quantize()


@pytest.fixture
def outer_scope():
    """Larq's scope as the test found it, also where the code under test leaves it open."""
    yield
    lq.context.quantized_scope(False).__enter__()


@pytest.mark.usefixtures("outer_scope")
@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("part", ["input_quantizer", "kernel_quantizer", "convolution"])
def test_a_call_that_fails_changes_nothing(key, form, part, rng, monkeypatch):
    layer, inputs = layer_and_inputs(key, form, rng)
    expected = {training: layer(inputs, training=training).numpy() for training in (False, True)}
    before = state(layer)

    def fail(*args, **kwargs):
        raise Interrupted

    for training in (False, True):
        with monkeypatch.context() as patch:
            if part == "convolution":
                patch.setattr(tf.nn, "convolution", fail)
                patch.setattr(type(layer), "_grouped_convolution", fail)  # has a graph already
            else:
                patch.setattr(getattr(layer, part), "call", fail)
            with pytest.raises(Interrupted):
                layer(inputs, training=training)
        assert_same(state(layer), before)
    for training, outputs in expected.items():
        np.testing.assert_array_equal(layer(inputs, training=training), outputs)


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[2] == expected[2]
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("outer_scope")
def test_a_build_that_fails_changes_nothing(rng):
    """Larq sets the padding `valid` while it builds a layer with padding of its own."""
    layer = BinaryConv2D(4, 3, padding="same", pad_values=1.0, kernel_quantizer="ste_sign", groups=2)
    with pytest.raises(ValueError, match="divisible"):
        layer(tf.ones([1, 5, 5, 3]))
    assert layer.padding == "same"
    assert layer(tf.ones([1, 5, 5, 4])).shape == (1, 5, 5, 4)


@pytest.mark.usefixtures("outer_scope")
def test_a_failed_call_leaves_weights_and_saved_files_latent(tmp_path, rng, monkeypatch):
    layer, inputs = layer_and_inputs("recu", "conv2d", rng)
    model = tf.keras.Sequential([tf.keras.Input(inputs.shape[1:]), layer])
    latent = layer.kernel.numpy()
    with monkeypatch.context() as patch:
        patch.setattr(layer.kernel_quantizer, "call", lambda inputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(inputs)
    model.save_weights(tmp_path / "weights.h5")
    layer.kernel.assign(tf.zeros_like(latent))
    model.load_weights(tmp_path / "weights.h5")
    np.testing.assert_array_equal(layer.get_weights()[0].shape, latent.shape)
    np.testing.assert_array_equal(layer.kernel.numpy(), latent)
    assert len(np.unique(latent)) > 2


@pytest.mark.parametrize("before", [False, True])
def test_quantized_scope_restores_what_was_before(before):
    with quantized_scope(before):
        with pytest.raises(Interrupted), quantized_scope(not before):
            assert lq.context.should_quantize() is not before
            raise Interrupted
        assert lq.context.should_quantize() is before
    assert lq.context.should_quantize() is False


@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize("key", KEYS)
def test_threads_share_a_layer(key, form, rng):
    """Eager calls of one layer in four threads, in training and inference, give what one thread gets."""
    layer, inputs = layer_and_inputs(key, form, rng)
    expected = {training: layer(inputs, training=training).numpy() for training in (False, True)}
    before, start = state(layer), threading.Barrier(4)

    def work(number):
        start.wait()
        return [
            (layer(inputs, training=training).numpy(), training)
            for training in (number % 2 == 0, number % 2 == 1, number % 2 == 0)
        ]

    with ThreadPoolExecutor(4) as pool:
        for outputs, training in (each for results in pool.map(work, range(4)) for each in results):
            np.testing.assert_array_equal(outputs, expected[training])
    assert_same(state(layer), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("key", ["xnor", "fda", "recu", "xnorpp"])
def test_training_may_be_a_tensor(key, training, rng):
    """The output scale, the noise and the gradient of ReCU depend on it; so does the whole network."""
    layer, inputs = layer_and_inputs(key, "conv2d", rng)
    model = tf.keras.Sequential([tf.keras.Input(inputs.shape[1:]), layer])

    def gradient(network, value):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = network(inputs, training=value)
        return outputs, tape.gradient(outputs, inputs)

    for network in (layer, model):
        expected = gradient(network, training)
        for value in (tf.constant(training), tf.Variable(training), np.bool_(training), int(training)):
            for one, other in zip(gradient(network, value), expected, strict=True):
                np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(traced(network, inputs, tf.constant(training)), traced(network, inputs, training))


def traced(network, inputs, training):
    return tf.function(lambda: network(inputs, training=training))()


def test_training_without_a_value_is_refused():
    layer = algorithms.get("bnn").dense(3)

    @tf.function
    def call(training):
        return layer(tf.ones([1, 4]), training=training)

    with pytest.raises(Exception, match="training=True or training=False"):
        call(tf.constant(True))
    assert is_training(None) is False


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["conv2d", "conv1d"])
def test_channels_first_is_refused(key, kind):
    with pytest.raises(InvalidOption, match="channels last"):
        getattr(algorithms.get(key), kind)(4, 3, data_format="channels_first")


def test_channels_first_as_the_default_of_keras_is_refused():
    before = tf.keras.backend.image_data_format()
    tf.keras.backend.set_image_data_format("channels_first")
    try:
        with pytest.raises(InvalidOption, match="channels last"):
            algorithms.get("recu").conv2d(4, 3)
        with pytest.raises(InvalidOption, match="channels last"):
            networks.build("resnet20", "full_precision", input_shape=(32, 32, 3), num_classes=10)
    finally:
        tf.keras.backend.set_image_data_format(before)


@pytest.mark.parametrize("key", algorithms.names())
def test_dense_layers_keep_masks(key):
    """As Keras' Dense does: the mean behind counts the tokens that are not masked, here two of four."""
    ids = tf.keras.Input([4], dtype="int32")
    vectors = tf.keras.layers.Embedding(5, 8, mask_zero=True)(ids)
    rows = algorithms.get(key).dense(6)(vectors)
    network = tf.keras.Model(ids, [rows, tf.keras.layers.GlobalAveragePooling1D()(rows)])
    rows, mean = network(tf.constant([[3, 1, 0, 0]]))
    np.testing.assert_allclose(mean[0], rows[0, :2].numpy().mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        *(algorithms.get(key, **OPTIONS.get(key, {})).input_quantizer() for key in KEYS),
        attention.PositionEmbedding(4),
        fsmns.OneSlopePReLU(),
        reactnets.RPReLU(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_one_value_for_each_value_keep_masks(layer):
    """As Keras' Activation and PReLU do."""
    ids = tf.keras.Input([4], dtype="int32")
    outputs = layer(tf.keras.layers.Embedding(5, 8, mask_zero=True)(ids))
    assert outputs._keras_mask is not None
