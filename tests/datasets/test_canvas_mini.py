"""Garments on canvases: content, form, and boxes where the garments are."""

from __future__ import annotations

import numpy as np
import pytest

from bibench_tf import datasets
from bibench_tf.datasets import canvas_mini, fashion_mini
from bibench_tf.datasets.formats.stable_random import StableRandom


@pytest.fixture(scope="module")
def canvases():
    items = fashion_mini.load()
    return canvas_mini.draw(items.train_images, items.train_labels, 60, seed=1)


def test_description():
    data = datasets.get("canvas_mini")
    assert data.task == "detection" and data.protocol == "voc2007" and data.num_classes == 10
    assert data.network_options == {"input_shape": (128, 128, 3), "num_classes": 10}
    assert (data.train_examples, data.test_examples) == (1600, 400)


def test_form_of_canvases(canvases):
    assert canvases.images.shape == (60, 128, 128, 3) and canvases.images.dtype == np.uint8
    counts = [len(rows) for rows in canvases.objects]
    assert min(counts) == 1 and 3 < max(counts) <= canvas_mini.MOST_ITEMS
    rows = np.concatenate(canvases.objects)
    assert rows.dtype == np.float32 and set(rows[:, 4]) == set(range(10)) and not rows[:, 5].any()
    assert (rows[:, :2] >= 0).all() and (rows[:, 2:4] <= 128).all() and (rows[:, 2:4] > rows[:, :2]).all()
    np.testing.assert_array_equal(rows[:, 6], np.prod(rows[:, 2:4] - rows[:, :2], axis=1))


def test_the_same_seed_draws_the_same(canvases):
    items = fashion_mini.load()
    again = canvas_mini.draw(items.train_images, items.train_labels, 5, seed=1)
    np.testing.assert_array_equal(again.images, canvases.images[:5])
    other = canvas_mini.draw(items.train_images, items.train_labels, 5, seed=2)
    assert not np.array_equal(other.images, again.images)


def test_boxes_fit_the_garments():
    """One full square as the only garment, without noise to hide it: the box is the square."""
    item = np.zeros((1, 28, 28, 1), np.uint8)
    item[0, 7:21, 10:18] = 255
    drawn = canvas_mini.draw(item, np.array([3]), 30, seed=0)
    for image, rows in zip(drawn.images, drawn.objects, strict=True):
        y0, x0, y1, x1 = rows[-1, :4].astype(int)
        inside = image[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].astype(float)
        # One tint, up to the noise, and twice as high as wide up to interpolation.
        assert inside.std(axis=(0, 1)).max() < 2 * canvas_mini.NOISE
        assert abs((y1 - y0) / (x1 - x0) - 14 / 8) < 0.45


def test_noise_has_the_stated_deviation():
    noise = StableRandom(0).nearly_normal((200, 200))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_splits_have_items_of_their_own(monkeypatch):
    seen = []
    monkeypatch.setattr(canvas_mini, "draw", lambda items, labels, count, seed: seen.append((len(items), count, seed)))
    canvas_mini.load.__wrapped__()
    assert [entry[:2] for entry in seen] == [(8000, 1600), (2000, 400)] and seen[0][2] != seen[1][2]
