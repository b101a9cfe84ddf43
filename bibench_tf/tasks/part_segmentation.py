"""Segmentation of point clouds of shapes into parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bibench_tf.tasks.base import Evaluation, Task, register
from bibench_tf.tasks.classification import answers, log_softmax

if TYPE_CHECKING:
    import pandas as pd

    from bibench_tf.datasets import Dataset

INSTANCE_MIOU = "instance mIoU"
CLASS_MIOU = "class mIoU"
POINT_ACCURACY = "point accuracy"


@register
class PartSegmentation(Task):
    """The part that each point of a shape belongs to, the category of the shape being known: ShapeNetPart.

    Networks give logits [B, N, parts], labels are int32 [B, N]. Parts are numbered over the whole data set, whose
    `class_names` are `category/part`. Loss: softmax cross-entropy over all parts, averaged over points.

    For the metrics, a point gets the most probable of the parts of its shape's category. The IoU of a part is the
    number of points that have it in both prediction and truth, over the number that have it in either, and 1 where no
    point has it. The IoU of a shape is the mean over all parts of its category. Main metric: its mean over all shapes,
    instance mIoU; class mIoU is the mean over categories of the mean over their shapes. Source: PointNet, arXiv
    1612.00593, section 5.1.
    """

    key = "part_segmentation"
    title = "Part segmentation"
    group = "mlp"
    network = "pointnet_vanilla_segmentation@0.125"
    default_data = "shapes_mini_parts"

    def metric(self, data: Dataset) -> str:
        """Instance mIoU."""
        return INSTANCE_MIOU

    def evaluation(self, data: Dataset) -> SegmentationEvaluation:
        """Cross-entropy, instance and class mIoU, and the share of points with the right part."""
        return SegmentationEvaluation(data.class_names)

    def predictions(self, data: Dataset, outputs: np.ndarray) -> pd.DataFrame:
        """`category`: the one with the most probable parts; `parts`: a part number for each point, in order.

        The numbers, separated by spaces, are positions in the data set's `class_names`, and parts of that category.
        The category is the one with the largest sum over points of the log-probability that a point is of its parts.
        """
        import pandas as pd
        from scipy.special import logsumexp

        categories, owner = parts_by_category(data.class_names)
        probable = log_softmax(outputs)
        evidence = [logsumexp(probable[:, :, owner == index], axis=2).sum(axis=1) for index in range(len(categories))]
        chosen = np.argmax(evidence, axis=0)
        parts = _restricted(outputs, owner, chosen)
        return pd.DataFrame(
            {"category": [categories[index] for index in chosen], "parts": [" ".join(map(str, row)) for row in parts]}
        )


def parts_by_category(class_names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The categories in `category/part`, in order of appearance, and the number of the category of each part (int)."""
    owners = [name.partition("/")[0] for name in class_names]
    categories = tuple(dict.fromkeys(owners))
    return categories, np.array([categories.index(owner) for owner in owners])


class SegmentationEvaluation(Evaluation):
    """Cross-entropy, IoU of shapes, and accuracy of points."""

    def __init__(self, class_names: Sequence[str]) -> None:
        """Start with no shapes; `class_names` are `category/part`."""
        self._categories, self._owner = parts_by_category(class_names)
        self._points = 0
        self._loss = 0.0
        self._right = 0
        self._shape_categories: list[np.ndarray] = []
        self._shape_ious: list[np.ndarray] = []

    def update(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Add the parts of points [B, N] and logits [B, N, parts]."""
        self._points += labels.size
        self._loss -= float(np.take_along_axis(log_softmax(outputs), labels[:, :, np.newaxis], axis=2).sum())
        category = self._owner[labels[:, 0]]
        predicted = _restricted(outputs, self._owner, category)
        self._right += int((predicted == labels).sum())
        self._shape_categories.append(category)
        self._shape_ious.append(self._ious(labels, predicted, category))

    def _ious(self, labels: np.ndarray, predicted: np.ndarray, category: np.ndarray) -> np.ndarray:
        """The IoU of each shape."""
        true, predicted_part = (
            (points[:, :, np.newaxis] == np.arange(len(self._owner))) for points in (labels, predicted)
        )
        both, either = (true & predicted_part).sum(axis=1), (true | predicted_part).sum(axis=1)
        ious = np.where(either == 0, 1.0, both / np.maximum(either, 1))
        own = self._owner == category[:, np.newaxis]
        return (ious * own).sum(axis=1) / own.sum(axis=1)

    def metrics(self) -> dict[str, float]:
        """Mean cross-entropy, and metrics from 0 to 1; categories without shapes do not count."""
        categories, ious = np.concatenate(self._shape_categories), np.concatenate(self._shape_ious)
        return {
            "loss": self._loss / self._points,
            INSTANCE_MIOU: float(ious.mean()),
            CLASS_MIOU: float(np.mean([ious[categories == category].mean() for category in np.unique(categories)])),
            POINT_ACCURACY: self._right / self._points,
        }


def _restricted(outputs: np.ndarray, owner: np.ndarray, category: np.ndarray) -> np.ndarray:
    """The most probable part [B, N] of each point among those of the shape's `category` [B]; -1 for a logit NaN."""
    own = owner == category[:, np.newaxis]
    return answers(np.where(own[:, np.newaxis], outputs, -np.inf))
