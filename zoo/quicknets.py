"""QuickNet, the networks Plumerai made for Larq Compute Engine (arXiv 2011.09398), as in Larq Zoo."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.bnn import BNN
from bibench_tf.networks import Preset, register_family
from bibench_tf.zoo import parts

# The sign whose gradient and latent weights are clipped at 1.25, as in Larq Zoo.
_PAPER = BNN(clip_value=1.25)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class BlurFilter(tf.keras.initializers.Initializer):
    """Depthwise kernels (3, 3, C, 1) of the binomial filter (1, 2, 1) x (1, 2, 1) / 16. Source: arXiv 1904.11486."""

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        """The kernels of the given shape."""
        row = np.array([1.0, 2.0, 1.0])
        kernel = np.outer(row, row)[:, :, np.newaxis, np.newaxis] / 16
        return tf.constant(np.broadcast_to(kernel, shape), dtype or tf.float32)


_PRESETS = {
    "quicknet": Preset(
        "QuickNet: stages of 4, 4, 4, 4 binary 3x3 convolutions with 64, 128, 256, 512 channels.",
        {"layers": (4, 4, 4, 4), "channels": (64, 128, 256, 512)},
        (13_234_088, 1_849_688_064, 29_651_712),
        "63.3 / 84.6 % top-1 / top-5 on ImageNet (Larq Zoo).",
    ),
    "quicknet_small": Preset(
        "QuickNetSmall: stages of 4, 4, 4, 4 binary 3x3 convolutions with 32, 64, 256, 512 channels.",
        {"layers": (4, 4, 4, 4), "channels": (32, 64, 256, 512)},
        (12_655_688, 1_156_055_040, 15_941_120),
        "59.4 / 81.8 % top-1 / top-5 on ImageNet (Larq Zoo).",
    ),
    "quicknet_large": Preset(
        "QuickNetLarge: stages of 6, 8, 12, 6 binary 3x3 convolutions with 64, 128, 256, 512 channels.",
        {"layers": (6, 8, 12, 6), "channels": (64, 128, 256, 512)},
        (23_342_248, 3_699_376_128, 29_651_712),
        "66.9 / 87.0 % top-1 / top-5 on ImageNet (Larq Zoo).",
    ),
}


@register_family(_PRESETS)
def _quicknet(
    name: str,
    layers: Sequence[int],
    channels: Sequence[int],
    algorithm: str | algorithms.Algorithm = _PAPER,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
) -> tf.keras.Model:
    """Stages of `layers[i]` binary 3x3 convolutions with `channels[i]` channels.

    - Stem: conv3x3 / 2 to a quarter of the channels, BN, ReLU; depthwise 3x3 / 2, BN without parameters; 1x1, BN.
      `stem="cifar"` has stride 1 in both; `auto` takes `cifar` below 96 pixels, else `imagenet`.
    - Block: binary 3x3, ReLU, BN, + input. Inputs are padded with +1, which a bit can hold; with 0 in full precision
      and where inputs are not signs alone (XNOR-Net, WRPN, more than one bit).
    - Transition: ReLU, max-pool 2x2 / 1, a fixed blur filter 3x3 / 2, float 1x1 to the next stage's channels, BN.
    - Head: ReLU, global average pool, fully connected.

    `width` multiplies all channels. Larq's published MACs leave out the blur filters, which are counted here: 451,584
    for QuickNetSmall, 790,272 for the others.

    Input (B, H, W, C) float32, output logits (B, num_classes). Source: arXiv 2011.09398; layers as in Larq Zoo's
    QuickNet 1.0.
    """
    algorithm = algorithms.get(algorithm)
    padding = parts.pad_with_one(algorithm)
    image, stem = parts.image_and_stem(input_shape, stem, name)
    x = _stem(image, parts.scaled(channels[0], width), 2 if stem == "imagenet" else 1)
    transitions = itertools.count(1)
    for block, wide, strides in parts.stages(layers, [parts.scaled(each, width) for each in channels]):
        if strides > 1:
            x = _transition(x, wide, f"transition{next(transitions)}")
        y = algorithm.conv2d(wide, 3, name=f"{block}_conv", **padding)(x)
        y = parts.batch_norm(f"{block}_bn")(parts.activation_layer("relu", f"{block}_activation")(y))
        x = tf.keras.layers.Add(name=f"{block}_add")([y, x])
    return parts.pooled_classifier(image, parts.activation_layer("relu", "head_activation")(x), num_classes, name)


def _stem(x: tf.Tensor, channels: int, strides: int) -> tf.Tensor:
    x = parts.float_conv(max(1, channels // 4), 3, strides, "stem_conv1")(x)
    x = parts.normalized(x, "stem", "relu", 1)
    x = tf.keras.layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name="stem_depthwise")(x)
    x = parts.batch_norm("stem_bn2", scale=False, center=False)(x)
    return parts.batch_norm("stem_bn3")(parts.float_conv(channels, 1, 1, "stem_conv2")(x))


def _transition(x: tf.Tensor, channels: int, name: str) -> tf.Tensor:
    x = tf.keras.layers.MaxPooling2D(2, 1, name=f"{name}_pool")(parts.activation_layer("relu", f"{name}_activation")(x))
    blur = {"depthwise_initializer": BlurFilter(), "use_bias": False, "trainable": False, "name": f"{name}_blur"}
    x = tf.keras.layers.DepthwiseConv2D(3, 2, padding="same", **blur)(x)
    return parts.batch_norm(f"{name}_bn")(parts.float_conv(channels, 1, 1, f"{name}_conv")(x))
