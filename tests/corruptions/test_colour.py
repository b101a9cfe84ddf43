"""Brightness, contrast and saturation, pixel by pixel."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from bibench_tf import corruptions

EVERY = [(table, severity) for table in corruptions.TABLES for severity in corruptions.SEVERITIES]


def in_hsv(image, change):
    """`image` uint8 [H, W, 3] with `change` applied to (hue, saturation, value) of each pixel; in grey levels."""
    rows = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.reshape(-1, 3) / 255]
    return 255 * np.array(rows).reshape(image.shape)


def cut_from(result, values):
    """`result` is `values` cut to whole numbers; a rounding error may have lifted it to the next."""
    assert np.all(result <= values + 2e-3) and np.all(result > values - 1.001)


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_brightness_is_added_to_the_value(table, severity, colour, grey):
    added = corruptions.get("brightness").severities[table][severity - 1]
    result = corruptions.apply("brightness", colour[:1], severity, table=table)[0]
    cut_from(result, in_hsv(colour[0], lambda h, s, v: (h, s, min(v + added, 1))))
    result = corruptions.apply("brightness", grey, severity, table=table)
    np.testing.assert_array_equal(result, np.floor(np.minimum(grey + 255 * added, 255) + 1e-3))


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_saturate_changes_the_saturation(table, severity, colour):
    factor, offset = corruptions.get("saturate").severities[table][severity - 1]
    assert (colour[0] == colour[0][..., :1]).all(axis=-1).any()  # grey pixels are among them
    result = corruptions.apply("saturate", colour[:1], severity, table=table)[0]
    cut_from(result, in_hsv(colour[0], lambda h, s, v: (h, min(max(s * factor + offset, 0), 1), v)))


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_contrast_shrinks_the_distance_from_the_mean_of_each_channel(table, severity, colour):
    factor = corruptions.get("contrast").severities[table][severity - 1]
    mean = colour.mean(axis=(1, 2), keepdims=True)
    cut_from(corruptions.apply("contrast", colour, severity, table=table), mean + factor * (colour - mean))
