"""Every quantizer against an independent formula, zeros and boundaries included."""

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms import quantizers, xnor
from bibench_tf.algorithms.fda import FourierInputSign, FourierKernelSign, fourier_slope
from bibench_tf.algorithms.reactnet import ShiftedSign
from bibench_tf.algorithms.recu import RectifiedClampSign, VarianceScaledSign, tau_at
from bibench_tf.names import BIBENCH

BOUNDARIES = np.array([-2, -1.0001, -1, -0.9999, -0.5, -1e-8, -0.0, 0.0, 1e-8, 0.5, 0.9999, 1, 1.0001, 2], "float32")


def gradient(quantizer, x, g, **kwargs):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x, **kwargs)
        loss = tf.reduce_sum(y * g)
    return y.numpy(), tape.gradient(loss, x).numpy()


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def hat(x):
    return np.maximum(0, 2 - 2 * np.abs(x))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("key", BIBENCH)
def test_input_sign_of_zero_is_plus_one(key):
    quantizer = algorithms.get(key).input_quantizer()
    y = quantizer(BOUNDARIES.reshape(2, 7))
    np.testing.assert_array_equal(y, sign(BOUNDARIES).reshape(2, 7))


@pytest.mark.parametrize("key", BIBENCH)
def test_kernels_are_binary_with_one_positive_scale_per_filter(key, rng):
    layer = algorithms.get(key).conv2d(5, 3)
    layer.build((None, 8, 8, 6))
    kernel = rng.normal(size=layer.kernel.shape).astype("float32")
    kernel[0, 0, 0] = 0
    kernel[..., 2] = 0  # a dead filter must not become a third value
    binary = layer.kernel_quantizer(kernel, training=False).numpy()
    scales = np.abs(binary).max(axis=(0, 1, 2))
    assert (scales > 0).all()
    np.testing.assert_allclose(np.abs(binary), np.broadcast_to(scales, binary.shape), rtol=1e-6)
    assert layer.kernel.precision == 1 and layer.input_quantizer.precision == 1


@pytest.mark.parametrize(
    ("quantizer", "slope"),
    [
        (algorithms.get("bnn").input_quantizer(), lambda x: np.abs(x) <= 1),
        (algorithms.get("dorefa").input_quantizer(), lambda x: np.abs(x) <= 1),
        (algorithms.get("xnorpp").input_quantizer(), lambda x: np.abs(x) <= 1),
        (algorithms.get("bireal").input_quantizer(), hat),
        (xnor.SampleScaledSign(), lambda x: np.abs(x) <= 1),
    ],
)
def test_slope_at_boundaries(quantizer, slope, rng):
    x = BOUNDARIES.reshape(1, -1)
    g = rng.normal(size=x.shape).astype("float32")
    _, dx = gradient(quantizer, x, g, **({"training": True} if "Sample" in type(quantizer).__name__ else {}))
    np.testing.assert_allclose(dx, g * slope(x), atol=1e-6)


@pytest.mark.parametrize("per", ["channel", "layer"])
def test_channel_scaled_sign(per, rng):
    w, g = rng.normal(size=(2, 3, 3, 4, 5)).astype("float32")
    y, dw = gradient(quantizers.ChannelScaledSign(per=per), w, g)
    scale = np.abs(w).mean(axis=(0, 1, 2) if per == "channel" else None)
    np.testing.assert_allclose(y, scale * sign(w), rtol=1e-6)
    np.testing.assert_allclose(dw, g * (np.abs(w) <= 1), rtol=1e-6)


def test_xnor_sample_scale_moves_behind_the_convolution(rng):
    x = rng.normal(size=(3, 6, 6, 4)).astype("float32")
    layer = algorithms.get("xnor").conv2d(5, 3, use_bias=True)
    layer.build(x.shape)
    layer.bias.assign(rng.normal(size=5))
    np.testing.assert_allclose(layer(x, training=True), layer(x, training=False), rtol=1e-4, atol=1e-4)


def test_xnor_spatial_scale_is_the_papers_map(rng):
    x = rng.normal(size=(2, 7, 6, 4)).astype("float32")
    layer = algorithms.get("xnor", input_scale="spatial").conv2d(3, 3, strides=2)
    plain = algorithms.get("dorefa").conv2d(3, 3, strides=2)
    layer.build(x.shape)
    plain.build(x.shape)
    plain.kernel.assign(layer.kernel.numpy())
    magnitude = np.abs(x).mean(-1)
    padded = np.pad(magnitude, ((0, 0), (1, 1), (0, 1)))  # Keras' "same" for 7 x 6 at stride 2
    expected = np.array(
        [[[padded[n, i : i + 3, j : j + 3].sum() / 9 for j in (0, 2, 4)] for i in (0, 2, 4, 6)] for n in (0, 1)]
    )
    np.testing.assert_allclose(layer(x), plain(x) * expected[..., None], rtol=1e-4, atol=1e-5)


