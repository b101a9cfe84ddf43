from __future__ import annotations

import ast
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from bibench_tf.errors import BibenchError
from bibench_tf.training import addons

ROOT = Path(__file__).resolve().parents[2]


def radam(weights, gradients, learning_rate, weight_decay):
    """Algorithm 2 of Liu et al. 2020 with decoupled weight decay, in float64."""
    beta1, beta2, epsilon = 0.9, 0.999, 1e-7
    rho_inf = 2 / (1 - beta2) - 1
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        update = first / (1 - beta1**step)
        rho = rho_inf - 2 * step * beta2**step / (1 - beta2**step)
        if rho >= 5:
            rectifier = np.sqrt(
                (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            )  # equation (15)
            update = rectifier * update / (np.sqrt(second / (1 - beta2**step)) + epsilon)
        weights = weights - learning_rate * (update + weight_decay * weights)
    return weights


@pytest.mark.addons
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("steps", [1, 5, 12])  # before, at and past the step where the rectifier sets in
def test_rectified_adam_follows_the_paper(steps, weight_decay):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3))
    gradients = rng.normal(size=(steps, 4, 3))
    variable = tf.Variable(start, dtype=tf.float32)
    optimizer = addons.rectified_adam(0.01, weight_decay)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    expected = radam(start, gradients, 0.01, weight_decay)
    # The rectifier of the first steps past its onset cancels near rho = 4, which costs float32 some digits.
    np.testing.assert_allclose(variable.numpy() - start, expected - start, rtol=2e-3, atol=1e-6)


@pytest.mark.addons
def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    import tensorflow as tf

    inputs = np.random.default_rng(0).normal(size=(32, 2)).astype("float32")
    targets = inputs.sum(axis=1)

    def start():
        dense = tf.keras.layers.Dense(1, kernel_initializer="ones")
        model = tf.keras.Sequential([tf.keras.Input((2,)), dense])
        model.compile(addons.rectified_adam(0.01), loss="mse")
        return model, tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    def epochs(model, first, last):
        schedule = tf.keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
        steps = {"initial_epoch": first, "epochs": last, "batch_size": 8, "shuffle": False}
        model.fit(inputs, targets, callbacks=[schedule], verbose=0, **steps)

    straight, checkpoint = start()
    epochs(straight, 0, 3)
    checkpoint.write(str(tmp_path / "state"))
    epochs(straight, 3, 5)
    resumed, checkpoint = start()
    checkpoint.read(str(tmp_path / "state"))
    epochs(resumed, 3, 5)
    np.testing.assert_array_equal(resumed.get_weights()[0], straight.get_weights()[0])


@pytest.mark.addons
def test_the_end_of_life_notice_is_silent_and_other_warnings_are_not(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorflow_addons.utils.tfa_eol_msg")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "tensorflow_addons", raising=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        addons.rectified_adam(0.01)
        warnings.warn("something else", UserWarning, stacklevel=1)
    messages = [str(warning.message) for warning in seen]
    assert "something else" in messages
    assert not any("TensorFlow Addons" in message for message in messages)


def test_without_addons_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)  # makes the import fail
    with pytest.raises(BibenchError) as caught:
        addons.rectified_adam(0.01)
    sentence = str(caught.value)
    assert "Python 3.10 and 3.11 only" in sentence
    assert "choose adam or sgd" in sentence
    assert "\n" not in sentence


def imported_modules(path: Path) -> set[str]:
    """The top-level names that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_only_this_module_imports_addons_and_none_imports_keras_itself():
    importing = {"tensorflow_addons": set(), "keras": set(), "tf_keras": set()}
    for folder in ("bibench_tf", "zoo", "deploy", "tracks"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imported_modules(path) & importing.keys():
                importing[name].add(path.relative_to(ROOT).as_posix())
    # Plain `keras` is Keras 3 in the second lane; Larq and its compute engine need Keras 2: tf.keras.
    assert importing == {"tensorflow_addons": {"bibench_tf/training/addons.py"}, "keras": set(), "tf_keras": set()}
