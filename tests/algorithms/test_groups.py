"""Grouped and depthwise binary convolutions: what they compute, in inference and in training."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.names import BIBENCH

CHANNELS = 8
# Statistics and factors over a whole sample or layer mix the groups; these have none.
SEPARATE = ("bnn", "dorefa", "bireal", "xnorpp", "reactnet")


def network(key, groups, shape, **options):
    tf.keras.utils.set_random_seed(1)
    inputs = tf.keras.Input(shape)
    algorithm = algorithms.get(key)
    layer = (algorithm.conv1d if len(shape) == 2 else algorithm.conv2d)(CHANNELS, 3, groups=groups, **options)
    return tf.keras.Model(inputs, layer(inputs)), layer


@pytest.mark.parametrize("shape", [(7, CHANNELS), (6, 5, CHANNELS)])
@pytest.mark.parametrize("groups", [2, CHANNELS])
@pytest.mark.parametrize("key", BIBENCH)
def test_every_weight_has_a_gradient(key, groups, shape):
    """Of a layer that was built for inference first, as all layers of functional models are."""
    model, layer = network(key, groups, shape, use_bias=True)
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=True) ** 2)
    for weight, gradient in zip(layer.trainable_weights, tape.gradient(loss, layer.trainable_weights), strict=True):
        assert gradient is not None, weight.name
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.name


@pytest.mark.parametrize("key", [key for key in BIBENCH if key != "fda"])  # FDA adds noise in training only
@pytest.mark.parametrize("groups", [2, CHANNELS])
def test_training_computes_what_inference_does(key, groups):
    model, layer = network(key, groups, (6, 5, CHANNELS), use_bias=True)
    random = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        if "scale" in weight.name:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    x = random.normal(size=(3, 6, 5, CHANNELS)).astype(np.float32)
    np.testing.assert_allclose(model(x, training=True), model(x, training=False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"padding": "valid"}, {"dilation_rate": 2}, {"padding": 1}])
@pytest.mark.parametrize("shape", [(9, CHANNELS), (11, 7, CHANNELS)])
@pytest.mark.parametrize("key", SEPARATE)
def test_a_depthwise_convolution_is_one_for_each_channel(key, shape, options):
    """Against layers of one channel without groups, with the same weights."""
    model, layer = network(key, CHANNELS, shape, **options)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    outputs = model(x).numpy()
    for channel in range(CHANNELS):
        tf.keras.utils.set_random_seed(1)
        make = algorithms.get(key).conv1d if len(shape) == 2 else algorithms.get(key).conv2d
        single = make(1, 3, **options)
        part = x[..., channel : channel + 1]
        single(part)
        single.set_weights(
            [
                weight[..., channel : channel + 1] if weight.shape and weight.shape[-1] == CHANNELS else weight
                for weight in layer.get_weights()
            ]
        )
        np.testing.assert_allclose(single(part), outputs[..., channel : channel + 1], rtol=1e-5, atol=1e-6)
