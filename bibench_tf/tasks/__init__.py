"""The tasks: what is learnt from each kind of data, with its loss, its figures and the form of its predictions.

`get` imports no TensorFlow.
"""

from __future__ import annotations

from bibench_tf.errors import UnknownName
from bibench_tf.tasks.base import Evaluation, Task
from bibench_tf.tasks.classification import ImageClassification, KeywordSpotting, PointClassification
from bibench_tf.tasks.detection import Detection
from bibench_tf.tasks.part_segmentation import PartSegmentation
from bibench_tf.tasks.text_classification import TextClassification

__all__ = ["Evaluation", "Task", "get", "names"]

_TASKS: dict[str, Task] = {
    task.key: task
    for task in (
        Detection(),
        ImageClassification(),
        KeywordSpotting(),
        PartSegmentation(),
        PointClassification(),
        TextClassification(),
    )
}


def names() -> list[str]:
    """The keys of all tasks."""
    return list(_TASKS)


def get(key: str) -> Task:
    """The task called `key`. Raises BibenchError for an unknown one."""
    if key not in _TASKS:
        raise UnknownName("task", key, _TASKS)
    return _TASKS[key]
