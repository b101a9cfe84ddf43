"""Drops of water or mud on the lens."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bibench_tf.corruptions import colour, linear
from bibench_tf.corruptions.base import register
from bibench_tf.corruptions.draws import Draws

_WATER = np.array([175, 238, 238], np.float32)
_MUD = np.array([63, 42, 20], np.float32)
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
_FARTHEST = 20
# Rows up, columns to the right, length.
_STEPS = ((1, 0, 1), (1, -1, 1.4), (1, 1, 1.4), (1, -2, 2.1969), (1, 2, 2.1969), (2, -1, 2.1969), (2, 1, 2.1969))
_WEAK_EDGE, _STRONG_EDGE = 50, 150
_TANGENT_22_5 = np.float32(np.tan(np.pi / 8))


@register(
    number=18,
    cifar10=(
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    imagenet=(
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
)
def spatter(images: np.ndarray, spatter: tuple[float, ...], draws: Draws) -> np.ndarray:
    """Drops that darken (mud) or brighten (water) the image.

    The parameters: mean and standard deviation of the noise, its blur in pixels, threshold of a drop; strength of water
    or blur of mud; 0 for water, 1 for mud. On grey images the liquid has the luminance of its colour.
    """
    mean, std, size, threshold, strength, mud = spatter
    height, width, channels = images.shape[1:]
    layer = linear.gaussian(mean + np.float32(std) * draws.normal(height, width, 1), size)[..., 0]
    liquid = _MUD if mud else _WATER
    if channels == 1:
        liquid = colour.luminance(liquid)
    if mud:
        cover = linear.gaussian((layer > threshold)[..., None], strength)
        cover = np.where(cover < 0.8, 0, cover)
        return images * (1 - cover) + liquid * cover
    layer = np.where(layer < threshold, 0, np.clip(255 * layer, 0, 255)).astype(np.uint8)
    light = layer * _relief(layer)
    light *= strength / np.maximum(light.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
    return images + liquid * light[..., None]


def _relief(layer: np.ndarray) -> np.ndarray:
    """How drops [N, H, W] catch the light, from the distance to their edges; float32 0 to 255."""
    near = np.minimum(distances(edges(layer)), _FARTHEST)
    smooth = ndimage.uniform_filter(near, (0, 3, 3), mode="mirror")
    # 1e-6: an average of whole numbers must not fall below its value by a rounding error.
    even = _equalized((smooth + 1e-6).astype(np.uint8)).astype(np.int32)
    lit = np.clip(ndimage.correlate(even, _RELIEF[None], mode="mirror"), 0, 255)
    return np.rint(ndimage.uniform_filter(lit.astype(np.float32), (0, 3, 3), mode="mirror"))


def _equalized(levels: np.ndarray) -> np.ndarray:
    """Each image of uint8 levels [N, H, W] with its histogram evened out; its lowest level becomes 0."""
    count, height, width = levels.shape
    image = np.arange(count)[:, None, None]
    histogram = np.bincount((256 * image + levels).ravel(), minlength=256 * count).reshape(count, 256)
    below = histogram.cumsum(axis=1)
    lowest = histogram[np.arange(count), levels.min(axis=(1, 2))][:, None]
    rest = height * width - lowest
    table = np.where(rest > 0, np.rint((below - lowest) * (255 / np.maximum(rest, 1))), np.arange(256))
    return table.clip(0, 255).astype(np.uint8)[image, levels]


def distances(targets: np.ndarray) -> np.ndarray:
    """The distance of each pixel of bool [N, H, W] to the nearest true one: float64 pixels, huge without a true one.

    Along paths of straight (1), diagonal (1.4) and chess-knight (2.1969) steps, as in OpenCV.
    """
    count, height, width = targets.shape
    # A margin of two pixels that are never near.
    far = np.full((count, height + 4, width + 4), 1e6)
    far[:, 2:-2, 2:-2][targets] = 0
    place = np.arange(width + 4.0)
    for rows, up in ((range(2, height + 2), 1), (range(height + 1, 1, -1), -1)):
        for y in rows:
            near, above, second = far[:, y], far[:, y - up], far[:, y - 2 * up]
            middle = near[:, 2:-2]
            for line, shift, length in _STEPS:
                source = second if line == 2 else above
                np.minimum(middle, source[:, 2 + shift : 2 + shift + width] + length, out=middle)
            # Steps of 1 along the row: first to the right, then to the left.
            near[:] = np.minimum.accumulate(near - place, axis=1) + place
            near[:] = np.minimum.accumulate((near + place)[:, ::-1], axis=1)[:, ::-1] - place
    return far[:, 2:-2, 2:-2]


def edges(images: np.ndarray) -> np.ndarray:
    """The edges of images uint8 [N, H, W] after Canny: bool [N, H, W].

    Sobel gradients, |dx| + |dy|, thinned across the gradient's direction; weak edges (50) count where they
    join strong ones (150).
    """
    grey = images.astype(np.float32)
    dx, dy = (
        ndimage.correlate1d(
            ndimage.correlate1d(grey, [-1, 0, 1], axis, mode="nearest"), [1, 2, 1], 3 - axis, mode="nearest"
        )
        for axis in (2, 1)
    )
    strength = np.abs(dx) + np.abs(dy)
    around = np.pad(strength, ((0, 0), (1, 1), (1, 1)))
    height, width = images.shape[1:]

    def at(y: int, x: int) -> np.ndarray:
        return around[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    flat = np.abs(dy) < np.abs(dx) * _TANGENT_22_5
    steep = np.abs(dy) > np.abs(dx) * (_TANGENT_22_5 + 2)
    falling = (dx < 0) != (dy < 0)
    across = np.select(
        [flat, steep, falling],
        [
            (strength > at(0, -1)) & (strength >= at(0, 1)),
            (strength > at(-1, 0)) & (strength >= at(1, 0)),
            (strength > at(-1, 1)) & (strength > at(1, -1)),
        ],
        (strength > at(-1, -1)) & (strength > at(1, 1)),
    )
    weak = across & (strength > _WEAK_EDGE)
    together = np.zeros((3, 3, 3), bool)
    together[1] = True
    return ndimage.binary_propagation(weak & (strength > _STRONG_EDGE), together, weak)
