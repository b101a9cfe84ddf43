"""BNext (arXiv 2211.12933): ReActNet's layout with gated, mixed and re-normalized binary convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.reactnet import ReActNet
from bibench_tf.networks import Preset, register_family
from bibench_tf.operations import Operations
from bibench_tf.zoo import parts

# The authors' binarization: signs with a learned shift, whose gradients pass within 1.5 of zero.
HARD_SIGN = ReActNet(clip_value=1.5)
GATE_REDUCTION = 8


@tf.keras.utils.register_keras_serializable("bibench_tf")
class UnitInterval(tf.keras.constraints.Constraint):
    """Keeps weights in [0, 1]: w becomes min(max(w, 0), 1) after every update."""

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(w, 0.0, 1.0)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class Mix(tf.keras.layers.Layer):
    """A learned mean of two tensors of one shape (..., C): s * a + (1 - s) * b.

    The weight `scale` s of shape (C,) starts at 0.5 and is kept in [0, 1]. Input [a, b]. Source: arXiv 2211.12933
    (Info-Recoupling) and the authors' code.
    """

    def build(self, input_shape: Any) -> None:
        shape, start = (input_shape[0][-1],), tf.keras.initializers.Constant(0.5)
        self.scale = self.add_weight("scale", shape=shape, initializer=start, constraint=UnitInterval())
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        a, b = inputs
        return b + self.scale * (a - b)

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """Three for each number: a difference, a product and a sum."""
        return Operations({}, 3 * math.prod(output_shape[1:]))


_PRESETS = {
    "bnext_t": Preset(
        "BNext-T: 32 channels in the stem, 1, 2, 2, 6, 2 blocks, 31 binary convolutions.",
        {"stem_channels": 32, "blocks": (1, 2, 2, 6, 2)},
        (30_853_276, 4_816_896_000, 13_344_512),
        "72.4 % top-1 on ImageNet (the authors' repository).",
    ),
    "bnext_s": Preset(
        "BNext-S: 48 channels in the stem, 1, 2, 2, 6, 2 blocks, 31 binary convolutions.",
        {"stem_channels": 48, "blocks": (1, 2, 2, 6, 2)},
        (68_581_174, 10_838_016_000, 21_128_640),
        "76.1 % top-1 on ImageNet (the authors' repository).",
    ),
    "bnext_m": Preset(
        "BNext-M: 48 channels in the stem, 1, 4, 4, 8, 4 blocks, 47 binary convolutions.",
        {"stem_channels": 48, "blocks": (1, 4, 4, 8, 4)},
        (134_479_894, 20_086_456_320, 24_262_080),
        "78.3 % top-1 on ImageNet (the authors' repository).",
    ),
    "bnext_l": Preset(
        "BNext-L: 64 channels in the stem, 1, 4, 4, 16, 4 blocks, 63 binary convolutions.",
        {"stem_channels": 64, "blocks": (1, 4, 4, 16, 4)},
        (326_504_912, 52_150_927_360, 39_418_880),
        "80.6 % top-1 on ImageNet (the authors' repository).",
    ),
}


@register_family(_PRESETS)
def bnext(
    name: str,
    stem_channels: int,
    blocks: Sequence[int],
    algorithm: str | algorithms.Algorithm = HARD_SIGN,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
) -> tf.keras.Model:
    """Blocks of a 3x3 and one or two 1x1 units: `blocks[i]` of 2, 4, 8, 16, 32 times `stem_channels` for i = 0 .. 4.

    A unit is y = conv, BN, PReLU of its input x; m = s * x + (1 - s) * y (`Mix`); y times the gate of m
    (`parts.channel_gate`, an eighth of the channels hidden); BN; + x. In every second block, from the second on, the
    3x3 unit is an attention: there r = PReLU(x) takes the place of x in the last sum and is multiplied with y before
    the BN. The first 3x3 unit of groups 1 to 4 is strided, and x and r are pooled 2x2 / 2 by their average. Where the
    channels double, two 1x1 units are concatenated. `algorithm` binarizes the convolutions of all units.

    The stem is conv3x3 / 2 and BN; `cifar` is without stride; `auto` takes `cifar` below 96 pixels. Before the head
    come PReLU and global average pool. Stem, gates and head are in full precision; the authors also quantize them to 8
    bits. Their training starts from a soft sign of the weights that hardens; here weights are signs from the start.
    `width` multiplies `stem_channels`.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 2211.12933.
    """
    algorithm = algorithms.get(algorithm)
    image, stem = parts.image_and_stem(input_shape, stem, name)
    channels = parts.scaled(stem_channels, width)
    x = parts.batch_norm("stem_bn")(parts.float_conv(channels, 3, 2 if stem == "imagenet" else 1, "stem_conv")(image))
    block = 0
    for group, count in enumerate(blocks):
        for number in range(count):
            block += 1
            strides = 2 if group > 0 and number == 0 else 1
            x = _unit(x, algorithm, 3, strides, f"block{block}_spatial", attention=block % 2 == 0)
            if number > 0:
                x = _unit(x, algorithm, 1, 1, f"block{block}_pointwise")
                continue
            halves = [_unit(x, algorithm, 1, 1, f"block{block}_pointwise{half}") for half in (1, 2)]
            x = tf.keras.layers.Concatenate(name=f"block{block}_concat")(halves)
    x = parts.activation_layer("prelu", "last_activation")(x)
    return parts.pooled_classifier(image, x, num_classes, name)


def _unit(
    x: tf.Tensor, algorithm: algorithms.Algorithm, kernel_size: int, strides: int, name: str, attention: bool = False
) -> tf.Tensor:
    """BNext's FFN, or Attention."""
    channels = x.shape[-1]
    y = algorithm.conv2d(channels, kernel_size, strides, name=f"{name}_conv")(x)
    y = parts.activation_layer("prelu", f"{name}_activation")(parts.batch_norm(f"{name}_bn1")(y))
    shortcut = parts.halved(x, strides, f"{name}_shortcut_pool")
    mixed = Mix(name=f"{name}_mix")([shortcut, y])
    gate = parts.channel_gate(mixed, channels, GATE_REDUCTION, f"{name}_gate", use_bias=True)
    y = tf.keras.layers.Multiply(name=f"{name}_gated")([y, gate])
    if attention:
        x = parts.activation_layer("prelu", f"{name}_attention_activation")(x)
        shortcut = parts.halved(x, strides, f"{name}_attention_pool")
        y = tf.keras.layers.Multiply(name=f"{name}_attended")([y, shortcut])
    return tf.keras.layers.Add(name=f"{name}_add")([parts.batch_norm(f"{name}_bn2")(y), shortcut])
