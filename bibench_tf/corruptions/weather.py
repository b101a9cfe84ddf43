"""Snow, frost and fog."""

from __future__ import annotations

import numpy as np

from bibench_tf.corruptions import blur, colour, frost_textures, linear
from bibench_tf.corruptions.base import as_levels, register
from bibench_tf.corruptions.draws import Draws


@register(
    group="standard",
    number=10,
    cifar10=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
)
def fog(images: np.ndarray, fog: tuple[float, float], draws: Draws) -> np.ndarray:
    """Fog from a plasma fractal; (thickness, decay of the plasma from one scale to the next)."""
    thickness, decay = fog
    height, width = images.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    plasma = plasma_fractal(draws.uniform(size, size), decay)[:, :height, :width, None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True).astype(np.float32)
    return (images + 255 * thickness * plasma) * (brightest / (brightest + 255 * thickness))


def plasma_fractal(noise: np.ndarray, decay: float) -> np.ndarray:
    """Height maps 0 to 1 by diamonds and squares, without edges; float32 [N, S, S], S a power of two.

    `noise` [N, S, S] is even in 0 to 1; the point it stands at is the one it moves. From one scale to the next the
    noise falls by `decay` squared: the authors' program uses the amplitude twice.
    """
    noise = 2 * noise - 1
    size = noise.shape[1]
    heights = np.zeros(noise.shape, np.float32)
    step, amplitude = size, 100.0
    while step >= 2:
        half = step // 2
        whole, middle = slice(0, None, step), slice(half, None, step)
        strength = np.float32(amplitude**2)

        def move(total: np.ndarray, rows: slice, columns: slice, strength: np.float32 = strength) -> None:
            heights[:, rows, columns] = total / 4 + strength * noise[:, rows, columns]

        corners = heights[:, whole, whole]
        below = corners + np.roll(corners, -1, axis=1)
        move(below + np.roll(below, -1, axis=2), middle, middle)
        centres = heights[:, middle, middle]
        move(centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=2), whole, middle)
        move(centres + np.roll(centres, 1, axis=2) + corners + np.roll(corners, -1, axis=1), middle, whole)
        step, amplitude = half, amplitude / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / np.maximum(heights.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


@register(
    group="standard",
    number=9,
    cifar10=((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
    imagenet=((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
)
def frost(images: np.ndarray, frost: tuple[float, float, int], draws: Draws) -> np.ndarray:
    """A piece of a frost texture over the image; (factors on image and texture, sampling of the texture)."""
    keep, share, every = frost
    height, width, channels = images.shape[1:]
    textures = frost_textures.textures(every, channels)
    size = textures.shape[1]
    chance = draws.uniform(3)
    which = (chance[:, 0] * len(textures)).astype(int)
    top, left = (chance[:, 1:] * size).astype(int).T
    result = np.float32(keep) * images
    for image in range(len(images)):
        rows, columns = (top[image] + np.arange(height)) % size, (left[image] + np.arange(width)) % size
        result[image] += np.float32(share) * textures[which[image]][rows[:, None], columns]
    return result


@register(
    group="standard",
    number=8,
    cifar10=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    imagenet=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
)
def snow(images: np.ndarray, snow: tuple[float, ...], draws: Draws) -> np.ndarray:
    """Falling flakes in front of a whitened image.

    The parameters: mean and standard deviation of the noise that becomes flakes, its zoom, threshold of a flake, radius
    and standard deviation of the streak in pixels; share of the original image.
    """
    mean, std, zoom, threshold, radius, streak, keep = snow
    height, width = images.shape[1:3]
    flakes = mean + np.float32(std) * draws.normal(height, width, 1)
    flakes = linear.separable(flakes, linear.zoom_matrix(height, zoom), linear.zoom_matrix(width, zoom))
    flakes = as_levels(255 * np.where(flakes < threshold, 0, flakes))
    flakes = blur.streaks(flakes, radius, streak, angles=-135 + 90 * draws.uniform()).astype(np.float32)
    images = images.astype(np.float32)
    whitened = np.maximum(images, 1.5 * colour.luminance(images) + 127.5)
    return keep * images + (1 - keep) * whitened + flakes + np.rot90(flakes, 2, axes=(1, 2))
