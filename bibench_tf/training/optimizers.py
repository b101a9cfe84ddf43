"""The optimizers of the recipes, and BertAdam, which Keras lacks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bibench_tf.errors import UnknownName
from bibench_tf.recipes import Precision, Recipe
from bibench_tf.training.addons import rectified_adam

# Optimizers that apply weight decay in their step; for all others it is a penalty in the loss.
DECOUPLED = ("bert_adam",)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class BertAdam(tf.keras.optimizers.Adam):
    """The Adam variant used to train BERT: no bias correction, decoupled weight decay, gradients clipped one by one.

    For every weight w with gradient g, of norm at most `max_norm` after clipping:
    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = w - rate (m / (sqrt(v) + epsilon) + weight_decay w).
    Weight decay is on every weight, biases and normalisations too. Embedding gradients are densified, because momentum
    and decay also update rows without a gradient.

    Source: Devlin et al., "BERT", arXiv:1810.04805, appendix A.2; without the correction and with the clipping as in
    the code released with it, which BiBench's language recipes use.
    """

    def __init__(
        self,
        learning_rate: float = 5e-5,
        epsilon: float = 1e-6,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        name: str = "BertAdam",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, epsilon=epsilon, weight_decay=weight_decay, name=name, **options)
        self.max_norm = max_norm

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """One step of one weight; Keras has applied the weight decay."""
        index = self._index_dict[self._var_key(variable)]
        first, second = self._momentums[index], self._velocities[index]
        gradient = tf.clip_by_norm(tf.convert_to_tensor(gradient), self.max_norm)
        first.assign_add((gradient - first) * (1 - self.beta_1))
        second.assign_add((tf.square(gradient) - second) * (1 - self.beta_2))
        rate = tf.cast(self.learning_rate, variable.dtype)
        variable.assign_sub(rate * first / (tf.sqrt(second) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "max_norm": self.max_norm}


def for_recipe(recipe: Recipe) -> tf.keras.optimizers.Optimizer:
    """The optimizer a recipe names, at its learning rate; see `DECOUPLED` for its weight decay."""
    return new(
        recipe.optimizer,
        recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        precision=recipe.precision,
    )


def new(
    name: str,
    learning_rate: float,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    precision: Precision = "float32",
) -> tf.keras.optimizers.Optimizer:
    """An optimizer of a recipe by name; momentum is for SGD, weight decay for the optimizers in `DECOUPLED`.

    Raises UnknownName.
    """
    if name == "adam":
        # PyTorch's epsilon, as in the reference; Keras' own default is 1e-7.
        optimizer = tf.keras.optimizers.Adam(learning_rate, epsilon=1e-8)
    elif name == "bert_adam":
        optimizer = BertAdam(learning_rate, weight_decay=weight_decay)
    elif name == "sgd":
        optimizer = tf.keras.optimizers.SGD(learning_rate, momentum=momentum, nesterov=nesterov)
    elif name == "radam":
        optimizer = rectified_adam(learning_rate)
    else:
        raise UnknownName("optimizer", name, ("adam", "bert_adam", "radam", "sgd"))
    # Without loss scaling small gradients are 0 in float16. A step whose gradients overflow is skipped.
    return tf.keras.mixed_precision.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer
