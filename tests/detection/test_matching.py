"""Which anchors stand for which objects: by hand, against loops, and the numbers of a sample."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bibench_tf.detection import annotations, boxes, matching
from bibench_tf.detection.matching import NEGATIVE, NEITHER

# Their IoU with the object (0, 0, 10, 10): 1, 0.8, 0.5, 0.4, 0.1, 0.
ANCHORS = np.array(
    [[0, 0, 10, 10], [0, 0, 8, 10], [0, 0, 5, 10], [0, 0, 4, 10], [0, 0, 1, 10], [20, 20, 30, 30]], np.float32
)


def truth_of(*objects, rows=None):
    """Rows of (y0, x0, y1, x1, class[, ignored]) of one image, and padding up to `rows`."""
    rows = np.zeros((rows or max(len(objects), 1), annotations.COLUMNS), np.float32)
    rows[:, annotations.CLASS] = annotations.PADDING
    for row, values in zip(rows, objects, strict=False):
        row[: len(values)] = values
    return rows


def matches_of(anchors, *truths, **options):
    return matching.match(anchors, np.stack(truths), **options).numpy().tolist()


def test_thresholds_by_hand():
    truth = truth_of((0, 0, 10, 10, 3))
    assert matches_of(ANCHORS, truth, positive=0.7, negative=0.3) == [[0, 0, NEITHER, NEITHER, NEGATIVE, NEGATIVE]]
    # An IoU of exactly the lower threshold is not below it.
    assert matches_of(ANCHORS, truth, positive=0.7, negative=0.5) == [[0, 0, NEITHER, NEGATIVE, NEGATIVE, NEGATIVE]]
    assert matches_of(ANCHORS, truth, positive=0.5, negative=0.5) == [[0, 0, 0, NEGATIVE, NEGATIVE, NEGATIVE]]


def test_the_best_anchor_of_an_object_is_positive():
    truth = truth_of((0, 0, 10, 10, 3), (24, 20, 40, 30, 1))  # the last anchor has an IoU of 0.3 with the second
    few = ANCHORS[3:]
    given = {"positive": 0.5, "negative": 0.5}
    assert matches_of(few, truth, **given) == [[NEGATIVE] * 3]
    assert matches_of(few, truth, **given, best_from=0.0) == [[0, NEGATIVE, 1]]
    assert matches_of(few, truth, **given, best_from=0.35) == [[0, NEGATIVE, NEGATIVE]]
    # An object that no anchor touches takes none.
    assert matches_of(few, truth_of((50, 50, 60, 60, 0)), **given, best_from=0.0) == [[NEGATIVE] * 3]


def test_an_object_gets_its_best_anchor_although_another_overlaps_it_more():
    truth = truth_of((0, 0, 10, 10, 3), (0, 0, 8, 4, 1))
    assert matches_of(ANCHORS[:2], truth, positive=0.5, negative=0.5, best_from=0.0) == [[0, 1]]


def test_ignored_objects_padding_and_empty_images_match_nothing():
    ignored = truth_of((0, 0, 10, 10, 3, 1), (20, 20, 30, 30, 2), rows=3)
    empty = truth_of(rows=3)
    for best_from in (None, 0.0):
        options = {"positive": 0.5, "negative": 0.5, "best_from": best_from}
        expected = [[NEGATIVE] * 5 + [1], [NEGATIVE] * 6]
        assert matches_of(ANCHORS, ignored, empty, **options) == expected


def by_loops(anchors, truth, positive, negative, best_from):
    """mmdetection's assignment, one anchor and one object after the other."""
    result = np.full(len(anchors), NEITHER)
    wanted = [row for row in range(len(truth)) if truth[row, 4] >= 0 and not truth[row, 5]]
    overlaps = boxes.iou(anchors, truth[:, :4]).numpy()
    for anchor in range(len(anchors)):
        best = max(wanted, key=lambda row, anchor=anchor: overlaps[anchor, row], default=None)
        highest = -1 if best is None else overlaps[anchor, best]
        if highest >= positive:
            result[anchor] = best
        elif highest < negative:
            result[anchor] = NEGATIVE
    for row in wanted:
        highest = overlaps[:, row].max()
        if highest >= best_from and highest > 0:
            result[overlaps[:, row] == highest] = row
    return result


def test_against_loops():
    random = np.random.default_rng(6)
    for positive, negative, best_from in ((0.5, 0.5, 0.0), (0.7, 0.3, 0.3)):
        anchors = np.sort(random.uniform(0, 40, (200, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
        truths = np.zeros((5, 6, 11), np.float32)
        truths[..., :4] = np.sort(random.uniform(0, 40, (5, 6, 2, 2)), axis=2).reshape(5, 6, 4)
        truths[..., 4] = random.integers(-1, 3, (5, 6))
        truths[..., 5] = random.random((5, 6)) < 0.2
        found = matching.match(anchors, truths, positive=positive, negative=negative, best_from=best_from).numpy()
        expected = [by_loops(anchors, truth, positive, negative, best_from) for truth in truths]
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(found)) > 5


def test_rows_of_objects():
    truth = np.arange(2 * 3 * 11, dtype=np.float32).reshape(2, 3, 11)
    rows = matching.matched(truth, np.array([[2, NEGATIVE], [1, NEITHER]])).numpy()
    np.testing.assert_array_equal(rows[:, 0], [truth[0, 2], truth[1, 1]])


def test_a_sample_has_the_wanted_numbers():
    matches = np.full((4, 400), NEITHER)
    matches[0, :200], matches[0, 200:] = 0, NEGATIVE  # enough of both
    matches[1, :10], matches[1, 10:] = 1, NEGATIVE  # few positives
    matches[2, :100] = 0  # no negatives
    matches[3, :30] = NEGATIVE  # few negatives only
    positive, negative = (each.numpy() for each in matching.sample(tf.constant(matches), 64, 0.25))
    assert positive.sum(axis=1).tolist() == [16, 10, 16, 0]
    assert negative.sum(axis=1).tolist() == [48, 54, 0, 30]
    assert (matches[positive] >= 0).all() and (matches[negative] == NEGATIVE).all()


def test_a_sample_is_random_and_even():
    tf.keras.utils.set_random_seed(2)
    matches = tf.constant(np.full((300, 40), NEGATIVE))
    _, negative = matching.sample(matches, 10, 0.5)
    shares = negative.numpy().mean(axis=0)
    assert (negative.numpy().sum(axis=1) == 10).all()
    assert shares.min() > 0.1 and shares.max() < 0.4  # 0.25 +- 6 standard deviations
