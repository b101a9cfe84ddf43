"""ABC-Net's layers against NumPy: bases, least squares, sums of float convolutions, gradients; and in LCE."""

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.abc_net import ABC, InputBases, KernelBases, base_factors, kernel_bases
from bibench_tf.deploy import audits, conversion, flatbuffer
from bibench_tf.deploy.conversion import Converter
from bibench_tf.errors import BibenchError
from bibench_tf.names import BIBENCH

layers = tf.keras.layers


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def numpy_bases(w, shifts):
    return [sign(w - w.mean() + u * w.std()) for u in shifts]


def least_squares(w, bases):
    return np.linalg.lstsq(np.stack([b.ravel() for b in bases], axis=1), w.ravel(), rcond=None)[0]


def convolve(x, kernel):
    return tf.nn.conv2d(tf.constant(x, tf.float32), tf.constant(kernel, tf.float32), 1, "SAME").numpy()


@pytest.mark.parametrize(("count", "shifts"), [(1, [0]), (2, [-1, 1]), (3, [-1, 0, 1]), (5, [-1, -0.5, 0, 0.5, 1])])
def test_bases_and_factors(count, shifts, rng):
    w = rng.gumbel(0.1, 0.3, size=(3, 3, 7, 6)).astype("float32")
    bases = kernel_bases(tf.constant(w), count)
    expected = numpy_bases(w.astype("float64"), shifts)
    np.testing.assert_array_equal(bases, expected)
    factors = base_factors(tf.constant(w), bases)
    np.testing.assert_allclose(factors, least_squares(w.astype("float64"), expected), rtol=1e-4, atol=1e-6)


def test_more_bases_come_nearer_to_the_kernel(rng):
    w = rng.normal(size=(3, 3, 16, 16)).astype("float32")
    errors = []
    for count in (1, 2, 3, 5):
        errors.append(np.square(w - np.sum(KernelBases(count)(w), axis=0)).mean())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.15 < errors[0]


@pytest.mark.parametrize("kernel", [np.zeros((3, 3, 2, 2)), np.full((1, 1, 4, 1), 0.3), np.eye(2).reshape(1, 1, 2, 2)])
def test_bases_that_are_the_same_share_their_factor(kernel):
    w = tf.constant(kernel, tf.float32)
    bases = kernel_bases(w, 5)
    factors = base_factors(w, bases).numpy()
    assert np.isfinite(factors).all() and (np.abs(factors) >= 0.99e-6).all() and np.abs(factors).max() < 1
    nearest = np.tensordot(factors, bases, 1)
    expected = [b for b in bases.numpy()]
    best = np.tensordot(least_squares(kernel, expected), expected, 1)
    np.testing.assert_allclose(nearest, best, atol=2e-5)


def built(algorithm, x, kernel, shifts=None, factors=None):
    layer = algorithm.conv2d(kernel.shape[-1], kernel.shape[0])
    layer.build(x.shape)
    layer.kernel.assign(kernel)
    if shifts is not None:
        layer.input_quantizer.shift.assign(shifts)
        layer.input_factors.assign(factors)
    return layer


def test_a_layer_is_the_sum_of_all_pairs(rng):
    x = rng.normal(size=(2, 6, 5, 4)).astype("float32")
    kernel = rng.normal(size=(3, 3, 4, 7)).astype("float32")
    shifts, factors = [-0.4, 0.1, 0.3], [0.7, -0.2, 0.5]
    layer = built(ABC(weight_bases=5, activation_bases=3), x, kernel, shifts, factors)
    bases = numpy_bases(kernel, [-1, -0.5, 0, 0.5, 1])
    alphas = least_squares(kernel, bases)
    expected = sum(
        beta * alpha * convolve(np.where(np.clip(x + v, 0, 1) >= 0.5, 1.0, -1.0), base)
        for v, beta in zip(shifts, factors, strict=True)
        for alpha, base in zip(alphas, bases, strict=True)
    )
    for training in (False, True):
        np.testing.assert_allclose(layer(x, training=training), expected, rtol=1e-4, atol=1e-4)


