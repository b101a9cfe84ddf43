"""Residual networks with basic blocks (arXiv 1512.03385), with the shortcut per block or per convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE
from bibench_tf.networks import Preset, register_family
from bibench_tf.options import Count
from bibench_tf.zoo import parts

# The channels of the stages, and the number of blocks in each stage by depth. Source: arXiv 1512.03385, table 1.
CHANNELS = (64, 128, 256, 512)
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def blocks_of(depth: int) -> tuple[int, ...]:
    """The number of basic blocks in each stage of ResNet-18 or -34; raises InvalidOption for another depth."""
    if depth not in _BLOCKS:
        raise InvalidOption(f"depth is one of {', '.join(map(str, _BLOCKS))}, not {depth!r}.")
    return _BLOCKS[depth]


_PRESETS = {
    "resnet18": Preset(
        "ResNet-18: 2, 2, 2, 2 blocks of 64, 128, 256, 512 channels, 16 binary convolutions.",
        {"blocks": _BLOCKS[18], "channels": CHANNELS},
        (11_689_512, 0, 1_814_073_344),
    ),
    "resnet34": Preset(
        "ResNet-34: 3, 4, 6, 3 blocks of 64, 128, 256, 512 channels, 32 binary convolutions.",
        {"blocks": _BLOCKS[34], "channels": CHANNELS},
        (21_797_672, 0, 3_663_761_408),
    ),
    # The paper's 269,722 parameters and 40.55 MMACs, and convolutions for the two shortcuts that change size.
    "resnet20": Preset(
        "ResNet-20 for small images: 3, 3, 3 blocks of 16, 32, 64 channels, 18 binary convolutions.",
        {"blocks": (3, 3, 3), "channels": (16, 32, 64)},
        (272_474, 0, 40_813_184),
        defaults={"input_shape": (32, 32, 3), "num_classes": 10},
    ),
}


@register_family(_PRESETS)
def resnet(
    name: str,
    blocks: Sequence[int],
    channels: Sequence[int],
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    shortcut: str = "block",
    activation: parts.Activation = None,
    stem: str = "auto",
    stem_channels: Count | None = None,
    binary_downsample: bool = False,
    pooled_shortcut: bool = False,
    padding: str = "same",
) -> tf.keras.Model:
    """A residual network of `blocks[i]` basic blocks with `channels[i]` channels in stage i.

    A block is conv3x3, BN, activation, conv3x3, BN, + shortcut, activation; both convolutions are binarized by
    `algorithm`. The first layer, the 1x1 convolutions that down-sample shortcuts, and the last layer stay in full
    precision; `binary_downsample` binarizes the second of these. `pooled_shortcut` has an average pool 2x2 / 2 before
    them in place of their stride, as in Bi-Real Net and ResNetE. `stem_channels` are `channels[0]` by default;
    BiBench's ResNet-20 has 64.

    `shortcut="conv"` puts a shortcut around every convolution (Bi-Real Net, arXiv 1808.00278); a binary network then
    has no nonlinearity but the sign, unless `activation` names one. `stem`: `cifar` is conv3x3, BN, activation;
    `imagenet` conv7x7 / 2, BN, activation, max-pool 3x3 / 2; `auto` takes `cifar` below 96 pixels. `activation`
    defaults to the algorithm's: ReLU in full precision, Hardtanh otherwise. `width` multiplies all channels.
    `padding`: `same` is Keras', with 0; `minus_one` pads binary convolutions with -1, and pads all layers equally on
    both sides, as daBNN does.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 1512.03385, table 1 and section 4.2.
    """
    parts.check_choice("shortcut", shortcut, ("block", "conv"))
    algorithm = algorithms.get(algorithm)
    image, stem = parts.image_and_stem(input_shape, stem, name)
    builder = ResidualBlocks(algorithm, activation, shortcut, binary_downsample, pooled_shortcut, padding)

    x = builder.stem(image, stem, parts.scaled(channels[0] if stem_channels is None else stem_channels, width))
    x = builder.stages(x, blocks, [parts.scaled(wide, width) for wide in channels])
    return parts.pooled_classifier(image, x, num_classes, name)


@dataclass(frozen=True)
class ResidualBlocks:
    """The blocks of one network. The fields are the options of `resnet`."""

    algorithm: algorithms.Algorithm
    activation: parts.Activation = None
    shortcut: str = "block"
    binary_downsample: bool = False
    pooled_shortcut: bool = False
    padding: str = "same"

    def activate(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """The activation; a sign suffices where every binary convolution has a shortcut."""
        activation = self.activation
        if activation is None:
            signs_suffice = self.shortcut == "conv" and parts.is_binary(self.algorithm)
            activation = "linear" if signs_suffice else self.algorithm.activation
        return parts.activation_layer(activation, name)(x)

    def stem(self, x: tf.Tensor, kind: str, channels: int) -> tf.Tensor:
        """The first convolution, BN, activation, and the pool of the `imagenet` stem."""
        x = parts.batch_norm("stem_bn")(parts.stem_conv(x, kind, channels, self.padding))
        return parts.stem_pool(self.activate(x, "stem_activation"), kind, self.padding)

    def stages(self, x: tf.Tensor, blocks: Sequence[int], channels: Sequence[int]) -> tf.Tensor:
        """`blocks[i]` blocks of `channels[i]` channels in stage i; every stage but the first halves the size."""
        for name, wide, strides in parts.stages(blocks, channels):
            x = self.block(x, wide, strides, name)
        return x

    def block(self, x: tf.Tensor, channels: int, strides: int, name: str) -> tf.Tensor:
        """A basic block with one shortcut, or two convolutions with a shortcut each."""
        if self.shortcut == "conv":
            x = self._add(self._conv(x, channels, strides, name, 1), x, strides, f"{name}_1")
            return self._add(self._conv(x, channels, 1, name, 2), x, 1, f"{name}_2")
        y = self.activate(self._conv(x, channels, strides, name, 1), f"{name}_activation1")
        return self._add(self._conv(y, channels, 1, name, 2), x, strides, name)

    def _conv(self, x: tf.Tensor, channels: int, strides: int, name: str, number: int) -> tf.Tensor:
        padding = parts.padding_of_binary_convs(self.padding, self.algorithm)
        x = self.algorithm.conv2d(channels, 3, strides=strides, name=f"{name}_conv{number}", **padding)(x)
        return parts.batch_norm(f"{name}_bn{number}")(x)

    def _add(self, y: tf.Tensor, x: tf.Tensor, strides: int, name: str) -> tf.Tensor:
        """Y plus the shortcut from x, and the activation."""
        channels = y.shape[-1]
        if strides != 1 or x.shape[-1] != channels:
            if self.pooled_shortcut:
                x, strides = parts.halved(x, strides, f"{name}_shortcut_pool"), 1
            algorithm = self.algorithm if self.binary_downsample else None
            x = parts.projected(x, channels, strides, f"{name}_shortcut", algorithm)
        return self.activate(tf.keras.layers.Add(name=f"{name}_add")([y, x]), f"{name}_activation")
