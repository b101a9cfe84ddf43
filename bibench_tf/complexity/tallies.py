"""What a rule gets, a call of a layer, and what it gives; and products of sizes for rules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bibench_tf.complexity.costs import Macs

Shape = tuple[int | None, ...]


class Refused(Exception):
    """The reason why a layer cannot be counted: the end of a sentence that begins with the layer."""


@dataclass(frozen=True)
class Call:
    """One call of a layer: its shapes as Keras gives them, with the batch, and its arguments.

    The layer computes `samples` samples for one sample of the network, such as the regions of an image.
    """

    input_shapes: Any
    output_shapes: Any
    arguments: Sequence[Any] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1

    @property
    def inputs(self) -> list[Shape]:
        """The shapes of all inputs."""
        return _shapes(self.input_shapes)

    @property
    def outputs(self) -> list[Shape]:
        """The shapes of all outputs."""
        return _shapes(self.output_shapes)


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


def _shapes(shapes: Any) -> list[Shape]:
    if isinstance(shapes, Mapping):
        shapes = list(shapes.values())
    if isinstance(shapes, list) or isinstance(shapes, tuple) and shapes and isinstance(shapes[0], (tuple, list)):
        return [shape for part in shapes for shape in _shapes(part)]
    return [tuple(shapes)]
