"""The signs and the activation of this package against Larq's, which they stand in for: bit for bit."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.algorithms import quantizers
from bibench_tf.algorithms.activations import hard_tanh
from bibench_tf.algorithms.recu import VarianceScaledSign

PAIRS = {
    "ste_sign": (quantizers.ste_sign, lq.quantizers.ste_sign),
    "approx_sign": (quantizers.approx_sign, lq.quantizers.approx_sign),
    "hard_tanh": (hard_tanh, lq.activations.hard_tanh),
}


def value_and_gradient(function, x, dy):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y.numpy(), tape.gradient(y, x, dy).numpy()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("pair", PAIRS)
def test_values_and_gradients_are_larqs(pair, dtype):
    rng = np.random.default_rng(0)
    one, two = np.ones((), dtype), np.full((), 2, dtype)
    edges = [0, one, np.nextafter(one, two), np.nextafter(one, 0 * one), np.finfo(dtype).tiny, 3, 1000]
    x = np.concatenate([edges, np.negative(edges), rng.normal(size=2000)]).astype(dtype)
    dy = rng.normal(size=x.shape).astype(dtype)
    ours, larqs = (value_and_gradient(function, tf.constant(x), tf.constant(dy)) for function in PAIRS[pair])
    for mine, theirs in zip(ours, larqs, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_recus_gradient_is_the_one_through_the_division():
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(0.3, 0.8, size=(5, 4, 3, 6)).astype("float32"))
    dy = tf.constant(rng.normal(size=x.shape).astype("float32"))

    def composed(x):
        count = tf.size(x[0], out_type=tf.int64)
        variance = tf.math.reduce_variance(x, axis=[1, 2, 3], keepdims=True) * tf.cast(count / (count - 1), x.dtype)
        return lq.quantizers.approx_sign(x / tf.sqrt(variance + 1e-5))

    ours = value_and_gradient(lambda x: VarianceScaledSign()(x, training=True), x, dy)
    expected = value_and_gradient(composed, x, dy)
    np.testing.assert_array_equal(ours[0], expected[0])
    np.testing.assert_allclose(ours[1], expected[1], rtol=1e-4, atol=1e-6)
