"""The sum that rules give, and the sizes they ask for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bibench_tf.complexity.costs import Macs


class Refused(Exception):
    """Why a layer cannot be counted: the end of a sentence that begins with the layer."""


@dataclass(frozen=True)
class Tally:
    """Multiply-accumulates, and float operations that are none."""

    macs: tuple[Macs, ...] = ()
    other: int = 0

    def __add__(self, more: Tally) -> Tally:
        return Tally(self.macs + more.macs, self.other + more.other)

    def times(self, number: int) -> Tally:
        """The same, `number` times."""
        macs = tuple(dataclasses.replace(part, count=number * part.count) for part in self.macs)
        return Tally(macs, number * self.other)


def known(sizes: Iterable[int | None]) -> int:
    """The product of sizes; raises Refused for an unknown one."""
    sizes = tuple(sizes)
    if None in sizes:
        raise Refused(f"works on an unknown size {sizes}: give the model an input shape.")
    return math.prod(sizes)


def elements(shapes: Iterable[Sequence[int | None]]) -> int:
    """The elements of all shapes (batch, ...), for one sample."""
    return sum(known(shape[1:]) for shape in shapes)
