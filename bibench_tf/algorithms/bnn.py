"""BNN: plain signs on both sides (arXiv 1602.02830)."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.quantizers import ClippedSign
from bibench_tf.options import Positive


@register
@dataclass(frozen=True)
class BNN(Algorithm):
    """Binarized Neural Networks.

    Forward: y = conv(sign(x), sign(w)). Gradients: d sign(v)/dv = 1 where |v| <= clip_value, else 0, for x and w.
    Latent weights are clipped to [-clip_value, clip_value]. Raises InvalidOption unless clip_value is positive.

    Source: arXiv 1602.02830, Algorithm 1, with clip_value 1; BinaryDenseNet and MeliusNet (arXiv 1906.08637 and
    2001.05936) have 1.3.
    """

    key = "bnn"
    title = "BNN"
    paper = "arXiv:1602.02830"
    unscaled_kernels = True
    clip_value: Positive = 1.0

    @property
    def weight_limit(self) -> float:
        """The clip value."""
        return self.clip_value

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return ClippedSign(self.clip_value)

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return ClippedSign(self.clip_value)
