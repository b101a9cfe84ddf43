"""ABC-Net: several binary kernels and inputs in place of one kernel and one input (arXiv 1711.11294)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import larq as lq
import numpy as np
import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.algorithms.capabilities import Quantizer, own
from bibench_tf.algorithms.layers import BinaryConv1D, BinaryConv2D, BinaryDense
from bibench_tf.algorithms.quantizers import SCALE_FLOOR, clipped
from bibench_tf.operations import Operations
from bibench_tf.options import Count

# Added to the diagonal of the normal equations. Two bases are the same where no weight lies between their thresholds,
# as may happen in a small layer; they then share their factor, and the equations can be solved.
_RIDGE = 1e-6


def kernel_bases(kernel: tf.Tensor, bases: int) -> tf.Tensor:
    """B_1 .. B_M of a kernel (..), of shape (M, ..), -1 and +1: B_i = sign(w - mean(w) + u_i std(w)), sign(0) = +1.

    u_i = -1 + (i - 1) 2 / (M - 1), and u_1 = 0 for M = 1; mean and standard deviation (with n) are those of the layer.
    """
    shifts = np.linspace(-1, 1, bases) if bases > 1 else [0.0]
    centred, deviation = kernel - tf.reduce_mean(kernel), tf.math.reduce_std(kernel)
    # Kernel by kernel, here and below: the converter of Larq Compute Engine crashes on large constants of rank 5.
    return tf.stack([lq.math.sign(centred + float(shift) * deviation) for shift in shifts])


def base_factors(kernel: tf.Tensor, bases: tf.Tensor) -> tf.Tensor:
    """The factors alpha, shape (M,), that minimize the squares of w - sum_m alpha_m B_m, none nearer to 0 than 1e-6."""
    columns = tf.reshape(bases, [bases.shape[0], -1])
    count = columns.shape[1]
    products = tf.matmul(columns, columns, transpose_b=True) / count
    target = tf.linalg.matvec(columns, tf.reshape(kernel, [-1])) / count
    ridge = _RIDGE * tf.eye(bases.shape[0], dtype=kernel.dtype)
    factors = tf.linalg.solve(products + ridge, target[:, tf.newaxis])[:, 0]
    return tf.where(tf.abs(factors) < SCALE_FLOOR, SCALE_FLOOR, factors)


@tf.custom_gradient
def _scaled_bases(kernel, bases, factors):
    """alpha_m B_m, shape (M, ..); the gradient takes every B_m for w itself and alpha as constant."""
    parts = [factors[number] * bases[number] for number in range(bases.shape[0])]
    return tf.stack(parts), lambda dy: (tf.tensordot(factors, dy, 1), None, None)


@own("kernel_bases")
class KernelBases(Quantizer):
    """The M binary kernels that together stand for one latent kernel.

    Forward: q(w) = (alpha_1 B_1, .., alpha_M B_M), stacked in a first axis, see `kernel_bases` and `base_factors`.
    Gradient: dL/dw = sum_m alpha_m dL/d(alpha_m B_m): a straight-through B_m, and a constant alpha. `ParallelConv2D`
    convolves with each of them and adds up. Source: arXiv 1711.11294, section 3.1.
    """

    precision = 1

    def __init__(self, bases: Count = 1, **kwargs):
        super().__init__(**kwargs)
        self.bases = bases

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.stop_gradient(inputs)
        bases = kernel_bases(kernel, self.bases)
        return _scaled_bases(inputs, bases, base_factors(kernel, bases))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bases": self.bases}


@tf.custom_gradient
def _threshold_sign(x, shift):
    centre = shift - 0.5

    def gradient(dy):
        inside = clipped(x + centre, dy, 0.5)
        return inside, tf.reduce_sum(inside)

    return lq.math.sign(x + centre), gradient


@own("input_bases")
class InputBases(Quantizer):
    """The N binary inputs that together stand for one input; a call gives that of index `basis`, from 0.

    Forward: H_n(x) = +1 where clip(x + v_n, 0, 1) >= 0.5, else -1. Gradient: 1 where 0 <= x + v_n <= 1, else 0, to x,
    and summed to v_n (weight `shift`, shape (N,)). Source: arXiv 1711.11294, section 3.2.

    v starts at v_n = (2 n - N - 1) / (2 N), so that the thresholds 0.5 - v_n divide [0, 1] evenly; at 0 for N = 1. The
    paper does not give its starting values.
    """

    precision = 1
    signs_in_inference = True

    def __init__(self, bases: Count = 1, **kwargs):
        super().__init__(**kwargs)
        self.bases = bases

    def build(self, input_shape: tf.TensorShape) -> None:
        start = (2 * np.arange(1, self.bases + 1) - self.bases - 1) / (2 * self.bases)
        initializer = tf.keras.initializers.Constant(start.tolist())
        self.shift = self.add_weight("shift", shape=(self.bases,), initializer=initializer)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, basis: int = 0) -> tf.Tensor:
        return _threshold_sign(inputs, self.shift[basis])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bases": self.bases}


# The mixin is no layer: in graphs Keras exchanges base classes, which fails for a layer that inherits from two layers.
if TYPE_CHECKING:
    _Mixin = BinaryConv2D
else:
    _Mixin = object


class _ParallelBases(_Mixin):
    """Turns a binary layer into one that runs for every base of its input and of its kernel, and adds up."""

    def build(self, input_shape: tf.TensorShape) -> None:
        super().build(input_shape)
        bases = self.input_quantizer.bases
        initializer = tf.keras.initializers.Constant(1 / bases)
        self.input_factors = self.add_weight("input_factors", shape=(bases,), initializer=initializer)

    def _binary(self, inputs, kernel, training):
        kernels = tf.unstack(kernel)
        outputs = []
        for basis in range(self.input_quantizer.bases):
            signs, factor = self.input_quantizer(inputs, basis), self.input_factors[basis]
            # The factor is a part of the kernel, which is smaller than the output and a constant in inference.
            parts = [self._convolve_levels(signs, factor * kernel, training) for kernel in kernels]
            outputs.append(reduce(tf.add, parts))
        return reduce(tf.add, outputs)

    def count_operations(self, input_shape: tf.TensorShape, output_shape: tf.TensorShape) -> Operations:
        """M * N binary convolutions, their additions, and N shifts of the input."""
        pairs = self.input_quantizer.bases * self.kernel_quantizer.bases
        macs = pairs * math.prod(self.kernel.shape) * math.prod(output_shape[1:-1])
        additions = (pairs - 1) * math.prod(output_shape[1:])
        return Operations({1: macs}, other=additions + self.input_quantizer.bases * math.prod(input_shape[1:]))

    def count_weights(self) -> dict[int, int]:
        """M binary kernels; a factor for each pair of bases, N shifts and the bias."""
        inputs, kernels = self.input_quantizer.bases, self.kernel_quantizer.bases
        floats = inputs * kernels + inputs + (self.filters if self.use_bias else 0)
        return {1: kernels * math.prod(self.kernel.shape), 32: floats}


@tf.keras.utils.register_keras_serializable("bibench_tf")
class ParallelConv2D(_ParallelBases, BinaryConv2D):
    """`BinaryConv2D` with M kernel bases and N input bases: M * N binary convolutions of one latent kernel.

    y = sum_n beta_n sum_m alpha_m conv(H_n(x), B_m) + bias; beta_n is the weight `input_factors`, of shape (N,), which
    starts at 1 / N. The quantizers are `InputBases` and `KernelBases`.
    """


@tf.keras.utils.register_keras_serializable("bibench_tf")
class ParallelConv1D(_ParallelBases, BinaryConv1D):
    """`ParallelConv2D` on sequences (B, L, C)."""


@tf.keras.utils.register_keras_serializable("bibench_tf")
class ParallelDense(_ParallelBases, BinaryDense):
    """`ParallelConv2D` on rows (..., C)."""


_LAYERS = {"conv2d": ParallelConv2D, "conv1d": ParallelConv1D, "dense": ParallelDense}


@register
@dataclass(frozen=True)
class ABC(Algorithm):
    """ABC-Net: M = `weight_bases` binary kernels and N = `activation_bases` binary inputs in every layer.

    Forward: y = sum_n beta_n sum_m alpha_m conv(H_n(x), B_m), see `KernelBases` and `InputBases`: M * N binary
    convolutions of one latent kernel, each a binary operation of Larq Compute Engine. alpha is the least-squares
    solution of w ~ sum_m alpha_m B_m for the whole layer, new in every forward pass; v and beta are learned. Gradients
    are straight-through. The paper's main result has M = N = 5, the default; it costs 25 binary convolutions, in
    training too. Raises InvalidOption unless both numbers are positive. Source: arXiv 1711.11294, section 3.
    """

    key = "abc"
    title = "ABC-Net"
    paper = "arXiv:1711.11294"
    activation = "relu"
    layers = _LAYERS

    weight_bases: Count = 5
    activation_bases: Count = 5

    def input_quantizer(self) -> tf.keras.layers.Layer:
        return InputBases(self.activation_bases)

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        return KernelBases(self.weight_bases)
