"""The losses of detectors, for each image of a batch, as layers of the training graph."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bibench_tf.detection import anchors as coding
from bibench_tf.detection import matching
from bibench_tf.detection.annotations import BOX, CLASS
from bibench_tf.detection.regions import TARGET_BOX, TARGET_CLASS

NEGATIVES_FOR_ONE_POSITIVE = 3
RPN_SAMPLES = 256


def smooth_l1(errors: tf.Tensor, beta: float) -> tf.Tensor:
    """0.5 e^2 / beta where |e| < beta, else |e| - 0.5 beta; added up over the last axis."""
    size = tf.abs(errors)
    return tf.reduce_sum(tf.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta), axis=-1)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class SsdLoss(tf.keras.layers.Layer):
    """SSD's loss from truth [B, M, 11], offsets [B, A, 4], class logits [B, A, C + 1] and anchors [A, 4]: [B].

    An anchor is positive from an IoU of 0.5, and if it is the one that overlaps an object most. Softmax cross-entropy,
    of the positives and of the negatives with the highest loss, three for each positive of the image, plus smooth L1
    (beta 1) of the positives' offsets. Divided by the positives of the whole batch, at least 1, and times B, so that
    the mean over the batch is the loss of the paper. Background is the last class. Source: arXiv 1512.02325, section
    2.2.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """The losses of the images of a batch."""
        truth, offsets, logits, anchors = inputs
        matches = matching.match(anchors, truth, positive=0.5, negative=0.5, best_from=0.0)
        positive = matches >= 0
        rows = matching.matched(truth, matches)
        background = logits.shape[-1] - 1
        classes = tf.where(positive, tf.cast(rows[..., CLASS], tf.int32), background)
        of_classes = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
        hardness = tf.where(positive, -1.0, tf.stop_gradient(of_classes))
        rank = tf.argsort(tf.argsort(hardness, axis=-1, direction="DESCENDING"), axis=-1)
        positives = tf.math.count_nonzero(positive, axis=-1, keepdims=True, dtype=tf.int32)
        hard = tf.logical_and(~positive, rank < NEGATIVES_FOR_ONE_POSITIVE * positives)
        targets = coding.encode(rows[..., BOX], anchors, coding.SSD_DEVIATIONS)
        # The targets of anchors without an object are meaningless.
        errors = tf.where(positive[..., tf.newaxis], offsets - targets, 0.0)
        losses = tf.where(tf.logical_or(positive, hard), of_classes, 0.0) + smooth_l1(errors, 1.0)
        return _over(tf.reduce_sum(losses, axis=-1), tf.reduce_sum(positives))


@tf.keras.utils.register_keras_serializable("bibench_tf")
class RpnLoss(tf.keras.layers.Layer):
    """The loss of a region proposal network from truth, offsets [B, A, 4], logits [B, A] and anchors [A, 4]: [B].

    An anchor is positive from an IoU of 0.7, and if it overlaps an object most, from 0.3; it is negative below 0.3.
    Sigmoid cross-entropy of 256 anchors of each image, chosen at random, at most half of them positive, plus
    smooth L1 (beta 1/9) of the positive ones' offsets. Divided by the number of chosen anchors of the batch, at least
    1, and times B. Source: arXiv 1506.01497, section 3.1; as in mmdetection.
    """

    draws_at_random = True

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """The losses of the images of a batch."""
        truth, offsets, logits, anchors = inputs
        matches = matching.match(anchors, truth, positive=0.7, negative=0.3, best_from=0.3)
        positive, negative = matching.sample(matches, RPN_SAMPLES, 0.5)
        chosen = tf.logical_or(positive, negative)
        labels = tf.cast(positive, logits.dtype)
        of_objects = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
        targets = coding.encode(matching.matched(truth, matches)[..., BOX], anchors, coding.PROPOSAL_DEVIATIONS)
        errors = tf.where(positive[..., tf.newaxis], offsets - targets, 0.0)
        losses = tf.where(chosen, of_objects, 0.0) + smooth_l1(errors, 1 / 9)
        return _over(tf.reduce_sum(losses, axis=-1), tf.math.count_nonzero(chosen))


@tf.keras.utils.register_keras_serializable("bibench_tf")
class RegionLoss(tf.keras.layers.Layer):
    """The loss of regions [B, S, 4] with targets [B, S, 5] (`regions.SampleRegions`): [B].

    Further inputs: offsets for each class [B, S, C, 4], class logits [B, S, C + 1], background last. Softmax
    cross-entropy of all sampled regions, plus smooth L1 (beta 1) of the offsets for the right class of regions with an
    object. Divided by the number of sampled regions of the batch, at least 1, and times B. Sources: arXiv
    1504.08083, section 2.3; as in mmdetection.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """The losses of the images of a batch."""
        regions, targets, offsets, logits = inputs
        classes = tf.cast(targets[..., TARGET_CLASS], tf.int32)
        positive, taken = classes >= 0, classes >= matching.NEGATIVE
        labels = tf.where(positive, classes, logits.shape[-1] - 1)
        of_classes = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        of_right_class = tf.gather(offsets, tf.maximum(classes, 0), batch_dims=2)
        wanted = coding.encode(targets[..., TARGET_BOX], regions, coding.REGION_DEVIATIONS)
        errors = tf.where(positive[..., tf.newaxis], of_right_class - wanted, 0.0)
        losses = tf.where(taken, of_classes, 0.0) + smooth_l1(errors, 1.0)
        return _over(tf.reduce_sum(losses, axis=-1), tf.math.count_nonzero(taken))


def _over(losses: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Losses [B] of images, divided by the `count` of a batch and times B.

    With a distribution strategy, B and `count` are those of a replica's part, and the divisor is the count of the
    batch of all replicas.
    """
    images, least = tf.cast(tf.shape(losses)[0], losses.dtype), 1.0
    count = tf.cast(count, losses.dtype)
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        count, least = replica.all_reduce(tf.distribute.ReduceOp.MEAN, count), 1.0 / replica.num_replicas_in_sync
    return losses * images / tf.maximum(count, least)
