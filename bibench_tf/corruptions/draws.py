"""Random numbers that belong to an image, independent of its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

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
        return self._drawn(shape, np.float32, lambda generator, place: generator.random(shape, np.float32))

    def normal(self, *shape: int) -> np.ndarray:
        """Float32 [N, *shape], normal with mean 0 and standard deviation 1."""
        return self._drawn(shape, np.float32, lambda generator, place: generator.standard_normal(shape, np.float32))

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Int16 [N, *shape], uniform in low <= x < high."""
        return self._drawn(shape, np.int16, lambda generator, place: generator.integers(low, high, shape, np.int16))

    def poisson(self, mean: np.ndarray) -> np.ndarray:
        """Int64, Poisson with the given means [N, ...]."""
        return self._drawn(mean.shape[1:], np.int64, lambda generator, place: generator.poisson(mean[place]))

    def _drawn(self, shape: tuple[int, ...], kind: type, draw: Callable[[np.random.Generator, int], Any]) -> np.ndarray:
        """The numbers [N, *shape] that `draw` makes of each image's generator, at the beginning of this draw."""
        result = np.empty((len(self._images), *shape), kind)
        state = self._bits.state
        # No buffered numbers of the previous image.
        state["buffer_pos"], state["has_uint32"] = len(state["buffer"]), 0
        for place, image in enumerate(self._images):
            # The two low words count the numbers of the draw.
            state["state"]["counter"] = np.array([0, 0, self._draw, image], np.uint64)
            self._bits.state = state
            result[place] = draw(self._generator, place)
        self._draw += 1
        return result
