"""Differences between the outputs of two forms of a network."""

from __future__ import annotations

import numpy as np
import pytest

from bibench_tf import tasks
from bibench_tf.stats import differences

EXPECTED = np.array([[0.0, 100.0], [1.0, 100.0], [4.0, 102.0]])


def test_the_largest_difference_of_an_example_is_relative_to_the_range_over_examples():
    """Notices a range over all outputs, which is 102 here and hides everything."""
    given = EXPECTED + [[0.0, 0.0], [0.5, -1.0], [0.2, 0.0]]
    np.testing.assert_allclose(differences.relative(EXPECTED, given), [0, 1 / 4, 0.2 / 4])


def test_points_are_positions_and_not_classes():
    """Notices a range for each point of each example: it would be 0 for one example of many points."""
    points = EXPECTED[np.newaxis]
    np.testing.assert_allclose(differences.relative(points, points + 1), [1 / 4])


def test_outputs_that_do_not_depend_on_the_example_are_equal_up_to_rounding():
    """Notices a division by zero, and a tolerance of nothing, for a network that gives one answer."""
    constant = np.tile([3.0, -50.0], (4, 1))
    np.testing.assert_array_equal(differences.relative(constant, constant), np.zeros(4))
    assert differences.relative(constant, np.float32(constant * (1 + 1e-6))).max() < 1e-2
    assert differences.relative(constant, constant + 0.05).min() > 0.05
    np.testing.assert_array_equal(differences.relative(np.zeros((2, 2)), np.zeros((2, 2))), np.zeros(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["expected", "given", "both"])
def test_an_output_that_is_not_a_number_is_infinitely_far(where, bad):
    """Notices NaN that a comparison lets pass, and infinity that makes a range in which all else is equal."""
    forms = {"expected": EXPECTED.copy(), "given": EXPECTED + 0.4}
    for name in ("expected", "given") if where == "both" else (where,):
        forms[name][1, 0] = bad
    np.testing.assert_allclose(differences.relative(**forms), [0.1, np.inf, 0.1])
    assert tasks.get("image_classification").agreement(**forms) == pytest.approx(2 / 3)


def test_nothing_but_infinity_and_other_shapes_are_infinitely_far():
    """Notices shapes that NumPy would broadcast."""
    assert np.isinf(differences.relative(np.full((3, 2), np.nan), EXPECTED)).all()
    assert np.isinf(differences.relative(EXPECTED, EXPECTED[:, :1])).all()
    assert np.isinf(differences.relative(EXPECTED, EXPECTED[:1])).all()
