"""XNOR-Net++: learned output scales in place of analytic ones (arXiv 1909.13863)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.quantizers import ClippedSign


@register
class XNORPlusPlus(Algorithm):
    """XNOR-Net++.

    Forward: y[h, w, o] = conv(sign(x), sign(w))[h, w, o] * output_scale[o] * height_scale[h] * width_scale[w];
    sequences have output_scale and width_scale, fully connected layers output_scale only. All scales start at 1.
    Gradients: 1 where |v| <= 1, else 0, for x and w. Source: arXiv 1909.13863, the last
    of its four cases.
    """

    key = "xnorpp"
    title = "XNOR-Net++"
    paper = "arXiv:1909.13863"
    unscaled_kernels = True

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return ClippedSign()

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return ClippedSign()

    def layer_options(self, kind: str) -> dict[str, Any]:
        # Rows of a fully connected layer have no position to scale.
        return {"output_scale": "channel" if kind == "dense" else "spatial"}
