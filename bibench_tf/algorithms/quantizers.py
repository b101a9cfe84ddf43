"""Quantizers that several algorithms share. Their values and gradients are Larq's; their gradients cost less."""

from __future__ import annotations

import larq as lq
import tensorflow as tf

# A filter whose weights are all zero has scale zero, and one such filter would make Larq Compute Engine run the whole
# layer as float; the floor is far below every scale that occurs in training.
SCALE_FLOOR = 1e-6


# The smallest number above 1 of each type.
_ABOVE_ONE = {tf.bfloat16: 1 + 2**-7, tf.float16: 1 + 2**-10, tf.float32: 1 + 2**-23, tf.float64: 1 + 2**-52}


def clipped(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """The gradient `dy` where |x| <= 1, else 0."""
    # The gradient of ReLU is `dy` where its features are positive: one pass over the memory in place of a mask, zeros
    # and a selection, which cost as much as the convolution between them.
    return tf.raw_ops.ReluGrad(gradients=dy, features=_ABOVE_ONE[x.dtype] - tf.abs(x))


def triangle(x: tf.Tensor) -> tf.Tensor:
    """max(0, 2 - 2|x|), the slope that Bi-Real Net gives the sign."""
    return tf.nn.relu(2.0 - 2.0 * tf.abs(x))


@tf.custom_gradient
def ste_sign(x: tf.Tensor):
    """sign(x), sign(0) = +1; gradient: dy where |x| <= 1, else 0."""
    return lq.math.sign(x), lambda dy: clipped(x, dy)


@tf.custom_gradient
def approx_sign(x: tf.Tensor):
    """sign(x), sign(0) = +1; gradient: max(0, 2 - 2|x|) dy."""
    return lq.math.sign(x), lambda dy: dy * triangle(x)


@lq.utils.register_alias("clipped_sign")
@lq.utils.register_keras_custom_object
class ClippedSign(lq.quantizers.Quantizer):
    """Larq's SteSign with a clip value of 1, at less cost in training.

    Forward: q(x) = sign(x), sign(0) = +1. Gradient: dq/dx = 1 where |x| <= 1, else 0. Source: arXiv 1602.02830.
    """

    precision = 1
    signs_in_inference = True

    def call(self, inputs):
        return ste_sign(inputs)


@lq.utils.register_alias("triangular_sign")
@lq.utils.register_keras_custom_object
class TriangularSign(lq.quantizers.Quantizer):
    """Larq's ApproxSign, at less cost in training.

    Forward: q(x) = sign(x), sign(0) = +1. Gradient: dq/dx = max(0, 2 - 2|x|). Source: arXiv 1808.00278, section 3.3.
    """

    precision = 1
    signs_in_inference = True

    def call(self, inputs):
        return approx_sign(inputs)


def channel_scale(kernel: tf.Tensor) -> tf.Tensor:
    """Mean |w| of each output channel (the last axis), without a gradient; shape (1, .., 1, O)."""
    axes = list(range(len(kernel.shape) - 1))
    scale = tf.reduce_mean(tf.abs(kernel), axis=axes, keepdims=True)
    return tf.stop_gradient(tf.maximum(scale, SCALE_FLOOR))


@tf.custom_gradient
def _scaled_sign(x: tf.Tensor, scale: tf.Tensor):
    def gradient(dy):
        return clipped(x, dy), None

    return scale * lq.math.sign(x), gradient


def scaled_sign(x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Scale * sign(x), sign(0) = +1; gradient to x: dy where |x| <= 1, else 0 (without the scale)."""
    return _scaled_sign(x, tf.stop_gradient(scale))


@lq.utils.register_alias("channel_scaled_sign")
@lq.utils.register_keras_custom_object
class ChannelScaledSign(lq.quantizers.Quantizer):
    """Binary kernels with an analytic scale.

    Forward: q(w) = s * sign(w), sign(0) = +1, with s = mean |w| of each output channel, or of the whole layer with
    `per="layer"`. Gradient: dq/dw = 1 where |w| <= 1, else 0; s counts as a constant and is left out of it.

    Source: BiBench's operators (arXiv 2301.11233) for XNOR-Net, DoReFa, Bi-Real and ReActNet.
    """

    precision = 1

    def __init__(self, per: str = "channel", **kwargs):
        if per not in ("channel", "layer"):
            raise ValueError(f"A scale is per 'channel' or per 'layer', not per {per!r}.")
        super().__init__(**kwargs)
        self.per = per

    def call(self, inputs):
        if self.per == "channel":
            scale = channel_scale(inputs)
        else:
            scale = tf.maximum(tf.reduce_mean(tf.abs(inputs)), SCALE_FLOOR)
        return scaled_sign(inputs, scale)

    def get_config(self):
        return {**super().get_config(), "per": self.per}
