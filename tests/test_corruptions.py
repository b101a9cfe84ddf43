from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
from PIL import Image

from bibench_tf import corruptions, datasets
from bibench_tf.errors import BibenchError

GREY_NAMES = [name for name in corruptions.names() if name != "saturate"]
NOISE = {"gaussian_noise", "shot_noise", "impulse_noise"}


def by_severity(*parameters):
    """The cases (1, first parameter) to (5, last parameter)."""
    return list(enumerate(parameters, start=1))


@pytest.fixture(scope="module")
def grey():
    return datasets.get("fashion_mini").splits.test_images[:24]


@pytest.fixture(scope="module")
def colour(grey):
    # Three items of clothing, one in each channel: structure, and many different hues.
    return np.concatenate([grey, np.roll(grey, 1, axis=0), np.roll(grey, 2, axis=0)], axis=-1)


def flat(level, count=1, size=64, channels=1):
    return np.full((count, size, size, channels), level, np.uint8)


def test_the_corruptions_that_the_benchmark_needs_are_there():
    assert {"gaussian_noise", "defocus_blur", "brightness", "contrast", "pixelate"} <= set(corruptions.names())


@pytest.mark.parametrize("name", corruptions.names())
def test_type_shape_and_input_are_kept(name, grey, colour):
    for images in (grey, colour) if name in GREY_NAMES else (colour,):
        before = images.copy()
        result = corruptions.apply(name, images, 3)
        assert result.dtype == np.uint8 and result.shape == images.shape
        assert not np.array_equal(result, images)
        np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", corruptions.names())
@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_an_image_does_not_depend_on_its_batch(name, severity, colour):
    whole = corruptions.apply(name, colour, severity, seed=5, first_index=100)
    again = [corruptions.apply(name, colour[:10], severity, seed=5, first_index=100)]
    again.append(corruptions.apply(name, colour[10:], severity, seed=5, first_index=110))
    np.testing.assert_array_equal(whole, np.concatenate(again))


@pytest.mark.parametrize("name", sorted(NOISE))
def test_noise_changes_with_seed_place_and_severity(name):
    image = flat(128)
    same = dict(seed=1, first_index=2)
    first = corruptions.apply(name, image, 5, **same)
    for severity, change in ((5, {"seed": 2}), (5, {"first_index": 3}), (4, {})):
        assert not np.array_equal(first, corruptions.apply(name, image, severity, **{**same, **change}))


@pytest.mark.parametrize("name", [name for name in corruptions.names() if name != "saturate"])
def test_damage_grows_with_severity(name, grey, colour):
    for images in (grey, colour):
        damage = [
            np.mean((corruptions.apply(name, images, severity).astype(float) - images) ** 2)
            for severity in corruptions.SEVERITIES
        ]
        assert damage[0] > 0 and np.all(np.diff(damage) > 0)


@pytest.mark.parametrize("severity, std", by_severity(0.04, 0.06, 0.08, 0.09, 0.10))
def test_gaussian_noise_has_the_stated_deviation(severity, std):
    noisy = corruptions.apply("gaussian_noise", flat(128, 8), severity).astype(float)
    # Cutting to whole levels takes half a level from the mean.
    assert abs(noisy.mean() - 127.5) < 0.5
    assert abs(noisy.std() / 255 - std) < 0.02 * std


@pytest.mark.parametrize("severity, photons", [(1, 500), (5, 50)])
@pytest.mark.parametrize("level", [64, 128])
def test_shot_noise_has_the_variance_of_a_poisson_distribution(severity, photons, level):
    noisy = corruptions.apply("shot_noise", flat(level, 8), severity).astype(float) / 255
    assert abs(noisy.std() - np.sqrt(level / 255 / photons)) < 0.03 * noisy.std()
    assert abs(noisy.mean() - level / 255) < 0.005


@pytest.mark.parametrize("severity, share", by_severity(0.01, 0.02, 0.03, 0.05, 0.07))
def test_impulse_noise_hits_the_stated_share(severity, share):
    noisy = corruptions.apply("impulse_noise", flat(100, 8, channels=3), severity)
    black, white = (noisy == 0).mean(), (noisy == 255).mean()
    assert abs(black + white - share) < 0.1 * share and abs(black - white) < 0.15 * share
    assert np.all(np.isin(noisy, [0, 100, 255]))


@pytest.mark.parametrize("severity, added", by_severity(0.05, 0.1, 0.15, 0.2, 0.3))
def test_brightness_is_added_to_the_hsv_value(severity, added, colour, grey):
    image = colour[:1, 4:24:3, 4:24:3]
    result = corruptions.apply("brightness", image, severity)
    for before, after in zip(image.reshape(-1, 3), result.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before / 255)
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))) * 255
        assert np.all(after <= expected + 1e-3) and np.all(after > expected - 1.001)
    expected = np.floor(np.minimum(grey / 255 + added, 1) * 255 + 1e-6)
    np.testing.assert_array_equal(corruptions.apply("brightness", grey, severity), expected)


