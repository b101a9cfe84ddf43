from __future__ import annotations

import ast
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from bibench_tf import addons
from bibench_tf.errors import BibenchError

ROOT = Path(__file__).resolve().parents[1]


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
def test_rectified_adam_trains_a_model_with_a_schedule():
    import tensorflow as tf

    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(2,))])
    schedule = tf.keras.optimizers.schedules.CosineDecay(0.05, decay_steps=200)
    model.compile(addons.rectified_adam(schedule), loss="mse")
    inputs = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    history = model.fit(inputs, inputs.sum(axis=1), epochs=20, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]


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
    assert "--optimizer adam" in sentence
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
    # Plain `keras` is Keras 3 in the second lane; Larq and its compute engine are built on Keras 2, which is tf.keras.
    assert importing == {"tensorflow_addons": {"bibench_tf/addons.py"}, "keras": set(), "tf_keras": set()}
