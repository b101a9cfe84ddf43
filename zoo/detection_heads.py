"""Shared by the detectors of the zoo: heads on feature maps, and the way from their outputs to detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf.detection.anchors import Anchors
from bibench_tf.detection.suppression import Detections, named
from bibench_tf.errors import InvalidOption
from bibench_tf.operations import Operations


def check_detector(num_classes: int) -> None:
    """Raise InvalidOption unless a detector has at least one class."""
    if num_classes < 1:
        raise InvalidOption(f"A detector needs at least one class, not {num_classes}.")


def single_shot(
    image: tf.Tensor,
    maps: Sequence[tf.Tensor],
    strides: Sequence[float],
    sizes: Sequence[np.ndarray],
    num_classes: int,
    name: str,
    max_detections: int,
) -> tf.keras.Model:
    """A detector with a 3x3 convolution on each feature map for the offsets and one for the classes of its anchors.

    Layers: `offsets` [B, A, 4] and `class_logits` [B, A, C + 1], background last, `anchors` [A, 4]; outputs
    as in `bibench_tf.tasks.detection.Detection`.
    """
    check_detector(num_classes)
    offsets: list[tf.Tensor] = []
    logits: list[tf.Tensor] = []
    for level, (features, shapes) in enumerate(zip(maps, sizes, strict=True), start=1):
        for found, columns, role in ((offsets, 4, "offsets"), (logits, num_classes + 1, "classes")):
            head = tf.keras.layers.Conv2D(len(shapes) * columns, 3, padding="same", name=f"level{level}_{role}")
            found.append(tf.keras.layers.Reshape((-1, columns), name=f"level{level}_{role}_by_anchor")(head(features)))
    offsets = tf.keras.layers.Concatenate(axis=1, name="offsets")(offsets)
    logits = tf.keras.layers.Concatenate(axis=1, name="class_logits")(logits)
    anchors = Anchors(strides, [shapes.tolist() for shapes in sizes], name="anchors")(list(maps))
    detections = Detections(max_detections, name="detections")([offsets, logits, anchors, image])
    return tf.keras.Model(image, named(detections), name=name)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class ScaledNormalization(tf.keras.layers.Layer):
    """x / |x| over the channels of each position, times a scale for each channel, which starts at `scale`.

    Source: ParseNet, arXiv 1506.04579, section 3.2.
    """

    def __init__(self, scale: float = 20.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_scale = scale

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(
            "scale", shape=(input_shape[-1],), initializer=tf.keras.initializers.Constant(self.initial_scale)
        )
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Features of the same shape (B, H, W, C)."""
        squares = tf.reduce_sum(tf.square(inputs), axis=-1, keepdims=True)
        return inputs * tf.math.rsqrt(squares + 1e-12) * self.scale

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "scale": self.initial_scale}

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """Four for each feature: the square and its sum, and two factors."""
        return Operations({}, 4 * int(np.prod(output_shape[1:])))
