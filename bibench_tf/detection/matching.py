"""The assignment of anchors or regions to objects, and the sample that a loss takes."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf.detection import boxes
from bibench_tf.detection.annotations import BOX, CLASS, IGNORED

NEGATIVE = -1
NEITHER = -2


def match(
    anchors: tf.Tensor, truth: tf.Tensor, *, positive: float, negative: float, best_from: float | None = None
) -> tf.Tensor:
    """The index of each anchor's object, or NEGATIVE, or NEITHER: int32 [B, A].

    `anchors` are [A, 4] or [B, A, 4], `truth` is [B, M, 11] (`bibench_tf.detection.annotations`). An anchor is
    assigned to the object with which it has the highest IoU, if the IoU is at least `positive`; it is negative below
    `negative`. With `best_from`, the anchors that overlap an object most are assigned to it, too, from that IoU on.
    Ignored objects and padding rows match nothing. Sources: arXiv 1506.01497, section 3.1.2; arXiv 1512.02325,
    section 2.2.
    """
    wanted = tf.logical_and(truth[..., CLASS] >= 0, truth[..., IGNORED] == 0)
    overlaps = boxes.iou(anchors, truth[..., BOX])
    overlaps = tf.where(wanted[:, tf.newaxis], overlaps, -1.0)
    highest = tf.reduce_max(overlaps, axis=-1)
    matches = tf.argmax(overlaps, axis=-1, output_type=tf.int32)
    matches = tf.where(highest >= positive, matches, tf.where(highest < negative, NEGATIVE, NEITHER))
    if best_from is None:
        return matches
    best = tf.reduce_max(overlaps, axis=1, keepdims=True)
    is_best = tf.logical_and(overlaps == best, best >= tf.maximum(best_from, 1e-6))
    # The last object, if an anchor is the best one for several.
    objects = tf.shape(truth)[1]
    last = objects - 1 - tf.argmax(tf.reverse(tf.cast(is_best, tf.int32), [-1]), axis=-1, output_type=tf.int32)
    return tf.where(tf.reduce_any(is_best, axis=-1), last, matches)


def matched(truth: tf.Tensor, matches: tf.Tensor) -> tf.Tensor:
    """The rows [B, A, 11] of the objects of `matches` [B, A]; the row of the first object for anchors without one."""
    return tf.gather(truth, tf.maximum(matches, 0), batch_dims=1)


def sample(matches: tf.Tensor, total: int, positive_share: float) -> tuple[tf.Tensor, tf.Tensor]:
    """A random sample of `total` matches of each image, as masks bool [B, A] of the positive and the negative ones.

    At most `total * positive_share` are positive; negative ones fill the rest if there are enough.
    """
    positive, negative = matches >= 0, matches == NEGATIVE
    positive = _at_most(positive, tf.constant(round(total * positive_share)))
    taken = tf.math.count_nonzero(positive, axis=-1, keepdims=True, dtype=tf.int32)
    return positive, _at_most(negative, total - taken)


def _at_most(chosen: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """A random subset of `chosen` [B, A] of at most `count` anchors per image."""
    order = tf.where(chosen, tf.random.uniform(tf.shape(chosen)), 2.0)
    rank = tf.argsort(tf.argsort(order, axis=-1), axis=-1)
    return tf.logical_and(chosen, rank < count)
