"""COCO's metrics by COCO's own evaluation, on arrays and without its output on the terminal."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from bibench_tf.detection.average_precision import Found, Truth, position_and_size

# The mean over classes and over the IoU thresholds 0.50, 0.55 ... 0.95.
MAP = "mAP"
# In the order of COCOeval's summary.
_METRICS = (
    *(MAP, "mAP@0.5", "mAP@0.75", "mAP small", "mAP medium", "mAP large"),
    *("AR 1 detection", "AR 10 detections", "AR 100 detections", "AR small", "AR medium", "AR large"),
)


def metrics(truth: Truth, found: Found) -> dict[str, float]:
    """COCO's twelve metrics, from 0 to 1; metrics without objects are left out.

    Average precision (AP) is the mean of the interpolated precision at the recalls 0, 0.01 ... 1; average recall (AR)
    is the recall with at most n detections per image and class. Both are means over classes with objects
    and over IoU thresholds from 0.50 to 0.95. Objects are small below 32^2 pixels of area, large above 96^2. An ignored
    object is a crowd: any number of detections may lie in it, and the overlap is the share of the detection's own area.
    Among detections of equal scores, those of earlier images come first.
    Source: COCO, arXiv 1405.0312, and pycocotools' COCOeval.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true = _rows(truth, area=truth.areas, iscrowd=truth.ignored.astype(int))
    detected = _rows(found, area=(found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1), score=found.scores)
    images = [{"id": image} for image in np.union1d(truth.images, found.images).tolist()]
    categories = [{"id": number} for number in np.union1d(truth.classes, found.classes).tolist()]

    def index(annotations: list[dict[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(index(true), index(detected), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # COCOeval gives -1 for metrics without objects.
    return {name: float(value) for name, value in zip(_METRICS, evaluation.stats, strict=True) if value >= 0}


def _rows(boxes: Truth | Found, **columns: np.ndarray) -> list[dict[str, Any]]:
    """Boxes as COCO's annotations, numbered from 1, because COCOeval takes number 0 for no match."""
    import pandas as pd

    places = position_and_size(boxes.boxes).tolist()
    known = {"id": np.arange(len(places)) + 1, "image_id": boxes.images, "category_id": boxes.classes, "bbox": places}
    return pd.DataFrame(known | columns).to_dict("records")