def test_one_base_of_each_is_a_plain_sign(rng):
    x = rng.normal(size=(2, 6, 5, 4)).astype("float32")
    kernel = rng.normal(size=(3, 3, 4, 7)).astype("float32")
    kernel -= kernel.mean()
    layer = built(ABC(weight_bases=1, activation_bases=1), x, kernel)
    np.testing.assert_array_equal(layer.input_quantizer.shift, [0])
    np.testing.assert_array_equal(layer.input_factors, [1])
    scale = np.abs(kernel).mean()
    np.testing.assert_allclose(layer(x), scale * convolve(sign(x - 0.5), sign(kernel)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_thresholds_start_evenly_between_0_and_1(count):
    quantizer = InputBases(count)
    quantizer.build((None, 4))
    thresholds = 0.5 - np.sort(quantizer.shift.numpy())[::-1]
    np.testing.assert_allclose(thresholds, (np.arange(count) + 0.5) / count, rtol=1e-6)
    # The mean of the bases is then the rounding of 2 clip(x, 0, 1) - 1 to N + 1 levels.
    x = np.random.default_rng(0).uniform(-0.5, 1.5, 1000).astype("float32")
    mean = np.zeros_like(x)
    for basis in range(count):
        mean += quantizer(x, basis).numpy() / count
    np.testing.assert_allclose(mean, 2 * np.round(np.clip(x, 0, 1) * count) / count - 1, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_factors_of_the_inputs_start_at_their_mean(count):
    """Each of N at 1 / N, so that a new layer averages its inputs' bases."""
    layer = algorithms.get("abc", activation_bases=count).dense(3)
    layer.build((None, 4))
    np.testing.assert_allclose(layer.input_factors, [1 / count] * count, rtol=1e-6)


def test_gradients(rng):
    """With constant alphas and straight-through steps, by the transposed convolutions of NumPy's operands."""
    x = rng.normal(0.4, 0.6, size=(2, 6, 5, 4)).astype("float32")
    kernel = rng.normal(size=(3, 3, 4, 7)).astype("float32")
    g = rng.normal(size=(2, 6, 5, 7)).astype("float32")
    shifts, betas = [-0.25, 0.25], [0.8, 0.5]
    layer = built(ABC(weight_bases=3, activation_bases=2), x, kernel, shifts, betas)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True) * g)
    dx, dkernel, dv, dbeta = tape.gradient(loss, [x, layer.kernel, layer.input_quantizer.shift, layer.input_factors])

    x = x.numpy()
    bases = numpy_bases(kernel, [-1, 0, 1])
    alphas = least_squares(kernel, bases)
    approximation = sum(alpha * base for alpha, base in zip(alphas, bases, strict=True)).astype("float32")
    to_inputs = tf.nn.conv2d_transpose(g, approximation, x.shape, 1, "SAME").numpy()
    binary = [sign(x + v - 0.5).astype("float32") for v in shifts]
    inside = [(x + v >= 0) & (x + v <= 1) for v in shifts]
    assert all(0.2 < np.mean(mask) < 0.9 for mask in inside)
    expected = [beta * to_inputs * mask for beta, mask in zip(betas, inside, strict=True)]
    np.testing.assert_allclose(dx, sum(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(dv, [part.sum() for part in expected], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(dbeta, [(convolve(a, approximation) * g).sum() for a in binary], rtol=1e-3, atol=1e-3)
    mixed = sum(beta * a for beta, a in zip(betas, binary, strict=True))
    padded = np.pad(mixed, ((0, 0), (1, 1), (1, 1), (0, 0)))
    correlated = np.array(
        [[np.einsum("bhwc,bhwo->co", padded[:, i : i + 6, j : j + 5], g) for j in range(3)] for i in range(3)]
    )
    np.testing.assert_allclose(dkernel, alphas.sum() * correlated, rtol=1e-3, atol=1e-2)


def every_kind(algorithm):
    tf.keras.utils.set_random_seed(4)
    image, sequence = layers.Input((7, 8, 32), name="image"), layers.Input((12, 32), name="sequence")
    outputs = [
        algorithm.conv2d(8, 3, name="plain")(image),
        algorithm.conv2d(8, 3, strides=2, use_bias=True, name="strided")(image),
        algorithm.conv2d(8, 3, pad_value=1.0, name="padded_with_one")(image),
        algorithm.conv1d(8, 3, use_bias=True, name="sequence_layer")(sequence),
        algorithm.dense(7, name="rows")(sequence),
    ]
    model = tf.keras.Model([image, sequence], outputs)
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if "kernel" not in weight.name:
            weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    return model


def test_sequences_and_rows_are_the_convolutions_they_stand_for(rng):
    algorithm = ABC(weight_bases=2, activation_bases=2)
    x = rng.normal(size=(3, 9, 6)).astype("float32")
    sequence, image = algorithm.conv1d(5, 3, use_bias=True), algorithm.conv2d(5, (1, 3), use_bias=True)
    rows, pixels = algorithm.dense(5), algorithm.conv2d(5, 1, use_bias=True)
    for first, second in ((sequence, image), (rows, pixels)):
        first.build(x.shape)
        second.build((3, 1, 9, 6))
        weights = [rng.normal(0, 0.4, weight.shape) for weight in first.get_weights()]
        first.set_weights(weights)
        second.set_weights(weights)
        np.testing.assert_allclose(first(x), second(x[:, np.newaxis])[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_and_loaded(suffix, rng, tmp_path):
    model = every_kind(ABC(weight_bases=3, activation_bases=2))
    model.save(tmp_path / f"model{suffix}")
    loaded = tf.keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    data = [rng.normal(size=(2, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    for before, after in zip(model(data), loaded(data), strict=True):
        np.testing.assert_array_equal(before, after)
    assert loaded.get_layer("plain").kernel_quantizer.bases == 3 and len(loaded.weights) == len(model.weights)


@pytest.mark.parametrize(("weight_bases", "activation_bases"), [(1, 1), (3, 2)])
def test_every_pair_is_a_binary_operation(weight_bases, activation_bases, rng):
    model = every_kind(ABC(weight_bases, activation_bases))
    with Converter() as converter:
        content = converter.convert(model)
    result = audits.audit(content, model)
    pairs = weight_bases * activation_bases
    counts = {layer.name: layer.operations.count(flatbuffer.BINARY_CONVOLUTION) for layer in result.layers}
    assert counts == {output: pairs for output in model.output_names}
    assert result.fallbacks == () and "CONV_2D" not in flatbuffer.operators(content)
    inputs = [rng.normal(size=(1, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    for expected, given in zip(model(inputs), conversion.runner(content, model)(inputs), strict=True):
        np.testing.assert_allclose(given, expected, rtol=0, atol=2e-5 * np.ptp(expected))


def test_what_a_layer_costs():
    layer = ABC(weight_bases=3, activation_bases=2).conv2d(8, 3, strides=2, use_bias=True)
    layer.build((None, 6, 8, 4))
    operations = layer.count_operations((None, 6, 8, 4), (None, 3, 4, 8))
    assert operations.macs == {1: 6 * (9 * 4 * 8) * 12}
    assert operations.other == 5 * 12 * 8 + 2 * 6 * 8 * 4
    # The factors of 3 x 2 pairs, two shifts, eight biases.
    assert layer.count_weights() == {1: 3 * 9 * 4 * 8, 32: 6 + 2 + 8}


def test_it_is_registered_beside_the_eight():
    assert algorithms.get("abc") == ABC(5, 5) and algorithms.get("abc", weight_bases=3).weight_bases == 3
    assert not {"abc", "wrpn"} & set(BIBENCH) and {"abc", "wrpn"} <= set(algorithms.names())
    for option in ("weight_bases", "activation_bases"):
        with pytest.raises(BibenchError, match=option):
            algorithms.get("abc", **{option: 0})


def test_a_wide_layer_becomes_binary():
    """The converter crashes where it folds a large constant of rank 5, so the bases are made one by one."""
    image = layers.Input((5, 5, 128))
    with Converter() as converter:
        content = converter.convert(tf.keras.Model(image, ABC(3, 1).conv2d(128, 3)(image)))
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 3
