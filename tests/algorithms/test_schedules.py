"""Schedules over training progress: their formulas and ends, and the callback on any model and devices.

Run as a script, this file trains on two logical processors and prints what the tests of `mirrored` look at.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from functools import cache, partial
from operator import attrgetter

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms import ScheduleCallback, update_schedules
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.errors import InvalidOption

# Whole counts up to far beyond the end and before the start, and fractions of them.
PROGRESS = [
    (epoch, epochs) for epochs in (1, 2, 3, 7, 60, 200) for epoch in (*range(-2, 12), 59, 60, 199, 200, 1000, -1000)
] + [(epoch, epochs) for epochs in (1, 1.5, 4, 4.25, 1e6) for epoch in (-0.1, 0.0, 0.3, 2.5, 2.99, 3.2, 3.5, 1e7)]
STATES = {"recu": {"tau"}, "fda": {"alpha", "n"}}
LENGTHS = {"epochs": {}, "steps": {"steps": 8}}


def expected(epoch, epochs):
    """The states at a count that is not beyond the last one, by other forms of the published formulas."""
    count = float(np.clip(epoch, 0, epochs - 1))
    return {
        "tau": 0.85 + 0.14 * math.expm1(count / epochs) / math.expm1(1),
        "alpha": 0.1 * math.cos(math.pi * (count + 1) / (2 * epochs)) ** 2,
        "n": math.floor(9 + 9 * count / epochs),
    }


def states(layer, replica=0):
    """The states of a layer by the last word of their names; those of FDA's two quantizers are the same."""
    found = {}
    for weight in layer.weights:
        name = weight.name.split("/")[-1].split("_")[-1].partition(":")[0]
        if name in ("tau", "alpha", "n"):
            value = float(tf.distribute.get_strategy().experimental_local_results(weight)[replica])
            assert found.setdefault(name, value) == value
    return found


def near(key, epoch, epochs):
    """The states of an algorithm, for a comparison."""
    values = expected(epoch, epochs)
    return pytest.approx({name: values[name] for name in STATES[key]}, rel=1e-6, abs=1e-7)


@pytest.fixture(scope="module")
def layers():
    made = [algorithms.get(key).conv2d(4, 3) for key in STATES]
    for layer in made:
        layer.build((None, 5, 5, 3))
    return made


@pytest.mark.parametrize(("epoch", "epochs"), PROGRESS)
def test_states_follow_the_formulas_and_stop_at_their_ends(layers, epoch, epochs):
    """A clamp at `epochs`, at 0 epochs only, of whole counts only, or of one of the two algorithms fails."""
    found = {}
    for layer in layers:
        update_schedules(layer, epoch, epochs)
        found |= states(layer)
    assert found == pytest.approx(expected(epoch, epochs), rel=1e-6, abs=1e-7)
    assert found["tau"] < 0.99 and 9 <= found["n"] <= 17


