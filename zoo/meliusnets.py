"""MeliusNet (arXiv 2001.05936): BinaryDenseNet whose every block improves the channels it has just added."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf import networks
from bibench_tf.algorithms import Algorithm
from bibench_tf.zoo import stems
from bibench_tf.zoo.binary_densenets import CLIPPED, dense_network, normalized_conv


def melius_block(x: tf.Tensor, algorithm: Algorithm, channels: int, dilation: int, name: str) -> tf.Tensor:
    """A dense block, which appends `channels` channels to x, and an improvement block, which adds to these.

    new = conv1(BN(x)); y = [x, new]; output [x, new + conv2(BN(y))]: all but the last `channels` channels pass as they
    are. Both 3x3 convolutions are binary. Source: arXiv 2001.05936.
    """
    new = normalized_conv(x, algorithm, channels, dilation, name, 1)
    y = tf.keras.layers.Concatenate(name=f"{name}_concat1")([x, new])
    # The last channels of y are `new`: nothing has to be cut out of y to add to them.
    better = normalized_conv(y, algorithm, channels, dilation, name, 2)
    new = tf.keras.layers.Add(name=f"{name}_add")([new, better])
    return tf.keras.layers.Concatenate(name=f"{name}_concat2")([x, new])


# Blocks of each stage, channels after each transition, and groups of the transitions' convolutions.
_NETWORKS = {
    "meliusnet22": ((4, 5, 4, 4), (160, 224, 256), 1),
    "meliusnet23": ((2, 4, 6, 6), (128, 192, 288), 8),
    "meliusnet29": ((4, 6, 8, 6), (128, 192, 256), 1),
    "meliusnet42": ((5, 8, 14, 10), (160, 256, 416), 1),
    "meliusnet59": ((6, 12, 24, 12), (192, 320, 544), 1),
    "meliusnet_a": ((4, 5, 5, 6), (160, 256, 288), 4),
    "meliusnet_b": ((4, 6, 8, 6), (160, 224, 320), 2),
    "meliusnet_c": ((3, 5, 10, 6), (128, 192, 288), 4),
}


def _meliusnet(name, algorithm, input_shape, num_classes, width, stem, shuffle_groups=1) -> tf.keras.Model:
    blocks, transitions, groups = _NETWORKS[name]
    return dense_network(
        name,
        blocks,
        transitions,
        block=melius_block,
        algorithm=algorithm,
        input_shape=input_shape,
        num_classes=num_classes,
        width=width,
        stem=stems.choose(stem, input_shape, large="grouped"),
        groups=groups,
        shuffle_groups=shuffle_groups,
    )


@networks.register()
def meliusnet22(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """MeliusNet22: 4, 5, 4, 4 blocks, transitions to 160, 224, 256 channels, 34 binary convolutions.

    224 x 224 x 3 and 1000 classes: 6,944,584 parameters, 4,624,220,160 binary and 136,388,608 float MACs, 3.88 MiB;
    with the imagenet stem 6,948,392 parameters, 185,761,792 float MACs and 3.89 MiB. Published accuracy on ImageNet:
    63.6 % top-1 (the authors' results in BMXNet-v2-wiki); with the imagenet stem 62.9 %; Larq Zoo's copy 62.4 %.

    `stem`: `grouped`, `imagenet` or `thumbnail`, see `stems.stem`; `auto` is `thumbnail` below 96 pixels, else
    `grouped`. `width`: see `dense_network`. Source: arXiv 2001.05936; Larq Zoo has the same counts.
    """
    return _meliusnet("meliusnet22", algorithm, input_shape, num_classes, width, stem)


@networks.register()
def meliusnet23(
    algorithm: str | Algorithm = CLIPPED,
    input_shape=(224, 224, 3),
    num_classes=1000,
    width=1.0,
    *,
    stem="auto",
    shuffle_groups=16,
) -> tf.keras.Model:
    """MeliusNet23: 2, 4, 6, 6 blocks, transitions to 128, 192, 288 channels of 8 groups, 36 binary convolutions.

    224 x 224 x 3 and 1000 classes: 8,187,784 parameters, 2,532,483,072 binary and 74,543,616 float MACs, 3.72 MiB. The
    authors published no accuracy.

    `shuffle_groups`: the groups of the channel shuffle before each grouped 1x1 convolution. The networks whose accuracy
    the authors published have 16; their later code has the number of groups of the convolution. Sizes and operations do
    not depend on it. Other options: see `meliusnet22`.
    """
    return _meliusnet("meliusnet23", algorithm, input_shape, num_classes, width, stem, shuffle_groups)


@networks.register()
def meliusnet29(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """MeliusNet29: 4, 6, 8, 6 blocks, transitions to 128, 192, 256 channels, 48 binary convolutions.

    224 x 224 x 3 and 1000 classes: 11,328,328 parameters, 5,469,585,408 binary and 129,491,968 float MACs, 5.07 MiB;
    with the imagenet stem 11,332,136 parameters, 178,865,152 float MACs and 5.08 MiB. Published accuracy on ImageNet:
    65.8 % top-1 (the authors' results in BMXNet-v2-wiki); with the imagenet stem 64.9 %.

    Options: see `meliusnet22`.
    """
    return _meliusnet("meliusnet29", algorithm, input_shape, num_classes, width, stem)


@networks.register()
def meliusnet42(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """MeliusNet42: 5, 8, 14, 10 blocks, transitions to 160, 256, 416 channels, 74 binary convolutions.

    224 x 224 x 3 and 1000 classes: 26,825,544 parameters, 9,692,798,976 binary and 175,066,368 float MACs, 10.10 MiB.
    Published accuracy on ImageNet: 69.2 % top-1 (the authors' results in BMXNet-v2-wiki).

    Options: see `meliusnet22`.
    """
    return _meliusnet("meliusnet42", algorithm, input_shape, num_classes, width, stem)


@networks.register()
def meliusnet59(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, *, stem="auto"
) -> tf.keras.Model:
    """MeliusNet59: 6, 12, 24, 12 blocks, transitions to 192, 320, 544 channels, 108 binary convolutions.

    224 x 224 x 3 and 1000 classes: 55,555,336 parameters, 18,316,247,040 binary and 247,074,048 float MACs, 17.39 MiB.
    Published accuracy on ImageNet: 70.7 % top-1 (the authors' results in BMXNet-v2-wiki).

    Options: see `meliusnet22`.
    """
    return _meliusnet("meliusnet59", algorithm, input_shape, num_classes, width, stem)


@networks.register(aliases=("meliusnet25_4",))
def meliusnet_a(
    algorithm: str | Algorithm = CLIPPED,
    input_shape=(224, 224, 3),
    num_classes=1000,
    width=1.0,
    *,
    stem="auto",
    shuffle_groups=16,
) -> tf.keras.Model:
    """MeliusNetA: 4, 5, 5, 6 blocks, transitions to 160, 256, 288 channels of 4 groups, 40 binary convolutions.

    It is also called MeliusNet25/4.

    224 x 224 x 3 and 1000 classes: 9,238,984 parameters, 4,851,818,496 binary and 87,401,216 float MACs, 4.05 MiB.
    Published accuracy on ImageNet: 63.4 % top-1 (the authors' results in BMXNet-v2-wiki).

    Options: see `meliusnet23`.
    """
    return _meliusnet("meliusnet_a", algorithm, input_shape, num_classes, width, stem, shuffle_groups)


@networks.register(aliases=("meliusnet29_2",))
def meliusnet_b(
    algorithm: str | Algorithm = CLIPPED,
    input_shape=(224, 224, 3),
    num_classes=1000,
    width=1.0,
    *,
    stem="auto",
    shuffle_groups=16,
) -> tf.keras.Model:
    """MeliusNetB: 4, 6, 8, 6 blocks, transitions to 160, 224, 320 channels of 2 groups, 48 binary convolutions.

    It is also called MeliusNet29/2.

    224 x 224 x 3 and 1000 classes: 12,239,176 parameters, 5,722,472,448 binary and 107,127,296 float MACs, 5.00 MiB.
    Published accuracy on ImageNet: 65.7 % top-1 (the authors' results in BMXNet-v2-wiki).

    Options: see `meliusnet23`.
    """
    return _meliusnet("meliusnet_b", algorithm, input_shape, num_classes, width, stem, shuffle_groups)


@networks.register()
def meliusnet_c(
    algorithm: str | Algorithm = CLIPPED,
    input_shape=(224, 224, 3),
    num_classes=1000,
    width=1.0,
    *,
    stem="auto",
    shuffle_groups=16,
) -> tf.keras.Model:
    """MeliusNetC: 3, 5, 10, 6 blocks, transitions to 128, 192, 288 channels of 4 groups, 48 binary convolutions.

    224 x 224 x 3 and 1000 classes: 12,240,264 parameters, 4,353,269,760 binary and 82,885,376 float MACs, 4.46 MiB.
    Published accuracy on ImageNet: 64.1 % top-1 (the authors' results in BMXNet-v2-wiki).

    Options: see `meliusnet23`.
    """
    return _meliusnet("meliusnet_c", algorithm, input_shape, num_classes, width, stem, shuffle_groups)


# What the authors' later tables call these two.
