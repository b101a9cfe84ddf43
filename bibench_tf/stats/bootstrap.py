"""The paired bootstrap over images: how much metrics depend on the choice of the test images.

N of the N images are drawn with replacement, and every metric is computed again from each draw (Efron and
Tibshirani 1993, "An introduction to the bootstrap"). One draw serves all networks and all corrupted versions of
an image: images that are hard for two networks alike do not blur the difference between the networks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95
# Indices drawn at once: 64 MB.
_AT_ONCE = 1 << 23
# A smaller difference is a rounding error; two accuracies differ by one image at least.
_ROUNDING = 1e-9


class Interval(NamedTuple):
    """The ends of a confidence interval; an end without a bound is infinite."""

    low: float
    high: float


def resampled_means(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The means of the columns of `values` [N, K] in each of `resamples` draws of rows: float64 [resamples, K].

    The draws depend on N, `resamples` and `seed` alone, not on the columns. Raises ValueError for N = 0.
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
    """The percentile interval of a metric over its resamples [B], which may be infinite, but not NaN."""
    tail = (1 - level) / 2
    low = np.quantile(samples, tail, method="lower")
    return Interval(float(low), float(np.quantile(samples, 1 - tail, method="higher")))


def better(observed: np.ndarray, samples: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Significance matrix bool [K, K]: `[i, j]` is true if metric i is significantly greater than metric j.

    `observed` [K] are the metrics of K networks, `samples` [B, K] the same in each resample, paired. The bounds of all
    differences hold jointly: with probability `level` no pair of equal networks is called different (the largest
    deviation of a difference from the observed one, in standard errors, over all pairs: Westfall and Young 1993,
    "Resampling-based multiple testing"). A metric that is not finite, in the data or in a resample, differs
    significantly from no other.
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
    # At least 1: without any spread, rounding errors would be compared with rounding errors.
    certain = np.abs(differences) / errors > max(np.quantile(largest, level), 1.0)
    up, down = certain & (differences > 0), certain & (differences < 0)
    larger[chosen[first[up]], chosen[second[up]]] = True
    larger[chosen[second[down]], chosen[first[down]]] = True
    return larger


def ranks(larger: np.ndarray) -> list[tuple[int, int]]:
    """The first and the last possible rank of each network, 1 the best, from the significance matrix [K, K]."""
    count = len(larger)
    return [(1 + int(larger[:, index].sum()), count - int(larger[index].sum())) for index in range(count)]


def rank_text(places: tuple[int, int]) -> str:
    """Possible ranks as text: `2`, or `2-5` for ranks 2 to 5."""
    first, last = places
    return str(first) if first == last else f"{first}-{last}"