def test_reactnet_threshold(rng):
    x, g = rng.normal(size=(2, 3, 5, 5, 4)).astype("float32")
    quantizer = ShiftedSign()
    quantizer.build(x.shape)
    shift = rng.normal(size=4).astype("float32")
    quantizer.input_shift.assign(shift)
    with tf.GradientTape() as tape:
        y = quantizer(x)
        loss = tf.reduce_sum(y * g)
    np.testing.assert_array_equal(y, sign(x + shift))
    np.testing.assert_allclose(
        tape.gradient(loss, quantizer.input_shift), (g * hat(x + shift)).sum((0, 1, 2)), rtol=1e-4, atol=1e-4
    )


def numeric_gradient(function, x, g, step=1e-4):
    """d sum(function(x) g) / dx by central differences, in float64."""
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        result[index] = ((function(up) - function(down)) * g).sum() / (2 * step)
    return result


def test_recu_kernel_gradient_is_that_of_the_clipped_standardisation(rng):
    w, g = rng.normal(size=(2, 3, 3, 2, 4))
    quantizer = RectifiedClampSign()
    quantizer.build(w.shape)
    quantizer.update_schedule(120, 200)

    def standardised(w):
        centred = w - w.mean((0, 1, 2))
        return 2 * np.sqrt(2) * centred / np.sqrt(centred.var((0, 1, 2), ddof=1) + 1e-5)

    limit = -np.abs(standardised(w)).mean() * np.log(2 - 2 * tau_at(120, 200))
    assert 0 < (np.abs(standardised(w)) > limit).sum() < w.size, "both sides of the clamp must occur"
    y, dw = gradient(quantizer, w.astype("float32"), g.astype("float32"))
    np.testing.assert_array_equal(y, sign(standardised(w)))
    np.testing.assert_allclose(
        dw, numeric_gradient(lambda v: np.clip(standardised(v), -limit, limit), w, g), rtol=2e-3, atol=2e-3
    )


def test_recu_input_gradient_sees_unit_variance_in_training_only(rng):
    x, g = rng.normal(size=(2, 2, 3, 3, 2)) * 3

    def surrogate(x):  # its derivative is hat(a) da/dx
        a = x / np.sqrt(x.var((1, 2, 3), ddof=1, keepdims=True) + 1e-5)
        a = np.clip(a, -1, 1)
        return 2 * a - np.sign(a) * a**2

    _, training = gradient(VarianceScaledSign(), x.astype("float32"), g.astype("float32"), training=True)
    np.testing.assert_allclose(training, numeric_gradient(surrogate, x, g), rtol=2e-3, atol=2e-3)
    _, inference = gradient(VarianceScaledSign(), x.astype("float32"), g.astype("float32"), training=False)
    np.testing.assert_allclose(inference, g * hat(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("terms", [9, 13, 17])
def test_fourier_slope_is_the_sum_of_cosines(terms):
    x = np.concatenate([np.linspace(-1.5, 1.5, 301), BOUNDARIES]).astype("float32")
    i = np.arange(terms + 1)[:, None]
    expected = 0.4 / np.pi * np.cos((2 * i + 1) * 0.1 * x.astype("float64")).sum(0) * (np.abs(x) <= 1)
    np.testing.assert_allclose(fourier_slope(tf.constant(x), tf.constant(float(terms))), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("quantizer", [FourierInputSign(), FourierKernelSign()])
def test_fda_noise_is_off_in_inference_and_on_in_training(quantizer, rng):
    x = rng.normal(size=(3, 3, 8, 4)).astype("float32")
    quantizer.build(x.shape)
    scale = np.abs(x).mean((0, 1, 2)) if isinstance(quantizer, FourierKernelSign) else 1.0
    np.testing.assert_allclose(quantizer(x, training=False), scale * sign(x), rtol=1e-6)
    noisy = quantizer(x, training=True)
    assert np.abs(noisy - scale * sign(x)).max() > 1e-3
    quantizer.update_schedule(199, 200)
    np.testing.assert_allclose(quantizer(x, training=True), scale * sign(x), rtol=1e-6)


@pytest.mark.parametrize(("fan_in", "hidden"), [(63, 0), (64, 1), (576, 9)])
def test_fda_noise_has_one_hidden_unit_per_64_inputs(fan_in, hidden):
    layer = algorithms.get("fda").dense(3)
    layer.build((None, fan_in))
    shapes = {w.name.split("/")[-1]: tuple(w.shape) for w in layer.weights if "noise" in w.name}
    expected = {}
    for side in ("input", "weight") if hidden else ():
        expected[f"{side}_noise_fc1:0"], expected[f"{side}_noise_fc2:0"] = (fan_in, hidden), (hidden, fan_in)
    assert shapes == expected
    assert all("noise" not in w.name or w.trainable for w in layer.weights)
