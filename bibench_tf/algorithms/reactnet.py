"""ReActNet: signs with a learned threshold (arXiv 2003.03488)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import larq as lq
import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm
from bibench_tf.algorithms.quantizers import ChannelScaledSign, approx_sign


@lq.utils.register_alias("shifted_sign")
@lq.utils.register_keras_custom_object
class ShiftedSign(lq.quantizers.Quantizer):
    """RSign: a sign with a learned shift for each input channel (weight `input_shift`, shape (C,), starts at 0).

    Forward: q(x) = sign(x + shift). Gradient: max(0, 2 - 2|x + shift|) to x, and to the shift summed over all other
    axes. Source: arXiv 2003.03488, section 4 (there with the opposite sign of the shift); BiBench's operator.
    """

    precision = 1
    signs_in_inference = True

    def build(self, input_shape):
        self.input_shift = self.add_weight("input_shift", shape=(input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        # bias_add rather than +, whose gradient sums over all positions far more slowly on CPUs.
        return approx_sign(tf.nn.bias_add(inputs, self.input_shift))


@dataclass(frozen=True)
class ReActNet(Algorithm):
    """ReActNet's operator.

    Forward: y = conv(sign(x + shift), s * sign(w)), s = mean |w| per output channel. Gradients: see `ShiftedSign`;
    for w 1 where |w| <= 1, else 0; s is left out. Source: arXiv 2003.03488, section 4; BiBench's operator.
    """

    key: ClassVar[str] = "reactnet"
    title: ClassVar[str] = "ReActNet"
    paper: ClassVar[str] = "arXiv:2003.03488"

    def input_quantizer(self):
        return ShiftedSign()

    def kernel_quantizer(self):
        return ChannelScaledSign()
