"""Quantizers that several algorithms share, beside Larq's own SteSign and ApproxSign."""

from __future__ import annotations

import larq as lq
import tensorflow as tf

# A filter whose weights are all zero has scale zero, and one such filter would make Larq Compute Engine run the whole
# layer as float; the floor is far below every scale that occurs in training.
SCALE_FLOOR = 1e-6


def clipped(x: tf.Tensor, dy: tf.Tensor, limit=1.0) -> tf.Tensor:
    """The gradient `dy` where |x| <= limit, else 0."""
    return tf.where(tf.abs(x) <= limit, dy, tf.zeros_like(dy))


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
