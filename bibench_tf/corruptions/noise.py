"""The noises: each pixel and channel on its own."""

from __future__ import annotations

import numpy as np

from bibench_tf.corruptions.draws import Draws


def gaussian_noise(images: np.ndarray, std: float, draws: Draws) -> np.ndarray:
    """Normal noise of standard deviation `std`."""
    return images + np.float32(255 * std) * draws.normal(*images.shape[1:])


def speckle_noise(images: np.ndarray, std: float, draws: Draws) -> np.ndarray:
    """Normal noise of standard deviation `std` times the pixel."""
    return images * (1 + np.float32(std) * draws.normal(*images.shape[1:]))


def shot_noise(images: np.ndarray, photons: float, draws: Draws) -> np.ndarray:
    """Poisson noise: a white pixel is `photons` photons on average."""
    return draws.poisson(images * (photons / 255)) * (255 / photons)


def impulse_noise(images: np.ndarray, share: float, draws: Draws) -> np.ndarray:
    """`share` of the values becomes black or white, one as often as the other."""
    chance = draws.uniform(*images.shape[1:])
    return np.where(chance < share, np.where(chance < share / 2, np.uint8(0), np.uint8(255)), images)
