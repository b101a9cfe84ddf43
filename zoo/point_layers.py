"""Layers of point-cloud networks besides those that see each point alone: transforms and a pooling."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf.errors import InvalidOption
from bibench_tf.operations import Operations

_OFFSETS = {1024: 3.2041, 2048: 3.4025, 4096: 3.5836}


@tf.keras.utils.register_keras_serializable("bibench_tf")
class PointTransform(tf.keras.layers.Layer):
    """Multiplies the first k channels of each point by a matrix of its cloud; the other channels stay as they are.

    [points (B, N, C), entries (B, k * k)] to (B, N, C): with x the row of the first k channels of a point and T the
    entries row by row, y = x (T + I). Raises InvalidOption unless the entries are a square of at most C rows.
    Source: the T-Nets of arXiv 1612.00593, section 4.2; + I as in the authors' and in BiBench's code.
    """

    def build(self, input_shape: Any) -> None:
        """Check the sizes; there are no weights."""
        (*_, channels), (*_, entries) = input_shape
        self.size = math.isqrt(entries)
        if self.size**2 != entries or self.size > channels:
            raise InvalidOption(f"{entries} numbers are no square matrix for points of {channels} channels.")
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Transform."""
        points, entries = inputs
        # Added before the reshape: Larq Compute Engine treats an addition to the result of a binary layer as one number
        # for each channel, and could not run a file that adds a matrix.
        identity = tf.constant(np.eye(self.size).reshape(-1), entries.dtype)
        matrix = tf.reshape(entries + identity, [-1, self.size, self.size])
        if self.size == points.shape[-1]:
            return tf.matmul(points, matrix)
        return tf.concat([tf.matmul(points[:, :, : self.size], matrix), points[:, :, self.size :]], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the points."""
        return input_shape[0]

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """A product of a row and the matrix for each point; an addition for each number of the diagonal."""
        return Operations({32: output_shape[1] * self.size**2}, self.size)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class EntropyMaximizingMax(tf.keras.layers.Layer):
    """The largest value over the points minus its expectation: (B, N, C) to (B, C).

    y = max_n x_n - m(N), m(N) the median of the largest of N numbers of a standard normal distribution (`offset_of`).
    Behind a batch norm the sign of y is +1 for about half of the clouds; the sign of the maximum itself is nearly
    always +1. Source: entropy-maximizing aggregation, arXiv 2010.05501, section 3.2; BiBench's `ema-max`.
    """

    def call(self, inputs: Any) -> tf.Tensor:
        """Pool."""
        return tf.reduce_max(inputs, axis=1) - offset_of(inputs.shape[1])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Without the points."""
        batch, _, channels = input_shape
        return tf.TensorShape([batch, channels])

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """Comparisons with all points but the first, and a difference."""
        return Operations({}, input_shape[1] * input_shape[2])


def offset_of(points: int) -> float:
    """The median of the largest of `points` numbers of a standard normal distribution: Phi(m)^points = 1/2.

    For 1024, 2048 and 4096 points BiBench's values, which differ from the median by up to 0.004.
    """
    return _OFFSETS.get(points) or NormalDist().inv_cdf(0.5 ** (1 / points))
