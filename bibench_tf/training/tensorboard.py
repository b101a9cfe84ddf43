"""The logs of a run for TensorBoard: the metrics and the learning rate of every epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from bibench_tf.recipes import Recipe, learning_rate

_COSTS = ("train_step_time_ms", "train_time_s", "energy_j", "peak_process_memory_mib", "peak_gpu_memory_mib")
_NAMES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "test_loss": "test/loss",
    "accuracy": "test/accuracy",
    **{name: f"cost/{name}" for name in _COSTS},
}


class EpochLogs:
    """The event file of a training in `folder`, with a step for each epoch, the first being 1.

    A training that is resumed adds a file. If the folder has no event file yet, the first one begins with `history`,
    rows as in `training.loop.Progress`.
    """

    def __init__(self, folder: Path, recipe: Recipe, history: Iterable[Mapping[str, Any]] = ()) -> None:
        self._recipe = recipe
        goes_on = any(folder.glob("events.out.tfevents.*"))
        self._writer = tf.summary.create_file_writer(str(folder))
        for row in () if goes_on else history:
            self.write(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the history row of an epoch, with the learning rate of its first step."""
        with self._writer.as_default(step=int(row["epoch"])):
            tf.summary.scalar("learning_rate", learning_rate(self._recipe, row["epoch"] - 1))
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    tf.summary.scalar(_NAMES.get(name, f"test/{name}"), value)
        self._writer.flush()
