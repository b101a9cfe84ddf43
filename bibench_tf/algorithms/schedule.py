"""Schedules over training progress: ReCU's tau and FDA's noise follow one callback."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf.errors import BibenchError


def update_schedules(model: tf.Module, epoch: float, epochs: float) -> None:
    """Set every scheduled quantizer of `model` (a model, layer or quantizer) to `epoch` (from 0) of `epochs`.

    Anything counted from 0 up to a total may be passed, steps as well as epochs. The state is saved with the model.
    """
    for module in (model, *model.submodules):
        if hasattr(module, "update_schedule"):
            module.update_schedule(epoch, epochs)


class ScheduleCallback(tf.keras.callbacks.Callback):
    """Moves the schedules of a model at the start of each epoch or, with `total_steps`, before each step."""

    def __init__(self, total_steps: int | None = None):
        super().__init__()
        self.total_steps = total_steps
        self._step = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Epochs are counted by Keras, so a resumed training goes on where it stopped."""
        if self.total_steps is None:
            update_schedules(self.model, epoch, self.params["epochs"])

    def on_train_begin(self, logs=None):
        """Steps are counted by the optimizer, for the same reason."""
        if self.total_steps is not None:
            if self.total_steps < 1:
                raise BibenchError(f"A schedule needs at least one step, not {self.total_steps}.")
            self._step = int(self.model.optimizer.iterations)

    def on_train_batch_begin(self, batch, logs=None):
        """Before each step."""
        if self.total_steps is not None:
            update_schedules(self.model, min(self._step, self.total_steps - 1), self.total_steps)
            self._step += 1
