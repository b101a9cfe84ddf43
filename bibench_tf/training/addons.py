"""The only module that imports TensorFlow Addons.

TensorFlow Addons 0.23 exists for the first lane only (Python 3.10 and 3.11 with TensorFlow 2.15): it has no wheel for
Python 3.12 and fails to import with TensorFlow 2.16 and later. The second lane therefore lacks `rectified_adam`, the
RAdam optimizer `tensorflow_addons.optimizers.RectifiedAdam`.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import TYPE_CHECKING

from bibench_tf.errors import InvalidOption

if TYPE_CHECKING:
    import tensorflow as tf


def rectified_adam(learning_rate: float, weight_decay: float = 0.0) -> tf.keras.optimizers.legacy.Optimizer:
    """The RAdam optimizer of TensorFlow Addons (first lane only).

    Adam whose step is scaled by a rectifier once the variance of its second moment is tractable (at least
    five effective steps), and is a plain momentum step before. Betas are 0.9 and 0.999, epsilon 1e-7.

    Args:
        learning_rate: step size; a callback may set another between epochs.
        weight_decay: decoupled decay: each step also subtracts learning_rate * weight_decay * weight.

    Raises:
        InvalidOption: TensorFlow Addons is not installed, as in the second lane.

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020
    (arXiv:1908.03265).
    """
    optimizers = _import_addons().optimizers
    return optimizers.RectifiedAdam(learning_rate=learning_rate, weight_decay=weight_decay)


def _import_addons() -> ModuleType:
    """The module tensorflow_addons, without the end-of-life notice that it prints at import."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*TensorFlow Addons \(TFA\)", category=UserWarning)
            import tensorflow_addons
    except ImportError as error:
        raise InvalidOption(
            "The optimizer 'radam' needs TensorFlow Addons, which exists for Python 3.10 and 3.11 only; choose adam or "
            "sgd, or install bibench-tf with one of these Python versions."
        ) from error
    return tensorflow_addons
