"""Frozen layers and networks (`trainable=False`) compute as in inference, and their schedules stand still."""

from __future__ import annotations

import itertools

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms import ScheduleCallback, update_schedules
from bibench_tf.algorithms.fda import FourierInputSign, FourierKernelSign
from bibench_tf.algorithms.layers import BinaryConv2D, is_training

KEYS = [key for key in algorithms.names() if key != "full_precision"]
OPTIONS = {"abc": {"weight_bases": 2, "activation_bases": 2}}
LAYERS = {
    "conv2d": ((6, 6, 64), lambda algorithm, **options: algorithm.conv2d(8, 3, use_bias=True, **options)),
    "groups": ((6, 6, 64), lambda algorithm, **options: algorithm.conv2d(8, 3, groups=2, use_bias=True, **options)),
    "conv1d": ((6, 64), lambda algorithm, **options: algorithm.conv1d(8, 3, padding=1, use_bias=True, **options)),
    "dense": ((3, 64), lambda algorithm: algorithm.dense(8)),
}


@tf.keras.utils.register_keras_serializable("tests")
class Offset(algorithms.Quantizer):
    """Of a plug-in: adds 1 in training, by `if training` as Keras' documentation has it."""

    def call(self, inputs, training=None):
        return inputs + 1.0 if training else inputs


