"""BNN: plain signs on both sides (arXiv 1602.02830)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bibench_tf.algorithms.base import Algorithm
from bibench_tf.algorithms.quantizers import ClippedSign


@dataclass(frozen=True)
class BNN(Algorithm):
    """Binarized Neural Networks.

    Forward: y = conv(sign(x), sign(w)). Gradients: d sign(v)/dv = 1 where |v| <= 1, else 0, for x and w.
    Latent weights are clipped to [-1, 1]. Source: arXiv 1602.02830, Algorithm 1.
    """

    key: ClassVar[str] = "bnn"
    title: ClassVar[str] = "BNN"
    paper: ClassVar[str] = "arXiv:1602.02830"
    clip_weights: ClassVar[bool] = True

    def input_quantizer(self):
        return ClippedSign()

    def kernel_quantizer(self):
        return ClippedSign()
