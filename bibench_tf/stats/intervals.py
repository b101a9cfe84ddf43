"""Figures over a few seeds: intervals, who is told apart from whom, and what spreads accuracy.

The rule for ranks is that of `bootstrap`: an algorithm is given every place that it may hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from bibench_tf.stats.bootstrap import LEVEL

# Below this a difference is rounding error.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds. The interval is `value` +- `half_width`, None where there is no interval."""

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
    """Standard deviations, in the unit of the values: of the settings' own effects, and of seeds within a setting."""

    settings: float
    seeds: float


def t_value(count: int, level: float = LEVEL) -> float:
    """How many standard errors Student's t puts on either side of a mean of `count` values."""
    return float(stdtrit(count - 1, (1 + level) / 2))


def jackknife(figure: Callable[[Sequence[int]], float], count: int, level: float = LEVEL) -> Estimate:
    """A figure of `count` draws, called with the indices of the draws it is to use, and its interval by the jackknife.

    With the pseudo-values p_i = N f(all) - (N - 1) f(all but i) the half-width is t std(p) / sqrt(N), t Student's with
    N - 1 degrees of freedom (Tukey 1958; Efron and Tibshirani 1993, chapter 11). Of a mean that is the usual t interval
    exactly. One draw has no interval, and neither has a figure that is undefined (ValueError) without one of the draws.
    Raises what `figure` raises for all draws, and ValueError for no draws.
    """
    if count < 1:
        raise ValueError("There are no draws.")
    everything = range(count)
    value = float(figure(everything))
    if count == 1:
        return Estimate(value)
    try:
        without = [float(figure([index for index in everything if index != left_out])) for left_out in everything]
    except ValueError:
        return Estimate(value)
    pseudo = count * value - (count - 1) * np.array(without)
    return Estimate(value, t_value(count, level) * float(pseudo.std(ddof=1)) / math.sqrt(count))


def mean(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """The mean and its t interval. Raises ValueError for no values."""
    return jackknife(lambda chosen: math.fsum(values[index] for index in chosen) / len(chosen), len(values), level)


def better(estimates: Sequence[Estimate | None]) -> np.ndarray:
    """Which figures are larger than which others for certain, for `bootstrap.ranks`: bool [K, K], [i, j] says i than j.

    Two are told apart where their intervals do not overlap, which asks for more than an interval of their difference
    would. A figure without an interval is told apart from none.
    """
    count = len(estimates)
    known = [None if each is None or each.half_width is None else each for each in estimates]
    larger = np.zeros((count, count), bool)
    for i, one in enumerate(known):
        for j, other in enumerate(known):
            larger[i, j] = one is not None and other is not None and one.low > other.high + _ROUNDING
    return larger


def spread(values: np.ndarray) -> Spread:
    """What spreads `values` [settings, seeds] apart, where every setting has the same seeds: by the method of moments.

    The seeds' is the root of the mean variance within settings. The settings' is that of a two-way random-effects
    model, max(0, (MS_settings - MS_residual) / S) with S seeds: what a seed does to all settings alike (it gives them
    the same initial weights) is in neither mean square, so it is not subtracted (Searle, Casella and McCulloch 1992,
    "Variance components", chapter 4). Raises ValueError with fewer than two settings or two seeds: one seed cannot be
    told apart from the settings.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError("Separating the spread over settings from that over seeds needs two of each.")
    settings, seeds = values.shape
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    residual = (residuals**2).sum() / ((settings - 1) * (seeds - 1))
    between = values.mean(axis=1).var(ddof=1) - residual / seeds
    return Spread(math.sqrt(max(0.0, between)), math.sqrt(values.var(axis=1, ddof=1).mean()))
