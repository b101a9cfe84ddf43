"""Brightness, contrast and saturation."""

from __future__ import annotations

import numpy as np

from bibench_tf.corruptions.base import register
from bibench_tf.corruptions.draws import Draws

# The weights of red, green and blue in ITU-R BT.601.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def luminance(images: np.ndarray) -> np.ndarray:
    """The grey image [..., 1] of a colour image [..., 3]; a grey one is returned as it is."""
    if images.shape[-1] == 1:
        return images
    # Not as a matrix product, whose rounding may depend on how many pixels there are.
    weighted = images * _LUMINANCE
    return weighted[..., :1] + weighted[..., 1:2] + weighted[..., 2:]


@register(group="standard", number=11, cifar10=(0.05, 0.1, 0.15, 0.2, 0.3), imagenet=(0.1, 0.2, 0.3, 0.4, 0.5))
def brightness(images: np.ndarray, amount: float, draws: Draws) -> np.ndarray:
    """In HSV the value plus `amount`, at the same hue and saturation: the channels are scaled alike."""
    value = images.max(axis=-1, keepdims=True).astype(np.float32)
    brighter = np.minimum(value + np.float32(255 * amount), 255)
    return np.where(value > 0, images * (brighter / np.maximum(value, 1)), brighter)


@register(group="standard", number=12, cifar10=(0.75, 0.5, 0.4, 0.3, 0.15), imagenet=(0.4, 0.3, 0.2, 0.1, 0.05))
def contrast(images: np.ndarray, factor: float, draws: Draws) -> np.ndarray:
    """`factor` times the distance from the mean of the channel."""
    height, width = images.shape[1:3]
    mean = (images.sum(axis=(1, 2), keepdims=True, dtype=np.int64) / (height * width)).astype(np.float32)
    return (images - mean) * np.float32(factor) + mean


@register(
    number=19,
    needs_colour=True,
    cifar10=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    imagenet=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
)
def saturate(images: np.ndarray, change: tuple[float, float], draws: Draws) -> np.ndarray:
    """In HSV the saturation times the factor plus the offset of `change`, at the same hue and value.

    A grey pixel has hue 0, red.
    """
    factor, offset = change
    images = images.astype(np.float32)
    value = images.max(axis=-1, keepdims=True)
    spread = value - images.min(axis=-1, keepdims=True)
    saturation = spread / np.maximum(value, 1)
    changed = np.clip(saturation * np.float32(factor) + np.float32(offset), 0, 1)
    depth = np.where(spread > 0, (value - images) / np.maximum(spread, 1), np.array([0, 1, 1], np.float32))
    return value * (1 - changed * depth)