@tf.keras.utils.register_keras_serializable("tests")
class Nested(algorithms.Quantizer):
    """Of a plug-in: a quantizer without the argument, around one that has it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Offset()

    def call(self, inputs):
        return self.inner(inputs)


@tf.keras.utils.register_keras_serializable("tests")
class Foreign(tf.keras.layers.Layer):
    """A quantizer that is a plain layer of Keras."""

    def call(self, inputs, training=None):
        return inputs + 1.0 if is_training(training) else inputs


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def outputs_and_gradient(network, inputs, training):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = network(inputs, training=training)
    return outputs.numpy(), tape.gradient(outputs, inputs).numpy()


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def differ(one, other):
    return any((mine != theirs).any() for mine, theirs in zip(one, other, strict=True))


def inner_of(layer, shape):
    """The layer in a network in a network."""
    inner = tf.keras.Sequential([tf.keras.Input(shape), layer])
    return inner, tf.keras.Sequential([tf.keras.Input(shape), inner])


@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize("key", KEYS)
def test_a_frozen_layer_is_in_inference(key, form, rng):
    """Outputs, and the gradient that goes through it, to the bit; of FDA and ReCU they differ while it is trained."""
    shape, make = LAYERS[form]
    layer = make(algorithms.get(key, **OPTIONS.get(key, {})))
    inputs = tf.constant(rng.normal(size=(2, *shape)).astype("float32"))
    layer(inputs)
    inference, training = (outputs_and_gradient(layer, inputs, mode) for mode in (False, True))
    assert differ(inference, training) or key not in ("fda", "recu")
    layer.trainable = False
    for mode in (False, None, True, tf.constant(True)):
        assert_same(outputs_and_gradient(layer, inputs, mode), inference)
    assert np.abs(inference[1]).max() > 0
    layer.trainable = True
    assert_same(outputs_and_gradient(layer, inputs, True), training)


@pytest.mark.parametrize("form", LAYERS)
def test_the_gradient_through_xnor_is_the_same_in_training_and_inference(form, rng):
    """The scale of the inputs is a factor of the outputs in inference, and no part of the gradient in either."""
    shape, make = LAYERS[form]
    layer = make(algorithms.get("xnor"))
    inputs = tf.constant(rng.normal(size=(2, *shape)).astype("float32") * 3)
    layer(inputs)
    for one, other in zip(*(outputs_and_gradient(layer, inputs, mode) for mode in (False, True)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("freeze", ["inner", "outer", "layer", "constructed", "loaded"])
def test_frozen_inside_of_networks(freeze, rng, tmp_path):
    """A frozen network in one that is trained, a frozen layer, frozen when it was made, or before it was saved."""
    shape, make = LAYERS["conv2d"]
    layer = make(algorithms.get("fda"), **({"trainable": False} if freeze == "constructed" else {}))
    inner, outer = inner_of(layer, shape)
    if freeze != "constructed":
        {"inner": inner, "outer": outer}.get(freeze, layer).trainable = False
    if freeze == "loaded":
        outer.save(tmp_path / "network.keras")
        outer = tf.keras.models.load_model(tmp_path / "network.keras")
        layer = outer.layers[0].layers[0]
    inputs = tf.constant(rng.normal(size=(2, *shape)).astype("float32"))
    found = outputs_and_gradient(outer, inputs, True)
    assert_same(found, outputs_and_gradient(outer, inputs, False))
    before = layer.get_weights()
    update_schedules(outer, 1, 4)
    assert_same(layer.get_weights(), before)
    layer.trainable = True
    assert differ(outputs_and_gradient(outer, inputs, True), found)
    update_schedules(outer, 1, 4)
    assert differ(layer.get_weights(), before)


@pytest.mark.parametrize("make", [Offset, Nested, Foreign])
@pytest.mark.parametrize("side", ["input_quantizer", "kernel_quantizer"])
def test_quantizers_of_plug_ins_are_in_inference(side, make, rng):
    """Any quantizer that takes `training`, on either side, however it reads the argument."""
    layer = BinaryConv2D(4, 3, **{side: make()})
    inputs = tf.constant(rng.normal(size=(2, 5, 5, 3)).astype("float32"))
    layer(inputs)
    inference, training = (outputs_and_gradient(layer, inputs, mode) for mode in (False, True))
    assert differ(inference, training)
    layer.trainable = False
    assert_same(outputs_and_gradient(layer, inputs, True), inference)


@pytest.mark.parametrize("key", ["xnor", "fda", "recu"])
def test_the_layer_decides_for_its_quantizers(key, rng):
    """A quantizer whose own flag differs does not leave the scale of XNOR-Net out, or have it twice."""
    shape, make = LAYERS["conv2d"]
    inputs = tf.constant(rng.normal(size=(2, *shape)).astype("float32"))
    layer = make(algorithms.get(key))
    layer(inputs)
    inference, training = (outputs_and_gradient(layer, inputs, mode) for mode in (False, True))
    for own in (True, False):
        layer.trainable = not own
        for quantizer in (layer.input_quantizer, layer.kernel_quantizer):
            quantizer.trainable = own
        assert_same(outputs_and_gradient(layer, inputs, True), inference if own else training)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lq.layers.QuantConv2D(
            4,
            3,
            input_quantizer=FourierInputSign(),
            kernel_quantizer=FourierKernelSign(),
            kernel_constraint="weight_clip",
        ),
        FourierInputSign,
        Offset,
    ],
    ids=["larq", "fda", "plug-in"],
)
def test_quantizers_alone_and_in_layers_of_larq_are_in_inference(make, rng):
    """A network that is built frozen has the noise when it is trained again."""
    layer = make()
    layer.trainable = False
    network = tf.keras.Sequential([tf.keras.Input((5, 5, 64)), layer])
    inputs = tf.constant(rng.normal(size=(2, 5, 5, 64)).astype("float32"))
    inference = outputs_and_gradient(network, inputs, False)
    assert_same(outputs_and_gradient(network, inputs, True), inference)
    assert_same(outputs_and_gradient(layer, inputs, None), inference)
    network.trainable = True
    assert differ(outputs_and_gradient(network, inputs, True), inference)


@pytest.mark.parametrize("built", [True, False])
def test_a_frozen_part_of_a_training_stands_still(built):
    """Schedules of the frozen layer, and its weights; the layer before it learns through it."""
    make = algorithms.get("fda").conv2d
    trained, frozen = make(64, 3, name="trained"), make(4, 3, name="frozen")
    frozen.trainable = False
    shape = [tf.keras.Input((5, 5, 3))] if built else []
    network = tf.keras.Sequential([*shape, trained, frozen, tf.keras.layers.GlobalAveragePooling2D()])
    network.compile("sgd", "mse")
    seen = []
    watch = tf.keras.callbacks.LambdaCallback(
        on_batch_end=lambda batch, logs: seen.append([layer.get_weights() for layer in (trained, frozen)])
    )
    rng = np.random.default_rng(2)
    data = rng.normal(size=(8, 5, 5, 3)), rng.normal(size=(8, 4))
    network.fit(*data, batch_size=4, epochs=3, verbose=0, callbacks=[ScheduleCallback(), watch])
    for before, after in itertools.pairwise(seen):
        assert_same(after[1], before[1])
        assert differ(after[0][:1], before[0][:1])  # the kernel
    states = {weight.name.split("/")[-1]: float(weight) for weight in frozen.weights if weight.shape == ()}
    assert states == {
        f"{side}_schedule_{name}:0": pytest.approx(value)
        for side in ("input", "weight")
        for name, value in (("alpha", 0.1), ("n", 9))
    }
