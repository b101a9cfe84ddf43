"""The checks for authors of plug-ins: what ships passes them, and each fault is named."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, datasets, networks, process, recipes, testing
from bibench_tf.registry import load_plugin


@pytest.mark.parametrize("key", algorithms.names())
def test_our_algorithms(key):
    testing.check_algorithm(key)


@pytest.mark.parametrize(
    "algorithm",
    [
        algorithms.get("wrpn", weight_bits=4, activation_bits=4),
        algorithms.get("xnor", input_scale="spatial"),
        algorithms.get("dorefa", activation_bits=2, weight_scale="layer"),
        algorithms.get("reactnet", clip_value=1.5),
    ],
)
def test_our_algorithms_with_options(algorithm):
    testing.check_algorithm(algorithm)


def test_a_network():
    testing.check_network("vgg_small", algorithm="recu", width=0.0625, input_shape=(8, 8, 1))


@pytest.mark.parametrize("name", ["fashion_mini", "sentiment_mini"])
def test_our_data_sets(name):
    testing.check_dataset(name)


@pytest.mark.parametrize("name", ["quick", "quick_text", "bibench_speech", "bibench_cifar10", "quick_detection"])
def test_our_recipes(name):
    testing.check_recipe(name)


@pytest.fixture
def make(monkeypatch):
    """A function that registers BNN with another input quantizer, for one test."""
    for registry in (algorithms.ALGORITHMS, networks.NETWORKS):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    def register(quantizer):
        @algorithms.register
        @dataclass(frozen=True)
        class Faulty(type(algorithms.get("bnn"))):
            key: ClassVar[str] = "faulty"

            def input_quantizer(self):
                return quantizer()

        return Faulty()

    return register


class Sign(algorithms.Quantizer):
    precision = 1
    signs_in_inference = True

    def call(self, inputs):
        return lq.quantizers.ste_sign(inputs)


@tf.keras.utils.register_keras_serializable("tests")
class NoGradient(Sign):
    def call(self, inputs):
        return tf.sign(inputs + 1e-9)


@tf.keras.utils.register_keras_serializable("tests")
class Three(Sign):
    def call(self, inputs):
        return tf.sign(inputs) + inputs - tf.stop_gradient(inputs)


@tf.keras.utils.register_keras_serializable("tests")
class Minus(Sign):
    def call(self, inputs):
        return -lq.quantizers.ste_sign(-inputs)


@tf.keras.utils.register_keras_serializable("tests")
class Forgetful(Sign):
    def __init__(self, shift, **kwargs):
        super().__init__(**kwargs)
        self.shift = shift

    def get_config(self):
        return {"name": self.name}


@tf.keras.utils.register_keras_serializable("tests")
class Exploding(Sign):
    def build(self, input_shape):
        self.state = self.add_weight("state", shape=(), initializer="zeros", trainable=False)

    def update_schedule(self, epoch, epochs):
        self.state.assign(float("inf"))


@pytest.mark.parametrize(
    ("quantizer", "fault"),
    [
        (NoGradient, "The conv2d of algorithm 'faulty' has (no gradient|a gradient of zero) to its input"),
        (Three, "declares signs, but gives other values in inference"),
        (Minus, "gives sign.0. = -1"),
        (Sign, "Sign is saved under a name without a package"),
        (lambda: Forgetful(1.0), "cannot be saved as .keras and loaded: .*shift"),
        (Exploding, "state.*is not finite in epoch 0 of 10"),
    ],
)
def test_faults_of_algorithms(make, quantizer, fault):
    with pytest.raises(AssertionError, match=fault):
        testing.check_algorithm(make(quantizer))


def test_faults_of_networks(make):
    with pytest.raises(AssertionError, match="'nameless' is not registered"):
        testing.check_network("nameless")

    @networks.register(task="cooking")
    def cook(algorithm="full_precision"):
        """A network."""

    with pytest.raises(AssertionError, match="serves the task 'cooking', which is not known"):
        testing.check_network(cook)

    @networks.register()
    def other_names(algorithm="full_precision"):
        """A network whose layers are called after the algorithm."""
        x = tf.keras.Input((4,))
        return tf.keras.Model(x, algorithms.get(algorithm).dense(3, name=algorithm)(x))

    with pytest.raises(AssertionError, match="Layer 'full_precision' of network 'other_names' has another name"):
        testing.check_network("other_names")


def test_faults_of_data_sets():
    data = datasets.get("fashion_mini")
    with pytest.raises(AssertionError, match="The fingerprint of Data set 'fashion_mini' is no hexadecimal"):
        testing.check_dataset(dataclasses.replace(data, fingerprint="version 3"))
    with pytest.raises(AssertionError, match="'licence' of Data set 'fashion_mini' is empty"):
        testing.check_dataset(dataclasses.replace(data, licence=""))

    class Unseeded(type(data)):
        def _train_batches(self, batch_size, seed, epoch, augment):
            return super()._train_batches(batch_size, int(np.random.default_rng().integers(2**30)), epoch, augment)

    with pytest.raises(AssertionError, match="gives other training batches each time"):
        testing.check_dataset(Unseeded(**{field.name: getattr(data, field.name) for field in dataclasses.fields(data)}))


def test_faults_of_recipes(monkeypatch):
    monkeypatch.setattr(recipes, "learning_rate", lambda recipe, epoch: -0.1)
    with pytest.raises(AssertionError, match="The learning rate of Recipe 'quick' is -0.1 in epoch 0 of 1"):
        testing.check_recipe("quick")


def test_the_example_of_the_docs_passes(make, tmp_path, monkeypatch):
    """Every Python block of docs/adding_an_algorithm.md, in order, as a plug-in file."""
    text = (Path(__file__).parents[1] / "docs/adding_an_algorithm.md").read_text()
    path = tmp_path / "steep.py"
    path.write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    monkeypatch.setenv(process.PLUGINS_VARIABLE, "")
    load_plugin(path)
    assert algorithms.ALGORITHMS.origin("steep") == str(path)
