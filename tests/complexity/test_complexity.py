"""Counts against formulas written out by hand, published values and Larq's own profile."""

from __future__ import annotations

import contextlib
import resource

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq.models import ModelProfile

from bibench_tf import complexity, networks, zoo
from bibench_tf.errors import BibenchError
from bibench_tf.operations import Operations
from bibench_tf.stats import metrics

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
        cost = only(model_of(lq.layers.QuantConv2D(5, 3, **quantizers)))
        shares = {1: cost.macs_binary, 2: cost.macs_low_bit, 32: cost.macs_float}
        assert shares == {precision: cost.macs if precision == cost.mac_bits else 0 for precision in shares}
        return cost.mac_bits

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
        (layers.LocallyConnected2D(4, 3, name="odd"), "'odd' is of type LocallyConnected2D"),
        (layers.Lambda(lambda x: x, name="odd"), "'odd' is of type Lambda"),
    ],
)
def test_no_layer_is_skipped(layer, name):
    with pytest.raises(BibenchError, match=name):
        complexity.count(model_of(layer))


@pytest.mark.parametrize(
    "name",
    [
        *("resnet20", "vgg_small", "meliusnet22", "binary_alexnet", "bnext_t", "group_net18", "reactnet_a"),
        *("quicknet", "real_to_binary", "mobilenet_v1"),
    ],
)
def test_every_layer_of_a_network_is_in_the_table(name):
    with complexity.unallocated(name, "reactnet", (64, 64, 3), 10, width=0.25) as model:
        counted = complexity.count(model)
        assert {layer.name for layer in counted.layers} == {layer.name for layer in model.layers}
        # Without BN's fusion every variable is counted somewhere.
        norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
        fused = sum((len(norm.weights) - 2) * norm.moving_mean.shape[0] for norm in norms)
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


def counted(layer, shape, *others):
    """(MACs, other operations, parameters) of a layer called with inputs of these shapes."""
    inputs = [layers.Input(size) for size in (shape, *others)]
    cost = complexity.count(tf.keras.Model(inputs, layer(inputs if others else inputs[0])))
    return cost.macs, cost.other, cost.parameters


