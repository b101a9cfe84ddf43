"""Boxes (y0, x0, y1, x1) in pixels, as tensors."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from bibench_tf.operations import Operations


class DetectionLayer(tf.keras.layers.Layer):
    """A layer of a detector without weights, which keeps every argument of its initializer in an attribute."""

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = inspect.signature(type(self)).parameters
        return super().get_config() | {name: getattr(self, name) for name in own if name != "kwargs"}

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """None, as in published counts: the work after the network's own layers depends on the image."""
        return Operations({}, 0)


class BoxLayer(DetectionLayer):
    """A layer that computes with boxes, in float32 at any precision: 16 bits cannot number the pixels of a photo."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})


def area(boxes: tf.Tensor) -> tf.Tensor:
    """The areas (..) of boxes (.., 4) in square pixels; 0 where a side is negative."""
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Intersection over union of each of (.., A, 4) with each of (.., B, 4): (.., A, B), 0 for boxes without area."""
    one, other = first[..., :, tf.newaxis, :], second[..., tf.newaxis, :, :]
    sides = tf.minimum(one[..., 2:], other[..., 2:]) - tf.maximum(one[..., :2], other[..., :2])
    sides = tf.maximum(sides, 0.0)
    both = sides[..., 0] * sides[..., 1]
    either = area(first)[..., :, tf.newaxis] + area(second)[..., tf.newaxis, :] - both
    return tf.math.divide_no_nan(both, either)


def clip(boxes: tf.Tensor, height: float | tf.Tensor, width: float | tf.Tensor) -> tf.Tensor:
    """Boxes (.., 4) cut at the edges of an image."""
    limits = tf.stack([height, width, height, width])
    return tf.minimum(tf.maximum(boxes, 0.0), tf.cast(limits, boxes.dtype))
