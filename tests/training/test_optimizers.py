"""The optimizers, each against its formula in NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe
from bibench_tf.training import optimizers

RECIPE = Recipe("tiny", epochs=3, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
STEPS = 4


def made(**changes):
    return optimizers.for_recipe(dataclasses.replace(RECIPE, **changes))


def gradients():
    """Of two weights; the first has some of a norm above and some of a norm below 1."""
    random = np.random.default_rng(0)
    return [(random.normal(size=(3, 2)) * scale, random.normal(size=4) * 0.1) for scale in (2.0, 0.05, 3.0, 0.1)]


def run(optimizer, starts, rates):
    weights = [tf.Variable(start, dtype=tf.float32) for start in starts]
    for step, rate in zip(gradients(), rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply_gradients([(tf.constant(g, tf.float32), w) for g, w in zip(step, weights, strict=True)])
    return [weight.numpy() for weight in weights]


def starts():
    random = np.random.default_rng(1)
    return [random.normal(size=(3, 2)), random.normal(size=4)]


def bert_adam(weight, of_steps, rates, decay, norm=1.0):
    """Devlin's Adam: no bias correction, the gradient of each weight clipped by its norm, decoupled weight decay."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for gradient, rate in zip(of_steps, rates, strict=True):
        gradient = gradient * min(1.0, norm / np.linalg.norm(gradient))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight = weight - rate * (first / (np.sqrt(second) + 1e-6) + decay * weight)
    return weight


RATES = (0.0, 0.05, 0.1, 0.02)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_bert_adam_is_its_formula(decay):
    found = run(made(optimizer="bert_adam", weight_decay=decay), starts(), RATES)
    for index, start in enumerate(starts()):
        expected = bert_adam(start, [step[index] for step in gradients()], RATES, decay)
        np.testing.assert_allclose(found[index], expected, rtol=2e-5, atol=1e-6)


def test_bert_adam_clips_by_the_norm_of_a_whole_embedding_gradient():
    """Rows that occur twice in a batch count with the sum of their gradients; rows that do not occur move on."""
    table = np.random.default_rng(2).normal(size=(5, 3))
    rows, slopes = [1, 1, 4], np.random.default_rng(3).normal(size=(3, 3)) * 2
    dense = np.zeros_like(table)
    np.add.at(dense, rows, slopes)
    weight = tf.Variable(table, dtype=tf.float32)
    optimizer = made(optimizer="bert_adam", learning_rate=0.1, weight_decay=0.01)
    for factor in (1.0, 0.0):
        sparse = tf.IndexedSlices(tf.constant(factor * slopes, tf.float32), tf.constant(rows), tf.constant([5, 3]))
        optimizer.apply_gradients([(sparse, weight)])
    steps = [dense, 1e-30 * dense]
    np.testing.assert_allclose(weight, bert_adam(table, steps, (0.1, 0.1), 0.01), rtol=2e-5, atol=1e-6)


def test_bert_adam_is_stored_with_a_model(tmp_path):
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(2,))])
    model.compile(made(optimizer="bert_adam", weight_decay=0.25), "mse")
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras").optimizer
    assert isinstance(loaded, optimizers.BertAdam)
    assert (loaded.weight_decay, loaded.epsilon, loaded.max_norm) == (0.25, 1e-6, 1.0)
    for one, other in zip(model.optimizer.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_sgd(nesterov, momentum):
    """v = m v - rate g; w = w + v, or w + m v - rate g with Nesterov's."""
    found = run(made(optimizer="sgd", nesterov=nesterov, momentum=momentum), starts(), RATES)
    for index, weight in enumerate(starts()):
        velocity = np.zeros_like(weight)
        for step, rate in zip(gradients(), RATES, strict=True):
            velocity = momentum * velocity - rate * step[index]
            weight = weight + (momentum * velocity - rate * step[index] if nesterov else velocity)
        np.testing.assert_allclose(found[index], weight, rtol=2e-5, atol=1e-6)


def test_adam_has_the_epsilon_of_the_reference():
    adam = made()
    assert isinstance(adam, tf.keras.optimizers.Adam) and adam.epsilon == 1e-8
    assert adam.weight_decay is None  # weight decay is a penalty in the loss


def test_the_loss_is_scaled_in_float16_only():
    for precision, scaled in (("float32", False), ("mixed_float16", True), ("mixed_bfloat16", False)):
        found = made(optimizer="bert_adam", precision=precision)
        assert isinstance(found, tf.keras.mixed_precision.LossScaleOptimizer) == scaled


def test_unknown_optimizers_are_named():
    with pytest.raises(BibenchError, match="optimizer must be .*bert_adam', not 'lion'"):
        made(optimizer="lion")
