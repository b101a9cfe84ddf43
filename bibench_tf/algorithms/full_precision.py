"""The baseline: Keras' own layers, so that builders need no branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm
from bibench_tf.errors import BibenchError


@dataclass(frozen=True)
class FullPrecision(Algorithm):
    """32-bit weights and activations: y = conv(x, w) + bias."""

    key: ClassVar[str] = "full_precision"
    title: ClassVar[str] = "Full precision"
    paper: ClassVar[str] = ""
    activation: ClassVar[str] = "relu"

    def conv2d(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="same",
        dilation_rate=1,
        groups=1,
        use_bias=False,
        name=None,
    ):
        """`tf.keras.layers.Conv2D`."""
        return self._convolution(
            tf.keras.layers.Conv2D,
            filters,
            kernel_size,
            strides,
            padding,
            dilation_rate,
            groups,
            use_bias,
            name,
        )

    def conv1d(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="same",
        dilation_rate=1,
        groups=1,
        use_bias=False,
        name=None,
    ):
        """`tf.keras.layers.Conv1D`."""
        return self._convolution(
            tf.keras.layers.Conv1D,
            filters,
            kernel_size,
            strides,
            padding,
            dilation_rate,
            groups,
            use_bias,
            name,
        )

    def dense(self, units, use_bias=True, name=None):
        """`tf.keras.layers.Dense`."""
        return tf.keras.layers.Dense(units, use_bias=use_bias, name=name)

    @staticmethod
    def _convolution(layer, filters, kernel_size, strides, padding, dilation_rate, groups, use_bias, name):
        if padding not in ("same", "valid"):
            raise BibenchError(f"Full-precision layers take padding 'same' or 'valid', not {padding!r}.")
        return layer(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            groups=groups,
            use_bias=use_bias,
            kernel_initializer="he_normal",
            name=name,
        )
