"""FDA-BNN: the sign's gradient from its Fourier series, and a noise module while training (arXiv 2103.00841)."""

from __future__ import annotations

import math
from typing import ClassVar

import larq as lq
import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.capabilities import Quantizer, own
from bibench_tf.algorithms.layers import is_training
from bibench_tf.algorithms.quantizers import channel_scale, clipped, in_32_bits

OMEGA = 0.1
_NOISE_SLOPE = 0.1
_FAN_IN_PER_HIDDEN_UNIT = 64


def noise_scale_at(epoch: float, epochs: float) -> float:
    """Alpha = 0.05 (1 + cos(pi (epoch + 1) / epochs)), for `epoch` from 0; 0 in the last one."""
    return 0.05 * (1 + math.cos(math.pi * (epoch + 1) / epochs))


def noise_terms_at(epoch: float, epochs: float) -> int:
    """N = 9 + floor(9 epoch / epochs), the last index of the Fourier series."""
    return 9 + int(9 * epoch / epochs)


def fourier_slope(x: tf.Tensor, terms: tf.Tensor) -> tf.Tensor:
    """D(x) = (4 w / pi) sum_{i=0..n} cos((2i + 1) w x) where |x| <= 1, else 0, with w = 0.1 and n = `terms`.

    The sum is taken in closed form: sin(2 (n + 1) w x) / (2 sin(w x)), and n + 1 at x = 0.
    """
    # Even in x, and below 1e-4 nearer to its value at 0 than float32 resolves.
    wide = in_32_bits(x)
    angle = OMEGA * tf.maximum(tf.abs(wide), 1e-4)
    total = tf.sin(2.0 * (tf.cast(terms, wide.dtype) + 1.0) * angle) / tf.sin(angle)
    return tf.cast(clipped(wide, 2 * OMEGA / math.pi * total), x.dtype)


@tf.custom_gradient
def _fourier_sign(x: tf.Tensor, terms: tf.Tensor):
    def gradient(dy):
        return dy * fourier_slope(x, terms), None

    return lq.math.sign(x), gradient


@tf.custom_gradient
def _noisy_fourier_sign(x: tf.Tensor, terms: tf.Tensor, scale: tf.Tensor):
    """sign(x) + scale sin(x), with the gradient D(x) + scale cos(x) in one: two passes fewer than by the sum rule."""

    def gradient(dy):
        return dy * (fourier_slope(x, terms) + scale * tf.cos(x)), None, None

    return lq.math.sign(x) + scale * tf.sin(x), gradient


class _FourierSign(Quantizer):
    """sign(x) + alpha N(x) in training, sign(x) in inference; N(v) = relu(v W1) W2 + 0.1 sin(v).

    alpha (`*_schedule_alpha`) and the n of the slope (`*_schedule_n`) are non-trainable, start at 0.1 and 9, and follow
    the training progress. W1 has fan_in // 64 columns; below 64 there is no W1 and N(v) = 0.1 sin(v).
    """

    precision = 1
    side: ClassVar[str]

    def _build_noise(self, fan_in: int) -> None:
        hidden = fan_in // _FAN_IN_PER_HIDDEN_UNIT
        self.noise_weights = []
        if hidden:
            self.noise_weights = [
                self._add_noise_weight("fc1", (fan_in, hidden)),
                self._add_noise_weight("fc2", (hidden, fan_in)),
            ]
        self.noise_scale = self._add_state("alpha", 0.1)
        self.noise_terms = self._add_state("n", 9.0)

    def _add_noise_weight(self, name, shape):
        # PyTorch's default for linear layers: U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)).
        initializer = tf.keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
        return self.add_weight(f"{self.side}_noise_{name}", shape=shape, initializer=initializer)

    def _add_state(self, name, value):
        initializer = tf.keras.initializers.Constant(value)
        return self.add_weight(f"{self.side}_schedule_{name}", shape=(), initializer=initializer, trainable=False)

    def update_schedule(self, epoch: float, epochs: float) -> None:
        """Set alpha and n for `epoch` (from 0) of `epochs`."""
        self.noise_scale.assign(noise_scale_at(epoch, epochs))
        self.noise_terms.assign(noise_terms_at(epoch, epochs))

    def _noisy_sign(self, x: tf.Tensor, bottleneck) -> tf.Tensor:
        """sign(x) + alpha N(x), where `bottleneck(x, W1, W2)` is relu(x W1) W2 over the fan-in of x."""
        # Factors are multiplied where they are small, not where they have met the activations.
        noisy = _noisy_fourier_sign(x, self.noise_terms, self.noise_scale * _NOISE_SLOPE)
        if self.noise_weights:
            first, second = self.noise_weights
            noisy += bottleneck(x, first, self.noise_scale * second)
        return noisy


@own("fourier_sign")
class FourierInputSign(_FourierSign):
    """FDA's input quantizer.

    Forward: sign(x) + alpha N(x) in training, with N over the channels of each position; sign(x) in inference.
    Gradient: D(x) of `fourier_slope`, and alpha N'(x), which is not clipped. Source: arXiv 2103.00841; BiBench.
    """

    side = "input"
    signs_in_inference = True

    def build(self, input_shape: tf.TensorShape) -> None:
        self._build_noise(input_shape[-1])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        if not is_training(training):
            return _fourier_sign(inputs, self.noise_terms)

        def over_channels(x, first, second):
            hidden = tf.nn.relu(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), first))
            return tf.reshape(tf.matmul(hidden, second), tf.shape(x))

        return self._noisy_sign(inputs, over_channels)


@own("fourier_kernel_sign")
class FourierKernelSign(_FourierSign):
    """FDA's kernel quantizer.

    Forward: s (sign(w) + alpha N(w)) in training, with N over the filters seen as rows (C_in, kh, kw);
    s sign(w) in inference; s = mean |w| per output channel. Gradient: s D(w) and s alpha N'(w); s counts as a
    constant. Source: arXiv 2103.00841; BiBench.
    """

    side = "weight"

    def build(self, input_shape: tf.TensorShape) -> None:
        self._build_noise(math.prod(input_shape[:-1]))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        scale = channel_scale(inputs)
        if not is_training(training):
            return scale * _fourier_sign(inputs, self.noise_terms)

        def over_filters(w, first, second):
            height, width, channels, filters = w.shape
            # W1 and W2, which are smaller than the kernel, are put into its order (kh, kw, C_in). Slices do that in
            # less time than a transposition, which costs more than the products on a CPU.
            taps, fan_in = height * width, height * width * channels
            first = tf.stack(tf.unstack(tf.reshape(first, [channels, taps, -1]), axis=1), axis=0)
            second = tf.stack(tf.unstack(tf.reshape(second, [-1, channels, taps]), axis=2), axis=1)
            columns = tf.reshape(w, [fan_in, filters])
            hidden = tf.nn.relu(tf.matmul(tf.reshape(first, [fan_in, -1]), columns, transpose_a=True))
            return tf.reshape(tf.matmul(tf.reshape(second, [-1, fan_in]), hidden, transpose_a=True), w.shape)

        return scale * self._noisy_sign(inputs, over_filters)


@register
class FDA(Algorithm):
    """FDA-BNN (frequency domain approximation).

    Forward: y = conv(sign(x) + alpha N(x), s (sign(w) + alpha N(w))) in training, strictly binary
    y = conv(sign(x), s sign(w)) in inference. Gradients: see the quantizers. Source: arXiv 2103.00841; BiBench.
    """

    key = "fda"
    title = "FDA"
    paper = "arXiv:2103.00841"

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return FourierInputSign()

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return FourierKernelSign()
