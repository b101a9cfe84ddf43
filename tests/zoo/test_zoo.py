"""Networks against published values, and the places where full precision stays."""

import numpy as np
import pytest
import tensorflow as tf
from larq.models import ModelProfile

from bibench_tf import algorithms, zoo
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.errors import BibenchError

SMALL = {"input_shape": (32, 32, 3), "num_classes": 10}


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def macs(model):
    return ModelProfile(model).op_count("mac", 32)


@pytest.mark.parametrize(
    ("name", "options", "expected_parameters", "expected_macs"),
    [
        # torchvision: 11,689,512 and 1.814 G; 21,797,672 and 3.664 G.
        ("resnet18", {}, 11_689_512, 1_814_073_344),
        ("resnet34", {}, 21_797_672, 3_663_761_408),
        # Published for 32 x 32: 11,173,962 parameters and 555.42 MMACs.
        ("resnet18", SMALL, 11_173_962, 555_422_720),
        # He et al.: 269,722 and 40.551 M with parameter-free shortcuts; here two 1x1 shortcuts with batch norm come in.
        ("resnet20", SMALL, 269_722 + (16 * 32 + 64) + (32 * 64 + 128), 40_551_040 + 2 * 131_072),
        # Hand count: 3x3 convolutions, two numbers per batch-norm channel, one dense layer of 8192 x 10.
        (
            "vgg_small",
            SMALL,
            9 * (3 * 128 + 128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512) + 2 * 2 * 896 + 81_930,
            9 * (1024 * (3 * 128 + 128 * 128) + 256 * (128 * 256 + 256 * 256) + 64 * (256 * 512 + 512 * 512)) + 81_920,
        ),
    ],
)
def test_published_sizes(name, options, expected_parameters, expected_macs):
    model = zoo.build(name, **options)
    assert parameters(model) == expected_parameters
    assert macs(model) == expected_macs


def test_bibench_resnet20_has_a_wide_stem():
    model = zoo.resnet20(stem_channels=64)
    assert parameters(model) - 650 == 281_184


@pytest.mark.parametrize(("name", "binary"), [("resnet18", 16), ("resnet20", 18), ("resnet34", 32), ("vgg_small", 5)])
def test_what_is_binarized(name, binary):
    model = zoo.build(name, algorithm="bnn", **SMALL)
    layers = [layer for layer in model.layers if isinstance(layer, BinaryConv2D)]
    assert len(layers) == binary
    assert all(layer.kernel_size == (3, 3) for layer in layers)
    float_layers = [layer.name for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")]
    assert float_layers[0] == "stem_conv" and float_layers[-1] == "head"
    assert all("shortcut" in name for name in float_layers[1:-1])


@pytest.mark.parametrize("key", algorithms.names())
def test_networks_have_the_same_layer_names_for_every_algorithm(key):
    """Weights of a full-precision network can then start a binary one."""
    names = [layer.name for layer in zoo.resnet20(key).layers]
    assert names == [layer.name for layer in zoo.resnet20("full_precision").layers]


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnet34", "vgg_small"])
@pytest.mark.parametrize("options", [{}, {"shortcut": "conv"}, {"width": 0.5}, {"activation": "prelu"}])
def test_options_build_and_run(name, options):
    if "34" in name and options:
        pytest.skip("the same builder as resnet18")
    model = zoo.build(name, algorithm="bireal", input_shape=(16, 16, 1), num_classes=7, **options)
    assert model(tf.zeros((2, 16, 16, 1))).shape == (2, 7)


def test_shortcut_per_convolution_adds_around_every_binary_convolution():
    def additions(shortcut):
        return sum(isinstance(layer, tf.keras.layers.Add) for layer in zoo.resnet18("bireal", shortcut=shortcut).layers)

    assert (additions("block"), additions("conv")) == (8, 16)


def test_width_scales_parameters_quadratically():
    ratio = parameters(zoo.resnet18("bnn", width=2.0)) / parameters(zoo.resnet18("bnn"))
    assert 3.8 < ratio < 4


def test_stem_follows_the_input_size():
    assert zoo.resnet18(input_shape=(64, 64, 3)).get_layer("stem_conv").strides == (1, 1)
    assert zoo.resnet18(input_shape=(96, 96, 3)).get_layer("stem_conv").strides == (2, 2)
    assert zoo.resnet18(input_shape=(64, 64, 3), stem="imagenet").get_layer("stem_conv").kernel_size == (7, 7)


def test_activation_follows_the_algorithm():
    def function(model):
        return model.get_layer("stem_activation").activation.__name__

    assert function(zoo.resnet20("full_precision")) == "relu"
    assert function(zoo.resnet20("bnn")) == "hard_tanh"
    assert function(zoo.resnet20("bnn", activation="relu")) == "relu"


def test_binary_downsample():
    layers = zoo.resnet18("bnn", binary_downsample=True).layers
    assert sum(isinstance(layer, BinaryConv2D) for layer in layers) == 19


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "Did you mean 'resnet1"),
        ("resnet18", {"input_shape": (4, 4, 3)}, "at least 8 x 8"),
        ("resnet18", {"input_shape": (31, 31, 3), "stem": "imagenet"}, "at least 32 x 32"),
        ("vgg_small", {"input_shape": (7, 9, 3)}, "at least 8 x 8"),
        ("resnet18", {"input_shape": (None, None, 3)}, "input_shape"),
        ("resnet20", {"width": 0}, "width"),
        ("resnet20", {"num_classes": 1}, "two classes"),
        ("resnet20", {"shortcut": "none"}, "shortcut"),
        ("resnet20", {"stem": "none"}, "stem"),
        ("resnet20", {"activation": "nonsense"}, "activation"),
        ("resnet20", {"algorithm": "bnm"}, "Did you mean 'bnn'"),
        ("resnet20", {"depth": 3}, "depth"),
    ],
)
def test_bad_options_are_one_sentence(name, options, message):
    with pytest.raises(BibenchError, match=message):
        zoo.build(name, **options)
