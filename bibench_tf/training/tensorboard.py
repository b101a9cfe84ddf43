"""The logs of a run for TensorBoard: the metrics and the learning rate of every epoch."""

from __future__ import annotations

import time
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
# TensorBoard reads files with this word in their name. TensorFlow's own writer adds the name of the machine.
_PREFIX = "events.out.tfevents"
_SCALARS = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"})


class EpochLogs:
    """The event file of a training in `folder`, with a step for each epoch, the first being 1.

    A training that is resumed adds a file. If the folder has no event file yet, the first one begins with `history`,
    rows as in `training.loop.Progress`.
    """

    def __init__(self, folder: Path, recipe: Recipe, history: Iterable[Mapping[str, Any]] = ()) -> None:
        self._recipe = recipe
        goes_on = any(folder.glob(f"{_PREFIX}.*"))
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = tf.io.TFRecordWriter(str(folder / f"{_PREFIX}.{time.time_ns()}"))
        self._add(file_version="brain.Event:2")
        for row in () if goes_on else history:
            self.write(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the history row of an epoch, with the learning rate of its first step."""
        values = {"learning_rate": learning_rate(self._recipe, row["epoch"] - 1)}
        values |= {_NAMES.get(k, f"test/{k}"): v for k, v in row.items() if k != "epoch" and v is not None}
        scalars = [
            tf.compat.v1.Summary.Value(tag=tag, metadata=_SCALARS, tensor=tf.make_tensor_proto(value, tf.float32))
            for tag, value in values.items()
        ]
        self._add(step=int(row["epoch"]), summary=tf.compat.v1.Summary(value=scalars))
        self._writer.flush()

    def _add(self, **content: Any) -> None:
        self._writer.write(tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())
