"""BiBench's recipes for detection: acc_voc with two detectors, and acc_coco, in full precision and binary."""

from __future__ import annotations

from bibench_tf.recipes.base import Recipe, register

# BiBench trains on both years at once and tests on 2007.
_VOC = ("voc0712", "voc2007", "voc2012")


def _binary(name: str, start: Recipe, epochs: int, batch_size: int) -> Recipe:
    """Adam at a tenth of the rate for classifiers, from the full-precision weights."""
    return Recipe(
        name, epochs=epochs, batch_size=batch_size, optimizer="adam", learning_rate=1e-4, schedule="cosine", start=start
    )


# Five epochs of data repeated five times; the step is at 4 of 5.
_VOC_RCNN_FLOAT = register(
    Recipe(
        "bibench_voc_rcnn_float",
        epochs=25,
        batch_size=2,
        optimizer="sgd",
        learning_rate=0.01,
        schedule="step",
        weight_decay=1e-4,
        milestones=(0.8,),
    )
)
register(
    _binary("bibench_voc_rcnn", _VOC_RCNN_FLOAT, epochs=25, batch_size=2),
    bibench_for=dict.fromkeys(_VOC, ("faster_rcnn_resnet18",)),
)

# 24 epochs of data repeated ten times. The released schedule is missing; the steps are those of MMDetection's SSD300,
# at 16 and 20 of 24.
_VOC_SSD_FLOAT = register(
    Recipe(
        "bibench_voc_ssd_float",
        epochs=240,
        batch_size=8,
        optimizer="sgd",
        learning_rate=1e-3,
        schedule="step",
        momentum=0.0,
        milestones=(16 / 24, 20 / 24),
    )
)
register(
    _binary("bibench_voc_ssd", _VOC_SSD_FLOAT, epochs=240, batch_size=32),
    bibench_for=dict.fromkeys(_VOC, ("ssd300_vgg16",)),
)

# Warm-up over 500 of 24 x 14,658 steps.
_COCO_FLOAT = register(
    Recipe(
        "bibench_coco_float",
        epochs=24,
        batch_size=8,
        optimizer="sgd",
        learning_rate=0.02,
        schedule="step",
        weight_decay=1e-4,
        milestones=(16 / 24, 22 / 24),
        warm_up=500 / (24 * 14_658),
        warm_up_start=1e-3,
    )
)
register(
    _binary("bibench_coco", _COCO_FLOAT, epochs=12, batch_size=8), bibench_for={"coco2017": ("faster_rcnn_resnet18",)}
)
