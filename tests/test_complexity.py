"""Counts against formulas written out by hand, published figures and Larq's own profile."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq.models import ModelProfile

from bibench_tf import complexity, metrics, zoo
from bibench_tf.errors import BibenchError

layers = tf.keras.layers
quantized = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def model_of(*stack, shape=(8, 8, 4)):
    return tf.keras.Sequential([layers.Input(shape), *stack])


def only(model):
    """The cost of the one layer that has operations."""
    (cost,) = [layer for layer in complexity.count(model).layers if layer.macs]
    return cost


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        # kernel height x width x inputs per group x outputs x output positions
        (layers.Conv2D(5, 3, padding="same"), (8, 8, 4), 3 * 3 * 4 * 5 * 8 * 8),
        (layers.Conv2D(5, 3, padding="valid"), (8, 8, 4), 3 * 3 * 4 * 5 * 6 * 6),
        (layers.Conv2D(5, 3, strides=2, padding="same"), (9, 9, 4), 3 * 3 * 4 * 5 * 5 * 5),
        (layers.Conv2D(6, (1, 3), padding="valid"), (8, 8, 4), 1 * 3 * 4 * 6 * 8 * 6),
        (layers.Conv2D(6, 3, dilation_rate=2), (8, 8, 4), 3 * 3 * 4 * 6 * 4 * 4),
        (layers.Conv2D(6, 3, groups=2, padding="same"), (8, 8, 4), 3 * 3 * 2 * 6 * 8 * 8),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (8, 8, 4), 3 * 3 * 4 * 2 * 8 * 8),
        (layers.Conv1D(5, 3, padding="same"), (10, 4), 3 * 4 * 5 * 10),
        (layers.Conv3D(5, 3, padding="valid"), (5, 6, 7, 2), 27 * 2 * 5 * 3 * 4 * 5),
        # Every input position meets the whole kernel of a transposed convolution.
        (layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (8, 8, 4), 3 * 3 * 4 * 6 * 8 * 8),
        (layers.Conv1DTranspose(6, 3, strides=2, padding="same"), (8, 4), 3 * 4 * 6 * 8),
        (layers.Dense(7), (12,), 12 * 7),
        (layers.Dense(7), (5, 12), 5 * 12 * 7),
        (layers.Dense(7), (3, 5, 12), 3 * 5 * 12 * 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_operations_of_each_kind(layer, shape, macs):
    cost = only(model_of(layer, shape=shape))
    assert cost.macs == macs
    assert not cost.binary
    assert cost.mac_bits == 32
    assert cost.weights_binary == 0
    assert cost.weights_float == sum(np.prod(weight.shape) for weight in layer.weights)


@pytest.mark.parametrize("name", ["bnn", "xnor", "xnorpp", "reactnet", "recu", "fda"])
def test_binary_layers_of_the_package(name):
    from bibench_tf import algorithms

    algorithm = algorithms.get(name)
    fixed = model_of(algorithm.conv2d(6, 3, strides=2), shape=(9, 7, 64))
    assert (only(fixed).macs, only(fixed).mac_bits) == (3 * 3 * 64 * 6 * 5 * 4, 1)
    sequence = model_of(algorithm.conv1d(6, 3), shape=(10, 64))
    assert (only(sequence).macs, only(sequence).mac_bits) == (3 * 64 * 6 * 10, 1)
    rows = model_of(algorithm.dense(6), shape=(5, 64))
    assert (only(rows).macs, only(rows).mac_bits) == (5 * 64 * 6, 1)


def test_deployed_weights_of_each_algorithm():
    from bibench_tf import algorithms

    # 64 inputs, 6 outputs of 5 x 4 positions.
    extra = {
        "bnn": 0,
        "xnor": 0,
        "dorefa": 0,
        "bireal": 0,
        "xnorpp": 6 + 5 + 4,
        "reactnet": 64,
        "recu": 6,
        "fda": 0,
    }
    kernel, fan_in = 3 * 3 * 64 * 6, 3 * 3 * 64
    # ReCU's tau; FDA's two modules of fan_in // 64 hidden units and two scalars each.
    training = {"recu": 1, "fda": 2 * fan_in * (fan_in // 64) + 2 * 64 * 1 + 4}
    for name, floats in extra.items():
        cost = only(model_of(algorithms.get(name).conv2d(6, 3, strides=2), shape=(9, 7, 64)))
        assert (name, cost.weights_binary, cost.weights_float) == (name, kernel, floats)
        assert cost.bits == kernel + 32 * floats
        assert (name, cost.weights_training) == (name, training.get(name, 0))


def test_precision_is_that_of_the_finer_side():
    def bits(**quantizers):
        return only(model_of(lq.layers.QuantConv2D(5, 3, **quantizers))).mac_bits

    assert bits(**quantized) == 1
    assert bits(kernel_quantizer="ste_sign") == 32
    assert bits(input_quantizer="ste_sign") == 32
    assert bits(input_quantizer=lq.quantizers.DoReFa(2), kernel_quantizer="ste_sign") == 2
    # A quantizer that does not tell its precision counts as float.
    assert bits(input_quantizer="ste_sign", kernel_quantizer=lambda kernel: kernel) == 32


def test_small_network_counted_by_hand():
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    y = lq.layers.QuantConv2D(4, 3, padding="same", use_bias=False, **quantized)(x)
    y = layers.BatchNormalization()(y)
    x = layers.PReLU(shared_axes=[1, 2])(layers.Add()([x, y]))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    cost = complexity.count(tf.keras.Model(image, layers.Dense(10)(x)))
    assert cost.macs_float == 3 * 3 * 3 * 4 * 64 + 4 * 10
    assert cost.macs_binary == 3 * 3 * 4 * 4 * 64
    assert cost.macs == cost.macs_float + cost.macs_binary
    assert cost.weights_binary == 3 * 3 * 4 * 4
    # first kernel, two floats for each channel of two batch norms, slopes, dense kernel and bias
    assert cost.weights_float == 108 + 2 * 2 * 4 + 4 + 4 * 10 + 10
    assert cost.parameters == cost.weights_binary + cost.weights_float
    assert cost.bits == cost.weights_binary + 32 * cost.weights_float
    table = cost.table()
    assert table["macs"].sum() == cost.macs
    assert list(table[table["binary"]]["name"]) == [cost.layers[3].name]


@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False)])
def test_batch_norm_folds_into_two_numbers_a_channel(scale, center):
    cost = complexity.count(model_of(layers.BatchNormalization(scale=scale, center=center)))
    assert (cost.weights_float, cost.bits, cost.macs) == (8, 256, 0)


def test_a_layer_called_twice_works_twice_and_is_stored_once():
    conv = layers.Conv2D(4, 3, padding="same", use_bias=False)
    image = layers.Input((8, 8, 4))
    once = complexity.count(tf.keras.Model(image, conv(image)))
    small = layers.MaxPooling2D(2)(conv(image))
    twice = complexity.count(tf.keras.Model(image, conv(small)))
    assert once.macs == 144 * 64  # the calls in other models do not count
    assert twice.macs == 144 * (64 + 16)
    assert twice.parameters == once.parameters == 144


def test_models_inside_are_opened():
    image = layers.Input((8, 8, 4))
    inner = tf.keras.Sequential(
        [layers.Input((8, 8, 4)), lq.layers.QuantConv2D(4, 3, padding="same", name="conv", **quantized)],
        name="block",
    )
    cost = complexity.count(tf.keras.Model(image, inner(inner(image))))
    (conv,) = [layer for layer in cost.layers if layer.macs]
    assert (conv.name, conv.calls, conv.macs) == ("block/conv", 2, 2 * 144 * 64)
    assert cost.weights_binary == 144


class Surprise(layers.Layer):
    """A layer nobody knows."""

    def call(self, inputs):
        return inputs * 2.0


class QuietConv(layers.Conv2D):
    """A convolution that hides a second one."""

    def build(self, input_shape):
        super().build(input_shape)
        self.second = self.add_weight("second", shape=(input_shape[-1], self.filters))


class QuietPooling(layers.GlobalAveragePooling2D):
    """A pooling that may do anything."""


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Surprise(name="odd"), "'odd' is of type Surprise"),
        (QuietConv(4, 3, name="odd"), "'odd' of type QuietConv has the weights second"),
        (QuietPooling(name="odd"), "'odd' is of type QuietPooling"),
        (layers.SeparableConv2D(4, 3, name="odd"), "'odd' is of type SeparableConv2D"),
        (layers.Lambda(lambda x: x, name="odd"), "'odd' is of type Lambda"),
    ],
)
def test_no_layer_is_skipped(layer, name):
    with pytest.raises(BibenchError, match=name):
        complexity.count(model_of(layer))


def test_every_layer_of_every_network_is_in_the_table():
    for name in zoo.names():
        model = zoo.build(name, algorithm="reactnet", input_shape=(32, 32, 3), num_classes=10, width=0.25)
        counted = complexity.count(model)
        assert {layer.name for layer in counted.layers} == {layer.name for layer in model.layers}
        # Without BN's fusion every variable is counted somewhere.
        fused = sum(2 * layer.gamma.shape[0] for layer in model.layers if isinstance(layer, layers.BatchNormalization))
        assert counted.parameters + counted.weights_training + fused == model.count_params()


def test_unknown_sizes_are_refused():
    with pytest.raises(BibenchError, match="unknown size"):
        complexity.count(model_of(layers.Conv2D(4, 3), shape=(None, None, 3)))


def test_models_without_a_graph_are_refused():
    class Free(tf.keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(BibenchError, match="no graph"):
        complexity.count(Free())
    with pytest.raises(BibenchError, match="no graph"):
        complexity.count(tf.keras.Sequential([layers.Dense(3)]))


def test_agrees_with_larq_where_larq_is_right():
    image = layers.Input((9, 9, 32))
    x = lq.layers.QuantConv2D(32, 3, strides=2, padding="same", groups=2, use_bias=False, **quantized)(image)
    x = layers.BatchNormalization()(x)
    x = lq.layers.QuantDepthwiseConv2D(3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign")(x)
    x = layers.Conv2D(8, 1)(layers.AveragePooling2D(1)(x))
    x = layers.Flatten()(x)
    model = tf.keras.Model(image, layers.Dense(5)(lq.layers.QuantDense(7, **quantized)(x)))
    ours, theirs = complexity.count(model), ModelProfile(model)
    assert ours.macs_binary == theirs.op_count("mac", 1) > 0
    assert ours.macs_float == theirs.op_count("mac", 32) > 0
    assert ours.weights_binary == theirs.weight_count(1)
    assert ours.parameters == theirs.weight_count()
    assert ours.bits == theirs.memory
    for layer, profile in zip(ours.layers, theirs.layer_profiles, strict=True):
        assert (layer.name, layer.macs) == (profile.name, profile.op_count("mac") or 0)


def test_larqs_summary_is_given_as_text():
    text = complexity.summary_text(model_of(lq.layers.QuantConv2D(5, 3, name="the_layer", **quantized)))
    assert "the_layer" in text
    assert "1-bit MACs" in text
    with pytest.raises(BibenchError, match="precision"):
        complexity.summary_text(model_of(lq.layers.QuantConv2D(5, 3, kernel_quantizer=lambda kernel: kernel)))


def test_resnet18_has_the_published_counts():
    float_cost, binary_cost = (
        complexity.count(zoo.resnet18(algorithm=name, input_shape=(224, 224, 3), num_classes=1000))
        for name in ("full_precision", "bnn")
    )
    assert float_cost.parameters == 11_689_512
    assert float_cost.macs == 1_814_073_344
    # published: 1-bit and float operations of the same layers in Larq's zoo
    assert binary_cost.macs_binary == 1_676_279_808
    assert binary_cost.macs_float == 137_793_536
    assert binary_cost.weights_binary == 10_985_472
    r_c, r_s = complexity.ratios(binary_cost, float_cost)
    assert (round(r_c, 3), round(r_s, 3)) == (11.161, 11.062)
    assert round(metrics.om_comp([r_c], [r_s]), 3) == 11.112


def test_resnet18_with_binary_shortcuts():
    float_cost = complexity.count(zoo.resnet18(input_shape=(224, 224, 3), num_classes=1000))
    cost = complexity.count(
        zoo.resnet18(algorithm="bnn", input_shape=(224, 224, 3), num_classes=1000, binary_downsample=True)
    )
    r_c, r_s = complexity.ratios(cost, float_cost)
    assert (round(r_c, 3), round(r_s, 3)) == (13.273, 12.509)
    assert round(metrics.om_comp([r_c], [r_s]), 3) == 12.897


def test_resnet18_for_small_images():
    cost = complexity.count(zoo.resnet18(input_shape=(32, 32, 3), num_classes=10))
    assert cost.parameters == 11_173_962
    assert round(cost.macs / 1e6, 2) == 555.42


def test_ratios():
    network, baseline = (
        complexity.count(model_of(layer, shape=(9, 7, 64)))
        for layer in (
            lq.layers.QuantConv2D(6, 3, use_bias=False, **quantized),
            layers.Conv2D(6, 3, use_bias=False),
        )
    )
    assert complexity.ratios(baseline, baseline) == (1, 1)
    assert complexity.ratios(network, baseline) == pytest.approx((32, 64))


def test_added_parameters_lower_the_compression():
    from bibench_tf import algorithms

    def cost(name):
        return complexity.count(model_of(algorithms.get(name).conv2d(6, 3), shape=(9, 7, 64)))

    r_c, r_s = complexity.ratios(cost("reactnet"), cost("full_precision"))
    kernel = 3 * 3 * 64 * 6
    assert r_c == pytest.approx(32 * kernel / (kernel + 32 * 64))
    assert r_s == pytest.approx(64)
