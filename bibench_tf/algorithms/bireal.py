"""Bi-Real Net: a triangular estimator for the activations (arXiv 1808.00278)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.quantizers import ChannelScaledSign, TriangularSign


@register
@dataclass(frozen=True)
class BiReal(Algorithm):
    """Bi-Real Net's operator.

    Forward: y = conv(sign(x), s * sign(w)), s = mean |w| per output channel. Gradients: d sign(x)/dx =
    max(0, 2 - 2|x|); for w 1 where |w| <= 1, else 0; s is left out. The shortcut around every convolution belongs to
    the network: `zoo.resnet18(..., shortcut="conv")`. Source: arXiv 1808.00278, section 3.3; BiBench's operator.
    """

    key = "bireal"
    title = "Bi-Real"
    paper = "arXiv:1808.00278"

    weight_scale: Literal["channel", "layer"] = "channel"
    clips_weight_gradient: bool = True

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return TriangularSign()

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return ChannelScaledSign(self.weight_scale, self.clips_weight_gradient)
