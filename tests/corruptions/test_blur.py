"""The blurs against slow programs of their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bibench_tf import corruptions
from bibench_tf.corruptions import blur
from bibench_tf.corruptions.base import as_levels

GOLDEN = Path(__file__).parent / "golden"
EVERY = [(table, severity) for table in corruptions.TABLES for severity in corruptions.SEVERITIES]


def parameter(name, table, severity):
    return corruptions.get(name).severities[table][severity - 1]


def cut(values):
    """Grey levels below `values`, except for rounding errors."""
    return np.floor(np.clip(values, 0, 255) + 1e-3)


def same(result, expected, share=2e-3):
    """Equal, but for a `share` of pixels whose value is within rounding error of a whole number."""
    difference = np.abs(result.astype(float) - expected)
    assert difference.max() <= 1 and np.mean(difference > 0) < share, (difference.max(), np.mean(difference > 0))


def filtered(image, kernel, border):
    """One channel, correlated with `kernel` pixel by pixel; `border` is a mode of numpy.pad."""
    reach = len(kernel) // 2
    padded = np.pad(image.astype(float), reach, mode=border)
    result = np.zeros(image.shape)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            result[y, x] = np.sum(kernel * padded[y : y + len(kernel), x : x + len(kernel)])
    return result


def bell(std, reach):
    weights = np.array([math.exp(-x * x / (2 * std * std)) for x in range(-reach, reach + 1)])
    return weights / weights.sum()


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_defocus_blur_is_a_soft_disk(table, severity, grey):
    radius, softness = parameter("defocus_blur", table, severity)
    # The authors' disk: a circle in 17 x 17 pixels or more, softened by 3 x 3 or, if large, 5 x 5 pixels.
    half, reach = (8, 1) if radius <= 8 else (radius, 2)
    circle = [[float(x * x + y * y <= radius**2) for x in range(-half, half + 1)] for y in range(-half, half + 1)]
    soft = bell(softness, reach)
    kernel = filtered(np.array(circle) / np.sum(circle), np.outer(soft, soft), "reflect")
    result = corruptions.apply("defocus_blur", grey[:1], severity, table=table)[0, :, :, 0]
    same(result, cut(filtered(grey[0, :, :, 0], kernel, "reflect")))


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_gaussian_blur_is_a_bell(table, severity, grey):
    std = parameter("gaussian_blur", table, severity)
    weights = bell(std, int(4 * std + 0.5))
    result = corruptions.apply("gaussian_blur", grey[:1], severity, table=table)[0, :, :, 0]
    same(result, cut(filtered(grey[0, :, :, 0], np.outer(weights, weights), "edge")))


@pytest.mark.parametrize(("table", "severity"), EVERY)
@pytest.mark.parametrize("size", [(32, 32), (28, 40)])
def test_zoom_blur_is_the_average_of_enlargements(table, severity, size, colour):
    image = np.pad(colour[0], [(0, 0), (4, 4), (0, 0)])[: size[0], : size[1]].astype(float)
    total, count = image.copy(), 1
    for factor in np.arange(1, *parameter("zoom_blur", table, severity)):
        parts = [math.ceil(side / factor) for side in size]
        y, x = ((side - part) // 2 for side, part in zip(size, parts, strict=True))
        larger = ndimage.zoom(image[y : y + parts[0], x : x + parts[1]], (factor, factor, 1), order=1)
        y, x = ((larger.shape[axis] - size[axis]) // 2 for axis in (0, 1))
        total += larger[y : y + size[0], x : x + size[1]]
        count += 1
    levels = np.ascontiguousarray(image[None]).astype(np.uint8)
    same(corruptions.apply("zoom_blur", levels, severity, table=table)[0], cut(total / count))


def streak(image, radius, std, angle):
    """Pixel by pixel: half a Gaussian along a line, at the nearest pixel, repeating the edge."""
    weights = np.array([math.exp(-i * i / (2 * std * std)) for i in range(2 * radius + 1)])
    weights /= weights.sum()
    height, width = image.shape[:2]
    result = np.zeros(image.shape)
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        for y in range(height):
            for x in range(width):
                result[y, x] += weight * image[min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
    return cut(result)


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_motion_blur_is_a_streak(table, severity, colour, fixed):
    radius, std = parameter("motion_blur", table, severity)
    chance = np.float32([0.0, 0.3, 0.999])
    result = blur.motion_blur(colour[:3], (radius, std), fixed(chance))
    for image, found, angle in zip(colour, result, -45 + 90 * chance, strict=False):
        same(found, streak(image, radius, std, angle))


def test_motion_blur_takes_all_directions_within_45_degrees():
    point = np.zeros((400, 41, 41, 1), np.uint8)
    point[:, 20, 20] = 255
    result = corruptions.apply("motion_blur", point, 5, table="imagenet").astype(float)[..., 0]
    y, x = np.mgrid[-20:21, -20:21]
    # Each pixel collects what lies ahead, so the point is smeared backwards.
    angle = np.degrees(np.arctan2(-(result * y).sum(axis=(1, 2)), -(result * x).sum(axis=(1, 2))))
    assert -46 < angle.min() < -42 and 42 < angle.max() < 46
    assert np.histogram(angle, bins=[-46, -15, 15, 46])[0].min() > 90


def test_motion_blur_is_that_of_imagemagick():
    with np.load(GOLDEN / "imagemagick.npz", allow_pickle=False) as golden:
        for radius, std in ((6, 1.0), (9, 2.5), (20, 15.0)):
            expected = golden[f"radius{radius}_std{std:g}"]
            same(blur.streaks(golden["images"], radius, std, golden["angles"]), expected)


def glass_by_swaps(image, reach, moves):
    """The authors' loop: an exchange of two NumPy views, which overwrites one before it is read."""
    image = image.copy()
    height, width = image.shape[:2]
    for y in range(height - reach, reach, -1):
        for x in range(width - reach, reach, -1):
            right, down = (int(move) for move in moves[:, y, x])
            image[y, x], image[y + down, x + right] = image[y + down, x + right], image[y, x]
    return image


