"""Random numbers that belong to an image, independent of its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np


class Draws:
    """Random numbers for the images number `first_index` to `first_index + count - 1` of a data set.

    Each call of a method is a new draw for all these images, with the image as the first axis. The numbers of an image
    depend on `key`, its number and the count of draws before, and on nothing else: the generator is counter-based
    (Philox), and image and draw are part of the counter.
    """

    def __init__(self, key: tuple[object, ...], first_index: int, count: int) -> None:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest, "little"))
        self._generator = np.random.Generator(self._bits)
        self._images = range(first_index, first_index + count)
        self._draw = 0

    def uniform(self, *shape: int) -> np.ndarray:
        """Float32 [N, *shape], uniform in 0 <= x < 1."""
        result = np.empty((len(self._images), *shape), np.float32)
        for row, generator in zip(result.reshape(len(result), -1), self._each(), strict=True):
            generator.random(out=row, dtype=np.float32)
        return result

    def normal(self, *shape: int) -> np.ndarray:
        """Float32 [N, *shape], normal with mean 0 and standard deviation 1."""
        result = np.empty((len(self._images), *shape), np.float32)
        for row, generator in zip(result.reshape(len(result), -1), self._each(), strict=True):
            generator.standard_normal(out=row, dtype=np.float32)
        return result

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Int16 [N, *shape], uniform in low <= x < high."""
        result = np.empty((len(self._images), *shape), np.int16)
        for place, generator in enumerate(self._each()):
            result[place] = generator.integers(low, high, shape, dtype=np.int16)
        return result

    def poisson(self, mean: np.ndarray) -> np.ndarray:
        """Int64, Poisson with the given means [N, ...]."""
        result = np.empty(mean.shape, np.int64)
        for place, generator in enumerate(self._each()):
            result[place] = generator.poisson(mean[place])
        return result

    def _each(self) -> Iterator[np.random.Generator]:
        """The generator for each image in turn, at the beginning of this draw."""
        state = self._bits.state
        # No buffered numbers of the previous image.
        state["buffer_pos"], state["has_uint32"] = len(state["buffer"]), 0
        for image in self._images:
            # The two low words count the numbers of the draw.
            state["state"]["counter"] = np.array([0, 0, self._draw, image], np.uint64)
            self._bits.state = state
            yield self._generator
        self._draw += 1
