"""ABC-Net, Group-Net, WRPN and the searched widths of Shen et al.: structure and counts."""

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import complexity, zoo
from bibench_tf.algorithms.abc_net import ABC
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.errors import BibenchError
from bibench_tf.zoo.group_nets import SoftGate
from bibench_tf.zoo.wide_resnets import shen_resnet18

layers = tf.keras.layers
SMALL = {"input_shape": (32, 32, 3), "num_classes": 10, "width": 0.125}
# ResNet-18 and -34 at 224 x 224, published: MACs of the 3x3 convolutions, and of all else but the 1x1 shortcuts.
BINARY = {18: 1_676_279_808, 34: 3_525_967_872}
BINARY_WEIGHTS = {18: 10_985_472, 34: 21_086_208}
SHORTCUT_MACS = 28 * 28 * 64 * 128 + 14 * 14 * 128 * 256 + 7 * 7 * 256 * 512
SHORTCUT_WEIGHTS = 64 * 128 + 128 * 256 + 256 * 512
FLOAT = 137_793_536


def cost_of(builder, **options):
    """Counted without allocating a weight."""
    with complexity.without_memory():
        return complexity.count(builder(**options))


def binary_macs(model):
    """What the layers themselves say they compute, or one kernel for each position of the output."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "count_operations"):
            total += layer.count_operations(layer.input_shape, layer.output_shape).macs.get(1, 0)
        elif isinstance(layer, BinaryConv2D):
            for node in layer.inbound_nodes:
                total += int(np.prod(layer.kernel.shape)) * int(np.prod(node.output_shapes[1:-1]))
    return total


def randomised(model, seed):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.name or "gamma" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def test_group_net_with_one_branch_is_one_residual_network():
    """Bi-Real's shortcuts, ReLU before batch norm, +1 around the signs, one scale for the layer: by hand."""
    model = randomised(zoo.group_net18(branches=1, **SMALL), 1)
    assert not any(isinstance(layer, (SoftGate, layers.Average)) for layer in model.layers)

    def weights(name):
        return [weight.numpy() for weight in model.get_layer(name).weights]

    def norm(x, name):
        gamma, beta, mean, variance = weights(name)
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def binary(x, name, strides, pad):
        kernel = weights(name)[0]
        kernel = np.where(kernel >= 0, 1, -1) * np.abs(kernel).mean()
        x = np.pad(np.where(x >= 0, 1.0, -1.0), ((0, 0), pad, pad, (0, 0)), constant_values=1.0)
        return tf.nn.conv2d(x, kernel.astype("float64"), strides, "VALID").numpy()

    images = np.random.default_rng(2).normal(size=(2, 32, 32, 3))
    x = norm(tf.nn.conv2d(images, weights("stem_conv")[0].astype("float64"), 1, "SAME").numpy(), "stem_bn")
    for stage in (1, 2, 3, 4):
        for block in (1, 2):
            name, strides = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            # Keras' padding: on both sides, but after a stride of two, where only the end needs it.
            pad = (1, 1) if strides == 1 else (0, 1)
            y = norm(np.maximum(binary(x, f"{name}_branch1_conv1", strides, pad), 0), f"{name}_branch1_bn1")
            if strides == 2:
                x = norm(binary(x, f"{name}_shortcut_conv", 2, (0, 0)), f"{name}_shortcut_bn")
            x = x + y
            x = x + norm(np.maximum(binary(x, f"{name}_branch1_conv2", 1, (1, 1)), 0), f"{name}_branch1_bn2")
    kernel, bias = weights("head")
    np.testing.assert_allclose(model(images.astype("float32")), x.mean((1, 2)) @ kernel + bias, rtol=1e-3, atol=1e-3)


def test_branches_with_the_same_weights_are_one_branch():
    one = randomised(zoo.group_net18(branches=1, **SMALL), 3)
    three = zoo.group_net18(branches=3, **SMALL)
    for layer in three.layers:
        if layer.weights and not isinstance(layer, SoftGate):
            name = layer.name.replace("branch2", "branch1").replace("branch3", "branch1")
            layer.set_weights(one.get_layer(name).get_weights())
    images = np.random.default_rng(4).normal(size=(2, 32, 32, 3)).astype("float32")
    # A last bit of the mean may turn a sign over, so most outputs agree, not all.
    agree = np.isclose(three(images), one(images), rtol=1e-2, atol=1e-2)
    assert agree.mean() > 0.9
    three.get_layer("stage2_block1_branch2_conv1").set_weights([np.ones((3, 3, 8, 16))])
    assert np.isclose(three(images), one(images), rtol=1e-2, atol=1e-2).mean() < 0.9


