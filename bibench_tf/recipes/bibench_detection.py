"""BiBench's recipes for detection: acc_voc with two detectors, and acc_coco, in full precision and binary.

Binary detectors start from the full-precision weights, at a tenth of the learning rate for classifiers.
"""

from __future__ import annotations

from typing import Any

from bibench_tf.recipes.base import Recipe, register

# BiBench trains on both years at once and tests on 2007.
_VOC = ("voc0712", "voc2007", "voc2012")

# Five epochs of data repeated five times; the step is at 4 of 5.
_VOC_RCNN_FLOAT = register(
    Recipe("bibench_voc_rcnn_float", 25, 2, "sgd", 0.01, "step", weight_decay=1e-4, milestones=(0.8,))
)
register(
    Recipe("bibench_voc_rcnn", 25, 2, "adam", 1e-4, "cosine", start=_VOC_RCNN_FLOAT),
    bibench_for=dict.fromkeys(_VOC, ("faster_rcnn_resnet18",)),
)

# 24 epochs of data repeated ten times. The released schedule is missing; the steps are those of MMDetection's SSD300,
# at 16 and 20 of 24.
_VOC_SSD_FLOAT = register(
    Recipe("bibench_voc_ssd_float", 240, 8, "sgd", 1e-3, "step", momentum=0.0, milestones=(16 / 24, 20 / 24))
)
register(
    Recipe("bibench_voc_ssd", 240, 32, "adam", 1e-4, "cosine", start=_VOC_SSD_FLOAT),
    bibench_for=dict.fromkeys(_VOC, ("ssd300_vgg16",)),
)

# The steps are at 16 and 22 of 24 epochs; warm-up over 500 of 24 x 14,658 steps.
_COCO_SCHEDULE: dict[str, Any] = {
    "milestones": (16 / 24, 22 / 24),
    "warm_up": 500 / (24 * 14_658),
    "warm_up_start": 1e-3,
}
_COCO_FLOAT = register(Recipe("bibench_coco_float", 24, 8, "sgd", 0.02, "step", weight_decay=1e-4, **_COCO_SCHEDULE))
register(
    Recipe("bibench_coco", 12, 8, "adam", 1e-4, "cosine", start=_COCO_FLOAT),
    bibench_for={"coco2017": ("faster_rcnn_resnet18",)},
)
