"""Metrics on arrays against the metrics of each resample; exact sums and powers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bibench_tf.stats import arrays, metrics

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 3, 7), (1, 1)])
def test_means_are_those_of_the_rows_to_the_last_digit(shape):
    values = RANDOM.random(shape)
    rows = values.reshape(-1, shape[-1])
    for function, reference in ((arrays.mean, metrics.architecture_group_mean), (arrays.quadratic_mean,) * 2):
        assert function(values).shape == shape[:-1]
        assert function(values).ravel().tolist() == [float(reference(row)) for row in rows]


def test_sums_are_exact():
    assert arrays.mean([[1e16, 1.0, -1e16, 1.0]]).tolist() == [0.5]


def test_corruption_metrics_over_resamples_are_the_metrics_of_each():
    names, (own, baseline) = ("fog", "snow", "blur"), RANDOM.random((2, 3, 20, 4))
    clean, clean_baseline = -RANDOM.random((2, 20))
    found = (
        arrays.om_robust(baseline, own),
        arrays.mean_corruption_error(own, baseline),
        arrays.relative_mean_corruption_error(clean + 1, own + 1, clean_baseline + 1, baseline + 1),
    )
    for draw in range(20):
        one, other = ({name: rows[draw] for name, rows in zip(names, each, strict=True)} for each in (own, baseline))
        raised = [{name: rows + 1 for name, rows in each.items()} for each in (one, other)]
        assert [values[draw] for values in found] == [
            metrics.om_robust(other, one),
            metrics.mean_corruption_error(one, other),
            metrics.relative_mean_corruption_error(clean[draw] + 1, raised[0], clean_baseline[draw] + 1, raised[1]),
        ]


def test_what_is_undefined_is_not_finite():
    assert arrays.quadratic_mean([[1.0, math.inf], [0.0, 0.0]]).tolist() == [math.inf, 0.0]
    assert np.isnan(arrays.quadratic_mean([1.0, math.nan, math.inf]))
    assert arrays.om_robust([[[0.1], [0.0]]], [[[0.0], [0.0]]]).tolist() == [math.inf, 1.0]
    assert np.isinf(arrays.mean_corruption_error([[0.2]], [[0.0]]))
    assert np.isnan(arrays.relative_mean_corruption_error(0.1, [[0.2]], 0.2, [[0.2]]))
    assert arrays.gap([1.2, 1.0, 0.25, math.nan]).tolist()[:3] == [0.0, 0.0, 0.75]
