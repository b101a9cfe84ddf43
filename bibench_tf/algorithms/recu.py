"""ReCU: standardised kernels whose dead weights are revived by clipping (arXiv 2103.12369)."""

from __future__ import annotations

import math
from typing import Any

import larq as lq
import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.capabilities import Quantizer, own
from bibench_tf.algorithms.layers import is_training
from bibench_tf.algorithms.quantizers import approx_sign, in_32_bits, triangle
from bibench_tf.errors import InvalidOption

_EPSILON = 1e-5
_TAU_START, _TAU_END = 0.85, 0.99


def tau_at(epoch: float, epochs: float) -> float:
    """The quantile tau at the start of `epoch` (from 0) of `epochs`: 0.85 at first, towards 0.99.

    tau = A e^(epoch / epochs) + B, A = (0.99 - 0.85) / (e - 1), B = 0.85 - A.
    Source: arXiv 2103.12369; its released code.
    """
    slope = (_TAU_END - _TAU_START) / (math.e - 1)
    return slope * math.exp(epoch / epochs) + _TAU_START - slope


def unbiased_variance(x: tf.Tensor, axes: list[int]) -> tf.Tensor:
    """Variance with n - 1 in the denominator, kept dimensions; at least two elements are needed."""
    count = tf.cast(tf.reduce_prod(tf.gather(tf.shape(x), axes)), x.dtype)
    return tf.math.reduce_variance(x, axis=axes, keepdims=True) * count / (count - 1)


@tf.custom_gradient
def _sign_through_clip(w: tf.Tensor, limit: tf.Tensor):
    def gradient(dy):
        return tf.where(tf.abs(w) <= limit, dy, tf.zeros_like(dy)), None

    return lq.math.sign(w), gradient


@tf.custom_gradient
def _sign_at_unit_variance(x: tf.Tensor):
    """sign(x) of samples (B, ...), with the gradient of approx_sign(r x), r = 1 / sqrt(var + epsilon) per sample.

    With g = dy max(0, 2 - 2|r x|) it is r g - r^3 (x - mean) sum(g x) / (n - 1), the sum over the sample.
    """

    def gradient(dy):
        # Whole samples as rows. Sums over them are beyond the numbers of float16.
        samples = in_32_bits(tf.reshape(x, [tf.shape(x)[0], -1]))
        freedom = tf.cast(tf.shape(samples)[1] - 1, samples.dtype)
        centred = samples - tf.reduce_mean(samples, axis=1, keepdims=True)
        variance = tf.reduce_sum(centred * centred, axis=1, keepdims=True) / freedom
        factor = tf.math.rsqrt(variance + _EPSILON)
        passed = in_32_bits(tf.reshape(dy, tf.shape(samples))) * triangle(factor * samples)
        drift = factor**3 * tf.reduce_sum(passed * samples, axis=1, keepdims=True) / freedom
        return tf.cast(tf.reshape(factor * passed - drift * centred, tf.shape(x)), x.dtype)

    return lq.math.sign(x), gradient


@own("rectified_clamp_sign")
class RectifiedClampSign(Quantizer):
    """ReCU's kernel: standardise, clamp to the tau quantile, take the sign.

    Forward: w1 = 2 sqrt(2) (w - mean) / sqrt(var + 1e-5), mean and unbiased variance per output channel;
    Q = -mean|w1| ln(2 - 2 tau), the mean over the whole layer; q(w) = sign(clip(w1, -Q, Q)).
    Gradient: dy where |w1| <= Q, else 0, then exactly back through the standardisation; Q counts as a constant.
    tau (non-trainable) starts at 1, where nothing is clipped, and follows the training progress.
    Source: arXiv 2103.12369, section 3.
    """

    precision = 1

    def build(self, input_shape: tf.TensorShape) -> None:
        if math.prod(input_shape[:-1]) < 2:
            raise InvalidOption("ReCU standardises the weights of each output channel and needs at least two of them.")
        # 2 - 2 tau has one or two digits left in 16 bits.
        self.tau = self.add_weight("tau", shape=(), initializer="ones", trainable=False, experimental_autocast=False)
        super().build(input_shape)

    def update_schedule(self, epoch: float, epochs: float) -> None:
        """Set tau for `epoch` (from 0) of `epochs`."""
        self.tau.assign(tau_at(epoch, epochs))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        axes = list(range(len(inputs.shape) - 1))
        weights = in_32_bits(inputs)
        centred = weights - tf.reduce_mean(weights, axis=axes, keepdims=True)
        standard = centred * (2 * math.sqrt(2) / tf.sqrt(unbiased_variance(centred, axes) + _EPSILON))
        limit = -tf.reduce_mean(tf.abs(standard)) * tf.math.log(2 - 2 * self.tau)
        return tf.cast(_sign_through_clip(standard, tf.stop_gradient(limit)), inputs.dtype)


@own("variance_scaled_sign")
class VarianceScaledSign(Quantizer):
    """ReCU's input: a sign whose gradient sees the input at unit variance.

    Forward: q(x) = sign(x). Gradient in training: max(0, 2 - 2|a|) at a = x / sqrt(var + 1e-5), with the unbiased
    variance of each sample, then exactly back through that division; in inference at a = x.
    Source: arXiv 2103.12369, released code; BiBench's operator.
    """

    precision = 1
    signs_in_inference = True

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        return _sign_at_unit_variance(inputs) if is_training(training) else approx_sign(inputs)


@register
class ReCU(Algorithm):
    """ReCU.

    Forward: y = alpha * (conv(sign(x), q(w)) + bias), q as in `RectifiedClampSign`, alpha (`output_scale`) learned
    per output channel from U(0, 1); fully connected layers add the bias after alpha. Gradients: see the quantizers.
    Source: arXiv 2103.12369; BiBench's operator.
    """

    key = "recu"
    title = "ReCU"
    paper = "arXiv:2103.12369"
    unscaled_kernels = True

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return VarianceScaledSign()

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return RectifiedClampSign()

    def layer_options(self, kind: str) -> dict[str, Any]:
        return {
            "output_scale": "channel",
            "output_scale_initializer": tf.keras.initializers.RandomUniform(0.0, 1.0),
            "scale_bias": kind != "dense",
        }