@pytest.mark.parametrize("key", STATES)
@pytest.mark.parametrize("epoch", [4, 5, 400, 4e9])
def test_a_training_beyond_the_end_is_that_of_the_last_epoch(key, epoch):
    """ReCU's kernel has a gradient, and FDA no noise."""
    layer, inputs = algorithms.get(key).conv2d(4, 3), tf.random.stateless_normal((2, 5, 5, 64), (1, 2))
    layer(inputs)
    found = []
    for count in (3, epoch):
        update_schedules(layer, count, 4)
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
        found.append((outputs, tape.gradient(outputs, layer.kernel)))
    np.testing.assert_array_equal(*(outputs for outputs, _ in found))
    np.testing.assert_array_equal(*(gradient for _, gradient in found))
    assert np.abs(found[1][1]).max() > 0
    if key == "fda":
        np.testing.assert_allclose(found[1][0], layer(inputs, training=False), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("epochs", [0, -1, 0.5, math.nan, math.inf, -math.inf, "3", True])
def test_a_length_below_one_is_refused(layers, epochs):
    with pytest.raises(InvalidOption, match="A schedule: epochs must be a number >= 1, not"):
        update_schedules(layers[0], 0, epochs)
    for option in ("epochs", "steps"):
        with pytest.raises(InvalidOption, match=f"A schedule: {option} must be a number >= 1 or None, not"):
            ScheduleCallback(**{option: epochs})


@pytest.mark.parametrize("epoch", [math.nan, "3", None])
def test_a_progress_that_is_no_number_is_refused(layers, epoch):
    with pytest.raises(InvalidOption, match="A schedule: epoch must be a number, not"):
        update_schedules(layers[0], epoch, 4)


@tf.keras.utils.register_keras_serializable("tests")
class Recorder(algorithms.Quantizer):
    """A quantizer of a plug-in, which records its progress; its state is made after Keras takes it as built."""

    def build(self, input_shape):
        super().build(input_shape)
        self.progress = self.add_weight("progress", shape=(2,), trainable=False)
        self.seen = []

    def update_schedule(self, epoch, epochs):
        self.seen.append((epoch, epochs))
        self.progress.assign([epoch, epochs])

    def call(self, inputs):
        return inputs * self.progress[0]


def test_quantizers_of_plug_ins_get_counts_within_the_ends():
    recorder = Recorder()
    recorder.build((None, 3))
    for epoch in (-1, 0, 2.5, 3, 4, 9):
        update_schedules(recorder, epoch, 4)
    assert recorder.seen == [(0, 4), (0, 4), (2.5, 4), (3, 4), (3, 4), (3, 4)]


class Wrapper(tf.keras.layers.Layer):
    """Has no binary layer before it is built."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def build(self, input_shape):
        self.layer = self.make()

    def call(self, inputs):
        return self.layer(inputs)


class Subclassed(tf.keras.Model):
    def __init__(self, make):
        super().__init__()
        self.layer = make()
        self.pool = tf.keras.layers.GlobalAveragePooling2D()

    def call(self, inputs):
        return self.pool(self.layer(inputs))


def functional(layer):
    return tf.keras.Sequential([tf.keras.Input((5, 5, 3)), layer, tf.keras.layers.GlobalAveragePooling2D()])


MODELS = {
    "built": lambda make: functional(make()),
    "sequential": lambda make: tf.keras.Sequential([make(), tf.keras.layers.GlobalAveragePooling2D()]),
    "subclassed": Subclassed,
    "in build": lambda make: tf.keras.Sequential([Wrapper(make), tf.keras.layers.GlobalAveragePooling2D()]),
    "nested": lambda make: tf.keras.Sequential([tf.keras.Sequential([make()]), tf.keras.layers.Flatten()]),
}


def fit(form, make, eager=False, length="epochs"):
    """The model after two epochs of four steps."""
    tf.keras.utils.set_random_seed(5)
    model = MODELS[form](make)
    model.compile("sgd", "mse", run_eagerly=eager)
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(8, 5, 5, 3)).astype("float32")
    shape = (8, 100) if form == "nested" else (8, 4)
    callback = ScheduleCallback(**LENGTHS[length])
    model.fit(inputs, rng.normal(size=shape), batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    return model


@pytest.fixture(scope="module")
def built():
    """The weights of models that were built before, by algorithm, eagerness and length."""
    return cache(lambda key, *how: fit("built", partial(algorithms.get(key).conv2d, 4, 3), *how).get_weights())


@pytest.mark.parametrize(("eager", "length"), [(False, "epochs"), (True, "steps")])
@pytest.mark.parametrize("form", ["sequential", "subclassed", "in build"])
@pytest.mark.parametrize("key", STATES)
def test_models_are_set_when_they_are_built(built, key, form, eager, length):
    """The first step computes with the states of its epoch or step: weights are those of a model built before."""
    found = fit(form, partial(algorithms.get(key).conv2d, 4, 3), eager, length)
    assert states(found) == near(key, *((1, 2) if length == "epochs" else (7, 8)))
    for one, other in zip(built(key, eager, length), found.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["built", "sequential", "nested"])
def test_plug_ins_are_set_when_they_are_built(form):
    """Also where a quantizer makes its state after `super().build()`."""
    recorders = []

    def make():
        recorders.append(Recorder())
        return BinaryConv2D(4, 3, input_quantizer=recorders[0])

    fit(form, make)
    assert list(dict.fromkeys(recorders[0].seen)) == [(0, 2), (1, 2)]
    assert recorders[0].progress.numpy().tolist() == [1, 2]


def test_a_build_that_fails_is_set_later():
    layer = algorithms.get("recu").conv2d(4, 3, groups=2)
    update_schedules(layer, 1, 2)
    update_schedules(layer, 2, 4)
    with pytest.raises(ValueError, match="divisible"):
        layer.build((None, 5, 5, 3))
    layer.build((None, 5, 5, 4))
    assert states(layer)["tau"] == pytest.approx(expected(2, 4)["tau"])
    assert "build" not in vars(layer) and "build" not in vars(layer.kernel_quantizer)


@pytest.mark.parametrize("length", ["epochs", "steps"])
def test_a_resumed_training_goes_on_and_stops_at_the_end(length):
    """Epochs are those that Keras counts on, steps those of the optimizer; an epoch has one step."""
    layer = algorithms.get("recu").conv2d(4, 3)
    model = functional(layer)
    model.compile("sgd", "mse")
    for epoch in range(5):
        callbacks = [ScheduleCallback(**{length: 3})]
        data = np.ones((2, 5, 5, 3)), np.ones((2, 4))
        model.fit(*data, epochs=epoch + 1, initial_epoch=epoch, verbose=0, callbacks=callbacks)
        assert states(layer) == near("recu", min(epoch, 2), 3)


def train_on_two_processors():
    """States of both replicas after each step, for models built before and in the first step."""
    processors = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], processors)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    data = np.ones((8, 5, 5, 3), "float32"), np.ones((8, 4), "float32")
    found = []
    for key, forms in (("recu", ["sequential"]), ("fda", ["built", "sequential", "in build"])):
        for form in forms:
            for length, optimizer in (("epochs", "SGD"), ("steps", "SGD"), ("steps", "legacy.SGD")):
                with strategy.scope():
                    model = MODELS[form](partial(algorithms.get(key).conv2d, 4, 3))
                    model.compile(attrgetter(optimizer)(tf.keras.optimizers)(), "mse")
                seen = []
                look = tf.keras.callbacks.LambdaCallback(
                    on_batch_end=lambda batch, logs, model=model, seen=seen: seen.append(
                        [states(model, replica) for replica in (0, 1)]
                    )
                )
                callbacks = [ScheduleCallback(**LENGTHS[length]), look]
                model.fit(*data, batch_size=2, epochs=2, verbose=0, callbacks=callbacks)
                found.append((key, form, length, seen))
    print(json.dumps(found))


if __name__ == "__main__":
    train_on_two_processors()
    sys.exit()


@pytest.mark.cluster
def test_all_replicas_follow_by_epochs_and_by_steps():
    """The count of steps is a distributed variable, and a layer is built by one replica alone."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 12
    for key, form, length, seen in found:
        assert len(seen) == 8
        for step, replicas in enumerate(seen):
            progress = (step // 4, 2) if length == "epochs" else (step, 8)
            assert replicas == [near(key, *progress)] * 2, (key, form, length, step)
