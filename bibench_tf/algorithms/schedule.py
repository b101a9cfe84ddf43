"""Schedules over training progress: ReCU's tau and FDA's noise follow one callback."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import tensorflow as tf
from msgspec import Meta

from bibench_tf.operations import FollowsTraining
from bibench_tf.options import check

_Length = Annotated[float, Meta(ge=1, le=sys.float_info.max, description="a number >= 1")]


def update_schedules(model: tf.Module, epoch: float, epochs: float) -> None:
    """Set every scheduled quantizer of `model` (a model, layer or quantizer) to `epoch` (from 0) of `epochs`.

    Anything counted from 0 up to a total may be passed, steps as well as epochs. A count beyond the last one,
    `epochs` - 1, stands for the last one, and a negative count for the first: there the formulas of schedules end. A
    layer that is not built yet is set when it is built. Frozen quantizers keep their state. The state is saved with
    the model. Raises InvalidOption for less than one epoch, and for what is no number.
    """
    epoch = check("A schedule", "epoch", epoch, float)
    epochs = check("A schedule", "epochs", epochs, _Length)
    _update(model, min(max(epoch, 0.0), epochs - 1), epochs)


def _update(module: tf.Module, epoch: float, epochs: float) -> None:
    for part in (module, *module.submodules):
        if isinstance(part, tf.keras.layers.Layer) and not part.built and not hasattr(type(part).build, "_is_default"):
            _update_when_built(part, epoch, epochs)
        elif isinstance(part, FollowsTraining) and getattr(part, "trainable", True):
            part.update_schedule(epoch, epochs)


def _update_when_built(layer: tf.keras.layers.Layer, epoch: float, epochs: float) -> None:
    """Have a layer set by its next `build`, which no callback of Keras comes between and the first step."""

    def build(input_shape: Any) -> None:
        type(layer).build(layer, input_shape)
        del layer.build
        layer.built = True
        _update(layer, epoch, epochs)
        # Of several replicas the first one builds, and has assigned to its own copies.
        for weight in layer.non_trainable_weights:
            first, *others = tf.distribute.get_strategy().experimental_local_results(weight)
            for other in others:
                other.assign(first)

    layer.build = build


class ScheduleCallback(tf.keras.callbacks.Callback):
    """Moves the schedules of a model at the start of each epoch or, with `steps`, before each step.

    `epochs` is the whole length of the training where several calls of `fit` make it up; the default is the length
    of this `fit`. Keras calls it once where it executes several steps at a time (`steps_per_execution`). Raises
    InvalidOption for a length below 1.
    """

    def __init__(self, epochs: int | None = None, steps: int | None = None):
        super().__init__()
        self.epochs = check("A schedule", "epochs", epochs, _Length | None)
        self.steps = check("A schedule", "steps", steps, _Length | None)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Epochs are counted by Keras, so a resumed training goes on where it stopped."""
        if self.steps is None:
            update_schedules(self.model, epoch, self.epochs or self.params["epochs"])

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Steps are counted by the optimizer, for the same reason."""
        if self.steps is not None:
            update_schedules(self.model, int(self.model.optimizer.iterations.numpy()), self.steps)
