"""Bi-Real Net, ResNetE, ReActNet and BNext: published sizes, their layers against plain formulas, and conversion."""

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, complexity, zoo
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.algorithms.reactnet import ReActNet, ShiftedSign
from bibench_tf.deploy import flatbuffer, interpreters
from bibench_tf.errors import BibenchError
from bibench_tf.zoo import bnexts, reactnets, resnets

RNG = np.random.default_rng(7)
HEAD = 512 * 1000  # MACs of the last layer of a residual network
SMALL = {"input_shape": (32, 32, 3), "num_classes": 10, "width": 0.125}


cost = cache(complexity.count_network)


def binary_layers(model):
    return [layer for layer in model.layers if isinstance(layer, BinaryConv2D)]


def gradients(function, *values):
    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = function(*tensors)
    return y.numpy(), [gradient.numpy() for gradient in tape.gradient(y, tensors)]


# Larq's table of its models: one-bit MACs, other MACs, bytes.
@pytest.mark.parametrize(
    ("name", "macs_binary", "macs_float", "size_bytes"),
    [
        ("birealnet18", 1_676_279_808, 137_793_536, 4_189_344),
        ("resnet_e18", 1_676_279_808, 137_793_536, 4_189_856),
    ],
)
def test_counts_are_those_of_larq(name, macs_binary, macs_float, size_bytes):
    counted = cost(name)
    assert counted.macs_binary == macs_binary
    assert counted.macs_float == macs_float
    assert counted.bits == 8 * size_bytes


# The authors' table: size in MiB; operations are float MACs without the last layer and binary MACs / 64.
@pytest.mark.parametrize(
    ("name", "stem", "size", "operations"),
    [
        ("resnet_e18", "imagenet", "4.00", "1.63e+08"),
        ("resnet_e18", "grouped", "3.98", "1.14e+08"),
        ("resnet_e34", "imagenet", "5.23", "1.92e+08"),
        ("resnet_e34", "grouped", "5.21", "1.43e+08"),
    ],
)
def test_sizes_are_those_of_the_authors_of_resnet_e(name, stem, size, operations):
    counted = cost(name, stem=stem)
    assert f"{counted.bits / 8 / 2**20:.2f}" == size
    assert f"{counted.macs_float - HEAD + counted.macs_binary / 64:.2e}" == operations


def test_operations_of_birealnet18_are_published():
    counted = cost("birealnet18")
    assert f"{counted.macs_float - HEAD + counted.macs_binary / 64:.2e}" == "1.63e+08"


def test_birealnet34_by_hand():
    stages = [(56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)]  # size, channels, blocks
    macs_binary = macs_float = weights_binary = weights_float = 0
    before = 64
    for size, channels, blocks in stages:
        pixels = size * size
        for conv in range(2 * blocks):
            weights = 9 * channels * (before if conv == 0 else channels)
            macs_binary += pixels * weights
            weights_binary += weights
        weights_float += 2 * blocks * 2 * channels
        if channels != before:
            macs_float += pixels * before * channels
            weights_float += before * channels + 2 * channels
        before = channels
    macs_float += 112 * 112 * 49 * 3 * 64 + HEAD
    weights_float += 49 * 3 * 64 + 2 * 64 + HEAD + 1000
    counted = cost("birealnet34")
    assert (counted.macs_binary, counted.macs_float) == (macs_binary, macs_float)
    assert (counted.weights_binary, counted.weights_float) == (weights_binary, weights_float)
    assert counted.bits == weights_binary + 32 * weights_float


def test_reactnet_a_has_its_published_operations():
    counted = cost("reactnet_a")
    assert counted.macs_binary == 4_816_896_000
    assert counted.macs_float == 112 * 112 * 27 * 32 + 1024 * 1000
    assert f"{counted.macs_float + counted.macs_binary / 64:.2e}" == "8.71e+07"  # 0.87e8, the last layer included


@pytest.mark.parametrize(
    ("name", "groups", "macs_float"), [("reactnet_b", 4, "4.40e+07"), ("reactnet_c", 1, "1.40e+08")]
)
def test_reactnet_b_and_c_widen_in_full_precision(name, groups, macs_float):
    counted = cost(name)
    widening = [(112, 32), (56, 64), (28, 128), (14, 256), (7, 512)]  # output size, input channels
    macs = sum(size * size * 2 * channels * channels for size, channels in widening)
    assert counted.macs_binary == 4_816_896_000 - macs
    assert counted.macs_float == 11_862_016 + macs // groups
    assert f"{counted.macs_binary:.2e}" == "4.69e+09" and f"{counted.macs_float:.2e}" == macs_float


