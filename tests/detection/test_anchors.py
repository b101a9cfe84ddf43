"""Anchors: their number, order, places and sizes; and that decoding undoes encoding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.detection import anchors

SSD300_GRIDS = (38, 19, 10, 5, 3, 1)


def random_boxes(random, *shape):
    first, sizes = random.uniform(0, 200, (*shape, 2)), random.uniform(2, 100, (*shape, 2))
    return np.concatenate([first, first + sizes], axis=-1).astype(np.float32)


def test_a_grid_by_hand():
    """Two rows, one column, 10 pixels apart: a square of 4, then one 2 high and 8 wide, around (5, 5) and (15, 5)."""
    grid = anchors.grid_anchors(2, 1, 10, np.array([[4, 4], [2, 8]])).numpy()
    np.testing.assert_array_equal(grid, [[3, 3, 7, 7], [4, 1, 6, 9], [13, 3, 17, 7], [14, 1, 16, 9]])


def test_columns_come_before_the_next_row():
    grid = anchors.grid_anchors(2, 3, (10, 20), np.array([[2, 2]])).numpy()
    centres = (grid[:, :2] + grid[:, 2:]) / 2
    np.testing.assert_array_equal(centres, [[5, 10], [5, 30], [5, 50], [15, 10], [15, 30], [15, 50]])


def test_sizes_of_ssd_by_hand():
    first, second = anchors.level_sizes((30, 60, 111), ((2,), (2, 3)))
    root = math.sqrt(2)
    expected = [(30, 30), (math.sqrt(1800),) * 2, (30 / root, 30 * root), (30 * root, 30 / root)]
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    assert len(second) == 6
    np.testing.assert_allclose(second.prod(axis=1)[[0, 2, 3, 4, 5]], 3600, rtol=1e-5)
    np.testing.assert_allclose((second[:, 1] / second[:, 0])[2:], [2, 1 / 2, 3, 1 / 3], rtol=1e-5)


def test_sizes_in_equal_steps():
    """0.2, 0.55 and 0.9 of 100 pixels, and 1.25 behind them."""
    levels = anchors.ssd_sizes(100, 3, 0.2, (2,))
    np.testing.assert_allclose([level[0] for level in levels], [[20, 20], [55, 55], [90, 90]], rtol=1e-6)
    np.testing.assert_allclose(levels[-1][1], math.sqrt(90 * 125), rtol=1e-6)


def test_ssd300_has_8732_anchors():
    sizes = anchors.level_sizes(anchors.SSD300_SIZES, anchors.SSD300_RATIOS)
    maps = [tf.keras.Input((size, size, 1)) for size in SSD300_GRIDS]
    layer = anchors.Anchors(anchors.SSD300_STRIDES, sizes)
    assert layer(maps).shape == (8732, 4)
    grid = layer([tf.zeros((1, size, size, 1)) for size in SSD300_GRIDS]).numpy()
    np.testing.assert_allclose(grid[0], [4 - 15, 4 - 15, 4 + 15, 4 + 15])
    np.testing.assert_allclose(grid[4 * 38**2], [8 - 30, 8 - 30, 8 + 30, 8 + 30])
    np.testing.assert_allclose(grid[-4], [150 - 132, 150 - 132, 150 + 132, 150 + 132])


def test_sizes_of_a_region_proposal_network():
    sizes = anchors.rpn_sizes()
    assert sizes.shape == (15, 2)
    areas = [32**2, 64**2, 128**2, 256**2, 512**2]
    np.testing.assert_allclose(np.sort(sizes.prod(axis=1)), np.repeat(areas, 3), rtol=1e-5)
    np.testing.assert_allclose(np.sort(sizes[:, 0] / sizes[:, 1]), np.repeat([0.5, 1, 2], 5), rtol=1e-5)


def test_the_layer_takes_maps_of_unknown_size():
    layer = anchors.Anchors([16], [anchors.rpn_sizes()])
    model = tf.keras.Model(image := tf.keras.Input((None, None, 4)), layer(image))
    run = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 4])])
    for height, width in ((3, 5), (2, 2)):
        expected = anchors.grid_anchors(height, width, 16, anchors.rpn_sizes())
        np.testing.assert_array_equal(run(tf.zeros((2, height, width, 4))), expected)
    restored = anchors.Anchors.from_config(layer.get_config())
    np.testing.assert_array_equal(restored(tf.zeros((1, 3, 5, 4))), layer(tf.zeros((1, 3, 5, 4))))


def test_encoding_by_hand():
    """An anchor 10 high and 20 wide around (10, 20), a box of twice the height, half a height below."""
    offsets = anchors.encode(tf.constant([[5.0, 10, 25, 30]]), tf.constant([[5.0, 10, 15, 30]]), anchors.SSD_DEVIATIONS)
    np.testing.assert_allclose(offsets, [[0.5 / 0.1, 0, math.log(2) / 0.2, 0]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("deviations", [anchors.SSD_DEVIATIONS, anchors.PROPOSAL_DEVIATIONS])
def test_decoding_undoes_encoding(deviations):
    random = np.random.default_rng(1)
    boxes, around = random_boxes(random, 3, 50), random_boxes(random, 50)
    offsets = anchors.encode(boxes, around, deviations)
    np.testing.assert_allclose(anchors.decode(offsets, around, deviations), boxes, atol=1e-3)
    drawn = random.normal(size=(2, 50, 4)).astype(np.float32)
    boxes = anchors.decode(drawn, around, deviations)
    np.testing.assert_allclose(anchors.encode(boxes, around, deviations), drawn, atol=2e-3)


def test_no_offset_overflows():
    boxes = anchors.decode(tf.constant([[0.0, 0, 1e6, 1e6]]), tf.constant([[0.0, 0, 16, 16]]), anchors.SSD_DEVIATIONS)
    np.testing.assert_allclose(boxes, [[8 - 500, 8 - 500, 8 + 500, 8 + 500]], rtol=1e-5)
    assert np.isfinite(anchors.encode(tf.constant([[5.0, 5, 5, 5]]), tf.zeros((1, 4)), anchors.SSD_DEVIATIONS)).all()
