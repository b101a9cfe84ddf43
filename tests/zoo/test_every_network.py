"""Every network of the zoo, small, with its paper's binarization: it learns, is saved, and becomes binary in LCE."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import datasets, zoo
from bibench_tf.benchmark import PAPER
from bibench_tf.deploy import flatbuffer
from bibench_tf.deploy.convert import Converter

# A small form of each network: its options, and how many binary operations the converted file has.
# Networks without a binarization of their own are tried with BNN.
SMALL = {
    "resnet18": ({"width": 0.25}, 16),
    "resnet20": ({"width": 0.5}, 18),
    "resnet34": ({"width": 0.125}, 32),
    "vgg_small": ({"width": 0.25}, 5),
}
BATCH = 16


def small(name):
    options, _ = SMALL[name]
    algorithm = {} if "algorithm" in options else {"algorithm": PAPER if zoo.has_own_binarization(name) else "bnn"}
    tf.keras.utils.set_random_seed(3)
    return zoo.build(name, **{"input_shape": (32, 32, 3), "num_classes": 10, **algorithm, **options})


@pytest.fixture(scope="module")
def batch(shared):
    """Real images and labels."""
    data = datasets.get("cifar10", data_dir=shared / "data/tensorflow_datasets")
    images, labels = next(iter(data.test_batches(BATCH).as_numpy_iterator()))
    return tf.constant(images), tf.constant(labels)


def test_every_network_is_tried():
    assert set(SMALL) == set(zoo.names())


@pytest.mark.parametrize("name", SMALL)
def test_it_learns_and_is_saved(name, batch, tmp_path):
    images, labels = batch
    model = small(name)
    images = tf.image.resize(images, model.input_shape[1:3])
    optimizer = tf.keras.optimizers.Adam(2e-3)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = []
    for step in range(8):
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
    assert min(losses[-2:]) < losses[0], losses
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images).numpy(), model(images).numpy())


@pytest.fixture(scope="module")
def converter():
    with Converter() as converter:
        yield converter


@pytest.mark.parametrize("name", SMALL)
def test_it_becomes_binary(name, converter):
    file = converter.convert(small(name))
    assert flatbuffer.operators(file)["LceBconv2d"] == SMALL[name][1]
