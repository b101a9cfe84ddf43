"""Snow, frost, fog and drops on the lens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bibench_tf import corruptions
from bibench_tf.corruptions import blur, frost_textures, spatter, weather

GOLDEN = Path(__file__).parent / "golden"
EVERY = [(table, severity) for table in corruptions.TABLES for severity in corruptions.SEVERITIES]


def parameter(name, table, severity):
    return corruptions.get(name).severities[table][severity - 1]


def slow_plasma(noise, decay):
    """Diamonds and squares, point by point, on a torus."""
    size = len(noise)
    height = np.zeros((size, size))
    step, amplitude = size, 100.0
    while step >= 2:
        half = step // 2

        def mean(y, x, steps):
            return sum(height[(y + dy) % size, (x + dx) % size] for dy, dx in steps) / 4

        squares = [(-half, -half), (-half, half), (half, -half), (half, half)]
        diamonds = [(-half, 0), (half, 0), (0, -half), (0, half)]
        passes = [([(half, half)], squares), ([(0, half), (half, 0)], diamonds)]
        for starts, steps in passes:
            for start in starts:
                for y in range(start[0], size, step):
                    for x in range(start[1], size, step):
                        move = amplitude * amplitude * (2 * noise[y, x] - 1)
                        height[y, x] = mean(y, x, steps) + move
        step, amplitude = half, amplitude / decay
    return (height - height.min()) / (height.max() - height.min())


@pytest.mark.parametrize("size", [4, 32])
@pytest.mark.parametrize("decay", [3, 1.75])
def test_plasma_is_diamonds_and_squares(size, decay):
    noise = np.random.default_rng(0).random((2, size, size), np.float32)
    result = weather.plasma_fractal(noise, decay)
    for found, each in zip(result, noise.astype(float), strict=True):
        np.testing.assert_allclose(found, slow_plasma(each, decay), atol=1e-5)


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_fog_lies_over_the_image(table, severity, colour, fixed):
    thickness, decay = parameter("fog", table, severity)
    noise = np.random.default_rng(0).random((1, 32, 32), np.float32)
    plasma = slow_plasma(noise[0].astype(float), decay)[:, :, None]
    dark = colour[:1, :20] // 2  # fog dims an image to its own brightest value
    image = dark / 255
    expected = (image + thickness * plasma[:20]) * image.max() / (image.max() + thickness)
    result = weather.fog(dark, (thickness, decay), fixed(noise))
    np.testing.assert_allclose(result, 255 * expected, atol=0.01)


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_snow_falls(table, severity, colour, fixed):
    values = parameter("snow", table, severity)
    mean, std, zoom, threshold, radius, length, keep = values
    noise = np.random.default_rng(severity).standard_normal((1, 32, 32, 1)).astype(np.float32)
    part = int(np.ceil(32 / zoom))
    start = (32 - part) // 2
    flakes = (mean + std * noise)[0, start : start + part, start : start + part, 0]
    flakes = ndimage.zoom(flakes.astype(float), zoom, order=1)
    trim = (len(flakes) - 32) // 2
    flakes = flakes[trim : trim + 32, trim : trim + 32]
    flakes = np.floor(255 * np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)).astype(np.uint8)
    # From -135 to -45 degrees; the streak itself is tested with the motion blur.
    layer = blur.streaks(flakes[None, :, :, None], radius, length, np.array([-135 + 90 * 0.25]))[0].astype(float)
    image = colour[0] / 255
    grey = image @ [0.299, 0.587, 0.114]
    white = keep * image + (1 - keep) * np.maximum(image, 1.5 * grey[..., None] + 0.5)
    expected = white + (layer + layer[::-1, ::-1]) / 255
    result = weather.snow(colour[:1], values, fixed(noise, np.float32([0.25])))
    # A flake's level may fall on the other side of a whole number.
    assert np.mean(np.abs(result[0] - 255 * expected) > 0.05) < 0.02
    np.testing.assert_allclose(result[0], 255 * expected, atol=1.5)


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_frost_is_a_piece_of_texture_over_the_image(table, severity, grey, colour, fixed):
    keep, share, every = parameter("frost", table, severity)
    assert every == (5 if table == "cifar10" else 1)
    for images in (grey, colour):
        channels = images.shape[-1]
        texture = frost_textures.textures(every, channels)[3]
        size = len(texture)
        result = weather.frost(images[:1], (keep, share, every), fixed(np.float32([[0.7, 0.999, 0.5]])))
        rows, columns = (int(0.999 * size) + np.arange(32)) % size, int(0.5 * size) + np.arange(32)
        expected = keep * images[0] + share * texture[rows][:, columns]
        np.testing.assert_allclose(result[0], expected, atol=0.01)


def test_frost_textures_have_the_statistics_of_the_photographs():
    textures = frost_textures.textures(1, 3)
    assert textures.shape == (5, 640, 640, 3)
    np.testing.assert_array_equal(textures[1], textures[2])
    for texture, mean, std in zip(
        textures[[0, 1, 3, 4]],
        [(78, 149, 166), (201, 205, 214), (138, 153, 165), (112, 123, 135)],
        [(27, 16, 15), (21, 22, 23), (28, 28, 30), (44, 43, 42)],
        strict=True,
    ):
        np.testing.assert_allclose(texture.mean(axis=(0, 1)), mean, atol=1)
        np.testing.assert_allclose(texture.std(axis=(0, 1)), std, atol=1)
        # No seam: it changes as much across the opposite edges as elsewhere.
        steps = [np.abs(np.diff(texture, axis=axis)).mean() for axis in (0, 1)]
        seams = [np.abs(texture[0] - texture[-1]).mean(), np.abs(texture[:, 0] - texture[:, -1]).mean()]
        assert max(seams) < 1.3 * max(steps)
    grey = frost_textures.textures(5, 1)
    np.testing.assert_allclose(grey[..., 0], textures[:, ::5, ::5] @ [0.299, 0.587, 0.114], atol=0.01)


def test_edges_and_relief_are_those_of_opencv():
    with np.load(GOLDEN / "opencv.npz", allow_pickle=False) as golden:
        layers = golden["layers"]
        np.testing.assert_array_equal(spatter.edges(layers), golden["edges"])
        np.testing.assert_array_equal(spatter._relief(layers), golden["relief"])


def test_distances_are_those_of_the_5x5_mask():
    targets = np.zeros((3, 17, 23), bool)
    targets[0, 3, 4] = targets[0, 12, 20] = targets[1, 16, 0] = True
    found = spatter.distances(targets)
    y, x = np.mgrid[:17, :23]
    for result, target in zip(found[:2], targets, strict=False):
        ways = []
        for ty, tx in np.argwhere(target):
            long, short = np.maximum(abs(y - ty), abs(x - tx)), np.minimum(abs(y - ty), abs(x - tx))
            # Knight's moves as far as they lead, the rest straight or diagonal.
            straight = 2.1969 * short + (long - 2 * short)
            diagonal = 2.1969 * (long - short) + 1.4 * (2 * short - long)
            ways.append(np.where(long >= 2 * short, straight, diagonal))
        np.testing.assert_allclose(result, np.min(ways, axis=0), atol=1e-9)
    assert found[2].min() > 1e5  # nothing to be near to


@pytest.mark.parametrize(("table", "severity"), [(table, s) for table, s in EVERY if s > 3])
def test_mud_covers_the_image(table, severity, grey, colour, fixed):
    values = parameter("spatter", table, severity)
    mean, std, size, threshold, softness, mud = values
    assert mud == 1
    noise = np.random.default_rng(0).standard_normal((1, 32, 32, 1)).astype(np.float32)
    layer = ndimage.gaussian_filter((mean + std * noise)[0, :, :, 0].astype(float), size, mode="nearest")
    cover = ndimage.gaussian_filter((layer > threshold).astype(float), softness, mode="nearest")[..., None]
    cover[cover < 0.8] = 0
    assert cover.any()
    for images, liquid in ((colour, [63, 42, 20]), (grey, [0.299 * 63 + 0.587 * 42 + 0.114 * 20])):
        result = spatter.spatter(images[:1], values, fixed(noise))
        np.testing.assert_allclose(result[0], images[0] * (1 - cover) + cover * liquid, atol=0.01)


@pytest.mark.parametrize(("table", "severity"), [(table, s) for table, s in EVERY if s < 4])
def test_water_lights_up_where_it_is(table, severity, grey, colour, fixed):
    values = parameter("spatter", table, severity)
    mean, std, size, threshold, strength, mud = values
    assert mud == 0
    noise = np.random.default_rng(1).standard_normal((1, 32, 32, 1)).astype(np.float32)
    layer = ndimage.gaussian_filter((mean + std * noise)[0, :, :, 0].astype(float), size, mode="nearest")
    layer = np.floor(255 * np.clip(np.where(layer < threshold, 0, layer), 0, 1)).astype(np.uint8)
    assert layer.any()
    light = layer * spatter._relief(layer[None])[0]  # tested against OpenCV
    light = strength * light[..., None] / light.max()
    for images, liquid in ((colour, [175, 238, 238]), (grey, [0.299 * 175 + 0.701 * 238])):
        result = spatter.spatter(images[:1], values, fixed(noise))
        np.testing.assert_allclose(result[0], images[0] + light * liquid, atol=1)
        # The brightest place is as bright as the parameter says.
        assert abs((result[0] - images[0]).max() - strength * max(liquid)) < 1


def test_an_image_without_drops_is_left_as_it_is(colour, fixed):
    values = parameter("spatter", "cifar10", 1)
    dry = np.full((1, 32, 32, 1), -3, np.float32)
    np.testing.assert_array_equal(spatter.spatter(colour[:1], values, fixed(dry)), colour[:1])
