"""Every network of the zoo for images, small, as its paper has it: it learns, is saved, and becomes binary in LCE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from bibench_tf import complexity, datasets, zoo
from bibench_tf.deploy import flatbuffer
from bibench_tf.names import PAPER
from bibench_tf.networks import NETWORKS

# A small form of each network: its options, and how many binary operations the converted file has.
# Networks without a binarization of their own are tried with BNN.
SMALL = {
    "abc_net": ({"width": 0.125, "weight_bases": 2, "activation_bases": 2}, 64),  # 16 convolutions, four times
    # A convolution of float inputs, then conv2 to conv5 and three fully connected layers.
    "binary_alexnet": ({"width": 0.125, "input_shape": (64, 64, 3)}, 7),
    # One binary convolution for each block: 6 + 6 + 6 + 5, and so on.
    "binary_densenet28": ({"width": 0.125}, 23),
    "binary_densenet37": ({"width": 0.125}, 32),
    "binary_densenet37_dilated": ({"width": 0.125}, 32),
    "binary_densenet45": ({"width": 0.125}, 40),
    # One for each convolution of 3x3: 2 x (2 + 2 + 2 + 2) and 2 x (3 + 4 + 6 + 3).
    "birealnet18": ({"width": 0.125}, 16),
    "birealnet34": ({"width": 0.125}, 32),
    # Two for each block, three for each of the five that double the channels: 2 x 13 + 5, and so on.
    "bnext_l": ({"width": 0.125, "input_shape": (48, 48, 3)}, 63),
    "bnext_m": ({"width": 0.125, "input_shape": (48, 48, 3)}, 47),
    "bnext_s": ({"width": 0.125, "input_shape": (48, 48, 3)}, 31),
    "bnext_t": ({"width": 0.125, "input_shape": (48, 48, 3)}, 31),
    "dorefanet": ({"width": 0.125, "input_shape": (64, 64, 3)}, 0),  # two-bit activations
    # 16 and 32 convolutions in each branch, and the shortcuts of three stages for each branch.
    "group_net18": ({"width": 0.125, "branches": 2}, 38),
    "group_net34": ({"width": 0.125, "branches": 2}, 70),
    # Two for each block: 2 x (4 + 5 + 4 + 4), and so on.
    "meliusnet22": ({"width": 0.125}, 34),
    "meliusnet23": ({"width": 0.125}, 36),
    "meliusnet29": ({"width": 0.125}, 48),
    "meliusnet42": ({"width": 0.125}, 74),
    "meliusnet59": ({"width": 0.125}, 108),
    "meliusnet_a": ({"width": 0.125}, 40),
    "meliusnet_b": ({"width": 0.125}, 48),
    "meliusnet_c": ({"width": 0.125}, 48),
    "mobilenet_v1": ({"width": 0.25}, 13),
    "quicknet": ({"width": 0.125}, 16),
    "quicknet_large": ({"width": 0.125}, 32),
    "quicknet_small": ({"width": 0.125}, 16),
    # Two for each of 13 blocks; in B and C the five 1x1 convolutions that double the channels are not binary.
    "reactnet_a": ({"width": 0.125, "input_shape": (48, 48, 3)}, 26),
    "reactnet_b": ({"width": 0.125, "input_shape": (48, 48, 3)}, 21),
    "reactnet_c": ({"width": 0.125, "input_shape": (48, 48, 3)}, 21),
    "real_to_binary": ({"width": 0.125}, 16),
    "xnornet": ({"width": 0.125, "input_shape": (64, 64, 3)}, 6),  # conv2 to conv7
    "resnet18": ({"width": 0.25}, 16),
    "resnet18_auto_a": ({"width": 0.0625}, 19),  # shortcuts are binary, too
    "resnet18_auto_b": ({"width": 0.0625}, 19),
    "resnet20": ({"width": 0.5}, 18),
    "resnet34": ({"width": 0.125}, 32),
    "resnet_e18": ({"width": 0.125}, 16),
    "resnet_e34": ({"width": 0.125}, 32),
    "wrpn": ({"width": 0.125, "depth": 18}, 16),
    "vgg_small": ({"width": 0.25}, 5),
}
# Deeper or wider forms of a network that is tried anyway: they make one step, and are neither saved nor converted
# here. The last test looks at how they were converted at full size.
DEEP = (
    "binary_densenet37",
    "binary_densenet45",
    "bnext_l",
    "bnext_m",
    "bnext_s",
    "group_net34",
    "meliusnet23",
    "meliusnet29",
    "meliusnet42",
    "meliusnet59",
    "meliusnet_b",
    "meliusnet_c",
    "reactnet_c",
)
# Other forms of a network that is tried anyway: all of it, but for `make test-pairs` only.
SIBLINGS = ("birealnet34", "quicknet", "quicknet_large", "reactnet_b", "resnet18_auto_b", "resnet34", "resnet_e34")


def marked(names):
    return [pytest.param(name, marks=pytest.mark.pairs) if name in (*DEEP, *SIBLINGS) else name for name in names]


# Their small forms have fewer branches, bases or layers than the default.
FEWER = ("abc_net", "group_net18", "group_net34", "wrpn")
BATCH = 16
CONVERTED = Path(__file__).resolve().parents[2] / "docs/results/zoo_files.csv"
SHARED = Path(__file__).resolve().parents[3] / "shared"


def own_or_bnn(name):
    return PAPER if NETWORKS.get(name).has_own_binarization else "bnn"


def small(name):
    options = {"input_shape": (32, 32, 3), "num_classes": 10, "algorithm": own_or_bnn(name), **SMALL[name][0]}
    tf.keras.utils.set_random_seed(3)
    return zoo.build(name, **options)


@pytest.fixture(scope="module")
def batch():
    """Real images and labels: of CIFAR-10 where it is there, else of the data in the package."""
    cifar10 = SHARED / "data/tensorflow_datasets"
    data = datasets.get("cifar10", cifar10) if cifar10.is_dir() else datasets.get("fashion_mini")
    images, labels = next(iter(data.test_batches(BATCH).as_numpy_iterator()))
    return tf.image.grayscale_to_rgb(tf.constant(images)) if images.shape[-1] == 1 else images, labels


def test_every_network_is_tried():
    assert set(SMALL) == set(zoo.names("image_classification"))


@pytest.mark.parametrize("name", marked(SMALL))
def test_it_learns_and_is_saved(name, batch, tmp_path):
    images, labels = batch
    model = small(name)
    images = tf.image.resize(images, model.input_shape[1:3])
    optimizer = tf.keras.optimizers.Adam(2e-3)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = []
    for step in range(1 if name in DEEP else 6):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        weights = model.trainable_weights
        gradients = tape.gradient(loss, weights)
        if step == 0:
            missing = [weight.name for weight, gradient in zip(weights, gradients, strict=True) if gradient is None]
            assert not missing
        for weight, gradient in zip(weights, gradients, strict=True):
            assert np.isfinite(gradient.numpy()).all(), weight.name
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        losses.append(float(loss))
    if name in DEEP:
        return
    assert min(losses[-2:]) < losses[0], losses
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images).numpy(), model(images).numpy())


@pytest.mark.parametrize("name", marked(name for name in SMALL if name not in DEEP))
def test_it_becomes_binary(name, converter):
    file = converter.convert(small(name))
    assert flatbuffer.operators(file)["LceBconv2d"] == SMALL[name][1]


def test_every_network_was_converted_at_full_size():
    """The published files have the binary operations expected above, and the bytes of the theory."""
    files = pd.read_csv(CONVERTED).set_index("network")
    assert set(files.index) == set(SMALL)
    for name, (_, binary) in SMALL.items():
        assert files.binary_operations[name] == binary or name in FEWER
    # Three are explained in docs/zoo.md.
    far = files[abs(files.file_bytes / files.theory_bytes - 1) > 0.03]
    assert set(far.index) == {"abc_net", "dorefanet", "resnet20"}


@pytest.mark.parametrize("name", ["resnet20", "meliusnet22", "quicknet_small"])
def test_the_theory_of_the_published_files_is_what_we_count(name):
    assert pd.read_csv(CONVERTED).set_index("network").theory_bytes[name] == (
        complexity.count_network(name, own_or_bnn(name)).bits // 8
    )
