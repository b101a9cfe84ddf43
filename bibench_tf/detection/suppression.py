"""From the outputs of a detector's heads to its detections: decoding and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bibench_tf.detection import anchors as coding
from bibench_tf.detection import boxes


@tf.keras.utils.register_keras_serializable("bibench_tf")
class Detections(boxes.BoxLayer):
    """The detections of images, from offsets, class logits, anchors and the image.

    Inputs: offsets [B, A, 4], or [B, A, C, 4] for each class; logits [B, A, C + 1] with background as the last class;
    anchors [A, 4] or [B, A, 4]; the images [B, H, W, 3], for their size. Outputs: `boxes` [B, N, 4] in pixels inside
    the image, `scores` [B, N] falling, `classes` int32 [B, N], with N = `max_detections`; rows without a detection have
    score 0 and class -1.

    Scores are softmax probabilities. Of the scores above `score_threshold` the `candidates` highest, of all boxes and
    classes, go through non-maximum suppression at `iou_threshold`, each class separately. For a batch of one,
    TensorFlow Lite has all these operations.
    """

    def __init__(
        self,
        max_detections: int = 100,
        score_threshold: float = 0.02,
        iou_threshold: float = 0.45,
        candidates: int = 1000,
        deviations: tuple[float, float, float, float] = coding.SSD_DEVIATIONS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_detections = max_detections
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.candidates = candidates
        self.deviations = tuple(deviations)

    def call(self, inputs: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The detections of a batch."""
        offsets, logits, anchors, images = inputs
        height, width = images.shape[1] or tf.shape(images)[1], images.shape[2] or tf.shape(images)[2]
        scores = tf.nn.softmax(logits)[..., :-1]
        if offsets.shape.rank == 4:
            anchors = anchors[..., tf.newaxis, :]
        found = boxes.clip(coding.decode(offsets, anchors, self.deviations), height, width)
        # Without padding rows of the proposals and boxes outside of the image.
        some = tf.cast(boxes.area(found) > 0, scores.dtype)
        scores *= some if offsets.shape.rank == 4 else some[..., tf.newaxis]
        # Boxes of different classes, moved this far for each class, cannot overlap.
        apart = tf.cast(tf.maximum(height, width), tf.float32)
        if images.shape[0] == 1:  # as on a device, which has no loops
            return {name: value[tf.newaxis] for name, value in self._of_image(found[0], scores[0], apart).items()}
        rows = self.max_detections
        return tf.map_fn(
            lambda image: self._of_image(image[0], image[1], apart),
            (found, scores),
            fn_output_signature={
                "boxes": tf.TensorSpec([rows, 4], tf.float32),
                "scores": tf.TensorSpec([rows], tf.float32),
                "classes": tf.TensorSpec([rows], tf.int32),
            },
        )

    def _of_image(self, found: tf.Tensor, scores: tf.Tensor, apart: tf.Tensor) -> dict[str, tf.Tensor]:
        """From boxes [A, 4] or [A, C, 4] and scores [A, C]."""
        classes = scores.shape[1]
        known = scores.shape[0] is not None
        count = scores.shape[0] * classes if known else tf.size(scores)
        count = min(self.candidates, count) if known else tf.minimum(self.candidates, count)
        scores, indices = tf.math.top_k(tf.reshape(scores, [-1]), count)
        found = tf.gather(tf.reshape(found, [-1, 4]), indices if found.shape.rank == 3 else indices // classes)
        classes = indices % classes
        chosen, valid = tf.image.non_max_suppression_padded(
            found + tf.cast(classes, tf.float32)[:, tf.newaxis] * apart,
            scores,
            self.max_detections,
            self.iou_threshold,
            self.score_threshold,
            pad_to_max_output_size=True,
        )
        there = tf.range(self.max_detections) < valid
        return {
            "boxes": tf.where(there[:, tf.newaxis], tf.gather(found, chosen), 0.0),
            "scores": tf.where(there, tf.gather(scores, chosen), 0.0),
            "classes": tf.where(there, tf.gather(classes, chosen), -1),
        }


def named(detections: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The outputs of `Detections`, each from a layer of the same name, because a converted file keeps layer names."""
    return {name: tf.keras.layers.Activation("linear", name=name)(value) for name, value in detections.items()}
