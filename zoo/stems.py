"""The first layers that several families of Hasso Plattner Institute share."""

from __future__ import annotations

import math

import tensorflow as tf

from bibench_tf.zoo import parts

STEMS = ("imagenet", "grouped", "thumbnail")


def choose(stem: str, input_shape: tuple[int, ...], large: str) -> str:
    """`parts.choose_stem` among `STEMS`: `auto` is `thumbnail` for small images, else `large`."""
    return parts.choose_stem(stem, input_shape, STEMS, small="thumbnail", large=large)


def image(input_shape: tuple[int, ...], stem: str, network: str) -> tf.Tensor:
    """A Keras input large enough for a network of four stages, each half as large as the one before, after `stem`.

    Raises BibenchError below 32 x 32 pixels, or below 8 x 8 with the `thumbnail` stem.
    """
    return parts.image_input(input_shape, minimum=8 if stem == "thumbnail" else 32, network=network)


def stem(x: tf.Tensor, kind: str, channels: int) -> tf.Tensor:
    """The stem called `kind` on images (B, H, W, C), in full precision.

    - `imagenet`: conv7x7 / 2, BN, ReLU, max-pool 3x3 / 2. Output (B, H/4, W/4, channels).
    - `grouped`: conv3x3 / 2 to half the channels, conv3x3 of 4 groups, conv3x3 of 8 groups to all channels, each with
      BN and ReLU, max-pool 3x3 / 2. Output (B, H/4, W/4, channels). Its MACs are 0.58 of those of `imagenet`.
      Where 4 or 8 does not divide the channels, the number of groups is the largest divisor of it that does.
    - `thumbnail`: conv3x3 only, without BN. Output (B, H, W, channels).

    Source: arXiv 2001.05936 (grouped), arXiv 1906.08637, and the authors' models. Larq Zoo's copy of MeliusNet22 has a
    max-pool of 2x2 in the grouped stem; counts are the same.
    """
    parts.check_choice("stem", kind, STEMS)
    if kind == "thumbnail":
        return parts.stem_conv(x, "cifar", channels)
    if kind == "imagenet":
        return parts.stem_pool(parts.normalized(parts.stem_conv(x, "imagenet", channels), "stem", "relu"), "imagenet")
    half = max(1, channels // 2)
    x = parts.normalized(parts.float_conv(half, 3, 2, "stem_conv1")(x), "stem", "relu", 1)
    x = parts.normalized(parts.float_conv(half, 3, 1, "stem_conv2", groups=math.gcd(4, half))(x), "stem", "relu", 2)
    x = parts.float_conv(channels, 3, 1, "stem_conv3", groups=math.gcd(8, half, channels))(x)
    x = parts.normalized(x, "stem", "relu", 3)
    return parts.stem_pool(x, "imagenet")
