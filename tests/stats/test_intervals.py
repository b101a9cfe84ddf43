"""Metrics over seeds: intervals against SciPy and by hand, ties, and the spread over settings apart from seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bibench_tf.stats import bootstrap, intervals
from bibench_tf.stats.intervals import Estimate

# t for 95 % on both sides, from a printed table: 1 and 2 degrees of freedom.
T = {2: 12.706, 3: 4.303}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_interval_of_a_mean_is_that_of_scipy(count):
    values = np.random.default_rng(count).normal(3, 2, count)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    found = intervals.mean(values.tolist())
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_t_is_that_of_the_tables():
    assert {count: intervals.t_value(count) for count in T} == pytest.approx(T, abs=1e-3)


def test_the_jackknife_of_a_ratio_by_hand():
    above, below = [2.0, 4.0, 9.0], [1.0, 2.0, 3.0]

    def ratio(chosen):
        return sum(above[i] for i in chosen) / sum(below[i] for i in chosen)

    found = intervals.jackknife(ratio, 3)
    # 15/6; without one: 13/5, 11/4, 6/3. Pseudo-values 3 * 2.5 - 2 * each: 2.3, 2.0, 3.5; their deviation 0.7937.
    assert found.value == 2.5
    assert found.half_width == pytest.approx(T[3] * 0.793725 / math.sqrt(3), rel=1e-3)
    assert (found.low, found.high) == (found.value - found.half_width, found.value + found.half_width)


def test_equal_seeds_leave_an_interval_of_no_width():
    assert intervals.mean([0.3, 0.3, 0.3]).half_width == pytest.approx(0, abs=1e-12)


def test_one_seed_has_no_interval():
    assert intervals.mean([0.7]) == Estimate(0.7)
    assert (Estimate(0.7).low, Estimate(0.7).high) == (None, None)
    with pytest.raises(ValueError, match="no draws"):
        intervals.mean([])


def test_a_metric_that_is_undefined_without_one_seed_keeps_its_value_and_has_no_interval():
    def metric(chosen):
        if len(chosen) < 3:
            raise ValueError("too few")
        return 5.0

    assert intervals.jackknife(metric, 3) == Estimate(5.0)
    with pytest.raises(ValueError, match="too few"):
        intervals.jackknife(metric, 2)


def test_overlapping_intervals_tie():
    estimates = [Estimate(1.0, 0.1), Estimate(1.15, 0.1), Estimate(1.5, 0.1), Estimate(0.2)]
    larger = intervals.better(estimates)
    # Only the third lies above others: above the first two. The one without an interval differs from none.
    assert np.argwhere(larger).tolist() == [[2, 0], [2, 1]]
    assert [bootstrap.rank_text(places) for places in bootstrap.ranks(larger)] == ["2-4", "2-4", "1-2", "1-4"]


def test_intervals_that_touch_and_equal_ones_tie():
    assert not intervals.better([Estimate(1.0, 0.5), Estimate(2.0, 0.5)]).any()
    assert not intervals.better([Estimate(1.0, 0.0), Estimate(1.0 + 1e-16, 0.0), Estimate(1.0)]).any()
    assert intervals.better([Estimate(1.0, 0.5), Estimate(2.01, 0.5)]).tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize(
    ("deviation", "settings", "seeds"),
    # Means 1 to 4 have the variance 5/3. Seeds at +-d, the signs turned for two of four settings: within a setting
    # 2 d^2; no seed is better overall, so the residual mean square is 8 d^2 / 3, of which a half is subtracted.
    [
        (0.0, math.sqrt(5 / 3), 0.0),
        (0.5, math.sqrt(4 / 3), math.sqrt(0.5)),
        (math.sqrt(1.25), 0.0, math.sqrt(2.5)),
        (2.0, 0.0, math.sqrt(8)),
    ],
)
def test_the_spread_by_hand(deviation, settings, seeds):
    signs = (1, -1, -1, 1)
    values = np.array(
        [[mean - sign * deviation, mean + sign * deviation] for mean, sign in zip((1, 2, 3, 4), signs, strict=True)]
    )
    found = intervals.spread(values)
    assert (found.settings, found.seeds) == pytest.approx((settings, seeds), abs=1e-7)


def test_a_seed_that_is_worse_under_every_setting_takes_nothing_from_the_settings():
    values = np.array([[mean - 5.0, mean + 5.0] for mean in (1.0, 2.0, 3.0)])
    found = intervals.spread(values)
    assert (found.settings, found.seeds) == pytest.approx((1.0, math.sqrt(50)))


def test_the_spread_of_constructed_values_is_found_again():
    random = np.random.default_rng(0)
    values = 50 + random.normal(0, 3, (5000, 1)) + random.normal(0, 1, (5000, 3))
    found = intervals.spread(values)
    assert found.settings == pytest.approx(3, rel=0.04) and found.seeds == pytest.approx(1, rel=0.04)
    # The plain variance of means would count a third of the variance over seeds to the settings.
    assert values.mean(axis=1).var(ddof=1) > found.settings**2 + 0.25


def test_the_spread_is_found_again_where_seeds_have_an_effect_of_their_own():
    random = np.random.default_rng(2)
    settings, seeds = random.normal(0, 3, (2000, 8, 1)), random.normal(0, 4, (2000, 1, 5))
    found = [intervals.spread(each) for each in 50 + settings + seeds + random.normal(0, 1, (2000, 8, 5))]
    # Variances, which the method of moments does not bias: 9, and 16 + 1.
    assert np.mean([each.settings**2 for each in found]) == pytest.approx(9, rel=0.05)
    assert np.mean([each.seeds**2 for each in found]) == pytest.approx(17, rel=0.05)


def test_seeds_alone_are_not_taken_for_settings():
    values = np.random.default_rng(1).normal(70, 2, (400, 4))
    found = intervals.spread(values)
    assert found.seeds == pytest.approx(2, rel=0.1) and found.settings < 0.5


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (3,)])
def test_one_seed_or_one_setting_cannot_be_separated(shape):
    with pytest.raises(ValueError, match="two of each"):
        intervals.spread(np.zeros(shape))
