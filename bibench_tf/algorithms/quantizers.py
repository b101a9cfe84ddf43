"""Quantizers that several algorithms share. Their values and gradients are Larq's; their gradients cost less."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

import larq as lq
import numpy as np
import tensorflow as tf
from msgspec import Meta

from bibench_tf.algorithms.capabilities import Quantizer, own
from bibench_tf.options import Positive

# The numbers of bits of quantized values that algorithms offer.
Bits = Annotated[int, Meta(ge=1, le=8, description="an integer from 1 to 8")]

# A filter whose weights are all zero has scale zero, and one such filter would make Larq Compute Engine run the whole
# layer as float; the floor is far below every scale that occurs in training.
SCALE_FLOOR = 1e-6


@cache
def _above(limit: float, dtype: tf.DType) -> float:
    """The smallest number of the type above `limit`, itself rounded to the type."""
    number = dtype.as_numpy_dtype
    return float(np.nextafter(number(limit), number("inf")))


def clipped(x: tf.Tensor, dy: tf.Tensor, limit: float = 1.0) -> tf.Tensor:
    """The gradient `dy` where |x| <= limit, else 0."""
    # The gradient of ReLU is `dy` where its features are positive: one pass over the memory in place of a mask, zeros
    # and a selection, which cost as much as the convolution between them.
    return tf.raw_ops.ReluGrad(gradients=dy, features=_above(limit, x.dtype) - tf.abs(x))


def in_32_bits(x: tf.Tensor) -> tf.Tensor:
    """The tensor as float32 if its type is smaller, for what 16 bits cannot hold in mixed precision."""
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def triangle(x: tf.Tensor) -> tf.Tensor:
    """max(0, 2 - 2|x|), the slope that Bi-Real Net gives the sign."""
    return tf.nn.relu(2.0 - 2.0 * tf.abs(x))


def ste_sign(x: tf.Tensor, clip_value: float = 1.0) -> tf.Tensor:
    """sign(x), sign(0) = +1; gradient: dy where |x| <= clip_value, else 0."""
    return _ste_sign(clip_value)(x)


@cache
def _ste_sign(clip_value: float):
    @tf.custom_gradient
    def sign(x):
        return lq.math.sign(x), lambda dy: clipped(x, dy, clip_value)

    return sign


@tf.custom_gradient
def approx_sign(x: tf.Tensor) -> tf.Tensor:
    """sign(x), sign(0) = +1; gradient: max(0, 2 - 2|x|) dy."""
    return lq.math.sign(x), lambda dy: dy * triangle(x)


@own("clipped_sign")
class ClippedSign(Quantizer):
    """Larq's SteSign, at less cost in training.

    Forward: q(x) = sign(x), sign(0) = +1. Gradient: dq/dx = 1 where |x| <= clip_value, else 0. Raises InvalidOption
    unless clip_value is positive. Source: arXiv 1602.02830; a clip_value of 1.3 is that of arXiv 1906.08637.
    """

    precision = 1
    signs_in_inference = True

    def __init__(self, clip_value: Positive = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.clip_value = clip_value

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return ste_sign(inputs, self.clip_value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip_value": self.clip_value}


@own("triangular_sign")
class TriangularSign(Quantizer):
    """Larq's ApproxSign, at less cost in training.

    Forward: q(x) = sign(x), sign(0) = +1. Gradient: dq/dx = max(0, 2 - 2|x|). Source: arXiv 1808.00278, section 3.3.
    """

    precision = 1
    signs_in_inference = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return approx_sign(inputs)


def channel_scale(kernel: tf.Tensor) -> tf.Tensor:
    """Mean |w| of each output channel (the last axis), without a gradient; shape (1, .., 1, O)."""
    axes = list(range(len(kernel.shape) - 1))
    scale = tf.reduce_mean(tf.abs(kernel), axis=axes, keepdims=True)
    return tf.stop_gradient(tf.maximum(scale, SCALE_FLOOR))


def scaled_sign(x: tf.Tensor, scale: tf.Tensor, clip_value: float = 1.0) -> tf.Tensor:
    """Scale * sign(x), sign(0) = +1; gradient to x: dy where |x| <= clip_value, else 0 (without the scale)."""
    return _scaled_sign(clip_value)(x, tf.stop_gradient(scale))


@cache
def _scaled_sign(clip_value: float):
    @tf.custom_gradient
    def sign(x, scale):
        def gradient(dy):
            return dy if clip_value == float("inf") else clipped(x, dy, clip_value), None

        return scale * lq.math.sign(x), gradient

    return sign


@own("channel_scaled_sign")
class ChannelScaledSign(Quantizer):
    """Binary kernels with an analytic scale.

    Forward: q(w) = s * sign(w), sign(0) = +1, with s = mean |w| of each output channel, or of the whole layer with
    `per="layer"`. Gradient: dq/dw = 1 where |w| <= 1, else 0, or 1 everywhere with `clips_gradient=False`; s counts as
    a constant and is left out of it.

    Source: BiBench's operators (arXiv 2301.11233) for XNOR-Net, DoReFa, Bi-Real and ReActNet.
    """

    precision = 1

    def __init__(self, per: Literal["channel", "layer"] = "channel", clips_gradient: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.per = per
        self.clips_gradient = clips_gradient

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.per == "channel":
            scale = channel_scale(inputs)
        else:
            scale = tf.maximum(tf.reduce_mean(tf.abs(inputs)), SCALE_FLOOR)
        return scaled_sign(inputs, scale, 1.0 if self.clips_gradient else float("inf"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "per": self.per, "clips_gradient": self.clips_gradient}
