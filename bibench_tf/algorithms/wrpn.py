"""WRPN: uniform levels for weights and activations, in wider networks (arXiv 1709.01134)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import larq as lq
import tensorflow as tf
from msgspec import Meta

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.capabilities import Quantizer, own
from bibench_tf.algorithms.quantizers import Bits, ChannelScaledSign, clipped
from bibench_tf.errors import InvalidOption

_SignedBits = Annotated[int, Meta(ge=2, le=8, description="an integer from 2 to 8")]


@cache
def _levels(low: float, steps: int):
    """A function: x clipped to [low, 1] and rounded to multiples of 1 / steps; gradient dy where low <= x <= 1."""

    @tf.custom_gradient
    def levels(x):
        value = tf.round(tf.clip_by_value(x, low, 1.0) * steps) / steps
        return value, lambda dy: clipped(x - (1 + low) / 2, dy, (1 - low) / 2)

    return levels


@tf.custom_gradient
def _sign_of_zero_one(x):
    # Twice the gradient of the level, for the step of the sign is twice that of the level, and down.
    return lq.math.sign(0.5 - x), lambda dy: -2.0 * clipped(x - 0.5, dy, 0.5)


@own("zero_one_sign")
class ZeroOneSign(Quantizer):
    """Inputs of the two levels 0 and 1, written as signs.

    Forward: the level is a(x) = round(clip(x, 0, 1)), 0 at x = 0.5 as halves go to even; the quantizer gives
    sign(0.5 - x), which is +1 for the level 0 and -1 for 1, and the layer computes with the levels: conv(a, w) =
    conv(sign, -w / 2) + sum(w) / 2. The convolution is then one of signs, and padding by the level 0 is padding by
    +1, both of which Larq Compute Engine runs on bits. Gradient: da/dx = 1 where 0 <= x <= 1, else 0.
    Source: arXiv 1709.01134 at one bit; also DoReFa-Net's, arXiv 1606.06160.
    """

    precision = 1
    signs_in_inference = True
    sign_values = (1.0, 0.0)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _sign_of_zero_one(inputs)


@own("unit_levels")
class UnitLevels(Quantizer):
    """Inputs of 2^k evenly spaced levels from 0 to 1, k = `bits`.

    Forward: q(x) = round((2^k - 1) clip(x, 0, 1)) / (2^k - 1), halves to even. Gradient: 1 where 0 <= x <= 1, else 0.
    Source: arXiv 1709.01134, its hardware-friendly quantization scheme.
    """

    def __init__(self, bits: Bits, **kwargs):
        super().__init__(**kwargs)
        self.precision = bits

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _levels(0.0, 2**self.precision - 1)(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bits": self.precision}


@own("signed_levels")
class SignedLevels(Quantizer):
    """Kernels of 2^k - 1 evenly spaced levels from -1 to 1, one of the k = `bits` >= 2 bits is the sign.

    Forward: q(w) = round(n clip(w, -1, 1)) / n, n = 2^(k - 1) - 1, halves to even. Gradient: 1 where |w| <= 1, else 0.
    Source: arXiv 1709.01134, its hardware-friendly quantization scheme.
    """

    def __init__(self, bits: _SignedBits, **kwargs):
        super().__init__(**kwargs)
        self.precision = bits

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _levels(-1.0, 2 ** (self.precision - 1) - 1)(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bits": self.precision}


@register
@dataclass(frozen=True)
class WRPN(Algorithm):
    """WRPN at `weight_bits` and `activation_bits` bits, from 1 to 8 each.

    Forward: y = conv(a(x), q(w)), with a of 2^k levels in [0, 1] (`UnitLevels`) and q of 2^k - 1 levels in [-1, 1]
    (`SignedLevels`). At one bit the weights have the form of BWN, q(w) = s * sign(w), s = mean |w| per output channel,
    or of the whole layer with `weight_scale="layer"`; activations keep the levels 0 and 1 of the formula. One bit on
    both sides runs as a binary operation, exactly: see `ZeroOneSign`; more bits run as floats. Gradients: 1 inside of
    the clipping range, else 0; s is left out. Padding is by the level 0.

    Raises InvalidOption for other numbers of bits. Source: arXiv 1709.01134, its hardware-friendly quantization scheme.
    """

    key = "wrpn"
    title = "WRPN"
    paper = "arXiv:1709.01134"
    activation = "relu"

    weight_bits: Bits = 1
    activation_bits: Bits = 1
    weight_scale: Literal["channel", "layer"] = "channel"

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return ZeroOneSign() if self.activation_bits == 1 else UnitLevels(self.activation_bits)

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return ChannelScaledSign(per=self.weight_scale) if self.weight_bits == 1 else SignedLevels(self.weight_bits)

    def layer_options(self, kind: str) -> dict[str, Any]:
        # The level 0 of `ZeroOneSign`; a row has nothing around it.
        return {"pad_values": 1.0} if self.activation_bits == 1 and kind != "dense" else {}

    def _layer(self, kind, units, **options):
        if "pad_values" in options:
            raise InvalidOption("WRPN pads with 0 only: its inputs are levels from 0 to 1, not signs.")
        return super()._layer(kind, units, **options)
