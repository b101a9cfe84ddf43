"""What a layer of this package computes, where that is not its kernel once for every position of the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Operations:
    """The operations of one call of a layer, for one sample.

    `macs` gives multiply-accumulates by the bits of the larger operand, `other` the float operations that are none.
    A layer tells them by a method `count_operations(input_shape, output_shape) -> Operations`, with the shapes Keras
    gives, the batch included; the weights it deploys, by bits, by `count_weights() -> Mapping[int, int]`. One whose
    outputs are more samples, or fewer, than it is given tells how many they are for one sample of the network by
    `count_samples(input_shape) -> int`: what it computes, and what is computed from it, counts so many times.
    """

    macs: Mapping[int, int]
    other: int = 0
