"""How far figures depend on which images were drawn: the paired bootstrap over images.

Images are drawn with replacement, as many as there are, and every figure is computed again from each draw
(Efron and Tibshirani 1993, "An introduction to the bootstrap"). One draw serves all networks and all corrupted
versions of an image, so that what two networks have in common does not blur the difference between them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95
# Draws made at once, in numbers: 64 MB of indices.
_AT_ONCE = 1 << 23
# Below this a difference is rounding error; accuracies are at least one image in many apart.
_ROUNDING = 1e-9


class Interval(NamedTuple):
    """The ends of a confidence interval; infinite where there is no bound."""

    low: float
    high: float


def resampled_means(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The means of the columns of `values` [N, K] in each of `resamples` draws of rows: float64 [resamples, K].

    The same number of rows, resamples and seed give the same draws, whatever the columns. Raises ValueError
    for no rows.
    """
    count = len(values)
    if count == 0:
        raise ValueError("There are no rows to draw from.")
    random = np.random.default_rng(seed)
    values = np.asarray(values, np.float64)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _AT_ONCE // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means[start : start + rows] = times @ values / count
    return means


def interval(samples: np.ndarray, level: float = LEVEL) -> Interval:
    """The percentile interval of one figure over its resamples [B], which may hold infinite values, but no NaN."""
    tail = (1 - level) / 2
    low = np.quantile(samples, tail, method="lower")
    return Interval(float(low), float(np.quantile(samples, 1 - tail, method="higher")))


def better(observed: np.ndarray, samples: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Which figures are larger than which others for certain: bool [K, K], [i, j] says i is larger than j.

    `observed` [K] are the figures of K networks, `samples` [B, K] the same in each resample, paired. The bounds of all
    differences hold together: with probability `level` no pair of equals is called different (the largest
    deviation of a difference from the observed one, in standard errors, over all pairs: Westfall and Young 1993,
    "Resampling-based multiple testing"). A figure that is not finite, in a resample too, is not told apart
    from any other.
    """
    larger = np.zeros((len(observed), len(observed)), bool)
    chosen = np.flatnonzero(np.isfinite(observed) & np.isfinite(samples).all(axis=0))
    if len(chosen) < 2:
        return larger
    first, second = np.triu_indices(len(chosen), 1)
    observed, samples = observed[chosen], samples[:, chosen]
    differences = observed[first] - observed[second]
    resampled = samples[:, first] - samples[:, second]
    errors = np.maximum(resampled.std(axis=0), _ROUNDING)
    largest = (np.abs(resampled - differences) / errors).max(axis=1)
    # At least one: where nothing varies, rounding errors would be compared with rounding errors.
    certain = np.abs(differences) / errors > max(np.quantile(largest, level), 1.0)
    up, down = certain & (differences > 0), certain & (differences < 0)
    larger[chosen[first[up]], chosen[second[up]]] = True
    larger[chosen[second[down]], chosen[first[down]]] = True
    return larger


def ranks(larger: np.ndarray) -> list[tuple[int, int]]:
    """The first and the last place each network may hold, 1 the best, from what `better` returns."""
    count = len(larger)
    return [(1 + int(larger[:, index].sum()), count - int(larger[index].sum())) for index in range(count)]


def rank_text(places: tuple[int, int]) -> str:
    """Places as text: `2`, or `2-5` for a network that may hold any of the places 2 to 5."""
    first, last = places
    return str(first) if first == last else f"{first}-{last}"
