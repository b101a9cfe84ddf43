"""Which anchors or regions stand for which objects, and which of them a loss takes."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf.detection import boxes
from bibench_tf.detection.annotations import BOX, CLASS, IGNORED

NEGATIVE = -1
NEITHER = -2


def match(
    anchors: tf.Tensor, truth: tf.Tensor, *, positive: float, negative: float, best_from: float | None = None
) -> tf.Tensor:
    """For each anchor the index of the object it stands for, or NEGATIVE, or NEITHER: int32 [B, A].

    `anchors` are [A, 4] or [B, A, 4], `truth` is [B, M, 11] (`bibench_tf.detection.annotations`). An anchor stands for
    the object with which it has the highest IoU, if that is at least `positive`; it is negative below `negative`. With
    `best_from`, the anchors that overlap an object most stand for it, too, from that IoU on. Objects to ignore and
    rows that only pad match nothing. Sources: arXiv 1506.01497, section 3.1.2; arXiv 1512.02325, section 2.2.
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
    # Of several objects that an anchor is the best for, the last.
    objects = tf.shape(truth)[1]
    last = objects - 1 - tf.argmax(tf.reverse(tf.cast(is_best, tf.int32), [-1]), axis=-1, output_type=tf.int32)
    return tf.where(tf.reduce_any(is_best, axis=-1), last, matches)


def matched(truth: tf.Tensor, matches: tf.Tensor) -> tf.Tensor:
    """The rows [B, A, 9] of the objects that `matches` [B, A] names; of the first object where there is none."""
    return tf.gather(truth, tf.maximum(matches, 0), batch_dims=1)


def sample(matches: tf.Tensor, total: int, positive_share: float) -> tuple[tf.Tensor, tf.Tensor]:
    """A random choice of `total` matches of each image: bool [B, A] which are positive, and which are negative.

    At most `total * positive_share` are positive, negative ones fill up the rest as far as there are any.
    """
    positive, negative = matches >= 0, matches == NEGATIVE
    positive = _at_most(positive, tf.constant(round(total * positive_share)))
    taken = tf.math.count_nonzero(positive, axis=-1, keepdims=True, dtype=tf.int32)
    return positive, _at_most(negative, total - taken)


def _at_most(chosen: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`chosen` [B, A], of which so many at random stay."""
    order = tf.where(chosen, tf.random.uniform(tf.shape(chosen)), 2.0)
    rank = tf.argsort(tf.argsort(order, axis=-1), axis=-1)
    return tf.logical_and(chosen, rank < count)
