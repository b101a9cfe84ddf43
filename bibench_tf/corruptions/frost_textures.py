"""Textures that look like frost on a window, drawn by rule.

The authors lay photographs of frost over the images; the photographs may not be redistributed. The textures here are
drawings: needles and feathers of ice, with the brightness, the spread and the colour of the five photographs, and about
their balance of coarse and fine structure.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from bibench_tf.corruptions import colour

# A multiple of 5, so that every fifth pixel of a texture that repeats is a texture that repeats.
SIZE = 640


@dataclass(frozen=True)
class Frost:
    """One texture: mean and standard deviation of red, green and blue in grey levels, and its crystals.

    `needles` single needles, `feathers` with side branches, about `length` pixels long.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    needles: int
    feathers: int
    length: float


# The photographs' means and deviations.
_KINDS = (
    Frost((78, 149, 166), (27, 16, 15), needles=3000, feathers=0, length=20),
    Frost((201, 205, 214), (21, 22, 23), needles=3000, feathers=100, length=60),
    Frost((138, 153, 165), (28, 28, 30), needles=2000, feathers=400, length=30),
    Frost((112, 123, 135), (44, 43, 42), needles=1000, feathers=250, length=70),
)
# The authors choose evenly among five files, of which the second and the third are the same photograph.
_CHOICE = [0, 1, 1, 2, 3]


_LOCK = threading.Lock()


def textures(every: int, channels: int) -> np.ndarray:
    """Five textures to choose from, at every n-th pixel: float32 [5, S, S, channels] in grey levels, S = 640 / `every`.

    A texture continues at its opposite edge. Grey ones have the luminance of the coloured ones.
    """
    with _LOCK:  # drawn once, by the first thread
        return _sampled(every, channels)


@lru_cache(maxsize=4)
def _sampled(every: int, channels: int) -> np.ndarray:
    sampled = _all()[_CHOICE, ::every, ::every]
    return np.ascontiguousarray(sampled if channels == 3 else colour.luminance(sampled))


@lru_cache(maxsize=1)
def _all() -> np.ndarray:
    return np.stack([_drawn(frost, seed) for seed, frost in enumerate(_KINDS)])


def _drawn(frost: Frost, seed: int) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key=seed))
    crystals = _with_falling_spectrum(_crystals(frost, random))
    haze = _with_falling_spectrum(random.standard_normal(crystals.shape))
    relief = crystals / crystals.std() + 0.7 * haze / haze.std()
    # The brightness of the photographs is spread like a bell.
    rank = relief.ravel().argsort().argsort().reshape(relief.shape)
    relief = special.ndtri((rank + 0.5) / relief.size)
    levels = np.array(frost.mean) + relief[..., None] * np.array(frost.std)
    return np.rint(np.clip(levels, 0, 255)).astype(np.float32)


def _crystals(frost: Frost, random: np.random.Generator) -> np.ndarray:
    canvas = np.zeros((SIZE, SIZE))
    for _ in range(frost.needles):
        _needle(canvas, random.uniform(0, SIZE, 2), random.uniform(0, 2 * np.pi), *_shape(frost, random))
    for _ in range(frost.feathers):
        start, direction = random.uniform(0, SIZE, 2), random.uniform(0, 2 * np.pi)
        length, width, light = _shape(frost, random)
        _needle(canvas, start, direction, length, width, light)
        for place in np.arange(0.1, 0.95, 5 / length):
            origin = start + place * length * np.array([np.sin(direction), np.cos(direction)])
            for side in (-1, 1):  # branches stand off at 60 degrees, as ice grows
                branch = 0.45 * length * (1 - place) * random.uniform(0.5, 1)
                _needle(canvas, origin, direction + side * np.pi / 3, branch, 1.2, light * random.uniform(0.5, 1))
    return canvas


def _shape(frost: Frost, random: np.random.Generator) -> tuple[float, float, float]:
    """Length and width in pixels and brightness of a needle."""
    return frost.length * random.uniform(0.4, 1.6), random.uniform(1, 3), random.uniform(0.3, 1)


def _needle(canvas: np.ndarray, start: np.ndarray, direction: float, length: float, width: float, light: float) -> None:
    """Draw a needle that tapers to its end; the canvas keeps its brighter pixels."""
    along = np.array([np.sin(direction), np.cos(direction)])
    low = np.floor(np.minimum(start, start + length * along) - width).astype(int)
    high = np.ceil(np.maximum(start, start + length * along) + width).astype(int)
    y, x = np.ogrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
    down, right = y - start[0], x - start[1]
    place = (down * along[0] + right * along[1]) / length
    away = np.abs(down * along[1] - right * along[0])
    thickness = width * np.minimum(np.maximum(1 - place, 0.05), 1)
    inside = np.maximum(1 - away / thickness, 0) * ((place >= 0) & (place <= 1))
    patch = y % SIZE, x % SIZE
    canvas[patch] = np.maximum(canvas[patch], light * inside)


def _with_falling_spectrum(relief: np.ndarray) -> np.ndarray:
    """The same outlines with power falling as the frequency to the power of -2, as in the photographs."""
    y, x = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)
    frequency = np.hypot(y, x)
    spectrum = np.fft.rfft2(relief)
    ring = np.minimum((frequency * SIZE).astype(int), SIZE // 2)
    power = np.bincount(ring.ravel(), np.abs(spectrum.ravel()) ** 2) / np.bincount(ring.ravel())
    wanted = 1 / np.maximum(ring, 1)
    spectrum *= wanted / np.sqrt(power[ring])
    spectrum[0, 0] = 0
    return np.fft.irfft2(spectrum, relief.shape)
