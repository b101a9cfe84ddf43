"""Image corruptions of CIFAR-10-C at its five severities, made on the fly.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261; the severities are those of CIFAR-10-C, chosen for
images of about 32x32. Image i of a data set gets noise that depends on (seed, i, corruption, severity)
alone, however the images are batched.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from bibench_tf.errors import BibenchError, unknown_name

SEVERITIES = (1, 2, 3, 4, 5)
# Raised whenever the same call gives other images, so that what was measured with the old ones is measured
# again.
VERSION = 1


@dataclass(frozen=True)
class Corruption:
    """One corruption and its parameter at severities 1 to 5.

    `function` takes a float64 image [H, W, C] in 0..1, the parameter and a NumPy generator, and returns the
    corrupted image, which need not stay within 0..1.
    """

    function: Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]
    parameters: tuple[Any, Any, Any, Any, Any]
    needs_colour: bool = False


def names() -> list[str]:
    """The names of all corruptions."""
    return sorted(_CORRUPTIONS)


def check(name: str, channels: int, severity: int = 1) -> Corruption:
    """The corruption called `name`.

    Raises BibenchError for an unknown name, a severity other than 1..5, and a number of channels it cannot
    work on.
    """
    if name not in _CORRUPTIONS:
        raise unknown_name("corruption", name, _CORRUPTIONS)
    if severity not in SEVERITIES:
        raise BibenchError(f"The severity of a corruption is a number from 1 to 5, not {severity}.")
    corruption = _CORRUPTIONS[name]
    if channels not in (1, 3):
        raise BibenchError(f"Corruptions work on images of 1 or 3 channels, not {channels}.")
    if corruption.needs_colour and channels == 1:
        raise BibenchError(f"The corruption '{name}' needs colour images, and these have one channel.")
    return corruption


def apply(name: str, images: np.ndarray, severity: int, *, seed: int = 0, first_index: int = 0) -> np.ndarray:
    """`images` (uint8 [N, H, W, C], C 1 or 3) corrupted; the first is number `first_index` of its data set.

    Grey levels are cut to whole numbers, not rounded, as in CIFAR-10-C. Raises BibenchError as `check` does.
    """
    corruption = check(name, images.shape[-1], severity)
    parameter = corruption.parameters[severity - 1]
    key = zlib.crc32(name.encode())
    result = np.empty_like(images)
    for index, image in enumerate(images):
        random = np.random.default_rng([seed, first_index + index, key, severity])
        corrupted = corruption.function(image / 255.0, parameter, random)
        # The small number keeps a pixel that was not touched from falling to the level below by rounding
        # error.
        result[index] = np.clip(corrupted, 0, 1) * 255 + 1e-6
    return result


def _gaussian_noise(image, std, random):
    return image + random.normal(0, std, image.shape)


def _shot_noise(image, photons, random):
    return random.poisson(image * photons) / photons


def _impulse_noise(image, amount, random):
    hit = random.random(image.shape) < amount
    return np.where(hit, random.random(image.shape) < 0.5, image)


def _defocus_blur(image, disk, random):
    del random
    return ndimage.correlate(image, _disk(*disk)[..., None], mode="mirror")


def _disk(radius: float, blur: float) -> np.ndarray:
    """A filled circle of `radius` pixels with sum 1, softened by a 3x3 Gaussian of deviation `blur`."""
    reach = int(np.ceil(radius)) + 1
    x = np.arange(-reach, reach + 1)
    disk = (x**2 + x[:, None] ** 2 <= radius**2).astype(float)
    return ndimage.gaussian_filter(disk / disk.sum(), blur, radius=1, mode="constant")


def _gaussian_blur(image, std, random):
    del random
    return ndimage.gaussian_filter(image, (std, std, 0), mode="nearest")


def _brightness(image, amount, random):
    # In HSV: value plus `amount` at the same hue and saturation, which scales the three channels alike.
    del random
    value = image.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + amount, 1)
    return np.where(value > 0, image * (brighter / np.where(value > 0, value, 1)), brighter)


def _contrast(image, factor, random):
    del random
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def _saturate(image, change, random):
    # In HSV: saturation times `factor` plus `offset` at the same hue and value. A grey pixel has hue 0, red.
    del random
    factor, offset = change
    value = image.max(axis=-1, keepdims=True)
    spread = value - image.min(axis=-1, keepdims=True)
    saturation = spread / np.where(value > 0, value, 1)
    changed = np.clip(saturation * factor + offset, 0, 1)
    depth = np.where(spread > 0, (value - image) / np.where(spread > 0, spread, 1), np.array([0.0, 1.0, 1.0]))
    return value * (1 - changed * depth)


def _pixelate(image, factor, random):
    del random
    height, width = image.shape[:2]
    small = _to_pillow(image).resize((int(width * factor), int(height * factor)), Image.Resampling.BOX)
    return _from_pillow(small.resize((width, height), Image.Resampling.BOX))


def _jpeg_compression(image, quality, random):
    del random
    with io.BytesIO() as stream:
        _to_pillow(image).save(stream, "JPEG", quality=quality)
        return _from_pillow(Image.open(stream))


def _to_pillow(image: np.ndarray) -> Image.Image:
    levels = np.round(image * 255).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def _from_pillow(image: Image.Image) -> np.ndarray:
    levels = np.asarray(image)
    return (levels[..., None] if levels.ndim == 2 else levels) / 255.0


_CORRUPTIONS = {
    # Parameter: standard deviation of the noise.
    "gaussian_noise": Corruption(_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    # Photons at full brightness.
    "shot_noise": Corruption(_shot_noise, (500, 250, 100, 75, 50)),
    # Share of values that become black or white.
    "impulse_noise": Corruption(_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    # Radius of the disk and standard deviation of its edge, in pixels.
    "defocus_blur": Corruption(_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    # Standard deviation in pixels.
    "gaussian_blur": Corruption(_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    # Added value.
    "brightness": Corruption(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    # Factor on the distance from the mean.
    "contrast": Corruption(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    # Factor and offset of the saturation.
    "saturate": Corruption(_saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), needs_colour=True),
    # Size of the small image relative to the original.
    "pixelate": Corruption(_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    # Quality of the compression.
    "jpeg_compression": Corruption(_jpeg_compression, (80, 65, 58, 50, 40)),
}
