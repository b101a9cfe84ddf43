"""WRPN's levels and gradients, and its one-bit form: a convolution of zeros and ones that runs on signs."""

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.quantizers import ChannelScaledSign
from bibench_tf.algorithms.wrpn import WRPN, SignedLevels, UnitLevels
from bibench_tf.deploy import audits, conversion, flatbuffer
from bibench_tf.deploy.conversion import Converter
from bibench_tf.errors import BibenchError

layers = tf.keras.layers


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def gradient(function, x, g):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        loss = tf.reduce_sum(y * g)
    return y.numpy(), tape.gradient(loss, x).numpy()


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_levels_of_activations(bits, rng):
    x = np.concatenate([rng.normal(0.5, 0.7, 500), [-1, 0, 0.5, 1, 2]]).astype("float32")
    g = rng.normal(size=x.shape).astype("float32")
    steps = 2**bits - 1
    y, dx = gradient(UnitLevels(bits), x, g)
    np.testing.assert_allclose(y, np.round(steps * np.clip(x, 0, 1)) / steps, atol=1e-6)
    np.testing.assert_array_equal(dx, g * ((x >= 0) & (x <= 1)))
    assert len(np.unique(y)) == min(2**bits, len(np.unique(y))) and set(np.unique(y)) >= {0.0, 1.0}


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_of_weights(bits, rng):
    w = np.concatenate([rng.normal(0, 0.8, 500), [-2, -1, 0, 1, 2]]).astype("float32")
    g = rng.normal(size=w.shape).astype("float32")
    steps = 2 ** (bits - 1) - 1
    y, dw = gradient(SignedLevels(bits), w, g)
    np.testing.assert_allclose(y, np.round(steps * np.clip(w, -1, 1)) / steps, atol=1e-6)
    np.testing.assert_array_equal(dw, g * (np.abs(w) <= 1))
    assert len(np.unique(y)) == 2**bits - 1


def convolve(x, kernel, strides=1, padding="same", groups=1):
    """TensorFlow's convolution of float operands, group by group."""
    pads = padding.upper() if isinstance(padding, str) else [[0, 0], [padding] * 2, [padding] * 2, [0, 0]]
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(part, own, strides, pads) for part, own in parts], -1)


OPTIONS = [{}, {"strides": 2}, {"padding": "valid"}, {"groups": 2}, {"padding": 1}, {"padding": 2}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("scale", ["channel", "layer"])
def test_one_bit_is_the_convolution_of_zeros_and_ones(options, scale, rng):
    """Values and gradients are those of the levels in front of an ordinary convolution, ties and padding included."""
    x = rng.normal(0.4, 0.6, size=(2, 8, 7, 4)).astype("float32")
    x[0, 0, 0] = [0.5, 0.0, 1.0, -0.0]
    layer = WRPN(weight_scale=scale).conv2d(6, 3, use_bias=True, **options)
    layer.build(x.shape)
    bias = rng.normal(size=6).astype("float32")
    kernel = rng.normal(0, 0.7, size=layer.kernel.shape).astype("float32")
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    quantized, levels = ChannelScaledSign(scale), UnitLevels(1)
    g = rng.normal(size=layer(x).shape).astype("float32")
    for training in (False, True):
        x, kernel = tf.constant(x), tf.constant(kernel)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, kernel])
            y = layer(x, training=training)
            expected = convolve(levels(x), quantized(kernel), **options) + bias
            loss, expected_loss = tf.reduce_sum(y * g), tf.reduce_sum(expected * g)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        expected_gradients = tape.gradient(expected_loss, [x, kernel])
        for given, wanted in zip(tape.gradient(loss, [x, layer.kernel]), expected_gradients, strict=True):
            np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4)


def test_more_bits_are_the_convolution_of_the_levels(rng):
    x, kernel = rng.normal(0.4, 0.6, size=(2, 8, 7, 4)), rng.normal(0, 0.7, size=(3, 3, 4, 6))
    for weight_bits, activation_bits in ((2, 4), (4, 1), (1, 2)):
        algorithm = WRPN(weight_bits, activation_bits)
        layer = algorithm.conv2d(6, 3)
        layer.build(x.shape)
        layer.kernel.assign(kernel)
        weights = algorithm.kernel_quantizer()(tf.constant(kernel, tf.float32))
        expected = convolve(UnitLevels(activation_bits)(tf.constant(x, tf.float32)), weights)
        np.testing.assert_allclose(layer(x.astype("float32")), expected, rtol=1e-4, atol=1e-4)
        assert layer.kernel.precision == weight_bits and layer.input_quantizer.precision == activation_bits


def every_kind(algorithm):
    tf.keras.utils.set_random_seed(4)
    image, sequence = layers.Input((7, 8, 32), name="image"), layers.Input((12, 32), name="sequence")
    outputs = [
        algorithm.conv2d(8, 3, name="plain")(image),
        algorithm.conv2d(8, 3, strides=2, use_bias=True, name="strided")(image),
        algorithm.conv1d(8, 3, use_bias=True, name="sequence_layer")(sequence),
        algorithm.dense(7, name="rows")(sequence),
    ]
    return tf.keras.Model([image, sequence], outputs)


def test_one_bit_runs_on_bits(rng):
    model = every_kind(WRPN())
    with Converter() as converter:
        content = converter.convert(model)
    result = audits.audit(content, model)
    assert {layer.name: layer.operations for layer in result.layers} == {
        name: (flatbuffer.BINARY_CONVOLUTION,) for name in model.output_names
    }
    assert result.fallbacks == ()
    inputs = [rng.normal(0.4, 0.6, size=(1, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    for expected, given in zip(model(inputs), conversion.runner(content, model)(inputs), strict=True):
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize("bits", [(1, 1), (4, 2)])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_and_loaded(bits, suffix, rng, tmp_path):
    model = every_kind(WRPN(*bits))
    model.save(tmp_path / f"model{suffix}")
    loaded = tf.keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    data = [rng.normal(size=(2, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    for before, after in zip(model(data), loaded(data), strict=True):
        np.testing.assert_array_equal(before, after)
    assert loaded.get_layer("plain").input_quantizer.precision == bits[1]


def test_options():
    assert algorithms.get("wrpn", weight_bits=4).weight_bits == 4
    for options in ({"weight_bits": 0}, {"activation_bits": 9}, {"weight_bits": 1.5}):
        with pytest.raises(BibenchError, match=next(iter(options))):
            algorithms.get("wrpn", **options)
    with pytest.raises(BibenchError, match="pads with 0"):
        algorithms.get("wrpn").conv2d(4, 3, pad_value=-1.0)