@pytest.mark.parametrize("reach", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(32, 32), (20, 27)])
def test_glass_blur_moves_pixels_as_the_authors_do(reach, size, colour):
    images = np.ascontiguousarray(colour[:3, : size[0], : size[1]])
    moves = np.random.default_rng(0).integers(-reach, reach, (3, 2, *size)).astype(np.int16)
    result = blur.shuffled(images, reach, moves)
    for image, found, move in zip(images, result, moves, strict=True):
        np.testing.assert_array_equal(found, glass_by_swaps(image, reach, move))
    assert not np.array_equal(result, images)


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_glass_blur_blurs_moves_and_blurs(table, severity, colour, fixed):
    std, reach, repetitions = parameter("glass_blur", table, severity)
    random = np.random.default_rng(severity)
    moves = [random.integers(-reach, reach, (1, 2, 32, 32)).astype(np.int16) for _ in range(repetitions)]
    image = ndimage.gaussian_filter(colour[0].astype(float), (std, std, 0), mode="nearest")
    image = cut(image)
    for move in moves:
        image = glass_by_swaps(image, reach, move[0])
    expected = ndimage.gaussian_filter(image, (std, std, 0), mode="nearest")
    result = as_levels(blur.glass_blur(colour[:1], (std, reach, repetitions), fixed(*moves)))
    same(result[0], cut(expected), share=1e-2)  # cut twice


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur", "zoom_blur", "motion_blur", "glass_blur"])
@pytest.mark.parametrize("table", corruptions.TABLES)
def test_a_flat_image_stays_as_it_is(name, table):
    flat = np.full((2, 40, 30, 3), 255, np.uint8)
    flat[1] = 77
    np.testing.assert_array_equal(corruptions.apply(name, flat, 5, table=table), flat)
