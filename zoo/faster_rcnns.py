"""Faster R-CNN (arXiv 1506.01497) on a binarized ResNet-18."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.datasets.kinds.detection import View
from bibench_tf.detection.anchors import REGION_DEVIATIONS, Anchors, rpn_sizes
from bibench_tf.detection.regions import ByImage, Proposals, RegionAlign
from bibench_tf.detection.suppression import Detections, named
from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE
from bibench_tf.networks import register
from bibench_tf.options import Count
from bibench_tf.zoo import parts
from bibench_tf.zoo.detection_heads import check_detector
from bibench_tf.zoo.resnets import CHANNELS, ResidualBlocks, blocks_of

STRIDE = 16
# By the family of protocols.
_VIEWS = {
    "coco": View((800, 1333), keep_ratio=True, divisor=32, augmentation="flip"),
    "voc": View((600, 1000), keep_ratio=True, divisor=32, augmentation="flip"),
}
_RPN_CHANNELS = 256
_REGION_SIZE = 14


@register(task="detection", input_options=_VIEWS)
def faster_rcnn_resnet18(
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int | None, ...] = (None, None, 3),
    num_classes: int = 20,
    *,
    width: float = 1.0,
    proposals: Count = 1000,
    max_detections: Count = 100,
) -> tf.keras.Model:
    """Faster R-CNN with the features of ResNet-18's third stage (C4), 1/16 of the image's size.

    The twelve 3x3 convolutions of stages 1 to 3 are binarized; stem, shortcuts, region proposals, the fourth stage,
    which works on 14 x 14 features of each region (RoIAlign), and both last layers stay in full precision, as in
    BiBench. 15 anchors at each position. In training the best 2,000 regions are proposed and 512 of them classified; in
    inference `proposals`.

    Images of any size whose sides may be None; at least 64 x 64. Input (B, H, W, 3) float32; outputs `boxes`, `scores`
    and `classes` of at most `max_detections` for each image, see `bibench_tf.tasks.detection.Detection`.
    """
    check_detector(num_classes)
    if any(size is not None and size < 64 for size in input_shape[:2]):
        raise InvalidOption(f"faster_rcnn_resnet18 needs images of at least 64 x 64 pixels, not {tuple(input_shape)}.")
    image = tf.keras.Input(tuple(input_shape), name="image")
    blocks = ResidualBlocks(algorithms.get(algorithm))
    channels = [parts.scaled(wide, width) for wide in CHANNELS]
    x = blocks.stages(blocks.stem(image, "imagenet", channels[0]), blocks_of(18)[:3], channels[:3])
    features = tf.keras.layers.Activation("linear", name="features")(x)

    sizes = rpn_sizes(STRIDE)
    wide = parts.scaled(_RPN_CHANNELS, width)
    y = tf.keras.layers.Conv2D(wide, 3, padding="same", activation="relu", name="rpn_conv")(x)
    rpn_logits, rpn_offsets = (
        tf.keras.layers.Reshape(shape, name=f"rpn_{role}")(
            tf.keras.layers.Conv2D(len(sizes) * columns, 1, name=f"rpn_{role}_conv")(y)
        )
        for role, columns, shape in (("logits", 1, (-1,)), ("offsets", 4, (-1, 4)))
    )
    anchors = Anchors([STRIDE], [sizes.tolist()], name="anchors")([features])
    regions = Proposals(proposals, name="proposals")([rpn_offsets, rpn_logits, anchors, image])

    aligned = RegionAlign(_REGION_SIZE, STRIDE, name="region_align")([features, regions])
    pooled = _region_head(aligned.shape[1:], channels[3])(aligned)
    offsets, logits = (
        ByImage(shape, name=role)([tf.keras.layers.Dense(units, name=f"region_{role}")(pooled), regions])
        for role, units, shape in (
            ("offsets", 4 * num_classes, (num_classes, 4)),
            ("class_logits", num_classes + 1, (num_classes + 1,)),
        )
    )
    detections = Detections(
        max_detections, score_threshold=0.05, iou_threshold=0.5, deviations=REGION_DEVIATIONS, name="detections"
    )([offsets, logits, regions, image])
    return tf.keras.Model(image, named(detections), name="faster_rcnn_resnet18")


def _region_head(input_shape: Sequence[int], channels: int) -> tf.keras.Model:
    """The fourth stage on the features of regions, and the mean over positions."""
    features = tf.keras.Input(tuple(input_shape), name="region_features")
    blocks = ResidualBlocks(algorithms.get(BASELINE))
    x = features
    for block, strides in ((1, 2), (2, 1)):
        x = blocks.block(x, channels, strides, f"stage4_block{block}")
    pooled = tf.keras.layers.GlobalAveragePooling2D(name="region_pool")(x)
    return tf.keras.Model(features, pooled, name="region_head")
