"""Raw counts by layer and precision, and their sums. Conventions are derived from these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pandas as pd

Role = Literal["conv", "dense", "matmul", "recurrent", "other"]

# Numbers of more bits count as floats.
LOW_BITS = 8


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one pair of precisions; the second is that of the kernel, if there is one."""

    count: int
    input_bits: int
    kernel_bits: int

    @property
    def bits(self) -> int:
        """Bits of the larger operand."""
        return max(self.input_bits, self.kernel_bits)


@dataclass(frozen=True)
class Weights:
    """Deployed parameters of one precision."""

    count: int
    bits: int


class Cost:
    """The sums that follow from multiply-accumulates and weights by precision, of a layer or of a network."""

    mac_pairs: tuple[Macs, ...]
    weights: tuple[Weights, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of every precision."""
        return sum(macs.count for macs in self.mac_pairs)

    @property
    def macs_binary(self) -> int:
        """Multiply-accumulates of bits with bits."""
        return sum(macs.count for macs in self.mac_pairs if macs.bits == 1)

    @property
    def macs_low_bit(self) -> int:
        """Multiply-accumulates whose larger operand has 2 to 8 bits."""
        return sum(macs.count for macs in self.mac_pairs if 1 < macs.bits <= LOW_BITS)

    @property
    def macs_float(self) -> int:
        """Multiply-accumulates with an operand of more than 8 bits."""
        return sum(macs.count for macs in self.mac_pairs if macs.bits > LOW_BITS)

    @property
    def parameters(self) -> int:
        """Deployed parameters."""
        return sum(weights.count for weights in self.weights)

    @property
    def weights_binary(self) -> int:
        """Deployed parameters of one bit."""
        return sum(weights.count for weights in self.weights if weights.bits == 1)

    @property
    def weights_float(self) -> int:
        """Deployed parameters of more than one bit."""
        return self.parameters - self.weights_binary

    @property
    def bits(self) -> int:
        """The size of the deployed parameters in bits."""
        return sum(weights.count * weights.bits for weights in self.weights)


@dataclass(frozen=True)
class LayerCost(Cost):
    """The cost of one layer for one sample.

    `kind` is the class of the layer, `role` the kind of its multiply-accumulates. `mac_pairs` are those of all its
    `calls`, `other` the number of other float operations. `weights` are the deployed parameters; batch norm has two
    floats a channel, into which it folds. `weights_training` exist in training only and are part of no other count.
    """

    name: str
    kind: str
    role: Role
    calls: int
    mac_pairs: tuple[Macs, ...] = ()
    other: int = 0
    weights: tuple[Weights, ...] = ()
    weights_training: int = 0

    @property
    def mac_bits(self) -> int:
        """Bits of the largest operand; 0 for a layer without multiply-accumulates."""
        return max((macs.bits for macs in self.mac_pairs), default=0)

    @property
    def binary(self) -> bool:
        """Whether the layer has multiply-accumulates, all of bits with bits."""
        return self.mac_bits == 1


_COLUMNS = (
    *("name", "kind", "role", "calls", "mac_bits", "binary", "macs", "macs_binary", "macs_low_bit", "macs_float"),
    *("other", "weights_binary", "weights_float", "weights_training", "bits"),
)


@dataclass(frozen=True)
class ModelCost(Cost):
    """The cost of a network for one sample: its layers, and their sums."""

    layers: tuple[LayerCost, ...]

    @cached_property
    def mac_pairs(self) -> tuple[Macs, ...]:  # type: ignore[override]
        """All multiply-accumulates, by the precisions of both operands."""
        return joined(macs for layer in self.layers for macs in layer.mac_pairs)

    @cached_property
    def weights(self) -> tuple[Weights, ...]:  # type: ignore[override]
        """All deployed parameters, by precision."""
        return weights_of((weights.bits, weights.count) for layer in self.layers for weights in layer.weights)

    @property
    def other(self) -> int:
        """Float operations that are not multiply-accumulates."""
        return sum(layer.other for layer in self.layers)

    @property
    def weights_training(self) -> int:
        """Parameters that exist in training only."""
        return sum(layer.weights_training for layer in self.layers)

    @property
    def classifier(self) -> LayerCost | None:
        """The last layer with multiply-accumulates, if it is a dense one: some conventions leave it out."""
        last = next((layer for layer in reversed(self.layers) if layer.macs), None)
        return last if last is not None and last.role == "dense" else None

    def table(self) -> pd.DataFrame:
        """One row per layer, in the order of computation."""
        rows = [{name: getattr(layer, name) for name in _COLUMNS} for layer in self.layers]
        return pd.DataFrame(rows, columns=list(_COLUMNS))


def joined(parts: Iterable[Macs]) -> tuple[Macs, ...]:
    """The multiply-accumulates with one entry for each pair of precisions, the smallest first."""
    counts: Counter[tuple[int, int]] = Counter()
    for part in parts:
        counts[part.input_bits, part.kernel_bits] += part.count
    return tuple(Macs(count, *bits) for bits, count in sorted(counts.items()) if count)


def weights_of(parts: Iterable[tuple[int, int]]) -> tuple[Weights, ...]:
    """Weights from pairs of bits and a number of parameters, with one entry for each precision, the smallest first."""
    counts: Counter[int] = Counter()
    for bits, number in parts:
        counts[bits] += number
    return tuple(Weights(number, bits) for bits, number in sorted(counts.items()) if number)
