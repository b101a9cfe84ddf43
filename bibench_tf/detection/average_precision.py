"""VOC's average precision: how well a detector's scores rank right detections before wrong ones, class by class.

Everything is in pixels of the original images, so that metrics do not depend on the input size of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bibench_tf.detection.annotations import AREA, BOX, CLASS, IGNORED, IMAGE, SCALE


class Truth(NamedTuple):
    """The objects of a test split, one element of each array per object.

    `images` and `classes` are numbers from 0 (int), `boxes` (y0, x0, y1, x1) in pixels of the original image (float64
    [O, 4]), `areas` in the same pixels. Objects that are `ignored` (bool), VOC's difficult ones and COCO's crowds, are
    neither missed nor wrong to find.
    """

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray


class Found(NamedTuple):
    """The detections on a test split, in the form of `Truth`, with `scores`."""

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


# (right, precision, positives) -> average precision. `right` (int [T]) and `precision` (float64 [T]) are the number and
# the share of right detections, from the highest score threshold to the lowest; `positives` is the number of objects to
# find.
Summary = Callable[[np.ndarray, np.ndarray, int], float]


def truth_of(labels: np.ndarray, first_image: int = 0) -> Truth:
    """The objects in a batch of labels [B, M, 11] (`detection.annotations`), its images numbered from `first_image`."""
    real = labels[:, :, CLASS] >= 0
    rows = labels[real].astype(np.float64)
    return Truth(
        np.nonzero(real)[0] + first_image,
        rows[:, BOX] / np.tile(rows[:, SCALE], 2),
        rows[:, CLASS].astype(int),
        rows[:, IGNORED] > 0,
        rows[:, AREA],
    )


def found_in(labels: np.ndarray, outputs: Mapping[str, np.ndarray], first_image: int = 0) -> Found:
    """The detections in a detector's outputs for a batch with these labels, which hold scale and size of each image.

    Boxes are cut at the edge of the image, beyond which a network sees only padding.
    """
    real = outputs["classes"] >= 0
    images = np.nonzero(real)[0]
    scales, sizes = (labels[images, 0, columns].astype(np.float64) for columns in (SCALE, IMAGE))
    return Found(
        images + first_image,
        np.minimum(outputs["boxes"][real], np.tile(sizes, 2)) / np.tile(scales, 2),
        outputs["classes"][real].astype(int),
        outputs["scores"][real].astype(np.float64),
    )


def average_precisions(
    truth: Truth, found: Found, num_classes: int, summary: Summary, *, iou_threshold: float = 0.5
) -> np.ndarray:
    """The average precision of each class, from 0 to 1 (float64 [num_classes]); NaN for one without objects to find.

    A detection belongs to the object of its class in its image with which its intersection over union (IoU) is the
    largest, if that is `iou_threshold` or more. It is right if no detection of a higher score belongs to the same
    object, and wrong if one does or if it belongs to no object. Detections of an ignored object are not counted.
    Detections of equal scores are one point of the curve, because no threshold separates them: the order of images does
    not matter. Source: The PASCAL Visual Object Classes Challenge
    (Everingham et al., IJCV 2010), section 4.2; the continuous boxes (no added pixel) are those of COCO.
    """
    objects = match(truth, found, iou_threshold)
    precisions = np.full(num_classes, np.nan)
    for number in range(num_classes):
        positives = int(((truth.classes == number) & ~truth.ignored).sum())
        if positives:
            own = found.classes == number
            right, precision = _curve(found.scores[own], objects[own], truth.ignored)
            precisions[number] = summary(right, precision, positives)
    return precisions


def eleven_point(right: np.ndarray, precision: np.ndarray, positives: int) -> float:
    """The form of VOC 2007: the mean over recalls r = 0, 0.1 ... 1 of the highest precision at recall r or more.

    Recalls are compared as fractions of integers: as floating-point numbers, 3 of 10 is less than 3 * 0.1.
    """
    return float(
        np.mean([precision[10 * right >= tenth * positives].max(initial=0.0) for tenth in range(11)], dtype=np.float64)
    )


def area(right: np.ndarray, precision: np.ndarray, positives: int) -> float:
    """The form of VOC 2010 and later: the area under the curve of the highest precision at recall r or more."""
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(right, prepend=0) * highest).sum() / positives)


def match(truth: Truth, found: Found, iou_threshold: float) -> np.ndarray:
    """The index of each detection's object, -1 for none: int [D]."""
    from pycocotools import mask

    objects = np.full(len(found.images), -1)
    of_truth, of_found = _by_image(truth.images), _by_image(found.images)
    for image in of_truth.keys() & of_found.keys():
        there, detections = of_truth[image], of_found[image]
        ious = mask.iou(
            position_and_size(found.boxes[detections]), position_and_size(truth.boxes[there]), [0] * len(there)
        )
        ious[found.classes[detections][:, np.newaxis] != truth.classes[there]] = -1
        best = ious.argmax(axis=1)
        near = ious[np.arange(len(detections)), best] >= iou_threshold
        objects[detections[near]] = there[best[near]]
    return objects


def _curve(scores: np.ndarray, objects: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number and the share of a class's right detections at each threshold, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    scores, objects = scores[order], objects[order]
    counted = (objects < 0) | ~ignored[objects] if len(ignored) else np.ones(len(objects), bool)
    right = np.zeros(len(objects), bool)
    _, first = np.unique(objects, return_index=True)
    right[first] = True
    right &= counted & (objects >= 0)
    lasts = np.flatnonzero(np.diff(scores, append=-np.inf))
    hits, counts = right.cumsum()[lasts], counted.cumsum()[lasts]
    return hits, hits / np.maximum(counts, 1)


def _by_image(images: np.ndarray) -> dict[int, np.ndarray]:
    """The places of each image's elements in an array."""
    order = np.argsort(images, kind="stable")
    numbers, starts = np.unique(images[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)) if len(numbers) else {}


def position_and_size(boxes: np.ndarray) -> np.ndarray:
    """Boxes as (x, y, width, height), COCO's form."""
    return np.ascontiguousarray(np.concatenate([boxes[:, 1::-1], boxes[:, :1:-1] - boxes[:, 1::-1]], axis=1))
