"""The regions of a two-stage detector: proposal, choice for training, and features of a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bibench_tf.detection import anchors as coding
from bibench_tf.detection import boxes, matching
from bibench_tf.detection.annotations import BOX, CLASS, IGNORED
from bibench_tf.operations import Operations

# The columns of the targets of regions: the box of the object, and its class; matching.NEGATIVE for background,
# matching.NEITHER for unused rows.
TARGET_BOX = slice(0, 4)
TARGET_CLASS = 4


@tf.keras.utils.register_keras_serializable("bibench_tf")
class Proposals(boxes.BoxLayer):
    """The regions [B, P, 4] of images in which a region proposal network sees objects, by falling score.

    Inputs: offsets [B, A, 4], logits [B, A], anchors [A, 4], the images [B, H, W, 3], for their size. The `candidates`
    anchors of the highest logits are decoded and cut at the edges; boxes with a side of at most `smallest` pixels are
    dropped; non-maximum suppression at `iou_threshold` leaves P = `proposals` of the rest. `training_candidates` and
    `training_proposals` take their place in training. Rows without a proposal are 0. No gradient goes through.
    Source: arXiv 1506.01497, sections 3.1 and 3.3; the numbers as in mmdetection.
    """

    def __init__(
        self,
        proposals: int = 1000,
        candidates: int = 6000,
        training_proposals: int = 2000,
        training_candidates: int = 12000,
        iou_threshold: float = 0.7,
        smallest: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.proposals = proposals
        self.candidates = candidates
        self.training_proposals = training_proposals
        self.training_candidates = training_candidates
        self.iou_threshold = iou_threshold
        self.smallest = smallest

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """The regions of a batch."""
        offsets, logits, anchors, images = inputs
        height, width = images.shape[1] or tf.shape(images)[1], images.shape[2] or tf.shape(images)[2]
        candidates = self.training_candidates if training else self.candidates
        proposals = self.training_proposals if training else self.proposals
        logits, indices = tf.math.top_k(tf.stop_gradient(logits), tf.minimum(candidates, tf.shape(logits)[1]))
        offsets = tf.gather(tf.stop_gradient(offsets), indices, batch_dims=1)
        found = coding.decode(offsets, tf.gather(anchors, indices), coding.PROPOSAL_DEVIATIONS)
        found = boxes.clip(found, height, width)
        large = tf.reduce_all(found[..., 2:] - found[..., :2] > self.smallest, axis=-1)
        # Suppression takes only scores above its threshold, which is minus infinity.
        logits = tf.where(large, logits, float("-inf"))

        def suppressed(image: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            found, logits = image
            chosen, valid = tf.image.non_max_suppression_padded(
                found, logits, proposals, self.iou_threshold, pad_to_max_output_size=True
            )
            return tf.where((tf.range(proposals) < valid)[:, tf.newaxis], tf.gather(found, chosen), 0.0)

        return tf.map_fn(suppressed, (found, logits), fn_output_signature=tf.TensorSpec([proposals, 4], tf.float32))


@tf.keras.utils.register_keras_serializable("bibench_tf")
class SampleRegions(boxes.BoxLayer):
    """The regions of a training step [B, S, 4], S = `total`, and their targets [B, S, 5] (box and class).

    Inputs: proposals [B, P, 4] and truth [B, M, 11]. The objects themselves count as proposals, too. A region is
    positive from an IoU of 0.5 and negative below; of each image `total` are taken at random, at most `positive_share`
    of them positive. The target of a region is the box and the class of the object it overlaps most; the class is
    matching.NEGATIVE for background, and matching.NEITHER in padding rows. No gradient goes through.
    Source: arXiv 1504.08083, section 2.3; the numbers as in mmdetection.
    """

    draws_at_random = True

    def __init__(self, total: int = 512, positive_share: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.total = total
        self.positive_share = positive_share

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """The regions and the targets."""
        proposals, truth = inputs
        proposals = tf.stop_gradient(proposals)
        wanted = tf.logical_and(truth[..., CLASS] >= 0, truth[..., IGNORED] == 0)
        objects = tf.where(wanted[..., tf.newaxis], truth[..., BOX], 0.0)
        # There are always `total` rows to take.
        filling = tf.zeros([tf.shape(proposals)[0], self.total, 4], proposals.dtype)
        regions = tf.concat([objects, proposals, filling], axis=1)
        matches = matching.match(regions, truth, positive=0.5, negative=0.5)
        matches = tf.where(boxes.area(regions) > 0, matches, matching.NEITHER)
        positive, negative = matching.sample(matches, self.total, self.positive_share)
        _, indices = tf.math.top_k(2 * tf.cast(positive, tf.int32) + tf.cast(negative, tf.int32), self.total)
        regions, matches, positive, negative = (
            tf.gather(each, indices, batch_dims=1) for each in (regions, matches, positive, negative)
        )
        rows = matching.matched(truth, matches)
        others = tf.where(negative, float(matching.NEGATIVE), float(matching.NEITHER))
        classes = tf.where(positive, rows[..., CLASS], others)
        taken = tf.logical_or(positive, negative)[..., tf.newaxis]
        return tf.where(taken, regions, 0.0), tf.concat([rows[..., BOX], classes[..., tf.newaxis]], axis=-1)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class RegionAlign(boxes.BoxLayer):
    """The features of regions: [B, H, W, C] and [B, P, 4] to [B * P, size, size, C], image after image (RoIAlign).

    A region is divided into size x size cells; each gets the mean of `sampling` x `sampling` points, evenly spread in
    it, which are interpolated between the four features next to them. Feature (i, j) is at the centre of its cell,
    pixel ((i + 0.5) stride, (j + 0.5) stride); beyond the outermost centres the outermost features continue. The
    gradient goes to the features and not to the regions. Source: arXiv 1703.06870, section 3; `aligned=True` of mmcv,
    whose number of points depends on the size of the region unless it is given.
    """

    def __init__(self, size: int = 14, stride: float = 16, sampling: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.stride = stride
        self.sampling = sampling

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """The features of all regions of a batch."""
        features, regions = inputs
        images, proposals = tf.shape(regions)[0], tf.shape(regions)[1]
        channels = features.shape[-1]
        # A margin of one row and column, so that points at the edges lie between features, too.
        features = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
        regions = tf.stop_gradient(regions) / self.stride + 0.5
        # From the first to the last point; crop_and_resize takes them as shares of the way to the last feature.
        points = self.size * self.sampling
        margin = (regions[..., 2:] - regions[..., :2]) / (2 * points)
        ends = tf.concat([regions[..., :2] + margin, regions[..., 2:] - margin], axis=-1)
        last = tf.tile(tf.shape(features)[1:3] - 1, [2])
        shares = tf.reshape(ends / tf.cast(last, ends.dtype), [-1, 4])
        owners = tf.repeat(tf.range(images), proposals)
        cut = tf.image.crop_and_resize(features, shares, owners, [points, points])
        pooled = tf.nn.avg_pool2d(cut, self.sampling, self.sampling, "VALID")
        return tf.ensure_shape(pooled, [None, self.size, self.size, channels])

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """Four multiply-accumulates for each point, in floats; for one region."""
        return Operations({32: 4 * self.sampling**2 * self.size**2 * output_shape[-1]}, 0)

    def count_samples(self, input_shape: Any) -> int:
        """The number of regions of an image, which is that of its proposals."""
        return input_shape[1][1]


@tf.keras.utils.register_keras_serializable("bibench_tf")
class ByImage(boxes.DetectionLayer):
    """Values of all regions of a batch [B * P, ..] by image: [B, P, *shape].

    Inputs: the values and the regions [B, P, 4]. `shape` has as many numbers as a region has values.
    """

    def __init__(self, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """The values by image."""
        values, regions = inputs
        images = tf.shape(regions)[0]
        proposals = regions.shape[1] or tf.shape(regions)[1]
        return tf.reshape(values, [images, proposals, *self.shape])

    def count_samples(self, input_shape: Any) -> int:
        """One: the image."""
        return 1