# The authors' table: operations in 1e9, and the share of binary ones, with 8 bits (here an eighth) for all others.
@pytest.mark.parametrize(
    ("name", "binary", "operations", "degree"),
    [
        ("bnext_t", "0.0753", 0.077, 97.81),
        pytest.param("bnext_s", "0.1693", 0.172, 98.47, marks=pytest.mark.slow),
        pytest.param("bnext_m", "0.3139", 0.317, 99.02, marks=pytest.mark.slow),
        pytest.param("bnext_l", "0.8149", 0.819, 99.49, marks=pytest.mark.slow),
    ],
)
def test_operations_of_bnext_are_published(name, binary, operations, degree):
    counted = cost(name)
    binary_operations = counted.macs_binary / 64 / 1e9
    assert f"{binary_operations:.4f}" == binary
    total = binary_operations + counted.macs_float / 8 / 1e9
    assert total == pytest.approx(operations, abs=1e-3)
    assert 100 * binary_operations / total == pytest.approx(degree, abs=0.1)


@pytest.mark.parametrize(
    ("name", "binary", "kept"),
    [
        ("birealnet18", 16, ["stem_conv", *(f"stage{s}_block1_1_shortcut_conv" for s in (2, 3, 4)), "head"]),
        ("resnet_e34", 32, ["stem_conv", *(f"stage{s}_block1_1_shortcut_conv" for s in (2, 3, 4)), "head"]),
        ("reactnet_a", 26, ["stem_conv", "head"]),
        ("reactnet_c", 21, ["stem_conv", *(f"block{b}_conv2" for b in (1, 2, 4, 6, 12)), "head"]),
    ],
)
def test_what_stays_in_full_precision(name, binary, kept):
    with complexity.without_memory():
        model = zoo.build(name, algorithm="paper", **SMALL)
    assert len(binary_layers(model)) == binary
    floats = [layer.name for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")]
    assert sorted(floats) == sorted(kept)


def test_what_stays_in_full_precision_in_bnext():
    with complexity.without_memory():
        model = zoo.bnext_t(**SMALL)
    kept = [layer.name for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")]
    gates = [name for name in kept if name.endswith(("_gate_reduce", "_gate_expand"))]
    assert len(gates) == 2 * 31 and set(kept) - set(gates) == {"stem_conv", "head"}
    # Every second block attends: 3, 5, ... do not.
    attentions = [layer.name for layer in model.layers if layer.name.endswith("_attended")]
    assert sorted(attentions) == sorted(f"block{number}_spatial_attended" for number in range(2, 14, 2))
    for layer in binary_layers(model):
        assert layer.input_quantizer.clip_value == layer.kernel_quantizer.clip_value == 1.5


@pytest.mark.parametrize("key", algorithms.names())
def test_every_algorithm_has_the_same_layers(key, monkeypatch):
    monkeypatch.setattr(reactnets, "MULTIPLES", (2, 4))
    model = zoo.reactnet_a(key, **SMALL)
    assert model(np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 10)
    assert [layer.name for layer in model.layers] == [layer.name for layer in zoo.reactnet_a(**SMALL).layers]


@pytest.mark.parametrize("name", ["birealnet18", "resnet_e18", "bnext_t"])
def test_full_precision_has_the_same_layers(name):
    with complexity.without_memory():
        plain = zoo.build(name, algorithm="full_precision", **SMALL)
    with complexity.without_memory():
        binary = zoo.build(name, algorithm="xnor", **SMALL)
    assert not binary_layers(plain)
    assert [layer.name for layer in binary.layers] == [layer.name for layer in plain.layers]


@pytest.mark.parametrize(("name", "size"), [("birealnet18", 33), ("resnet_e18", 33), ("reactnet_a", 17)])
def test_odd_sizes_and_grey_images(name, size):
    model = zoo.build(name, algorithm="paper", input_shape=(size, size + 2, 1), num_classes=3, width=0.125)
    assert np.isfinite(model(RNG.normal(size=(2, size, size + 2, 1)).astype(np.float32))).all()


def test_errors_are_sentences():
    with pytest.raises(BibenchError, match="at least 32 x 32"):
        zoo.build("reactnet_a", algorithm="paper", input_shape=(16, 16, 3), stem="imagenet")
    with pytest.raises(BibenchError, match="stem is one of"):
        zoo.build("bnext_t", algorithm="paper", stem="grouped")
    with pytest.raises(BibenchError, match="clip_value must be a positive number"):
        ReActNet(clip_value=0)


def test_birealnet_has_no_relu_before_its_pool_and_halves_shortcuts_by_their_average():
    model = zoo.birealnet18(input_shape=(96, 96, 3), num_classes=10, width=0.125)
    assert model.get_layer("stem_activation").activation is tf.keras.activations.linear
    pool = model.get_layer("stage2_block1_1_shortcut_pool")
    assert isinstance(pool, tf.keras.layers.AveragePooling2D) and pool.pool_size == pool.strides == (2, 2)
    assert model.get_layer("stage2_block1_1_shortcut_conv").strides == (1, 1)


def test_reactnet_shortcuts_pass_the_signal_around_binary_convolutions(monkeypatch):
    """With branches at zero and RPReLU as the identity, the network is its stem, pooled and repeated."""
    monkeypatch.setattr(reactnets, "MULTIPLES", (2, 4, 4))
    model = zoo.reactnet_a(input_shape=(8, 8, 3), num_classes=2, width=0.125)
    for layer in model.layers:
        if isinstance(layer, reactnets.RPReLU):
            layer.slope.assign(tf.ones_like(layer.slope))
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.name.startswith("block"):
            layer.gamma.assign(tf.zeros_like(layer.gamma))
    images = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
    inner = tf.keras.Model(
        model.input, [model.get_layer("stem_bn").output, model.get_layer("block3_activation2").output]
    )
    stem, last = inner(images)
    pooled = stem.numpy().reshape(2, 4, 2, 4, 2, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(last, np.concatenate([pooled] * 4, axis=-1), atol=1e-6)


def test_rprelu_is_its_formula():
    x, g, z = RNG.normal(size=(4, 5, 6, 3)).astype(np.float32), np.float32([0.3, -0.2, 0]), np.float32([1, -2, 0.5])
    b = np.float32([0.25, -0.5, 2]).reshape(1, 1, 3)
    layer = reactnets.RPReLU()
    layer.build(x.shape)
    np.testing.assert_array_equal([w.numpy().ravel() for w in layer.weights], [[0] * 3, [0.25] * 3, [0] * 3])
    layer.set_weights([g, b, z])
    dy = RNG.normal(size=x.shape).astype(np.float32)
    image = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(image)
        y = layer(image)
        loss = tf.reduce_sum(dy * y)
    dx, dg, db, dz = tape.gradient(loss, [image, layer.input_shift, layer.slope, layer.output_shift])
    above = x > g
    np.testing.assert_allclose(y, np.where(above, x - g, b * (x - g)) + z, rtol=1e-5, atol=1e-6)
    slope = np.where(above, 1, b)
    np.testing.assert_allclose(dx, slope * dy, rtol=1e-5)
    np.testing.assert_allclose(dg, -(slope * dy).sum((0, 1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(db[0, 0], (np.where(above, 0, x - g) * dy).sum((0, 1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dz, dy.sum((0, 1, 2)), rtol=1e-4, atol=1e-4)


def test_mix_is_its_formula_and_stays_in_the_unit_interval():
    a, b, dy = RNG.normal(size=(3, 2, 4, 4, 3)).astype(np.float32)
    layer = bnexts.Mix()
    layer.build([a.shape, b.shape])
    np.testing.assert_array_equal(layer.scale, [0.5] * 3)
    s = np.float32([0, 0.3, 1])
    layer.scale.assign(s)
    y, (da, db) = gradients(lambda a, b: layer([a, b]) * dy, a, b)
    np.testing.assert_allclose(y, (s * a + (1 - s) * b) * dy, atol=1e-6)
    np.testing.assert_allclose(da, s * dy, atol=1e-6)
    np.testing.assert_allclose(db, (1 - s) * dy, atol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer([tf.constant(a), tf.constant(b)]) * dy)
    gradient = tape.gradient(loss, layer.scale)
    np.testing.assert_allclose(gradient, ((a - b) * dy).sum((0, 1, 2)), rtol=1e-4, atol=1e-4)
    tf.keras.optimizers.SGD(1.0).apply_gradients([(tf.constant([5.0, 0.1, -5.0]), layer.scale)])
    np.testing.assert_allclose(layer.scale, [0, 0.2, 1], atol=1e-6)


def test_the_hard_sign_of_bnext():
    quantizer = bnexts.HARD_SIGN.input_quantizer()
    quantizer.build((None, 1))
    quantizer.input_shift.assign([0.25])
    x = np.float32([-1.76, -1.74, -0.26, -0.25, 0, 1.24, 1.26]).reshape(-1, 1)
    y, (dx,) = gradients(quantizer, x)
    np.testing.assert_array_equal(y[:, 0], [-1, -1, -1, 1, 1, 1, 1])
    np.testing.assert_array_equal(dx[:, 0], [0, 1, 1, 1, 1, 1, 0])
    assert ShiftedSign.from_config(quantizer.get_config()).clip_value == 1.5
    layer = bnexts.HARD_SIGN.conv2d(2, 1)
    layer.build((None, 4, 4, 2))
    np.testing.assert_allclose(layer.kernel_constraint(tf.constant([-2.0, 1.4, 1.6])), [-1.5, 1.4, 1.5])
    assert set(np.unique(layer.kernel_quantizer(layer.kernel.numpy()))) <= {-1, 1}  # no scale
    assert algorithms.get("reactnet") == ReActNet() != bnexts.HARD_SIGN


def shaken(model):
    """Every weight that starts at a special value gets one that would show a mistake."""
    rng = np.random.default_rng(3)
    for layer in model.layers:
        for weight in layer.weights:
            role = weight.name.split("/")[-1].split(":")[0]
            if role in ("gamma", "moving_variance", "scale", "slope", "alpha"):
                weight.assign(rng.uniform(0.3, 1.0, weight.shape))
            elif role in ("beta", "moving_mean", "bias", "input_shift", "output_shift"):
                weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def assert_same_when_converted(model, converter, binary):
    content = converter.convert(model)
    operators = flatbuffer.operators(content)
    assert operators[flatbuffer.BINARY_CONVOLUTION] == binary
    assert operators["CONV_2D"] == 1  # the stem
    images = RNG.normal(size=(30, *model.input_shape[1:])).astype(np.float32)
    expected, given = model.predict(images, verbose=0), interpreters.predict(content, images)
    # A value that rounding moves across zero flips a sign, and with it one image: the median image decides.
    difference = np.abs(expected - given).max(axis=1) / np.ptp(expected)
    assert np.median(difference) < 1e-5
    assert np.mean(difference < 1e-3) >= 0.9


def test_rprelu_behind_binary_convolutions_is_converted(converter, monkeypatch):
    monkeypatch.setattr(reactnets, "MULTIPLES", (2, 4))
    model = shaken(zoo.reactnet_a(input_shape=(12, 10, 3), num_classes=5, width=0.5))
    assert_same_when_converted(model, converter, 4)


def test_gates_mixes_and_attention_are_converted(converter):
    model = bnexts.bnext("bnext", 32, (1, 1), bnexts.HARD_SIGN, (12, 10, 3), 5, 0.5)
    assert_same_when_converted(shaken(model), converter, 6)


def test_average_pooled_shortcuts_are_converted(converter):
    image = tf.keras.Input((12, 10, 3), name="image")
    blocks = resnets.ResidualBlocks(algorithms.get("bireal"), shortcut="conv", pooled_shortcut=True)
    x = blocks.stages(blocks.stem(image, "cifar", 16), (1, 1), (16, 32))
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    model = shaken(tf.keras.Model(image, x))
    content = converter.convert(model)
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 4
    images = RNG.normal(size=(30, 12, 10, 3)).astype(np.float32)
    difference = np.abs(model.predict(images, verbose=0) - interpreters.predict(content, images)).max(axis=1)
    assert np.median(difference) < 1e-5


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_with_layers_of_the_zoo_are_read_by_a_new_process(tmp_path, suffix):
    model = shaken(bnexts.bnext("bnext", 8, (1, 1), bnexts.HARD_SIGN, (8, 8, 3), 5))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    images = RNG.normal(size=(3, 8, 8, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; from bibench_tf import model_files; import numpy as np; folder = sys.argv[1]\n"
        "model = model_files.load(sys.argv[2])\n"
        "np.save(folder + '/outputs.npy', model.predict(np.load(folder + '/images.npy'), verbose=0))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), model.predict(images, verbose=0))
