"""Detection of objects: boxes, classes and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bibench_tf.detection import average_precision, coco
from bibench_tf.detection.average_precision import Found, Truth
from bibench_tf.errors import InvalidOption
from bibench_tf.tasks.base import Evaluation, Task, register

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf
    from PIL import Image

    from bibench_tf.datasets import DetectionDataset

MAP50 = "mAP@0.5"
OF_CLASS = "AP@0.5 "
# Detections at most this far apart count as the same.
_NEAR = 0.01
_SUMMARIES = {"voc2007": average_precision.eleven_point, "voc2012": average_precision.area}


@register
class Detection(Task):
    """The boxes of all objects of the data set's classes: VOC, COCO.

    Labels are float32 [B, M, 11], a row for each object (`bibench_tf.detection.annotations`). Networks give a
    dictionary for at most N detections per image, the highest score first: `boxes` float32 [B, N, 4] as (y0, x0, y1,
    x1) in pixels of the image they see, `scores` float32 [B, N], `classes` int32 [B, N], -1 in rows without a
    detection. The training graph (`bibench_tf.detection.training_graph`) computes the loss of each image from labels
    and predictions.

    Main metric by the data set's `protocol`: `voc2007` is the mean over classes of the 11-point average precision at
    IoU 0.5, `voc2012` that of the area under the curve, `coco` the mean of COCO's average precision over the IoU
    thresholds 0.50 to 0.95 as well.
    """

    key = "detection"
    title = "Object detection"
    group = "cnn"
    network = "ssd_lite"
    default_data = "canvas_mini"
    has_pictures = True
    class_metric = OF_CLASS
    gives_logits = False
    test_batch = 16

    def metric(self, data: DetectionDataset) -> str:
        """The mean average precision at IoU 0.5, or COCO's over all its thresholds for data of that protocol."""
        return coco.MAP if data.protocol == "coco" else MAP50

    def loss(self, data: DetectionDataset) -> tf.keras.losses.Loss:
        """The mean of the losses of images [B] that the training graph computes; it ignores the labels."""
        import tensorflow as tf

        class MeanOverImages(tf.keras.losses.Loss):
            def call(self, labels, losses):
                return losses

        return MeanOverImages(name="mean_over_images")

    def training_graph(self, model: tf.keras.Model) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Images and truth to the loss of each image."""
        from bibench_tf.detection.training_graph import training_outputs

        return training_outputs(model)

    def training_batches(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """({image, truth}, truth), as the loss is computed inside the graph."""
        return batches.map(lambda images, truth: ({"image": images, "truth": truth}, truth))

    def distillation_loss(self, data: DetectionDataset, teacher: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Raises InvalidOption: distillation of detectors is not defined."""
        raise InvalidOption("Detectors do not learn from a teacher: take a recipe that does not distil.")

    def differences(self, expected: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> np.ndarray:
        """The largest distance, in each image, of a detection from the nearest one of the other form: float [B].

        The distance of two detections of one class is the difference of their scores, or of their boxes relative to
        the largest coordinate of any, whichever is larger; it is 1 for different classes, and infinite for a box or a
        score that is not a finite number. The order does not matter, because nearly equal scores may change places.
        The result is infinite for all images where neither form finds anything: there is nothing to compare.
        """
        distances = _distances(expected, given)
        if not sum(map(len, distances)):
            return np.full(len(distances), np.inf)
        return np.array([of_image.max(initial=0.0) for of_image in distances])

    def agreement(self, expected: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> float | None:
        """The share of the detections of both forms that have one of the other below a distance of 0.01."""
        distances = np.concatenate(_distances(expected, given))
        return float(np.mean(distances < _NEAR)) if len(distances) else None

    def evaluation(self, data: DetectionDataset) -> DetectionEvaluation:
        """Average precisions by the data set's protocol."""
        return DetectionEvaluation(data.class_names, data.protocol)

    def predictions(self, data: DetectionDataset, outputs: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """A row for each detection: the number of the image from 0, class, score, and the box in the network's pixels.

        Images without a detection have no row.
        """
        import pandas as pd

        real = outputs["classes"] >= 0
        boxes = outputs["boxes"][real]
        return pd.DataFrame(
            {
                "image": np.nonzero(real)[0],
                "class": [data.class_names[number] for number in outputs["classes"][real]],
                "score": outputs["scores"][real],
                **{name: boxes[:, column] for column, name in enumerate(("y0", "x0", "y1", "x1"))},
            }
        )

    def draw_labels(self, inputs: np.ndarray, labels: np.ndarray, data: DetectionDataset) -> Image.Image:
        """The first image [B, H, W, 3] of a batch with its objects [B, M, 11]."""
        from bibench_tf.detection import drawing

        return drawing.objects(inputs[0], labels[0], data)

    def draw_outputs(self, inputs: np.ndarray, model: tf.keras.Model, data: DetectionDataset) -> Image.Image:
        """The first image of a batch [1, H, W, 3] with the detections of `model`."""
        from bibench_tf.detection import drawing

        return drawing.detections(model, inputs, data)


def _distances(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """For each image, how far each detection of both forms is from the nearest one of the other form."""
    largest = max(1.0, float(np.nanmax(one["boxes"], initial=0.0)))
    found = []
    for image in range(len(one["classes"])):
        real, others = one["classes"][image] >= 0, other["classes"][image] >= 0
        same = one["classes"][image][real][:, np.newaxis] == other["classes"][image][others]
        with np.errstate(invalid="ignore"):
            boxes = np.abs(one["boxes"][image][real][:, np.newaxis] - other["boxes"][image][others]).max(axis=-1)
            scores = np.abs(one["scores"][image][real][:, np.newaxis] - other["scores"][image][others])
            apart = np.maximum(boxes / largest, scores)
        apart = np.where(np.isfinite(apart), np.where(same, apart, 1.0), np.inf)
        found.append(np.concatenate([_nearest(apart), _nearest(apart.T)]))
    return found


def _nearest(apart: np.ndarray) -> np.ndarray:
    """The least of each row, 1 in a row without entries; infinite entries are not left out."""
    nearest = apart.min(axis=1, initial=1.0)
    return np.where(np.isinf(apart).any(axis=1), np.inf, nearest)


class DetectionEvaluation(Evaluation):
    """Average precisions over a test split, on boxes in pixels of the original images."""

    def __init__(self, class_names: Sequence[str], protocol: str) -> None:
        """Start with no images; `protocol` is `voc2007`, `voc2012` or `coco`."""
        self._class_names = class_names
        self._protocol = protocol
        self._images = 0
        self._truths: list[Truth] = []
        self._founds: list[Found] = []

    def update(self, labels: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        """Add labels [B, M, 11] and the outputs of a detector."""
        self._truths.append(average_precision.truth_of(labels, self._images))
        self._founds.append(average_precision.found_in(labels, outputs, self._images))
        self._images += len(labels)

    def metrics(self) -> dict[str, float]:
        """The metrics of the protocol, from 0 to 1.

        For VOC `mAP@0.5` and the average precision of each class, for COCO its twelve metrics. Classes and sizes
        without objects are left out; the main metric is NaN without any object. There is no `loss`, which needs the
        training graph.
        """
        truth = Truth(*map(np.concatenate, zip(*self._truths, strict=True)))
        found = Found(*map(np.concatenate, zip(*self._founds, strict=True)))
        if self._protocol == "coco":
            return {coco.MAP: float("nan")} | coco.metrics(truth, found)
        precisions = average_precision.average_precisions(
            truth, found, len(self._class_names), _SUMMARIES[self._protocol]
        )
        of_classes = {
            f"{OF_CLASS}{name}": float(precision)
            for name, precision in zip(self._class_names, precisions, strict=True)
            if not np.isnan(precision)
        }
        return {MAP50: float(np.mean([*of_classes.values()])) if of_classes else float("nan"), **of_classes}
