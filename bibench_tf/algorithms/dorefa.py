"""DoReFa-Net with one bit: signs, and kernels scaled by their mean magnitude (arXiv 1606.06160)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bibench_tf.algorithms.base import Algorithm
from bibench_tf.algorithms.quantizers import ChannelScaledSign, ClippedSign


@dataclass(frozen=True)
class DoReFa(Algorithm):
    """DoReFa-Net at one bit, in BiBench's form.

    Forward: y = conv(sign(x), s * sign(w)), s = mean |w| per output channel. Gradients: 1 where |v| <= 1, else 0,
    for x and w; s is left out. `weight_scale="layer"` takes the paper's single scale for the whole layer.
    Source: arXiv 1606.06160, section 2.3; BiBench's operator.
    """

    key: ClassVar[str] = "dorefa"
    title: ClassVar[str] = "DoReFa"
    paper: ClassVar[str] = "arXiv:1606.06160"

    weight_scale: Literal["channel", "layer"] = "channel"

    def input_quantizer(self):
        return ClippedSign()

    def kernel_quantizer(self):
        return ChannelScaledSign(per=self.weight_scale)
