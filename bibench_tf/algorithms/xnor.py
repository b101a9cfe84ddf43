"""XNOR-Net: scaled binary inputs and kernels (arXiv 1603.05279)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import larq as lq
import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.capabilities import Quantizer, own
from bibench_tf.algorithms.layers import is_training
from bibench_tf.algorithms.quantizers import ChannelScaledSign, clipped, scaled_sign, ste_sign


def _sample_scale(x: tf.Tensor) -> tf.Tensor:
    """Mean |x| over all axes but the first, shape (B, 1, .., 1), without a gradient."""
    # In two steps: TensorFlow Lite has a fast kernel for the mean over positions, and a slow one for the rest.
    positions = list(range(1, len(x.shape) - 1))
    magnitude = tf.reduce_mean(tf.abs(x), axis=positions, keepdims=True)
    return tf.stop_gradient(tf.reduce_mean(magnitude, axis=-1, keepdims=True))


@tf.custom_gradient
def _sign_scaled_later(x):
    # The gradient arrives with the factor of the layer's output, which is no part of it.
    return lq.math.sign(x), lambda dy: tf.math.divide_no_nan(clipped(x, dy), _sample_scale(x))


@own("sample_scaled_sign")
class SampleScaledSign(Quantizer):
    """Binary inputs with one scale for each sample.

    Forward: q(x) = A * sign(x), A = mean |x| over all axes but the first. Gradient: dq/dx = 1 where |x| <= 1,
    else 0; A counts as a constant and is left out of it.

    In inference q(x) = sign(x) and the layer multiplies its output by A, which is the same and leaves the
    convolution binary; the gradient to x is divided by A, and so the same, too.
    """

    precision = 1
    signs_in_inference = True

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        if self.scales_inputs(is_training(training)):
            return scaled_sign(inputs, _sample_scale(inputs))
        return _sign_scaled_later(inputs)

    def scales_inputs(self, training: bool) -> bool:
        """Whether A is inside the binarized inputs already."""
        return training

    def output_factor(self, inputs: tf.Tensor, layer: tf.keras.layers.Layer) -> tf.Tensor:
        """A, of shape (B, 1, .., 1)."""
        return _sample_scale(inputs)


@own("spatially_scaled_sign")
class SpatiallyScaledSign(Quantizer):
    """Binary inputs with the paper's scale map K.

    Forward: q(x) = sign(x), and the layer multiplies its output by K = box(mean over channels of |x|), where box is
    the mean over the kernel's window with the layer's stride and padding. Gradient: dq/dx = 1 where |x| <= 1, else 0;
    K counts as a constant. Source: arXiv 1603.05279, section 3.2.
    """

    precision = 1
    signs_in_inference = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return ste_sign(inputs)

    def scales_inputs(self, training: bool) -> bool:
        """Never: K belongs to output positions."""
        return False

    def output_factor(self, inputs: tf.Tensor, layer: tf.keras.layers.Layer) -> tf.Tensor:
        """K, of shape (B, H_out, W_out, 1)."""
        magnitude = tf.reduce_mean(tf.abs(inputs), axis=-1, keepdims=True)
        height, width = layer.kernel_size
        box = tf.fill([height, width, 1, 1], tf.cast(1 / (height * width), inputs.dtype))
        padding = layer.padding.upper()
        if layer.explicit_padding is not None:
            magnitude = tf.pad(magnitude, [[0, 0], *layer._get_spatial_padding_same(None), [0, 0]])
            padding = "VALID"
        factor = tf.nn.conv2d(magnitude, box, layer.strides, padding, dilations=layer.dilation_rate)
        return tf.stop_gradient(factor)


@register
@dataclass(frozen=True)
class XNOR(Algorithm):
    """XNOR-Net, in BiBench's form.

    Forward: y = conv(A * sign(x), s * sign(w)), A = mean |x| per sample, s = mean |w| per output channel.
    Gradients: 1 where |v| <= 1, else 0, for x and w; A and s are left out. `input_scale="spatial"` takes the paper's
    map K in place of A. Source: arXiv 1603.05279, sections 3.1 and 3.2; BiBench's operator.
    """

    key = "xnor"
    title = "XNOR-Net"
    paper = "arXiv:1603.05279"

    input_scale: Literal["sample", "spatial"] = "sample"

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return SpatiallyScaledSign() if self.input_scale == "spatial" else SampleScaledSign()

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return ChannelScaledSign()
