"""The activation that most binary networks use."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf.algorithms.quantizers import clipped


@tf.keras.utils.register_keras_serializable("bibench_tf")
def hard_tanh(x: tf.Tensor) -> tf.Tensor:
    """Larq's hard_tanh, min(max(x, -1), 1), with the same gradient at less cost: 1 where |x| <= 1, else 0."""
    return _hard_tanh(x)


@tf.custom_gradient
def _hard_tanh(x):
    return tf.clip_by_value(x, -1.0, 1.0), lambda dy: clipped(x, dy)