@pytest.mark.parametrize(
    ("layer", "shapes", "macs", "other", "parameters"),
    [
        (layers.Conv2D(5, 3, activation="relu"), [(8, 8, 4)], 36 * 5 * 36, 2 * 5 * 36, 185),
        (layers.Conv2D(5, 3, use_bias=False), [(8, 8, 4)], 36 * 5 * 36, 0, 180),
        (layers.Dense(7, activation="softmax"), [(12,)], 84, 7 + 3 * 7, 91),
        (layers.DepthwiseConv1D(3), [(10, 4)], 3 * 4 * 8, 32, 16),
        # 3 x 3 for each of 4 channels, then 4 x 5, at 36 positions, and the bias
        (layers.SeparableConv2D(5, 3), [(8, 8, 4)], (36 + 20) * 36, 180, 36 + 20 + 5),
        (layers.SeparableConv1D(5, 3, use_bias=False), [(10, 4)], (12 + 20) * 8, 0, 32),
        (layers.Conv2DTranspose(6, 3, strides=2, padding="same"), [(8, 8, 4)], 216 * 64, 6 * 256, 222),
        (layers.Conv3DTranspose(2, 2, strides=2), [(2, 3, 4, 3)], 8 * 6 * 24, 2 * 4 * 6 * 8, 50),
        (layers.Embedding(50, 8), [(7,)], 0, 0, 400),
        # Per step: four gates from 5 inputs and 3 states; 12 biases, 12 sums, 15 functions, 9 + 3 for the state.
        (layers.LSTM(3), [(7, 5)], 7 * (60 + 36), 7 * (12 + 12 + 15 + 12), 60 + 36 + 12),
        # Three gates, two biases each; 9 sums, 9 functions, 15 for the state.
        (layers.GRU(3), [(7, 5)], 7 * (45 + 27), 7 * (18 + 9 + 9 + 15), 45 + 27 + 18),
        (layers.SimpleRNN(3, use_bias=False), [(7, 5)], 7 * (15 + 9), 7 * (3 + 3), 24),
        (layers.Bidirectional(layers.SimpleRNN(3, use_bias=False), merge_mode="sum"), [(7, 5)], 336, 84 + 3, 48),
        (layers.TimeDistributed(layers.Dense(4)), [(7, 5)], 7 * 20, 7 * 4, 24),
        (layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d"), [(7, 5)], 7 * 30, 42, 36),
        (layers.EinsumDense("...x,xy->...y", (6,)), [(2, 7, 5)], 14 * 30, 0, 30),
        # scores of 7 queries and 9 keys, their softmax, and the sum of the values
        (layers.Attention(), [(7, 5), (9, 5)], 7 * 9 * (5 + 5), 3 * 63, 0),
        (layers.Dot(axes=(2, 2)), [(7, 5), (9, 5)], 7 * 9 * 5, 0, 0),
        (layers.BatchNormalization(), [(8, 8, 4)], 0, 2 * 256, 8),
        (layers.LayerNormalization(), [(7, 5)], 0, 7 * 35, 10),
        (layers.LayerNormalization(scale=False, center=False), [(7, 5)], 0, 5 * 35, 0),
        (layers.GroupNormalization(2), [(8, 8, 4)], 0, 7 * 256, 8),
        (layers.PReLU(shared_axes=[1, 2]), [(8, 8, 4)], 0, 2 * 256, 4),
        (layers.ReLU(), [(8, 8, 4)], 0, 256, 0),
        (layers.LeakyReLU(), [(8, 8, 4)], 0, 512, 0),
        (layers.Activation("tanh"), [(8, 8, 4)], 0, 256, 0),
        (layers.Activation("linear"), [(8, 8, 4)], 0, 0, 0),
        (layers.Softmax(), [(10,)], 0, 30, 0),
        (layers.Add(), [(5,), (5,), (5,)], 0, 10, 0),
        (layers.Multiply(), [(8, 8, 4), (1, 1, 4)], 0, 256, 0),
        (layers.Average(), [(5,), (5,), (5,)], 0, 15, 0),
        (layers.Concatenate(), [(5,), (6,)], 0, 0, 0),
        (layers.MaxPooling2D(2), [(8, 8, 4)], 0, 3 * 64, 0),
        (layers.AveragePooling2D(3, 2, padding="same"), [(8, 8, 4)], 0, 9 * 64, 0),
        (layers.AveragePooling1D(2), [(8, 4)], 0, 2 * 16, 0),
        (layers.GlobalAveragePooling2D(), [(8, 8, 4)], 0, 256, 0),
        (layers.GlobalMaxPooling1D(), [(8, 4)], 0, 28, 0),
        (layers.UpSampling2D(2), [(4, 4, 3)], 0, 0, 0),
        (layers.UpSampling2D(2, interpolation="bilinear"), [(4, 4, 3)], 0, 7 * 192, 0),
        (lq.quantizers.SteSign(), [(5,)], 0, 5, 0),
        (lq.quantizers.NoOp(precision=1), [(5,)], 0, 0, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_by_hand(layer, shapes, macs, other, parameters):
    assert counted(layer, *shapes) == (macs, other, parameters)


def test_multi_head_attention():
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=4, value_dim=3)
    query, value = layers.Input((7, 5)), layers.Input((9, 6))
    cost = complexity.count(tf.keras.Model([query, value], layer(query, value)))
    projections = 7 * 5 * 8 + 9 * 6 * 8 + 9 * 6 * 6 + 7 * 6 * 5
    assert cost.macs == projections + 2 * 7 * 9 * (4 + 3)
    # biases, the division of the queries, softmax
    assert cost.other == 7 * 8 + 9 * 8 + 9 * 6 + 7 * 5 + 7 * 8 + 3 * 2 * 7 * 9
    assert cost.parameters == sum(np.prod(weight.shape) for weight in layer.weights)
    (role,) = {part.role for part in cost.layers if part.macs}
    assert role == "matmul"


def test_arithmetic_on_tensors():
    x = layers.Input((7, 5))
    scores = tf.nn.softmax(tf.matmul(x, x, transpose_b=True) * 0.5)
    y = tf.einsum("bij,bjk->bik", scores, x)
    y = tf.reduce_mean(y[:, 1:] + 1.0, axis=1) / 2.0
    cost = complexity.count(tf.keras.Model(x, tf.reshape(-y, (-1, 5, 1))))
    assert cost.macs == 7 * 7 * 5 + 7 * 7 * 5
    assert cost.other == 49 + 3 * 49 + 30 + 30 + 5 + 5
    with pytest.raises(BibenchError, match="calls 'linalg.svd'|calls 'math.cumsum'"):
        complexity.count(tf.keras.Model(x, tf.cumsum(x, axis=1)))


def test_separable_layers_of_larq_have_two_precisions():
    layer = lq.layers.QuantSeparableConv2D(
        5,
        3,
        input_quantizer="ste_sign",
        depthwise_quantizer="ste_sign",
        pointwise_quantizer="ste_sign",
        use_bias=False,
    )
    cost = complexity.count(model_of(layer))
    assert (cost.macs_binary, cost.macs_float) == (36 * 36, 20 * 36)
    assert cost.weights_binary == 56


def test_low_bits_have_their_own_sum():
    def cost(inputs, kernel):
        quantizers = {"input_quantizer": lq.quantizers.DoReFa(inputs), "kernel_quantizer": lq.quantizers.DoReFa(kernel)}
        return complexity.count(model_of(lq.layers.QuantConv2D(5, 3, use_bias=False, **quantizers)))

    assert (cost(2, 4).macs_low_bit, cost(2, 4).macs_float, cost(2, 4).bits) == (180 * 36, 0, 4 * 180)
    assert cost(2, 4).mac_pairs == (complexity.Macs(180 * 36, 2, 4),)
    assert (cost(8, 8).macs_low_bit, cost(16, 8).macs_float) == (180 * 36, 180 * 36)
    assert complexity.derive("ace", cost(2, 4))["ace"] == 180 * 36 * 8


class Declared(layers.Layer):
    """A layer that declares its cost."""

    def build(self, input_shape):
        self.table = self.add_weight("table", shape=(4, 4))

    def call(self, inputs):
        return inputs

    def count_operations(self, input_shape, output_shape):
        assert input_shape == output_shape == (None, 8, 8, 4)
        return Operations({1: 100, 32: 10}, other=3)

    def count_weights(self):
        return {1: 16, 32: 2}


def test_layers_may_declare_their_cost():
    image = layers.Input((8, 8, 4))
    layer = Declared()
    cost = complexity.count(tf.keras.Model(image, layer(layer(image))))
    assert (cost.macs_binary, cost.macs_float, cost.other) == (200, 20, 6)
    assert (cost.weights_binary, cost.weights_float, cost.bits) == (16, 2, 80)


def test_conventions_by_hand():
    Layer, Macs, Weights = complexity.LayerCost, complexity.Macs, complexity.Weights
    stem = Layer("stem", "Conv2D", "conv", 1, (Macs(1000, 32, 32),), 5, (Weights(100, 32),))
    body = Layer("body", "Conv2D", "conv", 1, (Macs(6400, 1, 1),), 7, (Weights(800, 1),))
    two = Layer("two", "Conv2D", "conv", 1, (Macs(50, 2, 4),), 0, (Weights(60, 4),))
    head = Layer("head", "Dense", "dense", 1, (Macs(40, 32, 32),), 0, (Weights(40, 32),))
    cost = complexity.ModelCost((stem, body, two, head))
    assert cost.classifier is head
    ops64 = {"bops": 6400, "flops": 1090, "operations": 1190, "operations_without_classifier": 1150}
    assert complexity.derive("ops64", cost) == ops64
    bits = 32 * 140 + 800 + 240
    assert complexity.derive("hpi", cost) == {"size_mib": bits / 8 / 2**20, "operations": 1150}
    larq = complexity.derive("larq", cost)
    assert (larq["macs_1_bit"], larq["macs_4_bit"], larq["macs_32_bit"], larq["macs"]) == (6400, 50, 1040, 7490)
    assert larq["size_8_bit_floats_kib"] == (8 * 140 + 800 + 240) / 8 / 1024
    ace = {"ace": 6400 + 50 * 8 + 1040 * 256, "ace_32_bit_floats": 6400 + 50 * 8 + 1040 * 1024}
    assert complexity.derive("ace", cost) == ace
    twin = complexity.ModelCost((Layer("all", "Conv2D", "conv", 1, (Macs(7490, 32, 32),), 0, (Weights(1000, 32),)),))
    bibench = complexity.derive("bibench", cost, twin)
    assert bibench["r_s"] == pytest.approx(7490 / (6400 / 64 + 1090))
    assert bibench["r_c"] == pytest.approx(1000 / (800 / 32 + 200))
    with pytest.raises(BibenchError, match="full-precision network"):
        complexity.derive("bibench", cost)
    with pytest.raises(BibenchError, match="Unknown convention 'hp'"):
        complexity.derive("hp", cost)
    # A convolution at the end is no classifier, nor is a binary one left out.
    assert complexity.ModelCost((head, stem)).classifier is None


def test_larqs_convention_is_larqs_profile():
    for name in ("birealnet18", "meliusnet22", "binary_alexnet", "mobilenet_v1"):
        algorithm = "full_precision" if name == "mobilenet_v1" else "paper"
        with complexity.unallocated(name, algorithm, (64, 64, 3), 10, width=0.25) as model:
            larq, theirs = complexity.derive("larq", complexity.count(model)), ModelProfile(model)
            assert larq["size_kib"] == theirs.memory / 8 / 1024
            assert larq["size_8_bit_floats_kib"] == theirs.int8_fp_weights_memory / 8 / 1024
            assert larq["size_all_floats_kib"] == theirs.fp_equivalent_memory / 8 / 1024
            assert larq["parameters"] == theirs.weight_count()
            assert larq.get("macs_1_bit", 0) == (theirs.op_count("mac", 1) or 0)
            assert larq["macs_32_bit"] == theirs.op_count("mac", 32) > 0


def test_a_network_is_counted_without_its_weights():
    counted_first = complexity.count_network("resnet20@0.25", "reactnet")
    assert counted_first == complexity.count(zoo.resnet20("reactnet", width=0.25))
    # 60 million parameters: 240 MB in float32.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with complexity.unallocated("binary_alexnet") as model:
        assert complexity.count(model).parameters > 60e6
        assert not any(hasattr(weight, "numpy") and tf.executing_eagerly() for weight in model.weights)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 100 * 1024
    assert tf.executing_eagerly()


def test_the_builders_own_size_is_the_default():
    assert complexity.count_network("resnet18", "bnn", (224, 224, 3), 1000).macs_binary == 1_676_279_808
    own = complexity.count_network("resnet20", "bnn")
    assert own == complexity.count_network("resnet20", "bnn", (32, 32, 3), 10)
    with pytest.raises(BibenchError, match="no binarization of its own"):
        complexity.count_network("resnet20")


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 1, 3)])
def test_counting_leaves_other_models_alone(shape):
    """Keras changes the classes of layers made in a graph; models made before must still run."""
    model = zoo.vgg_small("reactnet", (8, 8, 3), 4, width=0.0625, activation="prelu")
    image = tf.random.stateless_uniform((1, 8, 8, 3), (1, 2))
    before = model(image)
    with contextlib.suppress(BibenchError):
        complexity.count_network("vgg_small", "reactnet", shape, activation="prelu", width=0.0625)
    np.testing.assert_array_equal(model(image), before)
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(image, before))
    other = zoo.vgg_small("reactnet", (8, 8, 3), 4, width=0.0625, activation="prelu")
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other(image), model(image))


def test_a_count_that_fails_midway_leaves_other_models_alone():
    layer = layers.PReLU()
    model = model_of(layer, shape=(4,))

    def broken(*args, **options):
        layers.PReLU()(layers.Input((4,)))
        raise BibenchError("stopped")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(BibenchError, match="stopped"):
        patch.setattr(networks, "build", broken)
        complexity.count_network("resnet20", "bnn")
    assert model(tf.ones((1, 4))).shape == (1, 4)
