"""The blurs."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import ndimage

from bibench_tf.corruptions import linear
from bibench_tf.corruptions.base import as_levels, register
from bibench_tf.corruptions.draws import Draws

# Above this many pixels a kernel is applied in the frequency domain.
_LARGE_KERNEL = 81


@register(number=17, cifar10=(0.4, 0.6, 0.7, 0.8, 1), imagenet=(1, 2, 3, 4, 6))
def gaussian_blur(images: np.ndarray, std: float, draws: Draws) -> np.ndarray:
    """A Gaussian of standard deviation `std` pixels."""
    return linear.gaussian(images, std)


@register(
    group="standard",
    number=4,
    cifar10=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
)
def defocus_blur(images: np.ndarray, disk: tuple[float, float], draws: Draws) -> np.ndarray:
    """A filled circle, (radius, standard deviation of its softened edge) in pixels."""
    kernel = _disk(*disk)
    reach = len(kernel) // 2
    padded = np.pad(images.astype(np.float32), ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    if kernel.size > _LARGE_KERNEL:
        from scipy import signal  # takes a second to import

        # The kernel is symmetric: convolution is correlation.
        return signal.oaconvolve(padded, kernel[None, :, :, None], mode="valid", axes=(1, 2))
    height, width = images.shape[1:3]
    result = np.zeros(images.shape, np.float32)
    for y, x in np.argwhere(kernel):
        result += kernel[y, x] * padded[:, y : y + height, x : x + width]
    return result


@lru_cache(maxsize=16)
def _disk(radius: float, softness: float) -> np.ndarray:
    reach = max(8, math.ceil(radius))
    x = np.arange(-reach, reach + 1)
    disk = (x**2 + x[:, None] ** 2 <= radius**2).astype(float)
    soft = ndimage.gaussian_filter(disk / disk.sum(), softness, radius=1 if radius <= 8 else 2, mode="mirror")
    # Without the empty border.
    used = np.flatnonzero(soft.any(axis=0))
    return soft[used[0] : used[-1] + 1, used[0] : used[-1] + 1].astype(np.float32)


@register(
    group="standard",
    number=7,
    cifar10=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
)
def zoom_blur(images: np.ndarray, zoom: tuple[float, float], draws: Draws) -> np.ndarray:
    """The average of the image and its enlargements by 1, 1 + step, ... below stop; `zoom` is (stop, step)."""
    count, height, width, channels = images.shape
    stop, step = zoom
    matrix = linear.zoom_blur_matrix(height, width, tuple(np.arange(1, stop, step)))
    pixels = np.moveaxis(images, 0, 2).reshape(height * width, count * channels).astype(np.float32)
    return np.moveaxis((matrix @ pixels).reshape(height, width, count, channels), 2, 0)


@register(
    group="standard",
    number=6,
    cifar10=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
)
def motion_blur(images: np.ndarray, streak: tuple[float, float], draws: Draws) -> np.ndarray:
    """A streak of (radius, standard deviation) pixels in a direction within 45 degrees of the horizontal."""
    return streaks(images, *streak, angles=-45 + 90 * draws.uniform())


def streaks(images: np.ndarray, radius: float, std: float, angles: np.ndarray) -> np.ndarray:
    """`images` [N, H, W, C] blurred along a line, one of `angles` [N] in degrees for each; whole levels, uint8.

    As MagickMotionBlurImage of ImageMagick 6 does it: half a Gaussian over 2 * radius + 1 steps to one side,
    each step at the nearest pixel, pixels outside as the nearest one inside, and the sum cut to a whole number.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * std**2))
    weights /= weights.sum()
    # The omitted steps change an image by less than a thousandth of a level.
    steps = steps[weights > 1e-7]
    angles = np.radians(angles)[:, None]
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(angles), np.cos(angles)))
    count, height, width, _ = images.shape
    reach = steps[-1]
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge").astype(np.float32)
    result = np.zeros(images.shape, np.float32)
    for image in range(count):
        for step in steps:
            y, x = reach + down[image, step], reach + right[image, step]
            result[image] += np.float32(weights[step]) * padded[image, y : y + height, x : x + width]
    return as_levels(result)


@register(
    group="standard",
    number=5,
    cifar10=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)
def glass_blur(images: np.ndarray, glass: tuple[float, int, int], draws: Draws) -> np.ndarray:
    """Pixels moved at random between two Gaussian blurs; (standard deviation, reach of a move, repetitions)."""
    std, reach, repetitions = glass
    height, width = images.shape[1:3]
    blurred = as_levels(linear.gaussian(images, std))
    for _ in range(repetitions):
        blurred = shuffled(blurred, reach, draws.integers(-reach, reach, 2, height, width))
    return linear.gaussian(blurred, std)


def shuffled(images: np.ndarray, reach: int, moves: np.ndarray) -> np.ndarray:
    """`images` [N, H, W, C] with pixels replaced by neighbours; `moves` [N, 2, H, W] are steps right and down.

    From the last pixel to the first, except in a margin, each pixel takes the value that the pixel one move
    away has at that moment. The authors' program exchanges two NumPy views, with the same result: the
    second view is overwritten before it is copied.
    """
    count, height, width, channels = images.shape
    size = height * width
    here = np.arange(size, dtype=np.int32).reshape(height, width)
    target = here + moves[:, 1] * np.int32(width) + moves[:, 0]
    y, x = np.ogrid[:height, :width]
    inside = (y > reach) & (y <= height - reach) & (x > reach) & (x <= width - reach)
    target = np.where(inside, target, here)
    # Pixel p stands for its value at the end, size + p for its value at the beginning. A pixel that takes the
    # value of a later pixel takes its value at the end, otherwise its value at the beginning.
    done = (target > here) & inside.reshape(-1)[target]
    source = np.concatenate(
        [np.where(done, target, target + size).reshape(count, -1), np.tile(here.reshape(1, -1) + size, (count, 1))],
        axis=1,
    )
    source += np.arange(count, dtype=np.int32)[:, None] * (2 * size)
    flat = source.reshape(-1)
    ends = source[:, :size]
    # Follow the chains, twice as far each time.
    while True:
        further = flat[ends]
        if np.array_equal(further, ends):
            break
        source[:, :size] = further
    origin = ends - size * (1 + np.arange(count, dtype=np.int32)[:, None])
    return images.reshape(-1, channels)[origin].reshape(images.shape)
