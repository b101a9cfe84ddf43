"""The losses of detectors: against NumPy, for images without objects, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from bibench_tf.detection import anchors as coding
from bibench_tf.detection import annotations, matching
from bibench_tf.detection.losses import RegionLoss, RpnLoss, SsdLoss, smooth_l1

CLASSES = 4


@pytest.fixture
def batch():
    """Truth of three images, the second without objects, and 120 anchors."""
    random = np.random.default_rng(11)
    truth = np.zeros((3, 3, annotations.COLUMNS), np.float32)
    truth[..., annotations.CLASS] = annotations.PADDING
    truth[0, :, :5] = [[2, 3, 30, 40, 1], [30, 30, 60, 62, 3], [0, 50, 20, 64, 0]]
    truth[0, 2, annotations.IGNORED] = 1
    truth[2, 0, :5] = [10, 10, 55, 50, 2]
    around = coding.grid_anchors(6, 5, (10, 12), np.array([[20, 20], [30, 30], [45, 40], [12, 20]])).numpy()
    offsets = random.normal(size=(3, len(around), 4)).astype(np.float32)
    logits = random.normal(size=(3, len(around), CLASSES + 1)).astype(np.float32)
    return truth, offsets, logits, around


def value(error, beta):
    return 0.5 * error**2 / beta if abs(error) < beta else abs(error) - 0.5 * beta


def coded(box, anchor, deviations):
    """The four offsets, written out."""
    height, width = anchor[2] - anchor[0], anchor[3] - anchor[1]
    down = ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / height
    across = ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / width
    growth = np.log((box[2] - box[0]) / height), np.log((box[3] - box[1]) / width)
    return np.array([down, across, *growth]) / deviations


def test_smooth_l1_by_hand():
    errors = tf.constant([[0.0, 0.5, -2.0], [0.05, -0.1, 1.0]])
    np.testing.assert_allclose(smooth_l1(errors, 1.0), [0.125 + 1.5, 0.00125 + 0.005 + 0.5], rtol=1e-6)
    np.testing.assert_allclose(smooth_l1(errors, 0.1)[1], 0.0125 + 0.05 + 0.95, rtol=1e-5)


def test_ssd_against_numpy(batch):
    truth, offsets, logits, around = batch
    matches = matching.match(around, truth, positive=0.5, negative=0.5, best_from=0.0).numpy()
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    total, positives = 0.0, 0
    for image in range(3):
        positive = np.flatnonzero(matches[image] >= 0)
        for anchor in positive:
            row = truth[image, matches[image, anchor]]
            total -= log_p[image, anchor, int(row[4])]
            target = coded(row[:4], around[anchor], coding.SSD_DEVIATIONS)
            total += sum(value(error, 1.0) for error in offsets[image, anchor] - target)
        background = np.sort(-log_p[image, matches[image] < 0, CLASSES])[::-1]
        total += background[: 3 * len(positive)].sum()
        positives += len(positive)
    assert positives > 8
    losses = SsdLoss()([truth, offsets, logits, around]).numpy()
    assert losses.shape == (3,) and losses[1] == 0
    np.testing.assert_allclose(losses.mean(), total / positives, rtol=1e-5)


def test_rpn_against_numpy(batch):
    """Fewer than 256 anchors, so that all are taken that are not between the thresholds."""
    truth, offsets, logits, around = batch
    logits = logits[..., 0]
    matches = matching.match(around, truth, positive=0.7, negative=0.3, best_from=0.3).numpy()
    total = 0.0
    for image, anchor in np.ndindex(matches.shape):
        match, logit = matches[image, anchor], float(logits[image, anchor])
        if match >= 0:
            target = coded(truth[image, match, :4], around[anchor], (1, 1, 1, 1))
            total += np.log1p(np.exp(-logit)) + sum(value(e, 1 / 9) for e in offsets[image, anchor] - target)
        elif match == matching.NEGATIVE:
            total += np.log1p(np.exp(logit))
    chosen = (matches != matching.NEITHER).sum()
    assert (matches >= 0).sum() >= 2 and chosen < matches.size
    losses = RpnLoss()([truth, offsets, logits, around]).numpy()
    np.testing.assert_allclose(losses.mean(), total / chosen, rtol=1e-5)


def test_rpn_takes_256_anchors():
    """With the same loss everywhere the mean is that loss, whatever is chosen; and 256 anchors have a gradient."""
    around = coding.grid_anchors(40, 40, 16, np.array([[40, 40]]))
    truth = np.zeros((2, 1, 11), np.float32)
    truth[..., annotations.CLASS] = annotations.PADDING
    logits = tf.Variable(tf.zeros((2, 1600)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(RpnLoss()([truth, tf.zeros((2, 1600, 4)), logits, around]))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-5)
    assert np.count_nonzero(tape.gradient(loss, logits), axis=1).tolist() == [256, 256]


def region_batch():
    random = np.random.default_rng(12)
    first = random.uniform(0, 40, (2, 6, 2))
    regions = np.concatenate([first, first + random.uniform(5, 30, (2, 6, 2))], axis=-1).astype(np.float32)
    classes = np.array([[2, 0, -1, -1, -2, -2], [-1, -1, -1, -1, -1, -2]])
    targets = np.concatenate([regions + random.uniform(-2, 2, regions.shape), classes[..., np.newaxis]], axis=-1)
    offsets = random.normal(size=(2, 6, CLASSES, 4))
    logits = random.normal(size=(2, 6, CLASSES + 1))
    return [value.astype(np.float32) for value in (regions, targets, offsets, logits)]


def test_regions_against_numpy():
    regions, targets, offsets, logits = region_batch()
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    total = 0.0
    for image, row in ((0, 0), (0, 1)):
        kind = int(targets[image, row, 4])
        wanted = coded(targets[image, row, :4], regions[image, row], coding.REGION_DEVIATIONS)
        total += sum(value(error, 1.0) for error in offsets[image, row, kind] - wanted) - log_p[image, row, kind]
    total -= log_p[0, 2:4, CLASSES].sum() + log_p[1, :5, CLASSES].sum()
    losses = RegionLoss()([regions, targets, offsets, logits]).numpy()
    np.testing.assert_allclose(losses.mean(), total / 9, rtol=1e-5)


@pytest.mark.parametrize("objects", [True, False])
def test_gradients_are_finite(batch, objects):
    """Also in a graph with unknown sizes, without any object, and with regions and boxes without area."""
    truth, offsets, logits, around = batch
    if not objects:
        truth = np.zeros_like(truth)
        truth[..., annotations.CLASS] = annotations.PADDING
    regions, targets, class_offsets, class_logits = region_batch()
    if not objects:
        regions, targets = regions * 0, np.float32([0, 0, 0, 0, matching.NEITHER]) + targets * 0
    cases = (
        (SsdLoss(), [truth, offsets, logits, around], (1, 2)),
        (RpnLoss(), [truth, offsets * 100, logits[..., 0] * 100, around], (1, 2)),
        (RegionLoss(), [regions, targets, class_offsets, class_logits], (2, 3)),
    )
    for layer, inputs, learnt in cases:
        # The number of classes is all that is known.
        shapes = [[None] * (each.ndim - 1) + [each.shape[-1] if each.ndim > 2 else None] for each in inputs]

        @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes])
        def gradients(*tensors, layer=layer, learnt=learnt):
            watched = [tensors[number] for number in learnt]
            with tf.GradientTape() as tape:
                tape.watch(watched)
                losses = layer(list(tensors))
            return losses, tape.gradient(losses, watched)

        losses, found = gradients(*inputs)
        assert np.isfinite(losses).all()
        assert all(np.isfinite(each).all() for each in found), layer
        if objects:
            assert all(np.any(each) for each in found), layer
        elif not isinstance(layer, RpnLoss):
            assert not np.any(losses)
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
