"""Schedules over training progress: ReCU's tau and FDA's noise follow one callback."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bibench_tf.errors import InvalidOption
from bibench_tf.operations import FollowsTraining


def update_schedules(model: tf.Module, epoch: float, epochs: float) -> None:
    """Set every scheduled quantizer of `model` (a model, layer or quantizer) to `epoch` (from 0) of `epochs`.

    Anything counted from 0 up to a total may be passed, steps as well as epochs. The state is saved with the model.
    """
    for module in (model, *model.submodules):
        if isinstance(module, FollowsTraining):
            module.update_schedule(epoch, epochs)


class ScheduleCallback(tf.keras.callbacks.Callback):
    """Moves the schedules of a model at the start of each epoch or, with `steps`, before each step.

    `epochs` is the whole length of the training where several calls of `fit` make it up; the default is the length
    of this `fit`.
    """

    def __init__(self, epochs: int | None = None, steps: int | None = None):
        super().__init__()
        if steps is not None and steps < 1:
            raise InvalidOption(f"A schedule needs at least one step, not {steps}.")
        self.epochs = epochs
        self.steps = steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Epochs are counted by Keras, so a resumed training goes on where it stopped."""
        if self.steps is None:
            update_schedules(self.model, epoch, self.epochs or self.params["epochs"])

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Steps are counted by the optimizer, for the same reason."""
        if self.steps is not None:
            step = int(self.model.optimizer.iterations)
            update_schedules(self.model, min(step, self.steps - 1), self.steps)
