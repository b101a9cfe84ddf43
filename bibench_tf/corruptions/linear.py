"""Linear maps of images: along rows and columns by matrices, and interpolation between pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage, sparse


def separable(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each channel X of `images` [N, H, W, C] becomes rows @ X @ columns.T; float32."""
    # One small product per plane: the rounding of a single large one may depend on the number of images.
    planes = np.moveaxis(images, -1, 1).astype(np.float32, order="C")
    return np.moveaxis(rows @ (planes @ columns.T), 1, -1)


def gaussian(images: np.ndarray, std: float, *, border: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """`images` [N, H, W, C] under a Gaussian of standard deviation `std` pixels, cut at `truncate` deviations.

    `border` is a mode of scipy.ndimage; float32.
    """
    height, width = images.shape[1:3]
    return separable(
        images, _gaussian_matrix(height, std, border, truncate), _gaussian_matrix(width, std, border, truncate)
    )


@lru_cache(maxsize=64)
def _gaussian_matrix(size: int, std: float, border: str, truncate: float) -> np.ndarray:
    if std == 0:
        return np.eye(size, dtype=np.float32)
    return ndimage.gaussian_filter1d(np.eye(size), std, axis=0, mode=border, truncate=truncate).astype(np.float32)


@lru_cache(maxsize=64)
def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """The matrix that enlarges the middle of a line of `size` pixels `factor` times; float32 [size, size]."""
    part = int(np.ceil(size / factor))
    start = (size - part) // 2
    larger = ndimage.zoom(np.eye(size)[start : start + part], (factor, 1), order=1)
    trim = (len(larger) - size) // 2
    return larger[trim : trim + size].astype(np.float32)


@lru_cache(maxsize=16)
def zoom_blur_matrix(height: int, width: int, factors: tuple[float, ...]) -> sparse.csr_array:
    """The matrix [H * W, H * W] that averages an image and its enlargements; float32."""
    total = sparse.eye_array(height * width, dtype=np.float32, format="csr")
    for factor in factors:
        rows, columns = zoom_matrix(height, factor), zoom_matrix(width, factor)
        total = total + sparse.kron(sparse.csr_array(rows), sparse.csr_array(columns), format="csr")
    return (total / np.float32(len(factors) + 1)).astype(np.float32)


def interpolate(images: np.ndarray, y: np.ndarray, x: np.ndarray, *, repeat_edge: bool) -> np.ndarray:
    """`images` float32 [N, H, W, C] at the positions `y`, `x` [N, H', W'] in pixels, linear between pixels.

    Outside, the image is mirrored at its outermost pixels, which stand twice with `repeat_edge`.
    """
    count, height, width, channels = images.shape
    pixels = images.reshape(-1, channels)
    first = (np.arange(count, dtype=np.intp) * (height * width))[:, None, None]
    top, left = np.floor(y), np.floor(x)
    down, right = (y - top)[..., None].astype(np.float32), (x - left)[..., None].astype(np.float32)
    rows = [first + width * _mirrored(top.astype(np.intp) + step, height, repeat_edge) for step in (0, 1)]
    columns = [_mirrored(left.astype(np.intp) + step, width, repeat_edge) for step in (0, 1)]
    upper, lower = (pixels[row + columns[0]] * (1 - right) + pixels[row + columns[1]] * right for row in rows)
    return upper * (1 - down) + lower * down


def _mirrored(index: np.ndarray, size: int, repeat_edge: bool) -> np.ndarray:
    period = 2 * size if repeat_edge else max(2 * size - 2, 1)
    index = index % period
    return np.where(index < size, index, (period - 1 if repeat_edge else period) - index)
