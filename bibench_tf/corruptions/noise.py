"""The noises: each pixel and channel independently."""

from __future__ import annotations

import numpy as np

from bibench_tf.corruptions.base import register
from bibench_tf.corruptions.draws import Draws


@register(group="standard", number=1, cifar10=(0.04, 0.06, 0.08, 0.09, 0.10), imagenet=(0.08, 0.12, 0.18, 0.26, 0.38))
def gaussian_noise(images: np.ndarray, std: float, draws: Draws) -> np.ndarray:
    """Normal noise of standard deviation `std`, as a share of full brightness."""
    return images + np.float32(255 * std) * draws.normal(*images.shape[1:])


@register(number=16, cifar10=(0.06, 0.1, 0.12, 0.16, 0.2), imagenet=(0.15, 0.2, 0.35, 0.45, 0.6))
def speckle_noise(images: np.ndarray, std: float, draws: Draws) -> np.ndarray:
    """Normal noise of standard deviation `std` times the pixel."""
    return images * (1 + np.float32(std) * draws.normal(*images.shape[1:]))


@register(group="standard", number=2, cifar10=(500, 250, 100, 75, 50), imagenet=(60, 25, 12, 5, 3))
def shot_noise(images: np.ndarray, photons: float, draws: Draws) -> np.ndarray:
    """Poisson noise: a white pixel is `photons` photons on average."""
    return draws.poisson(images * (photons / 255)) * (255 / photons)


@register(group="standard", number=3, cifar10=(0.01, 0.02, 0.03, 0.05, 0.07), imagenet=(0.03, 0.06, 0.09, 0.17, 0.27))
def impulse_noise(images: np.ndarray, share: float, draws: Draws) -> np.ndarray:
    """`share` of the values becomes black or white, with equal chances."""
    chance = draws.uniform(*images.shape[1:])
    return np.where(chance < share, np.where(chance < share / 2, np.uint8(0), np.uint8(255)), images)
