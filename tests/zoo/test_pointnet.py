"""PointNets: their counts, that the order of points means nothing, that they learn, are saved, and become binary."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import complexity, datasets, zoo
from bibench_tf.complexity.counting import without_memory
from bibench_tf.deploy import flatbuffer, interpreters
from bibench_tf.errors import BibenchError
from bibench_tf.names import BIBENCH
from bibench_tf.zoo.point_layers import EntropyMaximizingMax, PointTransform, offset_of

KEYS = ("full_precision", *BIBENCH)
# Without the head, from BiBench's code: in full precision and with BNN. How many layers are binary, at any width.
BIBENCH = {"pointnet": (3_461_577, 3_458_057), "pointnet_vanilla": (800_960, 799_808)}
BINARY_LAYERS = {"pointnet": 15, "pointnet_vanilla": 4, "pointnet_segmentation": 18, "pointnet_vanilla_segmentation": 7}
OF_PARTS = ("pointnet_segmentation", "pointnet_vanilla_segmentation")
# Tried in every run of the tests: without and with factors behind the layer, and with factors of its inputs.
QUICK = (
    ("pointnet_vanilla", "full_precision"),
    ("pointnet_vanilla", "xnor"),
    ("pointnet_vanilla", "xnorpp"),
    ("pointnet", "bnn"),
    ("pointnet_segmentation", "reactnet"),
)
# Behind the last transform of a cloud. What changes in a binary T-Net or before it turns the whole cloud at every step,
# and the loss goes up and down; in the few steps of a test only these are learnt, but all have gradients.
BEHIND = {
    "pointnet": ("conv2", "conv3", "fc", "head"),
    "pointnet_vanilla": ("",),
    "pointnet_segmentation": ("conv4", "conv5", "point_fc", "head"),
    "pointnet_vanilla_segmentation": ("",),
}
POINTS = 64
CLASSES, PARTS = 10, 27


def small(name, algorithm, **options):
    tf.keras.utils.set_random_seed(5)
    outputs = {"num_categories": CLASSES, "num_parts": PARTS}
    outputs = outputs if name in OF_PARTS else {"num_classes": CLASSES}
    return zoo.build(name, algorithm, **{"input_shape": (POINTS, 6), "width": 0.25, **outputs, **options})


def trainable(layers):
    return sum(int(np.prod(weight.shape)) for layer in layers for weight in layer.trainable_weights)


@pytest.fixture(scope="module")
def batch():
    """The first points of clouds of the data set, their classes, their categories as a one-hot vector, their parts."""
    clouds, classes = next(iter(datasets.get("shapes_mini").test_batches(32).as_numpy_iterator()))
    inputs, parts = next(iter(datasets.get("shapes_mini_parts").test_batches(32).as_numpy_iterator()))
    np.testing.assert_array_equal(clouds, inputs["points"])
    return clouds[:, :POINTS], classes, inputs["category"], parts[:, :POINTS]


def given(name, batch, count=32):
    """The inputs and the labels of a network."""
    points, classes, categories, parts = (array[:count] for array in batch)
    if name in OF_PARTS:
        return {"points": points, "category": categories}, parts
    return points, classes


@pytest.mark.parametrize("name", BIBENCH)
@pytest.mark.parametrize("key", ["full_precision", "bnn"])
def test_parameters_are_those_of_the_reference(name, key, binary_layers):
    with without_memory():
        model = zoo.build(name, key)
        head = model.get_layer("head")
        assert trainable(layer for layer in model.layers if layer is not head) == BIBENCH[name][key == "bnn"]
        assert trainable([head]) == 256 * 40 + 40
        assert len(binary_layers(model)) == (BINARY_LAYERS[name] if key == "bnn" else 0)


def test_parameters_of_the_segmentation(binary_layers):
    """Kernels, biases (`b`: of layers of points that do not see the input), two numbers for each of a batch norm."""

    def t_net(channels, size, b):
        points = channels * 64 + 64 * 128 + 128 * 1024 + b * (128 + 1024)
        cloud = 1024 * 512 + 512 * 256 + 256 * size**2 + 512 + 256 + size**2
        return points + cloud + 2 * (64 + 128 + 1024 + 512 + 256)

    def expected(b):
        encoder = 6 * 64 + 64 * 128 + 128 * 128 + 128 * 512 + 512 * 2048
        encoder += 64 + b * (128 + 128 + 512 + 2048) + 2 * (64 + 128 + 128 + 512 + 2048)
        parts = 3024 * 256 + 256 * 256 + 256 * 128 + (b + 2) * (256 + 256 + 128) + 128 * 50 + 50
        vanilla = encoder + parts - 128 * 256
        return t_net(6, 3, b) + 64 + t_net(128, 128, b) + b * 64 + encoder + parts, vanilla

    for key, b, published in (
        ("full_precision", 1, (7_851_259, 1_995_762)),
        ("bnn", 0, (7_845_435, 1_992_306)),
    ):
        with without_memory():
            model = zoo.pointnet_segmentation(key)
            vanilla = zoo.pointnet_vanilla_segmentation(key)
            assert (trainable(model.layers), trainable(vanilla.layers)) == expected(b) == published
            assert len(binary_layers(vanilla)) == (7 if key == "bnn" else 0)
            assert model.get_layer("features").output_shape == (None, 2048, 3024)
            assert len(binary_layers(model)) == (18 if key == "bnn" else 0)


def test_multiply_accumulates():
    """Of layers of points once for each point; a transform is a product of k x k for each point, in floats."""
    points = 1024
    of_points = 64 * 128 + 128 * 1024
    of_clouds = 1024 * 512 + 512 * 256
    vanilla = complexity.count_network("pointnet_vanilla", "bnn")
    assert vanilla.macs_binary == points * of_points + of_clouds
    assert vanilla.macs - vanilla.macs_binary == points * 6 * 64 + 256 * 40
    with_transforms = complexity.count_network("pointnet", "bnn")
    t_nets = 2 * (points * of_points + of_clouds) + points * 64 * 64 + 256 * (9 + 64 * 64)
    assert with_transforms.macs_binary == vanilla.macs_binary + t_nets
    assert with_transforms.macs - with_transforms.macs_binary == (
        2 * points * 6 * 64 + 256 * 40 + points * (3 * 3 + 64 * 64)
    )
    assert complexity.count_network("pointnet", "full_precision").macs == with_transforms.macs


@pytest.mark.parametrize(
    ("name", "key"),
    [
        pytest.param(name, key, marks=() if key == "bnn" or (name, key) in QUICK else pytest.mark.pairs)
        for name in BINARY_LAYERS
        for key in KEYS
    ],
)
def test_it_learns_and_is_saved(name, key, batch, binary_layers, take_steps, assert_saved):
    inputs, labels = given(name, batch)
    model = small(name, key)
    assert model.output_shape == ((None, POINTS, PARTS) if name in OF_PARTS else (None, CLASSES))
    assert len(binary_layers(model)) == (0 if key == "full_precision" else BINARY_LAYERS[name])
    losses, _ = take_steps(model, inputs, labels, steps=10, rate=5e-3, of=BEHIND[name])
    assert min(losses[-3:]) < 0.8 * losses[0], losses
    assert_saved(model, inputs)


@pytest.mark.parametrize("key", ["full_precision", "bnn"])
def test_every_layer_is_learnt(key, batch):
    """The gradient reaches every kernel, those of the T-Nets too; not all of them behind a maximum, see `pool`."""
    inputs, labels = given("pointnet_segmentation", batch)
    model = small("pointnet_segmentation", key, pool="mean")
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=True))
    kernels = [weight for weight in model.trainable_weights if "kernel" in weight.name]
    assert len(kernels) == 18 + 3
    for kernel, gradient in zip(kernels, tape.gradient(loss, kernels), strict=True):
        assert np.abs(gradient.numpy()).max() > 0, kernel.name


@pytest.mark.parametrize("key", KEYS)
def test_the_order_of_points_means_nothing(key, batch, after_a_training):
    order = np.random.default_rng(1).permutation(POINTS)
    model = after_a_training(small("pointnet", key))
    points = batch[0][:4]
    outputs = model(points).numpy()
    np.testing.assert_allclose(model(points[:, order]).numpy(), outputs, rtol=1e-4, atol=1e-4)
    assert np.ptp(outputs, axis=0).min() > 0.01


@pytest.mark.parametrize("key", ["full_precision", "bnn"])
def test_parts_stay_with_their_points_and_depend_on_the_category(key, batch, after_a_training):
    order = np.random.default_rng(1).permutation(POINTS)
    inputs, _ = given("pointnet_segmentation", batch, 4)
    model = after_a_training(small("pointnet_segmentation", key))
    outputs = model(inputs).numpy()
    moved = model({**inputs, "points": inputs["points"][:, order]}).numpy()
    np.testing.assert_allclose(moved, outputs[:, order], rtol=1e-4, atol=1e-4)
    other = model({**inputs, "category": inputs["category"][:, ::-1]}).numpy()
    assert np.abs(other - outputs).max() > 0.01


def test_a_transform_multiplies_the_first_channels():
    random = np.random.default_rng(2)
    points, matrices = random.normal(size=(2, 5, 6)), random.normal(size=(2, 3, 3))
    layer = PointTransform(dtype="float64")
    outputs = layer([points, matrices.reshape(2, 9)]).numpy()
    for cloud in range(2):
        np.testing.assert_allclose(outputs[cloud, :, :3], points[cloud, :, :3] @ (matrices[cloud] + np.eye(3)))
    np.testing.assert_array_equal(outputs[:, :, 3:], points[:, :, 3:])
    np.testing.assert_array_equal(PointTransform(dtype="float64")([points, np.zeros((2, 36))]).numpy(), points)
    for entries in (8, 49):
        with pytest.raises(BibenchError, match="square"):
            PointTransform()([points, np.zeros((2, entries))])


def test_ema_max_is_positive_for_half_of_the_clouds():
    """Of normally distributed points, where the plain maximum is always positive."""
    noise = np.random.default_rng(4).normal(size=(300, 1024, 4)).astype(np.float32)
    pooled = EntropyMaximizingMax()(noise).numpy()
    np.testing.assert_allclose(pooled, noise.max(axis=1) - 3.2041, rtol=1e-6)
    assert abs((pooled > 0).mean() - 0.5) < 0.05
    positive = EntropyMaximizingMax()(noise[:, :256]).numpy() > 0  # BiBench has no number for so many
    assert abs(positive.mean() - 0.5) < 0.05
    assert [offset_of(points) for points in (1024, 2048, 4096)] == [3.2041, 3.4025, 3.5836]


@pytest.mark.parametrize("key", ["full_precision", "bnn"])
def test_pools(key, batch):
    for pool in ("max", "mean", "ema-max", "auto"):
        model = small("pointnet_vanilla", key, pool=pool)
        pooled = tf.keras.Model(model.input, [model.get_layer("conv3_bn").output, model.get_layer("pool").output])
        features, values = (output.numpy() for output in pooled(batch[0]))
        expected = {"max": features.max(1), "mean": features.mean(1), "ema-max": features.max(1) - offset_of(POINTS)}
        expected["auto"] = expected["max" if key == "full_precision" else "ema-max"]
        np.testing.assert_allclose(values, expected[pool], atol=1e-5)


def test_options_are_checked():
    with pytest.raises(BibenchError, match="pool is one of"):
        zoo.pointnet(pool="min")
    for shape, words in (((1024, 2), "3 channels"), ((None, 6), "input_shape"), ((32, 32, 3), "3 channels")):
        with pytest.raises(BibenchError, match=words):
            zoo.pointnet_vanilla(input_shape=shape)
    with pytest.raises(BibenchError, match="two classes"):
        zoo.pointnet_segmentation(num_parts=1)


def converted(name, key):
    return pytest.param(name, key, marks=() if (name, key) in QUICK else pytest.mark.pairs)


# The layers of the other networks are those of the simplest, which is converted with every algorithm.
@pytest.mark.parametrize(
    ("name", "key"),
    [
        converted(name, key)
        for name in BINARY_LAYERS
        for key in (KEYS if name == "pointnet_vanilla" else ("full_precision", "bnn", "xnorpp", "reactnet"))
    ],
)
def test_it_becomes_binary(name, key, batch, converter, after_a_training):
    inputs, _ = given(name, batch, 8)
    model = after_a_training(small(name, key))
    file = converter.convert(model)
    assert flatbuffer.operators(file)["LceBconv2d"] == (0 if key == "full_precision" else BINARY_LAYERS[name])
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(interpreters.predict(file, inputs), expected, atol=2e-3 * np.abs(expected).max())
