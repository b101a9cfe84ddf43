"""The result of a rule, and products of sizes for rules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bibench_tf.complexity.costs import Macs


class Refused(Exception):
    """The reason why a layer cannot be counted: the end of a sentence that begins with the layer."""


@dataclass(frozen=True)
class Tally:
    """Multiply-accumulates, and the number of other float operations."""

    macs: tuple[Macs, ...] = ()
    other: int = 0

    def __add__(self, more: Tally) -> Tally:
        return Tally(self.macs + more.macs, self.other + more.other)

    def times(self, number: int) -> Tally:
        """The tally of `number` repetitions."""
        macs = tuple(dataclasses.replace(part, count=number * part.count) for part in self.macs)
        return Tally(macs, number * self.other)


def known(sizes: Iterable[int | None]) -> int:
    """The product of sizes; raises Refused if one is None."""
    sizes = tuple(sizes)
    numbers = [size for size in sizes if size is not None]
    if len(numbers) < len(sizes):
        raise Refused(f"works on an unknown size {sizes}: give the model an input shape.")
    return math.prod(numbers)


def elements(shapes: Iterable[Sequence[int | None]]) -> int:
    """The number of elements of all shapes (batch, ...) for one sample."""
    return sum(known(shape[1:]) for shape in shapes)
