"""What the tests of several families of networks do alike."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.deploy.conversion import Converter


@pytest.fixture(scope="session")
def take_steps():
    """take_steps(model, inputs, labels, steps, rate, of="", loss_of=None): the loss before each step of Adam on one
    batch, and the largest gradient of each trainable weight, by name. Every weight has a finite gradient in every step;
    those whose name starts with `of`, or all, are trained. `loss_of` is cross-entropy unless said."""

    def take(model, inputs, labels, steps, rate, of="", loss_of=None):
        loss_of = loss_of or tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = tf.keras.optimizers.Adam(rate)
        weights = model.trainable_weights
        trained = [weight.name.startswith(of) for weight in weights]

        losses, largest = [], {weight.name: 0.0 for weight in weights}
        # Not traced: that takes longer than so few steps.
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(inputs, training=True))
            gradients = tape.gradient(loss, weights)
            assert not [weight.name for weight, one in zip(weights, gradients, strict=True) if one is None]
            gradients = [tf.convert_to_tensor(one) for one in gradients]
            losses.append(float(loss))
            for weight, gradient in zip(weights, gradients, strict=True):
                assert np.isfinite(gradient.numpy()).all(), weight.name
                largest[weight.name] = max(largest[weight.name], float(np.abs(gradient.numpy()).max(initial=0)))
            applied = zip(gradients, weights, trained, strict=True)
            optimizer.apply_gradients([(gradient, weight) for gradient, weight, wanted in applied if wanted])
        return losses, largest

    return take


@pytest.fixture(scope="session")
def assert_saved(tmp_path_factory):
    """assert_saved(model, inputs): the network answers the same after it was saved and loaded."""

    def check(model, inputs):
        path = tmp_path_factory.mktemp("saved") / "model.keras"
        model.save(path)
        loaded = tf.keras.models.load_model(path)
        tf.nest.map_structure(np.testing.assert_array_equal, loaded(inputs), model(inputs))

    return check


@pytest.fixture(scope="session")
def after_a_training():
    """after_a_training(model) is the model with random numbers in place of zeros and ones, so that no part of it
    vanishes from a file."""

    def change(model):
        random = np.random.default_rng(3)
        for layer in model.layers:
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                size = layer.gamma.shape
                layer.gamma.assign(random.uniform(0.5, 1.5, size) * random.choice([-1, 1], size))
                layer.beta.assign(random.normal(0, 0.5, size))
                layer.moving_mean.assign(random.normal(0, 2.0, size))
                layer.moving_variance.assign(random.uniform(0.5, 2, size))
            else:
                for weight in layer.trainable_weights:
                    if len(weight.shape) == 1:
                        weight.assign(random.uniform(0.3, 0.9, weight.shape))
        return model

    return change


@pytest.fixture(scope="session")
def converter():
    """A process that converts to Larq Compute Engine."""
    with Converter() as converter:
        yield converter


@pytest.fixture(scope="session")
def binary_layers():
    """binary_layers(model): its layers with a kernel quantizer."""
    return lambda model: [layer for layer in model.layers if getattr(layer, "kernel_quantizer", None) is not None]
