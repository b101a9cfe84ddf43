"""DoReFa's activations of more than one bit, against formulas written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.quantizers import ClippedSign
from bibench_tf.errors import BibenchError


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def quantized(x, bits):
    steps = 2**bits - 1
    return np.round(np.clip(x, 0, 1) * steps) / steps


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_activations_are_steps_between_0_and_1(bits, rng):
    x = np.concatenate([rng.normal(0.5, 0.6, 400), [-0.1, 0, 1 / 6 - 1e-3, 1 / 6 + 1e-3, 1, 1.1]]).astype("float32")
    g = rng.normal(size=x.shape).astype("float32")
    quantizer = algorithms.get("dorefa", activation_bits=bits).input_quantizer()
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = quantizer(inputs)
        loss = tf.reduce_sum(y * g)
    np.testing.assert_allclose(y, quantized(x, bits), atol=1e-6)
    np.testing.assert_array_equal(tape.gradient(loss, inputs), g * ((x >= 0) & (x <= 1)))
    assert quantizer.precision == bits


def test_two_bits_have_four_values(rng):
    y = algorithms.get("dorefa", activation_bits=2).input_quantizer()(rng.normal(size=500).astype("float32"))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 3, 2 / 3, 1], rtol=1e-6)


@pytest.mark.parametrize("weight_scale", ["channel", "layer"])
def test_a_layer_multiplies_them_with_scaled_signs(weight_scale, rng):
    x, g = rng.normal(0.5, 0.6, (6, 8)).astype("float32"), rng.normal(size=(6, 3)).astype("float32")
    w = rng.normal(size=(8, 3)).astype("float32")
    layer = algorithms.get("dorefa", activation_bits=2, weight_scale=weight_scale).dense(3, use_bias=False)
    layer.build(x.shape)
    layer.kernel.assign(w.reshape(layer.kernel.shape))
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs, training=True)
        loss = tf.reduce_sum(y * g)
    dx, dw = tape.gradient(loss, [inputs, layer.trainable_weights[0]])
    binary = np.abs(w).mean(axis=0 if weight_scale == "channel" else None) * np.where(w >= 0, 1, -1)
    np.testing.assert_allclose(y, quantized(x, 2) @ binary, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx, g @ binary.T * ((x >= 0) & (x <= 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.reshape(dw, w.shape), quantized(x, 2).T @ g * (np.abs(w) <= 1), rtol=1e-4, atol=1e-5)
    assert layer.kernel.precision == 1


def test_one_bit_is_the_sign():
    assert algorithms.get("dorefa") == algorithms.get("dorefa", activation_bits=1)
    assert isinstance(algorithms.get("dorefa").input_quantizer(), ClippedSign)


@pytest.mark.parametrize("bits", [0, 9, 1.5])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(BibenchError, match="1 to 8"):
        algorithms.get("dorefa", activation_bits=bits)
