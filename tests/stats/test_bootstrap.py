from __future__ import annotations

import itertools

import numpy as np
import pytest

from bibench_tf.stats import bootstrap


def answers(count, accuracies, seed, shared=0.0):
    """Right answers bool [count, K]; with probability `shared` an image is easy or hard for all networks alike."""
    random = np.random.default_rng(seed)
    difficulty = random.random((count, 1))
    own = random.random((count, len(accuracies)))
    alike = random.random((count, 1)) < shared
    return np.where(alike, difficulty, own) < np.asarray(accuracies)


def told_apart(right, **options):
    return bootstrap.better(right.mean(axis=0), bootstrap.resampled_means(right, **options))


def test_draws_are_seeded_and_do_not_depend_on_the_columns_or_the_chunks(monkeypatch):
    values = np.random.default_rng(0).random((50, 3))
    once = bootstrap.resampled_means(values, resamples=40, seed=1)
    assert once.shape == (40, 3)
    np.testing.assert_array_equal(once, bootstrap.resampled_means(values, resamples=40, seed=1))
    assert not np.array_equal(once, bootstrap.resampled_means(values, resamples=40, seed=2))
    np.testing.assert_allclose(bootstrap.resampled_means(values[:, 1:], resamples=40, seed=1), once[:, 1:], rtol=1e-12)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 150)
    np.testing.assert_allclose(bootstrap.resampled_means(values, resamples=40, seed=1), once, rtol=1e-12)


def test_resamples_are_means_of_drawn_rows():
    # Of two rows, a draw of two holds the second one 0, 1 or 2 times, in the ratio 1 : 2 : 1.
    means = bootstrap.resampled_means(np.array([[0.0, 5.0], [1.0, 5.0]]), resamples=8000)
    found, counts = np.unique(means[:, 0], return_counts=True)
    np.testing.assert_array_equal(found, [0, 0.5, 1])
    np.testing.assert_allclose(counts / 8000, [0.25, 0.5, 0.25], atol=0.02)
    assert (means[:, 1] == 5).all()


def test_rows_are_drawn_for_all_columns_together():
    right = answers(200, [0.6, 0.6], seed=3)
    twice = bootstrap.resampled_means(np.concatenate([right, right, ~right], axis=1), resamples=100)
    np.testing.assert_allclose(twice[:, :2], twice[:, 2:4], rtol=1e-12)
    np.testing.assert_allclose(twice[:, :2] + twice[:, 4:], 1, rtol=1e-12)


def test_the_spread_is_the_standard_error():
    right = answers(400, [0.3], seed=4)
    share = right.mean()
    spread = bootstrap.resampled_means(right, resamples=8000).std()
    assert spread == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.04)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        bootstrap.resampled_means(np.zeros((0, 2)))


def test_an_interval_has_the_right_tails_and_may_be_unbounded():
    samples = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert bootstrap.interval(samples) == (25, 975)
    assert bootstrap.interval(samples, level=0.5) == (250, 750)
    samples[samples > 900] = np.inf
    assert bootstrap.interval(samples) == (25, np.inf)
    assert bootstrap.interval(np.full(9, 0.4)) == (0.4, 0.4)


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth, hits, runs = 0.7, 0, 400
    for seed in range(runs):
        right = answers(200, [truth], seed)
        low, high = bootstrap.interval(bootstrap.resampled_means(right, resamples=400, seed=seed)[:, 0])
        hits += low <= truth <= high
    # Four standard errors of a share of 95 % over 400 runs, and a little for 200 images being few.
    assert 0.90 <= hits / runs <= 0.985


