"""ReActNet: signs with a learned threshold (arXiv 2003.03488)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.capabilities import Quantizer, own
from bibench_tf.algorithms.quantizers import ChannelScaledSign, ClippedSign, approx_sign, ste_sign
from bibench_tf.options import Positive


@own("shifted_sign")
class ShiftedSign(Quantizer):
    """RSign: a sign with a learned shift for each input channel (weight `input_shift`, shape (C,), starts at 0).

    Forward: q(x) = sign(x + shift). Gradient to x: max(0, 2 - 2|x + shift|), or with a `clip_value` 1 where
    |x + shift| <= clip_value, else 0; to the shift: the same, summed over all other axes. Raises InvalidOption unless
    clip_value is positive. Source: arXiv 2003.03488, section 4 (there with the opposite sign of the shift); BiBench's
    operator; BNext (arXiv 2211.12933) has a clip_value of 1.5.
    """

    precision = 1
    signs_in_inference = True

    def __init__(self, clip_value: Positive | None = None, **kwargs):
        super().__init__(**kwargs)
        self.clip_value = clip_value

    def build(self, input_shape: tf.TensorShape) -> None:
        self.input_shift = self.add_weight("input_shift", shape=(input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # bias_add rather than +, whose gradient sums over all positions far more slowly on CPUs.
        shifted = tf.nn.bias_add(inputs, self.input_shift)
        return approx_sign(shifted) if self.clip_value is None else ste_sign(shifted, self.clip_value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip_value": self.clip_value}


@register
@dataclass(frozen=True)
class ReActNet(Algorithm):
    """ReActNet's operator.

    Forward: y = conv(sign(x + shift), s * sign(w)), s = mean |w| per output channel. Gradients: see `ShiftedSign`;
    for w 1 where |w| <= 1, else 0; s is left out. Source: arXiv 2003.03488, section 4; BiBench's operator.

    With a `clip_value` it is the operator of BNext (arXiv 2211.12933): y = conv(sign(x + shift), sign(w)), where the
    gradients of both signs are 1 within clip_value of zero, else 0, and latent weights are clipped to
    [-clip_value, clip_value]. Raises InvalidOption unless clip_value is positive.
    """

    key = "reactnet"
    title = "ReActNet"
    paper = "arXiv:2003.03488"
    clip_value: Positive | None = None

    @property
    def weight_limit(self) -> float | None:
        """The clip value: that latent weights are clipped is BNext's rule and not ReActNet's."""
        return self.clip_value

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return ShiftedSign(self.clip_value)

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return ChannelScaledSign() if self.clip_value is None else ClippedSign(self.clip_value)
