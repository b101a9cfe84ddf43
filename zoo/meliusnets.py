"""MeliusNet (arXiv 2001.05936): BinaryDenseNet whose blocks also improve the channels that they have just added."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bibench_tf.algorithms import Algorithm
from bibench_tf.networks import Preset, register_family
from bibench_tf.options import Count
from bibench_tf.zoo import stems
from bibench_tf.zoo.binary_densenets import CLIPPED, DenseStages, dense_network, normalized_conv


def melius_block(x: tf.Tensor, algorithm: Algorithm, channels: int, dilation: int, name: str) -> tf.Tensor:
    """A dense block, which appends `channels` channels to x, and an improvement block, which adds to these.

    new = conv1(BN(x)); y = [x, new]; output [x, new + conv2(BN(y))]: all but the last `channels` channels pass
    unchanged. Both 3x3 convolutions are binary. Source: arXiv 2001.05936.
    """
    new = normalized_conv(x, algorithm, channels, dilation, name, 1)
    y = tf.keras.layers.Concatenate(name=f"{name}_concat1")([x, new])
    # The last channels of y are `new`, so the sum needs no slice of y.
    better = normalized_conv(y, algorithm, channels, dilation, name, 2)
    new = tf.keras.layers.Add(name=f"{name}_add")([new, better])
    return tf.keras.layers.Concatenate(name=f"{name}_concat2")([x, new])


_PRESETS = {
    "meliusnet22": Preset(
        "MeliusNet22: 4, 5, 4, 4 blocks, 34 binary convolutions.",
        {"blocks": (4, 5, 4, 4), "transitions": (160, 224, 256), "groups": 1, "shuffle_groups": 1},
        (6_944_584, 4_624_220_160, 136_388_608),
        "63.6 % top-1 on ImageNet (the authors, BMXNet-v2-wiki), 62.9 % with imagenet stem; 62.4 % (Larq Zoo).",
    ),
    "meliusnet29": Preset(
        "MeliusNet29: 4, 6, 8, 6 blocks, 48 binary convolutions.",
        {"blocks": (4, 6, 8, 6), "transitions": (128, 192, 256), "groups": 1, "shuffle_groups": 1},
        (11_328_328, 5_469_585_408, 129_491_968),
        "65.8 % top-1 on ImageNet (the authors, BMXNet-v2-wiki), 64.9 % with the imagenet stem.",
    ),
    "meliusnet42": Preset(
        "MeliusNet42: 5, 8, 14, 10 blocks, 74 binary convolutions.",
        {"blocks": (5, 8, 14, 10), "transitions": (160, 256, 416), "groups": 1, "shuffle_groups": 1},
        (26_825_544, 9_692_798_976, 175_066_368),
        "69.2 % top-1 on ImageNet (the authors, BMXNet-v2-wiki).",
    ),
    "meliusnet59": Preset(
        "MeliusNet59: 6, 12, 24, 12 blocks, 108 binary convolutions.",
        {"blocks": (6, 12, 24, 12), "transitions": (192, 320, 544), "groups": 1, "shuffle_groups": 1},
        (55_555_336, 18_316_247_040, 247_074_048),
        "70.7 % top-1 on ImageNet (the authors, BMXNet-v2-wiki).",
    ),
    "meliusnet23": Preset(
        "MeliusNet23: 2, 4, 6, 6 blocks, 36 binary convolutions, transitions of 8 groups.",
        {"blocks": (2, 4, 6, 6), "transitions": (128, 192, 288), "groups": 8},
        (8_187_784, 2_532_483_072, 74_543_616),
    ),
    "meliusnet_a": Preset(
        "MeliusNetA or MeliusNet25/4: 4, 5, 5, 6 blocks, 40 binary convolutions, transitions of 4 groups.",
        {"blocks": (4, 5, 5, 6), "transitions": (160, 256, 288), "groups": 4},
        (9_238_984, 4_851_818_496, 87_401_216),
        "63.4 % top-1 on ImageNet (the authors, BMXNet-v2-wiki).",
        aliases=("meliusnet25_4",),
    ),
    "meliusnet_b": Preset(
        "MeliusNetB or MeliusNet29/2: 4, 6, 8, 6 blocks, 48 binary convolutions, transitions of 2 groups.",
        {"blocks": (4, 6, 8, 6), "transitions": (160, 224, 320), "groups": 2},
        (12_239_176, 5_722_472_448, 107_127_296),
        "65.7 % top-1 on ImageNet (the authors, BMXNet-v2-wiki).",
        aliases=("meliusnet29_2",),
    ),
    "meliusnet_c": Preset(
        "MeliusNetC: 3, 5, 10, 6 blocks, 48 binary convolutions, transitions of 4 groups.",
        {"blocks": (3, 5, 10, 6), "transitions": (128, 192, 288), "groups": 4},
        (12_240_264, 4_353_269_760, 82_885_376),
        "64.1 % top-1 on ImageNet (the authors, BMXNet-v2-wiki).",
    ),
}


@register_family(_PRESETS)
def meliusnet(
    name: str,
    blocks: Sequence[int],
    transitions: Sequence[int],
    groups: int,
    algorithm: str | Algorithm = CLIPPED,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
    shuffle_groups: Count = 16,
) -> tf.keras.Model:
    """Stages of MeliusNet blocks, with transitions between them; see `dense_network`.

    `stem`: `grouped`, `imagenet` or `thumbnail`, see `stems.stem`; `auto` is `thumbnail` below 96 pixels, else
    `grouped`. `width`: see `dense_network`. `shuffle_groups`, an option of networks with grouped transitions: the
    groups of the channel shuffle before each grouped convolution. The networks whose accuracy the authors published
    have 16; in their later code it is the number of groups of the convolution. Counts do not depend on it.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 2001.05936; Larq Zoo's MeliusNet22 has
    the same counts.
    """
    stages = DenseStages(melius_block, blocks, transitions, groups=groups, shuffle_groups=shuffle_groups)
    stem = stems.choose(stem, input_shape, large="grouped")
    return dense_network(name, stages, algorithm, input_shape, num_classes, width, stem)
