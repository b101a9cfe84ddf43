"""DoReFa-Net with one-bit kernels, scaled by their mean magnitude, and inputs of one bit or more (arXiv 1606.06160)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import larq as lq
import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.quantizers import Bits, ChannelScaledSign, ClippedSign


@register
@dataclass(frozen=True)
class DoReFa(Algorithm):
    """DoReFa-Net at one bit, in BiBench's form, and at more bits of the activations, in the paper's.

    Forward: y = conv(sign(x), s * sign(w)), s = mean |w| per output channel. Gradients: 1 where |v| <= 1, else 0,
    for x and w; s is left out. `weight_scale="layer"` takes the paper's single scale for the whole layer.

    `activation_bits` k of 2 to 8 replaces sign(x) by round(n c) / n, c = x clipped to [0, 1], n = 2^k - 1, halves
    rounded to even; the gradient is 1 where 0 <= x <= 1, else 0 (Larq's `DoReFa` quantizer). Such layers are no
    binary operations. Raises InvalidOption for another number of bits.

    Source: arXiv 1606.06160, sections 2.3 (kernels) and 2.4 (activations); BiBench's operator.
    """

    key = "dorefa"
    title = "DoReFa"
    paper = "arXiv:1606.06160"

    weight_scale: Literal["channel", "layer"] = "channel"
    activation_bits: Bits = 1

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return ClippedSign() if self.activation_bits == 1 else lq.quantizers.DoReFa(self.activation_bits)

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return ChannelScaledSign(per=self.weight_scale)
