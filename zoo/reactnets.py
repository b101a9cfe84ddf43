"""ReActNet (arXiv 2003.03488): MobileNetV1's layout with binary 3x3 and 1x1 convolutions and learned shifts."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.networks import Preset, register_family
from bibench_tf.operations import Operations
from bibench_tf.zoo import parts

STEM_CHANNELS = 32
# The output channels of the blocks, in multiples of the stem's.
MULTIPLES = (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class RPReLU(tf.keras.layers.Layer):
    """A PReLU with learned shifts of its input and output: y = p(x - g) + z, p(v) = v where v > 0, else b * v.

    Weights: `input_shift` g and `output_shift` z of shape (C,), which start at 0, and `slope` b of shape (1, .., 1, C),
    which starts at 0.25. Input and output (B, ..., C). Source: arXiv 2003.03488, section 4, with the start values of
    the authors' code.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        self.input_shift = self.add_weight("input_shift", shape=(channels,), initializer="zeros")
        # Of the rank that TensorFlow Lite wants for a PReLU.
        shape = (*(1 for _ in input_shape[1:-1]), channels)
        self.slope = self.add_weight("slope", shape=shape, initializer=tf.keras.initializers.Constant(0.25))
        self.output_shift = self.add_weight("output_shift", shape=(channels,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        # bias_add rather than +, whose gradient sums over all positions far more slowly on CPUs.
        shifted = tf.nn.bias_add(inputs, -self.input_shift)
        # The form that TensorFlow Lite takes for a single operation.
        activated = tf.nn.relu(shifted) + -self.slope * tf.nn.relu(-shifted)
        return tf.nn.bias_add(activated, self.output_shift)

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """Three for each number: two shifts and the slope."""
        return Operations({}, 3 * math.prod(output_shape[1:]))


_PRESETS = {
    "reactnet_a": Preset(
        "ReActNet-A: 26 binary convolutions.",
        {"widening_groups": None},
        (29_343_592, 4_816_896_000, 11_862_016),
        "69.4 % top-1 on ImageNet (the paper), 69.5 % (the authors' repository).",
    ),
    "reactnet_b": Preset(
        "ReActNet-B: as A, with the five widening 1x1 convolutions in full precision and 4 groups.",
        {"widening_groups": 4},
        (28_818_824, 4_688_445_440, 43_974_656),
    ),
    "reactnet_c": Preset(
        "ReActNet-C: as A, with the five widening 1x1 convolutions in full precision.",
        {"widening_groups": 1},
        (29_342_600, 4_688_445_440, 140_312_576),
        "71.4 % top-1 on ImageNet (the paper).",
    ),
}


@register_family(_PRESETS)
def reactnet(
    name: str,
    widening_groups: int | None,
    algorithm: str | algorithms.Algorithm = "reactnet",
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
) -> tf.keras.Model:
    """13 blocks of a 3x3 and a 1x1 convolution, both with a shortcut and binarized by `algorithm`.

    A block is conv3x3 (strided), BN, + shortcut, RPReLU, conv1x1, BN, + shortcut, RPReLU. The first shortcut is average
    pool 2x2 / 2 where the convolution is strided, the second is concatenated with itself where the 1x1 convolution
    doubles the channels (the paper writes this as two convolutions side by side, each with its BN and shortcut, behind
    one RSign). The size halves where the channels grow, but in the first block. RSign is the input quantizer of the
    algorithm `reactnet`; RPReLU belongs to the network and stays with other algorithms and in full precision.

    In full precision are the stem, conv3x3 / 2 and BN, the head, and with `widening_groups` the five 1x1 convolutions
    that double the channels, with that number of groups. `stem`: `imagenet` with stride 2, `cifar` without; `auto` is
    `cifar` below 96 pixels. `width` multiplies the stem's channels, of which all others are multiples by powers of 2;
    groups that do not divide the channels become their largest common divisor.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 2003.03488; the authors' code has A only.
    """
    algorithm = algorithms.get(algorithm)
    image, stem = parts.image_and_stem(input_shape, stem, name)
    channels = parts.scaled(STEM_CHANNELS, width)
    x = parts.batch_norm("stem_bn")(parts.float_conv(channels, 3, 2 if stem == "imagenet" else 1, "stem_conv")(image))
    for number, multiple in enumerate(MULTIPLES, start=1):
        grows = channels * multiple != x.shape[-1]
        strides = 2 if grows and number > 1 else 1
        x = _spatial(x, algorithm, strides, f"block{number}")
        x = _pointwise(x, algorithm, channels * multiple, widening_groups if grows else None, f"block{number}")
    return parts.pooled_classifier(image, x, num_classes, name)


def _spatial(x: tf.Tensor, algorithm: algorithms.Algorithm, strides: int, name: str) -> tf.Tensor:
    y = parts.batch_norm(f"{name}_bn1")(algorithm.conv2d(x.shape[-1], 3, strides, name=f"{name}_conv1")(x))
    x = parts.halved(x, strides, f"{name}_shortcut_pool")
    return RPReLU(name=f"{name}_activation1")(tf.keras.layers.Add(name=f"{name}_add1")([y, x]))


def _pointwise(
    x: tf.Tensor, algorithm: algorithms.Algorithm, channels: int, float_groups: int | None, name: str
) -> tf.Tensor:
    if float_groups is None:
        conv = algorithm.conv2d(channels, 1, name=f"{name}_conv2")
    else:
        conv = parts.float_conv(channels, 1, 1, f"{name}_conv2", groups=math.gcd(float_groups, x.shape[-1]))
    y = parts.batch_norm(f"{name}_bn2")(conv(x))
    if channels != x.shape[-1]:
        x = tf.keras.layers.Concatenate(name=f"{name}_shortcut_concat")([x, x])
    return RPReLU(name=f"{name}_activation2")(tf.keras.layers.Add(name=f"{name}_add2")([y, x]))
