"""Metrics over a few seeds: confidence intervals, pairwise significance and variance components.

Ranks follow from the significance matrix as in `bootstrap.ranks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from bibench_tf.stats.bootstrap import LEVEL

# A smaller difference is a rounding error.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A metric over seeds. The interval is `value` +- `half_width`; None: there is no interval."""

    value: float
    half_width: float | None = None

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        return None if self.half_width is None else self.value + self.half_width


@dataclass(frozen=True)
class Spread:
    """Standard deviations, in the unit of the values: of the effects of settings, and of seeds within a setting."""

    settings: float
    seeds: float


def t_value(count: int, level: float = LEVEL) -> float:
    """Two-sided critical value of Student's t for a mean of `count` values."""
    return float(stdtrit(count - 1, (1 + level) / 2))


def jackknife(metric: Callable[[Sequence[int]], float], count: int, level: float = LEVEL) -> Estimate:
    """A metric of `count` draws, a function of the indices of draws to use, and its interval by the jackknife.

    With the pseudo-values p_i = N f(all) - (N - 1) f(all but i) the half-width is t std(p) / sqrt(N), t Student's with
    N - 1 degrees of freedom (Tukey 1958; Efron and Tibshirani 1993, chapter 11). For a mean this is exactly the usual t
    interval. There is no interval for one draw, nor if `metric` is undefined (ValueError) without one of the draws.
    Raises the error of `metric` for all draws, and ValueError for no draws.
    """
    if count < 1:
        raise ValueError("There are no draws.")
    everything = range(count)
    value = float(metric(everything))
    if count == 1:
        return Estimate(value)
    try:
        without = [float(metric([index for index in everything if index != left_out])) for left_out in everything]
    except ValueError:
        return Estimate(value)
    pseudo = count * value - (count - 1) * np.array(without)
    return Estimate(value, t_value(count, level) * float(pseudo.std(ddof=1)) / math.sqrt(count))


def mean(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """The mean and its t interval. Raises ValueError for no values."""
    return jackknife(lambda chosen: math.fsum(values[index] for index in chosen) / len(chosen), len(values), level)


def better(estimates: Sequence[Estimate | None]) -> np.ndarray:
    """Significance matrix bool [K, K]: `[i, j]` is true if estimate i is significantly greater than estimate j.

    Two estimates differ significantly if their intervals do not overlap, which is stricter than an interval of their
    difference. An estimate without an interval differs significantly from no other.
    """
    ends = [(None, None) if each is None else (each.low, each.high) for each in estimates]
    low, high = np.array(ends, np.float64).reshape(-1, 2).T
    return low[:, None] > high + _ROUNDING


def spread(values: np.ndarray) -> Spread:
    """Variance components of `values` [settings, seeds] by the method of moments; all settings have the same seeds.

    `seeds` is the root of the mean variance within settings. The variance of `settings` is that of a two-way
    random-effects model, max(0, (MS_settings - MS_residual) / S) with S seeds: the effect of a seed on all settings
    alike (they get the same initial weights) is in neither mean square and is not subtracted (Searle, Casella and
    McCulloch 1992, "Variance components", chapter 4). Raises ValueError with fewer than two settings or two seeds:
    the two effects cannot be separated.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError("Separating the spread over settings from that over seeds needs two of each.")
    settings, seeds = values.shape
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    residual = (residuals**2).sum() / ((settings - 1) * (seeds - 1))
    between = values.mean(axis=1).var(ddof=1) - residual / seeds
    return Spread(math.sqrt(max(0.0, between)), math.sqrt(values.var(axis=1, ddof=1).mean()))
