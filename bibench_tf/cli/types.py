"""The types of values on the command line: lists, parts, shapes, and numbers with a finite range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


class Names(click.ParamType):
    """A list with commas, each value made by `of`, a function or another type."""

    name = "names"

    def __init__(self, of: Callable[[str], Any] | click.ParamType = str) -> None:
        self._of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(self._of, click.ParamType):
            values = [self._of.convert(part, param, ctx) for part in parts]
        else:
            values = [self._of(part) for part in parts]
        return tuple(dict.fromkeys(values)) or self.fail("give at least one name", param, ctx)


class Finite(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value!r} is not a finite number", param, ctx)


class Shard(click.ParamType):
    """I/N, the I-th of N parts."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        part, _, parts = value.partition("/")
        whole = part.isascii() and part.isdigit() and parts.isascii() and parts.isdigit()
        if not (whole and len(parts) <= len(str(MOST)) and 1 <= int(part) <= int(parts)):
            self.fail(f"'{value}' is not I/N with I from 1 to N, such as 3/10", param, ctx)
        return int(part), int(parts)


class Shape(click.ParamType):
    """HEIGHTxWIDTHxCHANNELS."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sizes = value.lower().split("x")
        if not all(size.isascii() and size.isdigit() for size in sizes):
            self.fail("write HEIGHTxWIDTHxCHANNELS, such as 224x224x3", param, ctx)
        return tuple(_SIZE.convert(size, param, ctx) for size in sizes)


# The largest number that every library takes as a count.
MOST = 2**31 - 1
_SIZE = click.IntRange(1, 2**14)
COUNT = click.IntRange(1, MOST)
CLASSES = click.IntRange(2, 100_000)
THREADS = click.IntRange(1, 1024)
ROUNDS = click.IntRange(1, 10_000)
CORE = click.IntRange(0, 2**16)
# At most a week: a longer limit is none.
SECONDS = Finite(0, 7 * 24 * 3600)
TIME_LIMIT = Finite(1, 7 * 24 * 3600)
