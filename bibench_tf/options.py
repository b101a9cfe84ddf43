"""Options checked by their annotations: types, choices (`Literal`) and ranges, with one sentence for what does not fit.

An annotation may carry a range: `Count` and `Positive`, or `Annotated[float, msgspec.Meta(ge=0, description="...")]`
with the words for the sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import sys
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from bibench_tf.errors import InvalidOption

Count = Annotated[int, Meta(ge=1, description="an integer >= 1")]
Index = Annotated[int, Meta(ge=0, description="an integer >= 0")]
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max, description="a positive number")]
NotNegative = Annotated[float, Meta(ge=0, le=sys.float_info.max, description="a number >= 0")]
Fraction = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
BelowOne = Annotated[float, Meta(ge=0, lt=1, description="a number >= 0 and < 1")]

_WORDS = {bool: "True or False", int: "an integer", float: "a number", str: "a text", NoneType: "None"}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def check(owner: str, name: str, value: Any, annotation: Any) -> Any:
    """The value of the option `name` of `owner`, if it fits the annotation; else raises InvalidOption.

    Scalars of NumPy become Python's numbers, integers floats, lists tuples and texts paths, where the annotation says
    so; nothing else is converted, neither texts to numbers nor True to 1. NaN fits no annotation but `Any`. A union
    with a class takes every value.
    """
    if annotation is Any or _is_instance(value, annotation):
        return value
    try:
        found = msgspec.convert({"value": _plain(value)}, _holder(annotation), dec_hook=_path).value
    except TypeError:  # an annotation that msgspec does not know
        return value
    except msgspec.ValidationError:
        found = math.nan
    if _has_nan(found):
        raise InvalidOption(f"{owner}: {name} must be {_words(annotation)}, not {value!r}.")
    return tuple(found) if isinstance(value, tuple) and isinstance(found, list) else found


def check_fields(instance: Any, owner: str | None = None) -> None:
    """Check the fields of a dataclass instance by their annotations, and store them as `check` returns them.

    `owner` is the name of the instance in the sentence, by default that of its class. Raises InvalidOption.
    """
    cls: type = type(instance)
    annotations = _of_class(cls)
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        found = check(owner or cls.__name__, field.name, value, annotations[field.name])
        object.__setattr__(instance, field.name, found)


def checked(function: _Function) -> _Function:
    """A function, such as the `__init__` of a class, that checks its annotated arguments as `check` does."""
    signature = inspect.signature(function)
    owner = function.__qualname__.removesuffix(".__init__").rpartition(".")[2].lstrip("_")

    @cache
    def annotations() -> dict[str, Any]:  # when it is called, for names that its module defines later
        names = function.__globals__
        return {
            each.name: _resolved(each.annotation, names)
            for each in signature.parameters.values()
            if each.annotation is not each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        }

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # for Python's own error
        for name, annotation in annotations().items():
            if name in bound.arguments:
                bound.arguments[name] = check(owner, name, bound.arguments[name], annotation)
        return function(*bound.args, **bound.kwargs)

    wrapper.__signature__ = signature  # type: ignore[attr-defined]  # Keras asks for the arguments of an __init__
    return typing.cast(_Function, wrapper)


def _plain(value: Any) -> Any:
    """Python's number for a scalar of NumPy, also inside of lists and tuples."""
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def _is_instance(value: Any, annotation: Any) -> bool:
    """Whether a dataclass instance is of a class that the annotation names; msgspec does not know subclasses."""
    if not dataclasses.is_dataclass(value):
        return False
    return any(isinstance(kind, type) and isinstance(value, kind) for kind in (annotation, *get_args(annotation)))


def _has_nan(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_nan, value))
    return isinstance(value, float) and math.isnan(value)


@cache
def _holder(annotation: Any) -> Any:
    """A class with one field, for which msgspec keeps what it knows about the annotation."""
    return msgspec.defstruct("Holder", [("value", annotation)])


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, (str, os.PathLike)):
        return Path(value)
    raise ValueError(f"{value!r} is no {kind.__name__}")


@cache
def _of_class(cls: type) -> dict[str, Any]:
    return {
        name: _resolved(annotation, getattr(sys.modules.get(base.__module__), "__dict__", {}))
        for base in reversed(cls.__mro__)
        for name, annotation in vars(base).get("__annotations__", {}).items()
    }


def _resolved(annotation: Any, names: Mapping[str, Any]) -> Any:
    """An annotation, which may be a text, as a type; `Any` where it has a name that only type checkers know."""
    holder = type("Holder", (), {"__annotations__": {"value": annotation}})
    try:
        return typing.get_type_hints(holder, dict(names), include_extras=True)["value"]
    except NameError:
        return Any


def _words(annotation: Any) -> str:
    """What an annotation allows, for people."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        described = [each.description for each in arguments[1:] if isinstance(each, Meta) and each.description]
        return described[0] if described else _words(arguments[0])
    if get_origin(annotation) is Literal:
        return _listed([repr(each) for each in arguments])
    if get_origin(annotation) in (Union, UnionType):
        return _listed([_words(each) for each in arguments])
    if arguments:
        return str(annotation).removeprefix("typing.")
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
