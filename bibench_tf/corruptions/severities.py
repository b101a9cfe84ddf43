"""What the five severities of each corruption mean, in the two published tables.

Source: the authors' released generation scripts of arXiv 1903.12261. Lengths are in pixels unless said
otherwise; values of 0 to 1 are shares of the full brightness.
"""

from __future__ import annotations

from typing import Any

# The authors write 244 where their images have 224 pixels.
_TYPO = 244 / 224

# CIFAR-10-C: for images of about 32 x 32.
_CIFAR10 = {
    # Standard deviation of the noise.
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    # Photons at full brightness.
    "shot_noise": (500, 250, 100, 75, 50),
    # Share of values that become black or white.
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    # Radius of the disk, standard deviation of its edge.
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    # Standard deviation of the blur before and after, reach of the exchange, repetitions.
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    # Radius and standard deviation of the streak.
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    # Zoom factors: from 1, up to but without the first number, in steps of the second.
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    # Flakes: mean and standard deviation of the noise, zoom, threshold, radius and standard deviation of the
    # streak; share of the original that stays.
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    # Factor on the image, factor on the texture, and the texture is sampled at every n-th pixel.
    "frost": ((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
    # Thickness, decay of the plasma from one scale to the next.
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    # Added to the value of HSV.
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    # Factor on the distance from the mean.
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    # Strength and smoothness of the displacement, largest shift of the affine map's three points; all three
    # as shares of the image's shorter side.
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    # Size of the small image relative to the original.
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    # Quality of the compression.
    "jpeg_compression": (80, 65, 58, 50, 40),
    # Standard deviation of the noise, relative to the pixel.
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    # Standard deviation.
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    # Drops: mean and standard deviation of the noise, its blur, threshold; strength of water or blur of mud;
    # 0 water, 1 mud.
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    # Factor on the saturation of HSV, and what is added to it.
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

# ImageNet-C: for images of about 224 x 224. The meanings are those above.
_IMAGENET = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic_transform": tuple(
        tuple(_TYPO * share for share in shares)
        for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    ),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1, 2, 3, 4, 6),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}

SEVERITIES = (1, 2, 3, 4, 5)
# Parameters by table, corruption, and severity less one.
PARAMETERS: dict[str, dict[str, tuple[Any, ...]]] = {"cifar10": _CIFAR10, "imagenet": _IMAGENET}
