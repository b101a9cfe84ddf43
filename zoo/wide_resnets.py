"""Wider residual networks: WRPN (arXiv 1709.01134), and the searched widths of Shen et al. (ICCV 2019 workshops)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.wrpn import WRPN
from bibench_tf.errors import InvalidOption
from bibench_tf.networks import Preset, register, register_family
from bibench_tf.zoo import parts
from bibench_tf.zoo.resnets import CHANNELS, blocks_of, resnet

# Signs with one scale for the whole layer, and inputs of the levels 0 and 1, as in the released layers.
_SHEN = WRPN(weight_scale="layer")


@register()
def wrpn(
    algorithm: str | algorithms.Algorithm = "wrpn",
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    depth: int = 34,
    **options: Any,
) -> tf.keras.Model:
    """ResNet-34 or -18 (`depth`) with all channels times `width`, 1, 2 and 3 in the paper.

    The other options and the layers are those of `resnet34`; the width m multiplies the MACs of the binary convolutions
    by m^2. Raises InvalidOption for another depth.

    224 x 224 x 3 and 1000 classes, depth 34, 1x / 2x / 3x: 21,797,672 / 86,110,824 / 192,940,456 parameters,
    3,525,967,872 / 14,103,871,488 / 31,733,710,848 binary and 137,793,536 / 314,122,240 / 528,986,112 float MACs.
    Published top-1 on ImageNet at one bit, from a second-hand source: 60.5 / 69.9 / 72.4.
    Source: arXiv 1709.01134.
    """
    return resnet("wrpn", blocks_of(depth), CHANNELS, algorithm, input_shape, num_classes, width, **options)


_PRESETS = {
    "resnet18_auto_a": Preset(
        "Res18-Auto-A: the searched widths 2, 4, 2, 2 and 2, 4, 4, 4, 4, 4, 4, 4.",
        {"code": (2, 4, 2, 2, 2, 4, 4, 4, 4, 4, 4, 4)},
        (95_411_048, 15_850_799_104, 237_051_904),
    ),
    "resnet18_auto_b": Preset(
        "Res18-Auto-B: the searched widths 3, 4, 4, 3 and 1, 4, 4, 4, 3, 3, 3, 3.",
        {"code": (3, 4, 4, 3, 1, 4, 4, 4, 3, 3, 3, 3)},
        (115_490_088, 18_638_176_256, 355_577_856),
    ),
}


@register_family(_PRESETS)
def shen_resnet18(
    name: str,
    code: Sequence[float],
    algorithm: str | algorithms.Algorithm = _SHEN,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
    binary_downsample: bool = True,
) -> tf.keras.Model:
    """ResNet-18 with channels by a code of 12 factors, of Shen et al.

    The first four multiply the 64, 128, 256, 512 channels that the blocks of a stage give, the other eight, one for
    each block, the channels between its two convolutions. The stem has the channels of the first stage. A block is
    binary 3x3 (the first with the stride), BN, binary 3x3, BN, + shortcut, without an activation; a shortcut that
    changes shape is conv1x1, BN, binary or, with `binary_downsample=False`, in full precision. The stem is
    conv7x7 / 2, BN, max-pool 3x3 / 2, or conv3x3, BN (`cifar`); ReLU comes once, before the pool of the head. `width`
    multiplies all channels in addition. Raises InvalidOption unless the code has 12 positive factors. No accuracy is
    published with the codes.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: Shen et al., Searching for Accurate Binary
    Neural Architectures, ICCV 2019 workshops; the layers as in the authors' network.
    """
    if len(code) != 12:
        raise InvalidOption(
            f"A width code has 12 factors, four for the stages and eight for the blocks, not {len(code)}."
        )
    algorithm = algorithms.get(algorithm)
    image, stem = parts.image_and_stem(input_shape, stem, name)
    widths = [parts.scaled(wide, width * factor) for wide, factor in zip(CHANNELS, code[:4], strict=True)]
    middles = [parts.scaled(CHANNELS[block // 2], width * factor) for block, factor in enumerate(code[4:])]

    x = parts.stem_pool(parts.batch_norm("stem_bn")(parts.stem_conv(image, stem, widths[0])), stem)
    for middle, (block, channels, strides) in zip(middles, parts.stages((2, 2, 2, 2), widths), strict=True):
        y = parts.batch_norm(f"{block}_bn1")(algorithm.conv2d(middle, 3, strides=strides, name=f"{block}_conv1")(x))
        y = parts.batch_norm(f"{block}_bn2")(algorithm.conv2d(channels, 3, name=f"{block}_conv2")(y))
        if strides != 1 or x.shape[-1] != channels:
            x = parts.projected(x, channels, strides, f"{block}_shortcut", algorithm if binary_downsample else None)
        x = tf.keras.layers.Add(name=f"{block}_add")([y, x])
    return parts.pooled_classifier(image, parts.activation_layer("relu", "head_activation")(x), num_classes, name)
