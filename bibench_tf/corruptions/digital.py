"""Pixelation, JPEG compression and elastic distortion."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from bibench_tf.corruptions import linear
from bibench_tf.corruptions.base import register
from bibench_tf.corruptions.draws import Draws

# The authors write 244 for the 224 pixels of their images.
_TYPO = 244 / 224


@register(group="standard", number=14, cifar10=(0.95, 0.9, 0.85, 0.75, 0.65), imagenet=(0.6, 0.5, 0.4, 0.3, 0.25))
def pixelate(images: np.ndarray, factor: float, draws: Draws) -> np.ndarray:
    """The image shrunk to `factor` of its size, by averages, and enlarged again, by repetition of pixels; uint8."""
    height, width = images.shape[1:3]
    smaller = max(1, int(width * factor)), max(1, int(height * factor))

    def change(image: Image.Image) -> Image.Image:
        return image.resize(smaller, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return _by_pillow(images, change)


@register(group="standard", number=15, cifar10=(80, 65, 58, 50, 40), imagenet=(25, 18, 15, 10, 7))
def jpeg_compression(images: np.ndarray, quality: int, draws: Draws) -> np.ndarray:
    """Compressed to JPEG at `quality` and unpacked; uint8."""

    def change(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream, formats=["JPEG"])

    return _by_pillow(images, change)


def _by_pillow(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    result = np.empty_like(images)
    grey = images.shape[-1] == 1
    for image, changed in zip(images, result[..., 0] if grey else result, strict=True):
        changed[:] = change(Image.fromarray(image[..., 0] if grey else image))
    return result


@register(
    group="standard",
    number=13,
    cifar10=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    imagenet=[
        tuple(_TYPO * share for share in shares)
        for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    ],
)
def elastic_transform(images: np.ndarray, elastic: tuple[float, float, float], draws: Draws) -> np.ndarray:
    """A random affine map, then a smooth random displacement of each pixel.

    `elastic` is (strength and smoothness of the displacement, reach of the affine map), as shares of the
    shorter side.
    """
    height, width = images.shape[1:3]
    strength, smoothness, reach = (share * min(height, width) for share in elastic)
    rows, columns = affine_positions(height, width, reach * (2 * draws.uniform(3, 2) - 1))
    warped = linear.interpolate(images.astype(np.float32), rows, columns, repeat_edge=False)
    if strength == 0:
        return warped
    noise = 2 * np.moveaxis(draws.uniform(2, height, width), 1, -1) - 1
    moves = strength * linear.gaussian(noise, smoothness, border="reflect", truncate=3)
    y, x = np.mgrid[:height, :width]
    return linear.interpolate(warped, y + moves[..., 1], x + moves[..., 0], repeat_edge=True)


def affine_positions(height: int, width: int, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of an affine image comes from: y and x [N, H, W].

    The map takes three points around the middle, a third of the shorter side from it in x and y, to where
    `moves` [N, 3, 2] (x, y) takes them.
    """
    centre = np.array([width // 2, height // 2])
    side = min(height, width) // 3
    points = centre + side * np.array([[1, 1], [1, -1], [-1, -1]])
    ones = np.ones((len(moves), 3, 1))
    # Rows (x, y, 1) of the moved points times the solution are the rows (x, y) of the points.
    back = np.linalg.solve(np.concatenate([points + moves, ones], axis=-1), np.broadcast_to(points, moves.shape))
    y, x = np.mgrid[:height, :width]
    grid = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(1, -1, 3)
    found = (grid @ back).reshape(len(moves), height, width, 2)
    return found[..., 1], found[..., 0]
