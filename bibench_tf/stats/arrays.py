"""Means and metrics of corruption robustness on arrays; leading dimensions are resamples.

An undefined value is NaN or infinite here; `metrics` raises Undefined in its place. An argument by corruption holds an
array for each, because each may have its own number of severities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike

_ByCorruption = Iterable[ArrayLike]


def mean(values: ArrayLike) -> np.ndarray:
    """The mean over the last axis [..., N] -> [...], from an exact sum."""
    return _reduce(lambda row: math.fsum(row) / len(row), values)


def quadratic_mean(values: ArrayLike) -> np.ndarray:
    """The quadratic mean sqrt( 1/N * sum_i v_i^2 ) over the last axis [..., N] -> [...], of values from 0 up."""

    def of_row(row: list[float]) -> float:
        largest = max(row)
        if largest == 0 or not all(map(math.isfinite, row)):
            return sum(row)
        # Scaled by the largest, so that squares neither overflow nor vanish.
        return largest * math.sqrt(math.fsum([(value / largest) ** 2 for value in row]) / len(row))

    return _reduce(of_row, values)


def gap(relative: ArrayLike) -> np.ndarray:
    """The gap G = max( 0, 1 - A_corrupted / A_clean ) of the relative accuracies A_corrupted / A_clean, elementwise."""
    return np.maximum(0.0, 1.0 - np.asarray(relative))


def om_robust(gaps_fp: _ByCorruption, gaps_bi: _ByCorruption) -> np.ndarray:
    """OM_robust [...] of the gaps [..., K] under each corruption; a ratio of two gaps of 0 counts as 1."""
    pairs = [np.broadcast_arrays(fp, bi) for fp, bi in zip(gaps_fp, gaps_bi, strict=True)]
    ratios = [mean(np.where((fp == 0) & (bi == 0), 1.0, _ratio(fp, bi))) for fp, bi in pairs]
    return quadratic_mean(np.stack(ratios, axis=-1))


def mean_corruption_error(errors: _ByCorruption, errors_baseline: _ByCorruption) -> np.ndarray:
    """The mCE [...] of the error rates [..., S] under each corruption."""
    pairs = zip(errors, errors_baseline, strict=True)
    return mean(np.stack([_ratio(_sum(own), _sum(baseline)) for own, baseline in pairs], axis=-1))


def relative_mean_corruption_error(
    clean: ArrayLike, errors: _ByCorruption, clean_baseline: ArrayLike, errors_baseline: _ByCorruption
) -> np.ndarray:
    """The relative mCE [...]; the error rates on clean images are [...], NaN where a corruption helps the baseline."""
    clean, clean_baseline = np.asarray(clean)[..., None], np.asarray(clean_baseline)[..., None]
    ratios = []
    for own, baseline in zip(errors, errors_baseline, strict=True):
        added = _sum(baseline - clean_baseline)
        ratios.append(_sum(own - clean) / np.where(added > 0, added, np.nan))
    return mean(np.stack(ratios, axis=-1))


def _sum(values: ArrayLike) -> np.ndarray:
    return _reduce(math.fsum, values)


def _ratio(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.divide(above, below)


def _reduce(reduce: Callable[[list[float]], float], values: ArrayLike) -> np.ndarray:
    """`reduce` of each row, itself if single. Rows are Python's floats: NumPy's sums and powers round differently."""
    values = np.asarray(values, np.float64)
    if values.shape[-1] == 1:
        return values[..., 0]
    rows = values.reshape(-1, values.shape[-1]).tolist()
    return np.array([reduce(row) for row in rows]).reshape(values.shape[:-1])
