"""Random numbers that are the same with every version of NumPy: the raw output of PCG64, which NumPy keeps stable."""

from __future__ import annotations

from typing import Any

import numpy as np


class StableRandom:
    """A stream of random numbers from a seed."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: int | tuple[int, ...] | None = None) -> Any:
        """Float64 of low <= x < high, one number or an array."""
        return low + (high - low) * ((self._bits.random_raw(size) >> 11) * 2.0**-53)

    def nearly_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers of mean 0 and standard deviation 1: sums of four uniform ones, whose variance is 1/12 each."""
        raw = self._bits.random_raw(int(np.prod(shape))).astype("<u8").view("<u2").reshape(*shape, 4)
        return (raw.sum(axis=-1, dtype=np.uint32) * 2.0**-16 - 2.0) * 3.0**0.5

    def below(self, bound: int) -> int:
        """An integer from 0 to `bound` - 1."""
        return int(self.uniform(0, bound))