@pytest.mark.parametrize(
    "severity, change",
    by_severity((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
)
def test_saturate_changes_the_hsv_saturation(severity, change, colour):
    image = colour[:1, 4:24:3, 4:24:3]
    assert (image == image[..., :1]).all(axis=-1).any()  # a grey pixel is among them
    result = corruptions.apply("saturate", image, severity)
    for before, after in zip(image.reshape(-1, 3), result.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before / 255)
        saturation = min(max(saturation * change[0] + change[1], 0), 1)
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255
        assert np.all(after <= expected + 1e-3) and np.all(after > expected - 1.001)


@pytest.mark.parametrize("severity, factor", by_severity(0.75, 0.5, 0.4, 0.3, 0.15))
def test_contrast_shrinks_the_distance_from_the_mean_of_each_channel(severity, factor, colour):
    result = corruptions.apply("contrast", colour, severity).astype(float)
    mean = colour.mean(axis=(1, 2), keepdims=True)
    expected = mean + factor * (colour - mean)
    assert np.all(result <= expected + 1e-3) and np.all(result > expected - 1.001)


def point(size=17):
    images = np.zeros((1, size, size, 1), np.uint8)
    images[0, size // 2, size // 2] = 255
    return images


@pytest.mark.parametrize(
    "severity, disk",
    by_severity((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
)
def test_defocus_blur_spreads_a_point_into_a_soft_disk(severity, disk):
    radius, blur = disk
    weights = np.exp(-(np.array([1, 0, 1]) ** 2) / (2 * blur**2))
    weights /= weights.sum()
    expected = np.zeros((17, 17))
    inside = [(y, x) for y in range(-8, 9) for x in range(-8, 9) if y * y + x * x <= radius**2]
    for y, x in inside:
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                expected[8 + y + dy, 8 + x + dx] += weights[dy + 1] * weights[dx + 1] / len(inside)
    result = corruptions.apply("defocus_blur", point(), severity)[0, :, :, 0]
    np.testing.assert_allclose(result, expected * 255, atol=1.001)


@pytest.mark.parametrize("severity, std", by_severity(0.4, 0.6, 0.7, 0.8, 1.0))
def test_gaussian_blur_spreads_a_point_into_a_bell(severity, std):
    bell = np.exp(-(np.arange(-8, 9) ** 2) / (2 * std**2))
    bell /= bell.sum()
    result = corruptions.apply("gaussian_blur", point(), severity)[0, :, :, 0]
    np.testing.assert_allclose(result, np.outer(bell, bell) * 255, atol=1.1)


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur", "pixelate", "contrast"])
def test_a_flat_image_stays_flat(name):
    result = corruptions.apply(name, flat(77, channels=3), 5).astype(int)
    assert np.abs(result - 77).max() <= 1


@pytest.mark.parametrize("severity, factor", by_severity(0.95, 0.9, 0.85, 0.75, 0.65))
@pytest.mark.parametrize("size", [28, 32])
def test_pixelate_joins_pixels_into_cells(severity, factor, size, grey):
    image = np.pad(grey[:1], [(0, 0), (2, 2), (2, 2), (0, 0)])[:, :size, :size]
    cells = int(size * factor)
    # A pixel belongs to the cell its centre lies in, and shows that cell's mean.
    cell = ((np.arange(size) + 0.5) * cells / size).astype(int)
    members = (cell == np.arange(cells)[:, None]).astype(float)
    members /= members.sum(axis=1, keepdims=True)
    expected = (members @ image[0, :, :, 0] @ members.T)[cell][:, cell]
    result = corruptions.apply("pixelate", image, severity)[0, :, :, 0]
    np.testing.assert_allclose(result, expected, atol=1.01)


@pytest.mark.parametrize("severity, quality", [(1, 80), (5, 40)])
def test_jpeg_compression_is_that_of_the_stated_quality(severity, quality, grey, colour):
    for images, mode in ((grey, "L"), (colour, "RGB")):
        stream = io.BytesIO()
        Image.fromarray(images[0].squeeze(), mode).save(stream, "JPEG", quality=quality)
        expected = np.asarray(Image.open(stream)).reshape(images[0].shape)
        np.testing.assert_array_equal(corruptions.apply("jpeg_compression", images[:1], severity)[0], expected)


def test_bad_requests_are_refused(grey):
    with pytest.raises(BibenchError, match="Did you mean 'contrast'"):
        corruptions.apply("contrst", grey, 1)
    for severity in (0, 6):
        with pytest.raises(BibenchError, match="from 1 to 5"):
            corruptions.apply("contrast", grey, severity)
    with pytest.raises(BibenchError, match="colour"):
        corruptions.apply("saturate", grey, 1)
    with pytest.raises(BibenchError, match="1 or 3 channels"):
        corruptions.apply("contrast", np.zeros((1, 4, 4, 2), np.uint8), 1)