def test_gates_mix_a_branch_with_the_mean():
    first, second, mean = np.random.default_rng(5).normal(size=(3, 2, 4, 4, 3)).astype("float32")
    gate = SoftGate()
    gate([first, second, mean])
    assert 0 <= gate.gate.numpy() < 1
    for value in (-1.5, 0.0, 2.0):
        gate.gate.assign(value)
        share = 1 / (1 + np.exp(-value))
        for branch, output in zip((first, second), gate([first, second, mean]), strict=True):
            np.testing.assert_allclose(output, share * branch + (1 - share) * mean, rtol=1e-5, atol=1e-6)
    operations = gate.count_operations([(None, 4, 4, 3)] * 3, [(None, 4, 4, 3)] * 2)
    assert dict(operations.macs) == {} and operations.other == (1 + 2 * 2) * 48


def test_where_gates_are():
    def gates(**options):
        return [layer.name for layer in zoo.group_net18(**options, **SMALL).layers if isinstance(layer, SoftGate)]

    assert gates(branches=2) == [f"stage{stage}_block{block}_gate" for stage in (2, 3, 4) for block in (1, 2)]
    assert gates(branches=2, soft_gates=False) == []


@pytest.mark.parametrize("branches", [1, 2])
def test_group_net_costs_as_many_times_as_it_has_branches(branches):
    with complexity.without_memory():
        model = zoo.group_net18(branches=branches)
        assert binary_macs(model) == branches * (BINARY[18] + SHORTCUT_MACS)
        weights = sum(int(np.prod(layer.kernel.shape)) for layer in model.layers if isinstance(layer, BinaryConv2D))
        assert weights == branches * BINARY_WEIGHTS[18] + SHORTCUT_WEIGHTS
        cost = complexity.count(model)
    assert cost.macs_binary == branches * (BINARY[18] + SHORTCUT_MACS)
    assert cost.macs_float == FLOAT - SHORTCUT_MACS
    assert cost.weights_binary == weights


@pytest.mark.parametrize("bases", [(1, 1), (2, 3)])
def test_abc_net_costs_as_many_times_as_it_has_pairs_of_bases(bases):
    with complexity.without_memory():
        model = zoo.abc_net(weight_bases=bases[0], activation_bases=bases[1])
        assert binary_macs(model) == bases[0] * bases[1] * BINARY[18]
        cost = complexity.count(model)
    assert cost.macs_binary == bases[0] * bases[1] * BINARY[18]
    assert cost.macs_float == FLOAT
    assert cost.weights_binary == bases[0] * BINARY_WEIGHTS[18]


def test_abc_net_pools_before_batch_norm():
    names = [layer.name for layer in zoo.abc_net("bnn", input_shape=(96, 96, 3), width=0.125).layers]
    assert names[1:5] == ["stem_conv", "stem_pool", "stem_bn", "stem_activation"]


def test_bases_of_abc_net():
    def bases(**options):
        layer = zoo.abc_net(**options, **SMALL).get_layer("stage1_block1_conv1")
        return layer.kernel_quantizer.bases, layer.input_quantizer.bases

    assert bases(algorithm=ABC(2, 1)) == (2, 1)
    assert bases(weight_bases=1, activation_bases=2) == (1, 2)
    with pytest.raises(BibenchError, match="are for algorithm 'abc'"):
        zoo.abc_net("bnn", weight_bases=3)


@pytest.mark.parametrize("depth", [18, 34])
def test_width_multiplies_binary_macs_by_its_square(depth):
    for width in (1, 2) if depth == 34 else (1, 3):
        cost = cost_of(zoo.wrpn, width=width, depth=depth)
        assert cost.macs_binary == width**2 * BINARY[depth]
        assert cost.weights_binary == width**2 * BINARY_WEIGHTS[depth]


@pytest.mark.parametrize(
    ("builder", "binary_shortcuts", "float_shortcuts"),
    [(zoo.resnet18_auto_a, 4.847e8, 6.112e8), (zoo.resnet18_auto_b, 6.468e8, 8.997e8)],
)
def test_operations_of_searched_widths(builder, binary_shortcuts, float_shortcuts):
    for downsample, expected in ((True, binary_shortcuts), (False, float_shortcuts)):
        cost = cost_of(builder, algorithm="bnn", binary_downsample=downsample)
        assert round((cost.macs_binary / 64 + cost.macs_float) / 1e5) == round(expected / 1e5)


def test_a_width_code_of_ones_is_resnet18():
    cost = cost_of(shen_resnet18, name="ones", code=(1,) * 12, algorithm="bnn", binary_downsample=False)
    assert (cost.macs_binary, cost.macs_float) == (BINARY[18], FLOAT)


def test_options_are_checked():
    for builder, options, message in (
        (zoo.wrpn, {"depth": 50}, "18, 34"),
        (zoo.abc_net, {"depth": 20}, "18, 34"),
        (zoo.group_net18, {"branches": 0}, "branches"),
        (shen_resnet18, {"name": "short", "code": (1, 2)}, "12 factors"),
    ):
        with pytest.raises(BibenchError, match=message):
            builder(**options, **SMALL)
