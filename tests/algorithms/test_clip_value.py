"""BNN with another clip value, as BinaryDenseNet and MeliusNet have it: Larq's SteSign and WeightClip of that value."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.quantizers import ClippedSign
from bibench_tf.errors import BibenchError


@pytest.mark.parametrize("clip_value", [1.0, 1.3, 0.7, 2.0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_and_gradients_are_larqs(clip_value, dtype):
    rng = np.random.default_rng(0)
    edge = np.array(clip_value, dtype)
    edges = [0, 1, edge, np.nextafter(edge, edge + 1), np.nextafter(edge, 0 * edge), 3, 1000]
    x = np.concatenate([edges, np.negative(edges), 1.5 * rng.normal(size=2000)]).astype(dtype)
    dy = rng.normal(size=x.shape).astype(dtype)
    results = []
    for quantizer in (ClippedSign(clip_value), lq.quantizers.SteSign(clip_value)):
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            y = quantizer(variable)
        results.append((y.numpy(), tape.gradient(y, variable, tf.constant(dy)).numpy()))
    for mine, larqs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, larqs)
    assert (results[0][1] == 0).any()


def test_bfloat16_has_its_own_edge():
    x = tf.constant([1.3, -1.3, 1.31, 1.296875], tf.bfloat16)  # 1.3 and 1.296875 are one number of the type
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ClippedSign(1.3)(x)
    np.testing.assert_array_equal(tape.gradient(y, x).numpy().astype("float32"), [1, 1, 0, 1])


def test_latent_weights_stay_within_the_clip_value():
    layer = algorithms.get("bnn", clip_value=1.3).conv2d(8, 3)
    model = tf.keras.Sequential([tf.keras.Input((5, 5, 4)), layer])
    layer.kernel.assign(tf.ones_like(layer.kernel) * 1.25)
    model.compile(tf.keras.optimizers.SGD(10.0), "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 5, 5, 4)), 100 * rng.normal(size=(8, 5, 5, 8)), verbose=0)
    assert np.abs(layer.kernel.numpy()).max() == np.float32(1.3)


@pytest.mark.parametrize("form", ["model.keras", "model.h5", "saved"])
def test_saved_layers_keep_it(form, tmp_path):
    model = tf.keras.Sequential([tf.keras.Input((5, 5, 4)), algorithms.get("bnn", clip_value=1.3).conv2d(8, 3)])
    model.save(tmp_path / form)
    (layer,) = tf.keras.models.load_model(tmp_path / form).layers
    assert isinstance(layer.kernel_constraint, lq.constraints.WeightClip)
    clip_values = [part.clip_value for part in (layer.kernel_constraint, layer.input_quantizer, layer.kernel_quantizer)]
    assert clip_values == [1.3, 1.3, 1.3]


def test_a_quantizer_saved_without_a_clip_value_has_one_of_1():
    assert ClippedSign.from_config({"name": "clipped_sign"}).clip_value == 1.0


@pytest.mark.parametrize("clip_value", [0, -1, float("nan")])
def test_it_must_be_positive(clip_value):
    with pytest.raises(BibenchError, match="clip_value must be a positive number"):
        algorithms.get("bnn", clip_value=clip_value)
