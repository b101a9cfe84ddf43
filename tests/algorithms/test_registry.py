"""The registry of algorithms: order, options, and what is refused."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from bibench_tf import algorithms
from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.names import BASELINE, BIBENCH


def test_names_are_the_baseline_the_eight_and_the_others():
    assert algorithms.names() == [BASELINE, *BIBENCH, "abc", "wrpn"]
    assert algorithms.names("b*") == ["bnn", "bireal"]


def test_an_unknown_key_names_the_nearest_and_lists_all():
    with pytest.raises(BibenchError, match="Did you mean 'reactnet'") as error:
        algorithms.get("reaktnet")
    assert all(name in str(error.value) for name in algorithms.names())


def test_an_unknown_option_is_refused():
    with pytest.raises(InvalidOption, match="weight_scal"):
        algorithms.get("dorefa", weight_scal="layer")


def test_a_key_is_taken_once():
    @dataclass(frozen=True)
    class Other(algorithms.Algorithm):
        key: ClassVar[str] = "bnn"
        title: ClassVar[str] = "Other"
        paper: ClassVar[str] = ""

    with pytest.raises(BibenchError, match="is taken by bibench_tf.algorithms.bnn"):
        algorithms.register(Other)


def test_a_class_without_a_key_is_refused():
    class Nameless(algorithms.Algorithm):
        pass

    with pytest.raises(BibenchError, match="'key'"):
        algorithms.register(Nameless)


def test_a_misspelt_declaration_is_refused_when_the_class_is_defined():
    with pytest.raises(InvalidOption, match="'weight_limits'.*did you mean 'weight_limit'"):

        class Clipped(algorithms.Algorithm):
            weight_limits = 1.0
