"""Options are checked by their annotations: what fits, what becomes of it, and the sentence for the rest."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from msgspec import Meta

from bibench_tf.errors import InvalidOption
from bibench_tf.options import Count, Fraction, NotNegative, Positive, check, check_fields, checked

if TYPE_CHECKING:
    from somewhere import Unknown

Level = Annotated[int, Meta(ge=2, le=4)]
FITTING = [
    (int, 3, 3),
    (int, np.int64(3), 3),
    (float, 3, 3.0),
    (float, np.float32(1.5), 1.5),
    (float, math.inf, math.inf),
    (bool, True, True),
    (bool, np.bool_(False), False),
    (str, "3", "3"),
    (Count, 1, 1),
    (Positive, 1e-9, 1e-9),
    (NotNegative, 0, 0.0),
    (Fraction, 1, 1.0),
    (Level, 4, 4),
    (Literal["a", "b"], "b", "b"),
    (Positive | None, None, None),
    (Path | None, "folder", Path("folder")),
    (tuple[int, ...], [1, np.int32(2)], (1, 2)),
    (tuple[int, int], (1, 2), (1, 2)),
    (Any, math.nan, math.nan),
    (str | Callable | None, len, len),
]
REFUSED = [
    (int, (3.0, "3", True, None, math.nan, np.float64(3), [3]), "an integer"),
    (float, ("3", True, None, math.nan, np.float32("nan"), 1j), "a number"),
    (bool, (0, 1, "no", None, np.int64(1)), "True or False"),
    (str, (3, None, b"3"), "a text"),
    (Count, (0, -1, True, 1.0, "1"), "an integer >= 1"),
    (Positive, (0, -1, math.nan, math.inf, True, "1"), "a positive number"),
    (NotNegative, (-1e-9, math.inf, math.nan), "a number >= 0"),
    (Fraction, (-0.1, 1.1, math.nan), "a number from 0 to 1"),
    (Level, (1, 5), "an integer"),
    (Literal["a", "b", "c"], ("A", "", None, 1), "'a', 'b' or 'c'"),
    (Positive | None, (0, "None"), "a positive number or None"),
    (Path, (3, None), "Path"),
    (tuple[float, ...], (3.0, (1.0, "2"), (1.0, math.nan), "12"), "tuple[float, ...]"),
    (tuple[int, int], ((1,), (1, 2, 3)), "tuple[int, int]"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), FITTING, ids=repr)
def test_what_fits(annotation, value, expected):
    """A value of another type, or an array's number that stays one, fails."""
    found = check("Thing", "option", value, annotation)
    assert type(found) is type(expected)
    np.testing.assert_equal(found, expected)


@pytest.mark.parametrize(
    ("annotation", "value", "words"), [(a, value, words) for a, values, words in REFUSED for value in values], ids=repr
)
def test_what_does_not_fit(annotation, value, words):
    with pytest.raises(InvalidOption) as error:
        check("Thing", "option", value, annotation)
    assert str(error.value) == f"Thing: option must be {words}, not {value!r}."


@dataclass(frozen=True)
class Base:
    sizes: tuple[int, ...] = (1,)
    kind: ClassVar[str] = "base"


@dataclass(frozen=True)
class Thing(Base):
    rate: Positive = 1
    unknown: Unknown = None
    anything: Any = None

    def __post_init__(self):
        check_fields(self)


def test_fields_are_checked_and_stored_as_declared():
    """Also those of a base class; one whose annotation only type checkers know takes every value."""
    thing = Thing([np.int64(2)], 2, math.nan, "x")
    assert (thing.sizes, thing.rate, thing.anything) == ((2,), 2.0, "x")
    assert type(thing.sizes[0]) is int and type(thing.rate) is float and math.isnan(thing.unknown)
    with pytest.raises(InvalidOption, match="Thing: sizes must be tuple"):
        Thing(sizes=("1",))
    with pytest.raises(InvalidOption, match="Thing: rate must be a positive number, not 0"):
        Thing(rate=0)
    object.__setattr__(thing, "rate", -1)
    with pytest.raises(InvalidOption, match="My thing: rate must be"):
        check_fields(thing, "My thing")


@dataclass(frozen=True)
class Derived(Base):
    more: int = 0


@pytest.mark.parametrize("annotation", [Base, Base | None, str | Base])
def test_instances_of_subclasses_fit(annotation):
    derived = Derived()
    assert check("Thing", "option", derived, annotation) is derived
    for value in (Plain(), Base, 3):
        with pytest.raises(InvalidOption):
            check("Thing", "option", value, annotation)


@dataclass
class Plain:
    sizes: tuple[int, ...] = ()


@checked
def built(count: Count, /, *more: Count, rate: Positive = 1, plain=None, **options: int) -> tuple:
    """The arguments."""
    return count, more, rate, plain, options


def test_arguments_are_checked_and_the_function_keeps_its_signature():
    assert built(np.int64(2), 0, rate=3, plain="x", other="y") == (2, (0,), 3.0, "x", {"other": "y"})
    assert (built.__doc__, built.__name__) == ("The arguments.", "built")
    assert [*inspect.signature(built).parameters] == ["count", "more", "rate", "plain", "options"]
    assert inspect.getfullargspec(built).kwonlyargs == ["rate", "plain"]
    for arguments, options in (((0,), {}), ((True,), {}), ((1,), {"rate": math.nan})):
        with pytest.raises(InvalidOption, match="built: (count|rate) must be"):
            built(*arguments, **options)
    with pytest.raises(TypeError, match=r"built\(\) missing 1 required positional argument: 'count'"):
        built()


def test_names_may_be_defined_after_the_function():
    @checked
    def later(value: Later) -> int:
        return value

    with pytest.raises(InvalidOption, match="later: value must be 'a', not 'b'"):
        later("b")


Later = Literal["a"]
