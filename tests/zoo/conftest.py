"""What the tests of every family of networks do alike."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.deploy.convert import Converter


@pytest.fixture(scope="session")
def learns(tmp_path_factory):
    """learns(model, inputs, labels, steps, rate, to): every trainable weight has a finite gradient and some are not
    zero, a few steps on one batch bring the loss below `to` times its start, and the saved network is the same."""

    def check(model, inputs, labels, *, steps=10, rate=5e-3, to=0.8):
        loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = tf.keras.optimizers.Adam(rate)
        weights = model.trainable_weights

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(inputs, training=True))
            gradients = tape.gradient(loss, weights)
            missing = [weight.name for weight, one in zip(weights, gradients, strict=True) if one is None]
            assert not missing
            optimizer.apply_gradients(zip(gradients, weights, strict=True))
            return loss, [tf.convert_to_tensor(one) for one in gradients]

        losses = []
        for number in range(steps):
            loss, gradients = step()
            losses.append(float(loss))
            for weight, gradient in zip(weights, gradients, strict=True):
                assert np.isfinite(gradient.numpy()).all(), weight.name
                if number == 0 and any(part in weight.name for part in ("kernel", "gamma", "alpha")):
                    assert np.abs(gradient.numpy()).max() > 0, weight.name
        assert min(losses[-3:]) < to * losses[0], losses
        path = tmp_path_factory.mktemp("saved") / "model.keras"
        model.save(path)
        loaded = tf.keras.models.load_model(path)
        np.testing.assert_array_equal(loaded(inputs).numpy(), model(inputs).numpy())

    return check


@pytest.fixture(scope="session")
def shaken():
    """shaken(model) is the model with batch norms and slopes as after a training, so that none vanishes from a file."""

    def shake(model):
        random = np.random.default_rng(3)
        for layer in model.layers:
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                size = layer.gamma.shape
                layer.gamma.assign(random.uniform(0.5, 1.5, size) * random.choice([-1, 1], size))
                layer.beta.assign(random.normal(0, 0.5, size))
                layer.moving_mean.assign(random.normal(0, 2.0, size))
                layer.moving_variance.assign(random.uniform(0.5, 2, size))
            if isinstance(layer, tf.keras.layers.PReLU):
                layer.alpha.assign(random.uniform(0.1, 0.5, layer.alpha.shape))
        return model

    return shake


@pytest.fixture(scope="session")
def converter():
    """A process that converts to Larq Compute Engine."""
    with Converter() as converter:
        yield converter


@pytest.fixture(scope="session")
def binary_layers():
    """binary_layers(model): its layers with a kernel quantizer."""
    return lambda model: [layer for layer in model.layers if getattr(layer, "kernel_quantizer", None) is not None]
