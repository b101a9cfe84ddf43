"""BinaryDenseNet (arXiv 1906.08637): every block adds the 64 channels of one binary convolution to all before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from bibench_tf import algorithms, networks
from bibench_tf.algorithms import Algorithm
from bibench_tf.algorithms.bnn import BNN
from bibench_tf.errors import BibenchError
from bibench_tf.zoo import stems
from bibench_tf.zoo.blocks import activation_layer, batch_norm, classifier, float_conv, scaled

# The authors' binarization: gradients pass, and weights live, within 1.3 of zero.
CLIPPED = BNN(clip_value=1.3)
CHANNELS = 64  # of the stem, and of what each block adds

Block = Callable[[tf.Tensor, Algorithm, int, int, str], tf.Tensor]


def dense_network(
    name: str,
    blocks: Sequence[int],
    transitions: Sequence[int],
    *,
    block: Block,
    algorithm: str | Algorithm,
    input_shape: Sequence[int],
    num_classes: int,
    width: float,
    stem: str,
    dilations: Sequence[int] = (1, 1, 1, 1),
    groups: int = 1,
    shuffle_groups: int = 1,
) -> tf.keras.Model:
    """A network of stages of `blocks[i]` blocks, and a transition to `transitions[i]` channels after all but the last.

    A transition is BN, max-pool 2x2 / 2, ReLU, conv1x1 in full precision, of `groups` groups and after a channel
    shuffle of `shuffle_groups` where these are not 1. The convolutions of stage i are dilated by `dilations[i]`; there
    is no pool before a dilated stage. After the last stage come BN, ReLU, global average pool and the head. Stem,
    transitions and head are in full precision; `algorithm` binarizes the convolutions of the blocks.

    `width` multiplies all channels: those of the stem, of each block, and `transitions`, which are multiples of 32 only
    at width 1. Where `groups` or `shuffle_groups` does not divide the channels, its largest divisor that does is taken.
    Raises BibenchError for a `shuffle_groups` that is not a positive whole number.

    Input (B, H, W, C) float32; output logits (B, num_classes).
    """
    if not isinstance(shuffle_groups, int) or shuffle_groups < 1:
        raise BibenchError(f"shuffle_groups is a positive whole number, not {shuffle_groups!r}.")
    algorithm = algorithms.get(algorithm)
    image = stems.image(input_shape, stem, name)
    channels = scaled(CHANNELS, width)
    x = stems.stem(image, stem, channels)
    for stage, (count, dilation) in enumerate(zip(blocks, dilations, strict=True), start=1):
        if stage > 1:
            before = f"transition{stage - 1}"
            x = _normalized(x, before, pool=dilation == 1)
            out = scaled(transitions[stage - 2], width)
            x = channel_shuffle(x, math.gcd(shuffle_groups, x.shape[-1]), before)
            x = float_conv(out, 1, 1, f"{before}_conv", groups=math.gcd(groups, out, x.shape[-1]))(x)
        for number in range(1, count + 1):
            x = block(x, algorithm, channels, dilation, f"stage{stage}_block{number}")
    x = _normalized(x, "last")
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(image, classifier(x, num_classes), name=name)


def dense_block(x: tf.Tensor, algorithm: Algorithm, channels: int, dilation: int, name: str) -> tf.Tensor:
    """BN and a binary 3x3 convolution, whose `channels` outputs are appended to x."""
    new = normalized_conv(x, algorithm, channels, dilation, name, 1)
    return tf.keras.layers.Concatenate(name=f"{name}_concat1")([x, new])


def normalized_conv(
    x: tf.Tensor, algorithm: Algorithm, channels: int, dilation: int, name: str, number: int
) -> tf.Tensor:
    """BN and a binary 3x3 convolution; the sign is the nonlinearity between them, in full precision it is ReLU."""
    x = batch_norm(f"{name}_bn{number}")(x)
    nonlinearity = "relu" if algorithm.key == "full_precision" else "linear"
    x = activation_layer(nonlinearity, f"{name}_activation{number}")(x)
    return algorithm.conv2d(channels, 3, dilation_rate=dilation, name=f"{name}_conv{number}")(x)


def transition_width(channels: int, reduction: float) -> int:
    """The multiple of 32 nearest to channels // reduction; of two as near, the even multiple (7.5 becomes 8)."""
    return 32 * round(channels // reduction / 32)


def transition_widths(blocks: Sequence[int], reductions: Sequence[float]) -> list[int]:
    """The channels after each transition of a network of 64 channels whose blocks add 64 each."""
    widths, channels = [], CHANNELS
    for count, reduction in zip(blocks[:-1], reductions, strict=True):
        channels = transition_width(channels + CHANNELS * count, reduction)
        widths.append(channels)
    return widths


def channel_shuffle(x: tf.Tensor, groups: int, name: str) -> tf.Tensor:
    """The channels in turns, one of each of `groups` equal groups: channel i of group g becomes channel i * groups + g.

    The inverse is the shuffle of C / groups groups. Source: ShuffleNet, arXiv 1707.01083, section 3.1.
    """
    if groups == 1:
        return x
    height, wide, channels = x.shape[1:]
    x = tf.keras.layers.Reshape((height * wide, groups, channels // groups), name=f"{name}_shuffle_split")(x)
    x = tf.keras.layers.Permute((1, 3, 2), name=f"{name}_shuffle_permute")(x)
    return tf.keras.layers.Reshape((height, wide, channels), name=f"{name}_shuffle_join")(x)


def _normalized(x: tf.Tensor, name: str, pool: bool = False) -> tf.Tensor:
    x = batch_norm(f"{name}_bn")(x)
    if pool:
        x = tf.keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    return tf.keras.layers.Activation("relu", name=f"{name}_activation")(x)


# Blocks of each stage, reduction in each transition, and dilation of each stage.
_NETWORKS = {
    "binary_densenet28": ((6, 6, 6, 5), (2.7, 2.7, 2.2), (1, 1, 1, 1)),
    "binary_densenet37": ((6, 8, 12, 6), (3.3, 3.3, 4), (1, 1, 1, 1)),
    "binary_densenet37_dilated": ((6, 8, 12, 6), (3.3, 3.3, 4), (1, 1, 2, 4)),
    "binary_densenet45": ((6, 12, 14, 8), (2.7, 3.3, 4), (1, 1, 1, 1)),
}


def _binary_densenet(name, algorithm, input_shape, num_classes, width, stem) -> tf.keras.Model:
    blocks, reductions, dilations = _NETWORKS[name]
    return dense_network(
        name,
        blocks,
        transition_widths(blocks, reductions),
        block=dense_block,
        algorithm=algorithm,
        input_shape=input_shape,
        num_classes=num_classes,
        width=width,
        stem=stems.choose(stem, input_shape, large="imagenet"),
        dilations=dilations,
    )


@networks.register()
def binary_densenet28(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """BinaryDenseNet28: 6, 6, 6, 5 blocks, reductions 2.7, 2.7, 2.2, 23 binary convolutions.

    224 x 224 x 3 and 1000 classes: 5,131,496 parameters, 3,587,383,296 binary and 202,484,224 float MACs, 4.04 MiB;
    with the grouped stem 5,127,688 parameters and 153,111,040 float MACs, 4.03 MiB. Published accuracy on ImageNet:
    61.7 % top-1, with the grouped stem 62.6 % (the authors' results in BMXNet-v2-wiki); Larq Zoo 60.9 %.

    `stem`: `imagenet`, `grouped` or `thumbnail`, see `stems.stem`; `auto` is `thumbnail` below 96 pixels, else
    `imagenet`. `width`: see `dense_network`. Source: arXiv 1906.08637; Larq Zoo has the same counts.
    """
    return _binary_densenet("binary_densenet28", algorithm, input_shape, num_classes, width, stem)


@networks.register()
def binary_densenet37(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """BinaryDenseNet37: 6, 8, 12, 6 blocks, reductions 3.3, 3.3, 4, 32 binary convolutions.

    224 x 224 x 3 and 1000 classes: 8,702,248 parameters, 4,506,808,320 binary and 199,738,368 float MACs, 5.13 MiB;
    with the grouped stem 8,698,440 parameters and 150,365,184 float MACs, 5.12 MiB. Published accuracy on ImageNet:
    63.3 % top-1, with the grouped stem 64.2 % (the authors' results in BMXNet-v2-wiki); Larq Zoo 62.9 %.

    Options: see `binary_densenet28`.
    """
    return _binary_densenet("binary_densenet37", algorithm, input_shape, num_classes, width, stem)


@networks.register()
def binary_densenet37_dilated(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """BinaryDenseNet37 whose stages 3 and 4 are dilated by 2 and 4 and have no pool before them.

    224 x 224 x 3 and 1000 classes: 8,702,248 parameters, 7,774,470,144 binary and 452,625,408 float MACs, 5.13 MiB.
    Published accuracy on ImageNet: 64.3 % top-1 (Larq Zoo). Options: see `binary_densenet28`.
    """
    return _binary_densenet("binary_densenet37_dilated", algorithm, input_shape, num_classes, width, stem)


@networks.register()
def binary_densenet45(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """BinaryDenseNet45: 6, 12, 14, 8 blocks, reductions 2.7, 3.3, 4, 40 binary convolutions.

    224 x 224 x 3 and 1000 classes: 13,889,512 parameters, 6,430,556,160 binary and 244,103,424 float MACs, 7.35 MiB.
    Published accuracy on ImageNet: 64.6 % top-1 (Larq Zoo). Options: see `binary_densenet28`.
    """
    return _binary_densenet("binary_densenet45", algorithm, input_shape, num_classes, width, stem)
