"""The baseline in full precision, made of Keras' own layers."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf.algorithms.base import Algorithm, register
from bibench_tf.errors import InvalidOption

_LAYERS = {"conv2d": tf.keras.layers.Conv2D, "conv1d": tf.keras.layers.Conv1D, "dense": tf.keras.layers.Dense}


@register
class FullPrecision(Algorithm):
    """32-bit weights and activations: y = conv(x, w) + bias."""

    key = "full_precision"
    title = "Full precision"
    paper = ""
    activation = "relu"

    def _layer(self, kind, units, **options):
        if options.get("padding", "same") not in ("same", "valid"):
            raise InvalidOption(f"Full-precision layers take padding 'same' or 'valid', not {options['padding']!r}.")
        if kind != "dense":
            options["kernel_initializer"] = "he_normal"
        return _LAYERS[kind](units, **options)
