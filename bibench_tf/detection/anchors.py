"""Anchors, and the coding of boxes relative to them.

Boxes are (y0, x0, y1, x1) in pixels, float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf.detection.boxes import DetectionLayer

# Offsets are divided by these: those of the centre (y, x), then those of the logarithm of the size.
SSD_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
REGION_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
PROPOSAL_DEVIATIONS = (1.0, 1.0, 1.0, 1.0)
# A box is decoded to at most this many times the size of its anchor, so that no exponential overflows.
_LARGEST_GROWTH = 1000 / 16

SSD300_STRIDES = (8, 16, 32, 64, 100, 300)
# Of VOC: 10 % of the image in the first feature map, then 20 to 88 %.
SSD300_SIZES = (30, 60, 111, 162, 213, 264, 315)
SSD300_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))


def grid_anchors(
    height: int | tf.Tensor, width: int | tf.Tensor, stride: float | tuple[float, float], sizes: np.ndarray
) -> tf.Tensor:
    """Anchors [height * width * K, 4] of `sizes` [K, 2] (height, width) around the centres of the cells of a grid.

    Cells are `stride` pixels apart, the first centre half a stride from the corner; rows, columns, sizes in this order.
    """
    down, across = stride if isinstance(stride, tuple) else (stride, stride)
    y = (tf.cast(tf.range(height), tf.float32) + 0.5) * down
    x = (tf.cast(tf.range(width), tf.float32) + 0.5) * across
    centres = tf.reshape(tf.stack(tf.meshgrid(y, x, indexing="ij"), axis=-1), [-1, 1, 2])
    halves = tf.constant(np.asarray(sizes, np.float32)[np.newaxis] / 2)
    return tf.reshape(tf.concat([centres - halves, centres + halves], axis=-1), [-1, 4])


def level_sizes(sizes: Sequence[float], ratios: Sequence[Sequence[float]]) -> list[np.ndarray]:
    """The anchors [K, 2] (height, width) of each level of SSD; `sizes` has one more than there are levels.

    A level of size s with the next of size t has squares of s and of sqrt(s t), and for each of its `ratios` r the
    shapes s / sqrt(r) x s sqrt(r) and its transpose. Source: arXiv 1512.02325, section 2.2.
    """
    levels = []
    for size, following, own in zip(sizes[:-1], sizes[1:], ratios, strict=True):
        between = math.sqrt(size * following)
        shapes = [(size, size), (between, between)]
        for ratio in own:
            short, long = size / math.sqrt(ratio), size * math.sqrt(ratio)
            shapes += [(short, long), (long, short)]
        levels.append(np.array(shapes, np.float32))
    return levels


def ssd_sizes(
    image_size: float, levels: int, smallest: float, ratios: Sequence[float], largest: float = 0.9
) -> list[np.ndarray]:
    """`level_sizes` for sizes from `smallest` to `largest` of the image in equal steps, and the same ratios everywhere.

    One more step follows the last level. At least two levels. Source: arXiv 1512.02325, equation 4.
    """
    step = (largest - smallest) / (levels - 1)
    return level_sizes([image_size * (smallest + step * level) for level in range(levels + 1)], [ratios] * levels)


def rpn_sizes(
    stride: float = 16, scales: Sequence[float] = (2, 4, 8, 16, 32), ratios: Sequence[float] = (0.5, 1, 2)
) -> np.ndarray:
    """The anchors (height, width) of a region proposal network: each scale with each ratio of height to width.

    The area is (stride scale)^2. Source: arXiv 1506.01497, section 3.1.1; BiBench's scales.
    """
    sides = [(stride * scale, math.sqrt(ratio)) for ratio in ratios for scale in scales]
    return np.array([(side * root, side / root) for side, root in sides], np.float32)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class Anchors(DetectionLayer):
    """The anchors [A, 4] of a list of feature maps [B, H, W, ..], level by level (`grid_anchors`).

    `strides` has a number of pixels for each level, `sizes` the (height, width) of its anchors. The heights and widths
    of the maps may be unknown until the network runs.
    """

    def __init__(self, strides: Sequence[float], sizes: Sequence[Sequence[Sequence[float]]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strides = tuple(float(stride) for stride in strides)
        self.sizes = tuple(tuple((float(height), float(width)) for height, width in level) for level in sizes)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """The anchors; only the shapes of the maps are used."""
        levels = []
        for features, stride, sizes in zip(tf.nest.flatten(inputs), self.strides, self.sizes, strict=True):
            height, width = features.shape[1] or tf.shape(features)[1], features.shape[2] or tf.shape(features)[2]
            levels.append(grid_anchors(height, width, stride, np.array(sizes)))
        return tf.concat(levels, axis=0)


def encode(boxes: tf.Tensor, anchors: tf.Tensor, deviations: Sequence[float]) -> tf.Tensor:
    """Boxes (.., 4) as offsets from anchors (.., 4): (dy / h, dx / w, ln(h' / h), ln(w' / w)) / deviations.

    d is the distance of the centres, h and w the size of the anchor, h' and w' that of the box; sizes under a
    thousandth of a pixel count as a thousandth.
    """
    centres, sizes = _centres_and_sizes(boxes)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    anchor_sizes, sizes = tf.maximum(anchor_sizes, 1e-3), tf.maximum(sizes, 1e-3)
    offsets = tf.concat([(centres - anchor_centres) / anchor_sizes, tf.math.log(sizes / anchor_sizes)], axis=-1)
    return offsets / tf.constant(deviations, tf.float32)


def decode(offsets: tf.Tensor, anchors: tf.Tensor, deviations: Sequence[float]) -> tf.Tensor:
    """The inverse of `encode`; a box is at most 62.5 times as high or wide as its anchor."""
    offsets = offsets * tf.constant(deviations, tf.float32)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    growth = tf.exp(tf.minimum(offsets[..., 2:], math.log(_LARGEST_GROWTH)))
    centres, halves = anchor_centres + offsets[..., :2] * anchor_sizes, growth * anchor_sizes / 2
    return tf.concat([centres - halves, centres + halves], axis=-1)


def _centres_and_sizes(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    first, last = boxes[..., :2], boxes[..., 2:]
    return (first + last) / 2, last - first
