"""Residual networks with basic blocks (arXiv 1512.03385), with the shortcut per block or per convolution."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bibench_tf import algorithms, networks
from bibench_tf.algorithms import Algorithm
from bibench_tf.errors import BibenchError
from bibench_tf.zoo.blocks import (
    activation_layer,
    batch_norm,
    check_choice,
    choose_stem,
    classifier,
    float_conv,
    image_input,
    padding_of_binary_convs,
    scaled,
    stem_conv,
    stem_pool,
)

# The channels of the stages, and how many blocks each stage has at a depth. Source: arXiv 1512.03385, table 1.
CHANNELS = (64, 128, 256, 512)
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def blocks_of(depth: int) -> tuple[int, ...]:
    """How many basic blocks the four stages of ResNet-18 or -34 have; raises BibenchError for another depth."""
    if depth not in _BLOCKS:
        raise BibenchError(f"depth is one of {', '.join(map(str, _BLOCKS))}, not {depth!r}.")
    return _BLOCKS[depth]


def resnet(
    name: str,
    blocks: Sequence[int],
    channels: Sequence[int],
    *,
    algorithm: str | Algorithm,
    input_shape: Sequence[int],
    num_classes: int,
    width: float = 1.0,
    shortcut: str = "block",
    activation=None,
    stem: str = "auto",
    stem_channels: int | None = None,
    binary_downsample: bool = False,
    pooled_shortcut: bool = False,
    padding: str = "same",
) -> tf.keras.Model:
    """A residual network of `blocks[i]` basic blocks with `channels[i]` channels in stage i.

    A block is conv3x3, BN, activation, conv3x3, BN, + shortcut, activation; both convolutions are binarized by
    `algorithm`. The first layer, the 1x1 convolutions that down-sample shortcuts, and the last layer stay in full
    precision; `binary_downsample` binarizes the second of these. `pooled_shortcut` has an average pool 2x2 / 2 before
    them, as Bi-Real Net and ResNetE do, in place of their stride.

    `shortcut="conv"` puts a shortcut around every convolution (Bi-Real Net, arXiv 1808.00278); a binary network then
    has no nonlinearity but the sign, unless `activation` names one. `stem`: `cifar` is conv3x3, BN, activation;
    `imagenet` conv7x7 / 2, BN, activation, max-pool 3x3 / 2; `auto` takes `cifar` below 96 pixels. `activation`
    defaults to the algorithm's: ReLU in full precision, Hardtanh otherwise. `width` multiplies all channels.
    `padding`: `same` is Keras', with 0; `minus_one` pads binary convolutions with -1, and whatever pads with the same
    on both sides, as daBNN does.

    Input (B, H, W, C) float32; output logits (B, num_classes).
    """
    check_choice("shortcut", shortcut, ("block", "conv"))
    stem = choose_stem(stem, input_shape)
    algorithm = algorithms.get(algorithm)
    image = image_input(input_shape, minimum=32 if stem == "imagenet" else 8, network=name)
    builder = ResidualBlocks(algorithm, activation, shortcut, binary_downsample, pooled_shortcut, padding)

    x = builder.stem(image, stem, scaled(channels[0] if stem_channels is None else stem_channels, width))
    x = builder.stages(x, blocks, [scaled(wide, width) for wide in channels])
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(image, classifier(x, num_classes), name=name)


class ResidualBlocks:
    """The options that all blocks of one network share; those of `resnet`, which explains them."""

    def __init__(
        self,
        algorithm: Algorithm,
        activation=None,
        shortcut: str = "block",
        binary_downsample: bool = False,
        pooled_shortcut: bool = False,
        padding: str = "same",
    ):
        if activation is None:
            signs_suffice = shortcut == "conv" and algorithm.key != "full_precision"
            activation = "linear" if signs_suffice else algorithm.activation
        self.algorithm = algorithm
        self.activation = activation
        self.shortcut = shortcut
        self.binary_downsample = binary_downsample
        self.pooled_shortcut = pooled_shortcut
        self.padding = padding
        self.padding_of_binary_convs = padding_of_binary_convs(padding, algorithm)

    def activate(self, x, name):
        return activation_layer(self.activation, name)(x)

    def stem(self, x, kind, channels):
        x = stem_conv(x, kind, channels, self.padding)
        x = self.activate(batch_norm("stem_bn")(x), "stem_activation")
        if kind == "imagenet":
            x = stem_pool(x, self.padding)
        return x

    def stages(self, x: tf.Tensor, blocks: Sequence[int], channels: Sequence[int]) -> tf.Tensor:
        """`blocks[i]` blocks of `channels[i]` channels in stage i; every stage but the first halves the size."""
        for stage, (count, wide) in enumerate(zip(blocks, channels, strict=True), start=1):
            for block in range(1, count + 1):
                strides = 2 if stage > 1 and block == 1 else 1
                x = self.block(x, wide, strides, f"stage{stage}_block{block}")
        return x

    def block(self, x, channels, strides, name):
        if self.shortcut == "conv":
            x = self.residual(x, lambda v: self.conv(v, channels, strides, name, 1), channels, strides, f"{name}_1")
            return self.residual(x, lambda v: self.conv(v, channels, 1, name, 2), channels, 1, f"{name}_2")

        def two_convolutions(v):
            v = self.activate(self.conv(v, channels, strides, name, 1), f"{name}_activation1")
            return self.conv(v, channels, 1, name, 2)

        return self.residual(x, two_convolutions, channels, strides, name)

    def conv(self, x, channels, strides, name, number):
        options = {"strides": strides, "name": f"{name}_conv{number}", **self.padding_of_binary_convs}
        x = self.algorithm.conv2d(channels, 3, **options)(x)
        return batch_norm(f"{name}_bn{number}")(x)

    def residual(self, x, branch, channels, strides, name):
        y = branch(x)
        if strides != 1 or x.shape[-1] != channels:
            if self.pooled_shortcut and strides != 1:
                x = tf.keras.layers.AveragePooling2D(strides, padding="same", name=f"{name}_shortcut_pool")(x)
                strides = 1
            if self.binary_downsample:
                x = self.algorithm.conv2d(channels, 1, strides=strides, name=f"{name}_shortcut_conv")(x)
            else:
                x = float_conv(channels, 1, strides, f"{name}_shortcut_conv")(x)
            x = batch_norm(f"{name}_shortcut_bn")(x)
        return self.activate(tf.keras.layers.Add(name=f"{name}_add")([y, x]), f"{name}_activation")


@networks.register()
def resnet18(
    algorithm: str | Algorithm = "full_precision", input_shape=(224, 224, 3), num_classes=1000, **options
) -> tf.keras.Model:
    """ResNet-18: 2, 2, 2, 2 blocks of 64, 128, 256, 512 channels, 16 binary convolutions.

    224 x 224 x 3 and 1000 classes: 11,689,512 parameters, 1.814 GMACs. 32 x 32 x 3 and 10 classes: 11,173,962
    parameters, 555.4 MMACs. Further options: see `resnet`. Source: arXiv 1512.03385, table 1.
    """
    return resnet(
        "resnet18",
        _BLOCKS[18],
        CHANNELS,
        algorithm=algorithm,
        input_shape=input_shape,
        num_classes=num_classes,
        **options,
    )


@networks.register()
def resnet34(
    algorithm: str | Algorithm = "full_precision", input_shape=(224, 224, 3), num_classes=1000, **options
) -> tf.keras.Model:
    """ResNet-34: 3, 4, 6, 3 blocks of 64, 128, 256, 512 channels, 32 binary convolutions.

    224 x 224 x 3 and 1000 classes: 21,797,672 parameters, 3.664 GMACs. 32 x 32 x 3 and 10 classes: 21,282,122
    parameters. Further options: see `resnet`. Source: arXiv 1512.03385, table 1.
    """
    return resnet(
        "resnet34",
        _BLOCKS[34],
        CHANNELS,
        algorithm=algorithm,
        input_shape=input_shape,
        num_classes=num_classes,
        **options,
    )


@networks.register()
def resnet20(
    algorithm: str | Algorithm = "full_precision", input_shape=(32, 32, 3), num_classes=10, **options
) -> tf.keras.Model:
    """ResNet-20 for small images: 3, 3, 3 blocks of 16, 32, 64 channels, 18 binary convolutions.

    32 x 32 x 3 and 10 classes: 272,474 parameters, 40.81 MMACs; that is the paper's 269,722 and 40.55 with
    convolutions for the two shortcuts that change size. BiBench's variant has `stem_channels=64`. Further options:
    see `resnet`. Source: arXiv 1512.03385, section 4.2.
    """
    return resnet(
        "resnet20",
        (3, 3, 3),
        (16, 32, 64),
        algorithm=algorithm,
        input_shape=input_shape,
        num_classes=num_classes,
        **options,
    )
