"""How far the outputs of two forms of a network are apart."""

from __future__ import annotations

import numpy as np

# Outputs that hardly depend on the example are compared with this share of their size: rounding is a hundredth of it.
_LEAST_SPREAD = 1e-3


def relative(expected: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The largest difference in the outputs (N, ..., C) of each example, relative to their spread: float64 [N].

    The spread is the range of an output over all examples and positions, the largest of the C ranges: a network that
    gives almost the same for every example has a small spread, whatever its class. The result is infinite for an
    example with an output that is not a finite number, and for all examples where the shapes differ.
    """
    expected, given = np.asarray(expected, np.float64), np.asarray(given, np.float64)
    if expected.shape != given.shape:
        return np.full(len(expected), np.inf)
    examples = [outputs.reshape(len(outputs), -1) for outputs in (expected, given)]
    finite = np.isfinite(examples).all(axis=(0, 2))
    outputs = expected[finite].reshape(-1, expected.shape[-1])
    if not len(outputs):
        return np.full(len(expected), np.inf)
    size = np.abs(outputs).max(initial=np.finfo(np.float64).tiny)
    spread = max(np.ptp(outputs, axis=0).max(), _LEAST_SPREAD * size)
    apart = np.full(len(expected), np.inf)
    apart[finite] = np.abs(examples[0][finite] - examples[1][finite]).max(axis=1) / spread
    return apart
