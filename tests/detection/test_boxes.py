"""Boxes: intersection over union and clipping."""

from __future__ import annotations

import numpy as np
from pycocotools import mask

from bibench_tf.detection import boxes


def test_iou_by_hand():
    first = np.array([[0, 0, 10, 10], [0, 0, 4, 5]], np.float32)
    second = np.array([[0, 5, 10, 15], [20, 20, 30, 30], [0, 0, 10, 10], [3, 3, 3, 8]], np.float32)
    expected = [[50 / 150, 0, 1, 0], [0, 0, 20 / 100, 0]]
    np.testing.assert_allclose(boxes.iou(first, second), expected, rtol=1e-6)
    np.testing.assert_array_equal(boxes.iou(second[3:], second[3:]), [[0]])


def test_iou_is_that_of_pycocotools():
    random = np.random.default_rng(3)
    first = random.uniform(0, 50, (2, 30, 2, 2))
    second = random.uniform(0, 50, (2, 20, 2, 2))
    first, second = (np.sort(each, axis=2).reshape(2, -1, 4).astype(np.float32) for each in (first, second))
    found = boxes.iou(first, second).numpy()
    assert found.shape == (2, 30, 20)
    for image in range(2):
        one, other = (
            np.concatenate([each[image, :, 1::-1], (each[image, :, 2:] - each[image, :, :2])[:, ::-1]], axis=1)
            for each in (first, second)
        )
        expected = mask.iou(one.astype(np.float64), other.astype(np.float64), np.zeros(20, np.uint8))
        np.testing.assert_allclose(found[image], expected, atol=1e-5)
    # One set of anchors for all images.
    np.testing.assert_array_equal(boxes.iou(first[0], second)[1], boxes.iou(first[0], second[1]))


def test_clip():
    given = np.array([[[-5, -6, 700, 800], [10, 20, 30, 40], [650, 10, 660, 20]]], np.float32)
    expected = [[[0, 0, 600, 500], [10, 20, 30, 40], [600, 10, 600, 20]]]
    np.testing.assert_array_equal(boxes.clip(given, 600, 500), expected)
    np.testing.assert_array_equal(boxes.area(given[0, 1:2]), [400])
    np.testing.assert_array_equal(boxes.area(np.array([[5, 5, 2, 1]], np.float32)), [0])
