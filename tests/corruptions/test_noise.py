"""The noises have the distributions they are defined by."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bibench_tf import corruptions

BOTH = [(table, severity) for table in corruptions.TABLES for severity in (1, 3, 5)]
EDGES = np.arange(1, 256)


def flat(level, count=8):
    return np.full((count, 64, 64, 3), level, np.uint8)


def parameter(name, table, severity):
    return corruptions.get(name).severities[table][severity - 1]


def fits(levels, below):
    """Whether uint8 `levels` come from the distribution whose share below level k is `below[k - 1]`, k = 1 to 255."""
    expected = np.diff(np.concatenate([[0], below, [1]])) * levels.size
    observed = np.bincount(levels.ravel(), minlength=256)
    rare = expected < 10
    assert observed[rare].sum() <= expected[rare].sum() + 5 * np.sqrt(expected[rare].sum()) + 2
    difference = ((observed - expected)[~rare] ** 2 / expected[~rare]).sum()
    assert difference < stats.chi2.ppf(1 - 1e-4, max(1, (~rare).sum() - 1)), (difference, (~rare).sum())


@pytest.mark.parametrize(("table", "severity"), BOTH)
@pytest.mark.parametrize("level", [20, 128, 250])
def test_gaussian_noise_is_normal(table, severity, level):
    std = 255 * parameter("gaussian_noise", table, severity)
    noisy = corruptions.apply("gaussian_noise", flat(level), severity, table=table)
    fits(noisy, stats.norm.cdf(EDGES, level, std))


@pytest.mark.parametrize(("table", "severity"), BOTH)
@pytest.mark.parametrize("level", [20, 128, 250])
def test_speckle_noise_is_normal_in_proportion(table, severity, level):
    std = level * parameter("speckle_noise", table, severity)
    noisy = corruptions.apply("speckle_noise", flat(level), severity, table=table)
    fits(noisy, stats.norm.cdf(EDGES, level, std))


@pytest.mark.parametrize(("table", "severity"), BOTH)
@pytest.mark.parametrize("level", [20, 128, 250])
def test_shot_noise_is_poisson(table, severity, level):
    photons = parameter("shot_noise", table, severity)
    noisy = corruptions.apply("shot_noise", flat(level), severity, table=table)
    # A level k or more needs at least k / 255 * photons photons; exact fractions, no rounding.
    needed = -(-EDGES * photons // 255)
    fits(noisy, stats.poisson.cdf(needed - 1, level / 255 * photons))


@pytest.mark.parametrize(("table", "severity"), BOTH)
def test_impulse_noise_hits_the_stated_share_evenly(table, severity):
    share = parameter("impulse_noise", table, severity)
    noisy = corruptions.apply("impulse_noise", flat(100), severity, table=table)
    assert set(np.unique(noisy)) == {0, 100, 255}
    observed = [np.sum(noisy == level) for level in (0, 100, 255)]
    assert stats.chisquare(observed, noisy.size * np.array([share / 2, 1 - share, share / 2])).pvalue > 1e-4


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "shot_noise", "impulse_noise"])
def test_pixels_channels_and_images_are_independent(name):
    noisy = corruptions.apply(name, flat(128), 5, table="imagenet").astype(float)
    noisy -= noisy.mean()
    shifted = [noisy[:-1] * noisy[1:], noisy[:, 1:] * noisy[:, :-1], noisy[:, :, 1:] * noisy[:, :, :-1]]
    shifted += [noisy[..., 0] * noisy[..., 1]]
    for product in shifted:
        assert abs(product.mean() / noisy.var()) < 5 / np.sqrt(product.size)
