"""Every algorithm becomes binary, layer by layer, and the file computes what Keras does.

Two proofs. The single layers have weights as they come, and nothing but a rounding error may differ. Through a whole
network that cannot be asked: the file adds the same numbers in another order, and where a value lies within rounding of
zero its sign may differ. So the networks here have parameters for which float32 makes no rounding error at all, and
every difference, of a single bit in a single image, would be a mistake of the conversion.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, zoo
from bibench_tf.datasets import fashion_mini
from bibench_tf.deploy import audits, conversion, flatbuffer, interpreters
from bibench_tf.deploy.conversion import Converter
from bibench_tf.names import BIBENCH
from bibench_tf.zoo.parts import BATCH_NORM

layers = tf.keras.layers
IMAGES = 200
VARIANTS = {
    **{name: lambda name=name: algorithms.get(name) for name in BIBENCH},
    "xnor-spatial": lambda: algorithms.get("xnor", input_scale="spatial"),
    "dorefa-layer": lambda: algorithms.get("dorefa", weight_scale="layer"),
}
# The layers of the model below, and how many binary operations each is.
CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "strided": {"kernel_size": 3, "strides": 2},
    "even_size": {"kernel_size": 2, "strides": 2, "padding": "valid"},
    "dilated": {"kernel_size": 3, "dilation_rate": 2},
    "pointwise": {"kernel_size": 1, "use_bias": True},
    "padded_by_one": {"kernel_size": 3, "padding": 1},
    "grouped": {"kernel_size": 3, "groups": 3, "use_bias": True},
}
SEQUENCES = {
    "rows": {"kernel_size": 3},
    "rows_strided": {"kernel_size": 5, "strides": 2, "use_bias": True},
    "rows_dilated": {"kernel_size": 3, "dilation_rate": 2, "padding": "valid"},
    "rows_grouped": {"kernel_size": 3, "groups": 3},
}


@pytest.fixture(scope="module")
def converter():
    with Converter() as converter:
        yield converter


def weight_name(weight):
    return weight.name.split("/")[-1].split(":")[0]


def every_kind_of_layer(algorithm):
    """Each layer on its own between the input and an output, with no weight at a value that would hide a mistake."""
    tf.keras.utils.set_random_seed(11)
    image, sequence = layers.Input((9, 10, 48), name="image"), layers.Input((20, 48), name="sequence")
    outputs = [algorithm.conv2d(24, name=name, **options)(image) for name, options in CONVOLUTIONS.items()]
    outputs += [algorithm.conv1d(24, name=name, **options)(sequence) for name, options in SEQUENCES.items()]
    outputs.append(algorithm.dense(7, name="dense")(layers.GlobalMaxPooling2D()(image)))
    outputs.append(algorithm.dense(7, name="dense_of_rows")(sequence))
    model = tf.keras.Model([image, sequence], outputs)
    rng = np.random.default_rng(5)
    for layer in model.layers:
        for weight in layer.weights:
            name = weight_name(weight)
            if name.endswith("_scale"):
                weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape))
            elif name in ("bias", "input_shift"):
                weight.assign(rng.normal(0, 0.3, weight.shape))
            elif name == "kernel":
                # One filter is dead: all its weights are zero.
                weight.assign(weight * np.r_[0, np.ones(weight.shape[-1] - 1)])
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_layer_is_a_binary_operation(converter, variant):
    model = every_kind_of_layer(VARIANTS[variant]())
    content = converter.convert(model)
    result = audits.audit(content, model)
    operations = {layer.name: tuple(set(layer.operations)) for layer in result.layers}
    counts = {layer.name: layer.operations.count(flatbuffer.BINARY_CONVOLUTION) for layer in result.layers}
    names = [*CONVOLUTIONS, *SEQUENCES, "dense", "dense_of_rows"]
    assert counts == {name: 3 if "grouped" in name else 1 for name in names}
    if variant != "xnor-spatial":  # whose scale map is a small convolution of floats
        assert set(operations.values()) == {(flatbuffer.BINARY_CONVOLUTION,)}
    assert result.fallbacks == ()

    rng = np.random.default_rng(6)
    run = conversion.runner(content, model)
    for _ in range(5):
        inputs = [rng.normal(size=(1, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
        for name, expected, given in zip(names, model(inputs), run(inputs), strict=True):
            scale = np.ptp(expected)
            np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * scale, err_msg=f"{variant}: {name}")


def test_the_noise_of_fda_is_in_training_only(converter):
    model = every_kind_of_layer(algorithms.get("fda"))
    operations = flatbuffer.operators(converter.convert(model))
    assert "FULLY_CONNECTED" not in operations and "BATCH_MATMUL" not in operations
    inputs = [np.ones((1, *tensor.shape[1:]), np.float32) for tensor in model.inputs]
    noisy, still = model(inputs, training=True)[0], model(inputs, training=False)[0]
    assert np.abs(noisy - still).max() > 0


def images() -> np.ndarray:
    """Real images (N, 32, 32, 1), padded from 28 x 28, as multiples of 1/64."""
    test = fashion_mini.load().test_images[:IMAGES]
    return np.pad((test.astype(np.float32) - 128) / 64, ((0, 0), (2, 2), (2, 2), (0, 0)))


# Two float32 that add up to 1: the square root in a batch norm is then exact.
EPSILON = np.float32(BATCH_NORM["epsilon"])
VARIANCE = np.float32(1) - EPSILON
assert np.float32(VARIANCE + EPSILON) == 1


def without_rounding(network: str, algorithm: str, width: float, pixels: np.ndarray) -> tf.keras.Model:
    """A network whose numbers all fit into float32, whatever the order of operations.

    Kernels, scales, and the slopes of batch norms are powers of two with random signs, one for each channel; shifts and
    means are multiples of one. XNOR-Net multiplies by mean |x|, whose bits would add up from layer to layer: its
    batch norms have slopes so steep that the Hardtanh gives -1, 0 or 1 after them, and the mean is a count.
    """
    tf.keras.utils.set_random_seed(11)
    model = zoo.build(network, algorithm=algorithm, input_shape=(32, 32, 1), num_classes=10, width=width)
    rng, steep = np.random.default_rng(3), algorithm == "xnor"

    def powers(shape, low, high):
        return np.exp2(rng.integers(low, high + 1, shape))

    def signed(values):
        return values * rng.choice([-1.0, 1.0], np.shape(values))

    for layer in model.layers:
        stem, shortcut, head = "stem" in layer.name, "shortcut" in layer.name, layer.name == "head"
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            low = 0 if stem else -2 if shortcut else 13 if steep else -3
            layer.gamma.assign(signed(powers(size, low, low + 1)))
            layer.beta.assign(rng.integers(-8, 9, size) / (2 if steep else 8))
            layer.moving_mean.assign(rng.integers(-8, 9, size) / (4096 if steep else 4))
            layer.moving_variance.assign(np.full(size, VARIANCE))
        for weight in layer.weights:
            name = weight_name(weight)
            if name.endswith("_scale"):
                weight.assign(powers(weight.shape, -1, 1))
            elif name == "input_shift":
                weight.assign(rng.integers(-4, 5, weight.shape) / 4)
            elif name == "kernel":
                size = 0.5 if stem else 1.0 if shortcut or head else powers(weight.shape[-1:], -3, -2)
                weight.assign(signed(np.ones(weight.shape)) * size)
    # Every class is the answer for some images.
    head = model.get_layer("head")
    head.bias.assign(-np.round(model.predict(pixels, verbose=0).mean(axis=0) * 64) / 64)
    return model


NETWORKS = {"resnet20": 1.0, "vgg_small": 0.125, "resnet18": 0.25, "resnet34": 0.25}
LAYERS = {"resnet20": 18, "vgg_small": 5, "resnet18": 16, "resnet34": 32}


def assert_not_trivial(logits):
    assert len(np.unique(logits, axis=0)) == len(logits)
    assert len(np.unique(logits.argmax(axis=1))) >= 8


# ResNet-34 is more of the same layers: with a scale behind them, and with shifts, that is enough.
PAIRS = [
    pytest.param(
        algorithm, network, marks=() if network == "resnet20" or algorithm == "reactnet" else pytest.mark.pairs
    )
    for network in NETWORKS
    for algorithm in (BIBENCH if network != "resnet34" else ("xnorpp", "reactnet"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "network"), PAIRS)
def test_a_network_is_the_same_to_the_last_bit(converter, algorithm, network):
    pixels = images()
    model = without_rounding(network, algorithm, NETWORKS[network], pixels)
    content = converter.convert(model)
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == LAYERS[network]
    expected = model.predict(pixels, verbose=0)
    assert_not_trivial(expected)
    np.testing.assert_array_equal(interpreters.predict(content, pixels), expected)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "vgg_small"])
def test_plain_tensorflow_lite_agrees_to_the_last_bit(converter, network):
    pixels = images()
    model = without_rounding(network, "reactnet", NETWORKS[network], pixels)
    binary, floats = converter.convert(model, "lce"), converter.convert(model, "tflite")
    assert flatbuffer.operators(floats)[flatbuffer.BINARY_CONVOLUTION] == 0
    np.testing.assert_array_equal(
        interpreters.predict(binary, pixels, "lce"), interpreters.predict(floats, pixels, "tflite")
    )


@pytest.mark.slow
def test_deep_float_parts_with_weights_as_they_come(converter):
    """The float operations alone, which both converters treat differently: a full-precision ResNet-34."""
    tf.keras.utils.set_random_seed(11)
    model = zoo.build("resnet34", algorithm="full_precision", input_shape=(32, 32, 1), num_classes=10, width=0.25)
    rng, pixels = np.random.default_rng(3), images()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.3, 0.8, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.beta.shape))
    expected = model.predict(pixels, verbose=0)
    for runtime in ("lce", "tflite"):
        given = interpreters.predict(converter.convert(model, runtime), pixels, runtime)
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * np.ptp(expected))
        np.testing.assert_array_equal(given.argmax(axis=1), expected.argmax(axis=1))