def test_paired_differences_cover_the_truth_and_are_narrower_than_apart():
    hits, runs, paired, apart = 0, 300, [], []
    for seed in range(runs):
        right = answers(300, [0.6, 0.5], seed, shared=0.9)
        means = bootstrap.resampled_means(right, resamples=400, seed=seed)
        low, high = bootstrap.interval(means[:, 0] - means[:, 1])
        hits += low <= 0.1 <= high
        paired.append(high - low)
        alone = bootstrap.resampled_means(right, resamples=400, seed=seed + 10_000)
        low, high = bootstrap.interval(means[:, 0] - alone[:, 1])
        apart.append(high - low)
    assert 0.90 <= hits / runs <= 0.99
    assert np.mean(paired) < 0.6 * np.mean(apart)


def test_identical_networks_are_never_told_apart():
    for seed in range(20):
        right = answers(150, [0.5], seed)
        assert not told_apart(np.repeat(right, 4, axis=1), resamples=300).any()
    everything = np.ones((50, 3), bool)
    assert not told_apart(everything, resamples=100).any()


def test_equals_are_called_different_in_hardly_more_runs_than_the_level_allows():
    # Five networks, ten pairs: without the joint bound about three runs in ten would call some pair different.
    runs, false = 200, 0
    for seed in range(runs):
        right = answers(300, [0.6] * 5, seed, shared=0.5)
        false += told_apart(right, resamples=400, seed=seed).any()
    assert false / runs <= 0.12


def test_clear_differences_are_always_found():
    for seed in range(20):
        right = answers(500, [0.8, 0.5, 0.3], seed)
        np.testing.assert_array_equal(told_apart(right, resamples=400), np.triu(np.ones((3, 3), bool), 1))


def test_a_difference_without_any_spread_is_found():
    right = np.zeros((40, 2), bool)
    right[:, 0] = True
    np.testing.assert_array_equal(told_apart(right, resamples=100), [[False, True], [False, False]])


def test_pairing_finds_a_small_difference_that_apart_would_drown():
    random = np.random.default_rng(0)
    first = random.random(1000) < 0.5
    second = first | (random.random(1000) < 0.04)  # the same answers, and a few more
    assert told_apart(np.stack([first, second], axis=1))[1, 0]
    shuffled = np.stack([first, random.permutation(second)], axis=1)
    assert not told_apart(shuffled).any()


def test_metrics_without_a_value_are_not_told_apart_and_leave_the_others_alone():
    right = answers(500, [0.8, 0.3, 0.9], seed=0)
    observed, samples = right.mean(axis=0), bootstrap.resampled_means(right)
    alone = bootstrap.better(observed[:2], samples[:, :2])
    for value in (np.nan, np.inf):
        broken = samples.copy()
        broken[77, 2] = value
        larger = bootstrap.better(observed, broken)
        np.testing.assert_array_equal(larger[:2, :2], alone)
        assert alone[0, 1] and not larger[2].any() and not larger[:, 2].any()
    assert not bootstrap.better(np.array([0.8, 0.3, np.nan]), samples)[2].any()


def test_rounding_errors_are_no_differences():
    samples = np.full((200, 2), 0.5)
    samples[:, 1] += np.finfo(float).eps * np.random.default_rng(0).integers(-1, 2, 200)
    assert not bootstrap.better(np.array([0.5, 0.5 + 4e-16]), samples).any()


def test_ranks_have_ties():
    larger = np.zeros((4, 4), bool)
    larger[0, 1:] = True  # the first is better than all; of the rest only the second and the last differ
    larger[1, 3] = True
    places = bootstrap.ranks(larger)
    assert places == [(1, 1), (2, 3), (2, 4), (3, 4)]
    assert [bootstrap.rank_text(each) for each in places] == ["1", "2-3", "2-4", "3-4"]
    assert bootstrap.ranks(np.zeros((3, 3), bool)) == [(1, 3)] * 3


def test_ranks_are_those_of_the_metrics_where_all_differ():
    right = answers(2000, [0.3, 0.9, 0.6], seed=0)
    larger = told_apart(right, resamples=400)
    for one, other in itertools.permutations(range(3), 2):
        assert larger[one, other] == (right.mean(axis=0)[one] > right.mean(axis=0)[other])
    assert bootstrap.ranks(larger) == [(3, 3), (1, 1), (2, 2)]
