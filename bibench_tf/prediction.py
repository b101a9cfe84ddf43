"""Predictions of a trained network for test examples, in the form of their task, and its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf import tasks
from bibench_tf.errors import BibenchError
from bibench_tf.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from bibench_tf.datasets import Dataset


def predictions(
    model: tf.keras.Model, data: Dataset, *, limit: int | None = None
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Predictions for the test examples of `data`, or the first `limit`, in the form of the task, and metrics.

    Raises BibenchError for a network that does not take these examples.
    """
    task = tasks.get(data.task)
    evaluation = task.evaluation(data)
    outputs: list[Any] = []
    for inputs, labels in data.test_batches(task.test_batch, limit=limit):
        if not outputs:
            _check_sizes(model, inputs, data)
        outputs.append(model.predict_on_batch(inputs))
        evaluation.update(labels.numpy(), outputs[-1])
    data.check_unchanged()
    if isinstance(outputs[0], Mapping):
        every = {name: np.concatenate([batch[name] for batch in outputs]) for name in outputs[0]}
    else:
        every = np.concatenate(outputs)
    return task.predictions(data, every), evaluation.metrics()


def draw(model: tf.keras.Model, data: Dataset, count: int, folder: Path) -> None:
    """Write the first test images with what the detector finds on them, as `image_0.png` and so on.

    Raises StorageError when they cannot be written.
    """
    from bibench_tf.datasets import DetectionDataset
    from bibench_tf.detection import drawing

    if not isinstance(data, DetectionDataset):
        raise BibenchError(f"--draw is for detectors, and '{data.name}' is for {tasks.get(data.task).title.lower()}.")
    for number, (images, _) in enumerate(data.test_batches(1, limit=count)):
        write_atomically(folder / f"image_{number}.png", drawing.detections(model, images, data).save)


def data_of(model: Path, data_dir: Path | None = None, vocabulary: Path | None = None) -> Dataset:
    """The data set that a run was trained on; the options are those of `datasets.get`.

    Raises BibenchError for another folder or file, for a run on the user's data, whose place no record has, and for
    data that have changed since.
    """
    from bibench_tf.results import records
    from bibench_tf.results.runs import RunResult
    from bibench_tf.training import data_sets
    from bibench_tf.training.session import Session

    path = model / "result.json"
    if not path.is_file():
        raise BibenchError(f"{model} is not the folder of a run: name the data set by --data.")
    name = records.read(path, RunResult).spec.dataset
    data = data_sets.DataSets(Session(model, data_dir=data_dir, vocabulary=vocabulary)).get(name)
    data_sets.check(name, data)
    return data


def _check_sizes(model: tf.keras.Model, inputs: Any, data: Dataset) -> None:
    """Refuse examples of other sizes than the network takes, and other outputs than the data set needs."""
    taken = {tensor.node.layer.name: tensor.shape[1:] for tensor in model.inputs}
    if isinstance(inputs, Mapping):
        given = {name: tuple(array.shape[1:]) for name, array in inputs.items()}
    else:
        # The name of an only input does not matter.
        given = dict.fromkeys(taken if len(taken) == 1 else ["inputs"], tuple(inputs.shape[1:]))
    if taken.keys() != given.keys() or not all(taken[name].is_compatible_with(given[name]) for name in taken):
        raise BibenchError(f"The network takes {_sizes(taken)}, and the examples of '{data.name}' are {_sizes(given)}.")
    if isinstance(model.output_shape, Mapping):
        return
    needed = data.network_options.get("num_parts", data.num_classes or 1)
    if model.output_shape[-1] != needed:
        raise BibenchError(f"The network gives {model.output_shape[-1]} numbers, and '{data.name}' needs {needed}.")


def _sizes(shapes: Mapping[str, Iterable[int | None]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
