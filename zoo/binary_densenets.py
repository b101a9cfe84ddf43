"""BinaryDenseNet (arXiv 1906.08637): every block appends the 64 channels of one binary convolution to its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.bnn import BNN
from bibench_tf.networks import Preset, register_family
from bibench_tf.zoo import parts, stems

# The authors' binarization: gradients pass, and weights live, within 1.3 of zero.
CLIPPED = BNN(clip_value=1.3)
CHANNELS = 64  # of the stem, and appended by each block

Block = Callable[[tf.Tensor, algorithms.Algorithm, int, int, str], tf.Tensor]


@dataclass(frozen=True)
class DenseStages:
    """The stages of a network whose blocks append channels.

    Stage i has `blocks[i]` blocks made by `block`, whose convolutions are dilated by `dilations[i]`. After every stage
    but the last comes a transition to `transitions[i]` channels: BN, max-pool 2x2 / 2 (not before a dilated stage),
    ReLU, conv1x1 in full precision, of `groups` groups and after a channel shuffle of `shuffle_groups`.
    """

    block: Block
    blocks: Sequence[int]
    transitions: Sequence[int]
    dilations: Sequence[int] = (1, 1, 1, 1)
    groups: int = 1
    shuffle_groups: int = 1


def dense_network(
    name: str,
    stages: DenseStages,
    algorithm: str | algorithms.Algorithm,
    input_shape: tuple[int, ...],
    num_classes: int,
    width: float,
    stem: str,
) -> tf.keras.Model:
    """The stem, the stages, then BN, ReLU, global average pool and the head.

    Stem, transitions and head are in full precision; `algorithm` binarizes the convolutions of the blocks. `width`
    multiplies all channels: those of the stem, of each block, and of the transitions, which are multiples of 32 only at
    width 1. If `groups` or `shuffle_groups` does not divide the channels, its largest divisor that does is taken.

    Input (B, H, W, C) float32; output logits (B, num_classes).
    """
    algorithm = algorithms.get(algorithm)
    image = stems.image(input_shape, stem, name)
    channels = parts.scaled(CHANNELS, width)
    x = stems.stem(image, stem, channels)
    for stage, (count, dilation) in enumerate(zip(stages.blocks, stages.dilations, strict=True), start=1):
        if stage > 1:
            before = f"transition{stage - 1}"
            x = parts.batch_norm(f"{before}_bn")(x)
            if dilation == 1:
                x = tf.keras.layers.MaxPooling2D(2, name=f"{before}_pool")(x)
            x = parts.activation_layer("relu", f"{before}_activation")(x)
            out = parts.scaled(stages.transitions[stage - 2], width)
            x = channel_shuffle(x, math.gcd(stages.shuffle_groups, x.shape[-1]), before)
            x = parts.float_conv(out, 1, 1, f"{before}_conv", groups=math.gcd(stages.groups, out, x.shape[-1]))(x)
        for number in range(1, count + 1):
            x = stages.block(x, algorithm, channels, dilation, f"stage{stage}_block{number}")
    x = parts.normalized(x, "last", "relu")
    return parts.pooled_classifier(image, x, num_classes, name)


def dense_block(x: tf.Tensor, algorithm: algorithms.Algorithm, channels: int, dilation: int, name: str) -> tf.Tensor:
    """BN and a binary 3x3 convolution, whose `channels` outputs are appended to x."""
    new = normalized_conv(x, algorithm, channels, dilation, name, 1)
    return tf.keras.layers.Concatenate(name=f"{name}_concat1")([x, new])


def normalized_conv(
    x: tf.Tensor, algorithm: algorithms.Algorithm, channels: int, dilation: int, name: str, number: int
) -> tf.Tensor:
    """BN and a binary 3x3 convolution; the sign is the nonlinearity between them, in full precision it is ReLU."""
    x = parts.normalized(x, name, "linear" if parts.is_binary(algorithm) else "relu", number)
    return algorithm.conv2d(channels, 3, dilation_rate=dilation, name=f"{name}_conv{number}")(x)


def transition_width(channels: int, reduction: float) -> int:
    """The multiple of 32 nearest to channels // reduction; a tie goes to the even multiple (7.5 becomes 8)."""
    return 32 * round(channels // reduction / 32)


def transition_widths(blocks: Sequence[int], reductions: Sequence[float]) -> list[int]:
    """The channels after each transition of a network of 64 channels whose blocks add 64 each."""
    widths, channels = [], CHANNELS
    for count, reduction in zip(blocks[:-1], reductions, strict=True):
        channels = transition_width(channels + CHANNELS * count, reduction)
        widths.append(channels)
    return widths


def channel_shuffle(x: tf.Tensor, groups: int, name: str) -> tf.Tensor:
    """Interleave `groups` equal groups of channels: channel i of group g becomes channel i * groups + g.

    The inverse is the shuffle of C / groups groups. Source: ShuffleNet, arXiv 1707.01083, section 3.1.
    """
    if groups == 1:
        return x
    height, wide, channels = x.shape[1:]
    x = tf.keras.layers.Reshape((height * wide, groups, channels // groups), name=f"{name}_shuffle_split")(x)
    x = tf.keras.layers.Permute((1, 3, 2), name=f"{name}_shuffle_permute")(x)
    return tf.keras.layers.Reshape((height, wide, channels), name=f"{name}_shuffle_join")(x)


_PRESETS = {
    "binary_densenet28": Preset(
        "BinaryDenseNet28: 6, 6, 6, 5 blocks, 23 binary convolutions.",
        {"blocks": (6, 6, 6, 5), "reductions": (2.7, 2.7, 2.2), "dilations": (1, 1, 1, 1)},
        (5_131_496, 3_587_383_296, 202_484_224),
        "61.7 % top-1 on ImageNet (the authors, BMXNet-v2-wiki), 62.6 % with grouped stem; 60.9 % (Larq Zoo).",
    ),
    "binary_densenet37": Preset(
        "BinaryDenseNet37: 6, 8, 12, 6 blocks, 32 binary convolutions.",
        {"blocks": (6, 8, 12, 6), "reductions": (3.3, 3.3, 4), "dilations": (1, 1, 1, 1)},
        (8_702_248, 4_506_808_320, 199_738_368),
        "63.3 % top-1 on ImageNet (the authors, BMXNet-v2-wiki), 64.2 % with grouped stem; 62.9 % (Larq Zoo).",
    ),
    "binary_densenet37_dilated": Preset(
        "BinaryDenseNet37 for segmentation: stages 3 and 4 are dilated by 2 and 4, without a pool before them.",
        {"blocks": (6, 8, 12, 6), "reductions": (3.3, 3.3, 4), "dilations": (1, 1, 2, 4)},
        (8_702_248, 7_774_470_144, 452_625_408),
        "64.3 % top-1 on ImageNet (Larq Zoo).",
    ),
    "binary_densenet45": Preset(
        "BinaryDenseNet45: 6, 12, 14, 8 blocks, 40 binary convolutions.",
        {"blocks": (6, 12, 14, 8), "reductions": (2.7, 3.3, 4), "dilations": (1, 1, 1, 1)},
        (13_889_512, 6_430_556_160, 244_103_424),
        "64.6 % top-1 on ImageNet (Larq Zoo).",
    ),
}


@register_family(_PRESETS)
def binary_densenet(
    name: str,
    blocks: Sequence[int],
    reductions: Sequence[float],
    dilations: Sequence[int],
    algorithm: str | algorithms.Algorithm = CLIPPED,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
) -> tf.keras.Model:
    """Stages of dense blocks, with transitions between them; see `dense_network`.

    `stem`: `imagenet`, `grouped` or `thumbnail`, see `stems.stem`; `auto` is `thumbnail` below 96 pixels, else
    `imagenet`. `width`: see `dense_network`.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 1906.08637; Larq Zoo has the same counts.
    """
    stages = DenseStages(dense_block, blocks, transition_widths(blocks, reductions), dilations)
    stem = stems.choose(stem, input_shape, large="imagenet")
    return dense_network(name, stages, algorithm, input_shape, num_classes, width, stem)
