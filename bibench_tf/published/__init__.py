"""Values that others published, with their sources: shown beside measured values, never mixed with them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import msgspec

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class DeviceLatency:
    """A published latency of one image.

    Attributes:
        network: The network's name in its source, or one convolution with its input.
        family: The network of this package with the same convolutions; None where there is none.
        input: Height, width and channels.
        threads: None where the source does not give it.
        latency_ms: Milliseconds.
        source: Repository, commit and file.
        note: Date and circumstances, as far as the source gives them.
    """

    network: str
    family: str | None
    input: str
    device: str
    library: str
    threads: int | None
    latency_ms: float
    source: str
    note: str | None


@dataclass(frozen=True)
class PublishedNetwork:
    """The published values of one network on ImageNet; None for a value that the source does not give.

    Attributes:
        network: The network's name in its source.
        builder: The network of this package, built with `algorithm` and `options` (`stem=grouped;width=0.5`).
        operations: Operations of one image, as the `convention` counts them; `macs_binary` and `macs_float` where the
            source separates them.
        size_bytes, size_mib: The parameters of the deployed network.
        parameters: With two numbers for each channel of a batch norm.
        convention: A name of `complexity.CONVENTIONS`, or that of a source whose rule is its own.
        source: Repository, commit and file.
    """

    network: str
    builder: str | None
    algorithm: str | None
    options: str | None
    input: str
    top1_percent: float
    top5_percent: float | None
    operations: float | None
    macs_binary: int | None
    macs_float: int | None
    size_bytes: int | None
    size_mib: float | None
    parameters: int | None
    convention: str | None
    source: str

    @property
    def builder_options(self) -> dict[str, Any]:
        """`options` as the builder takes them."""
        pairs = [part.split("=") for part in (self.options or "").split(";") if part]
        return {name: float(value) if name == "width" else value for name, value in pairs}

    @property
    def operations_64(self) -> float | None:
        """Operations with 64 binary ones for one: as published, or from the two kinds of multiply-accumulates."""
        if self.operations is not None or self.macs_binary is None or self.macs_float is None:
            return self.operations
        return self.macs_binary / 64 + self.macs_float

    @property
    def size_of_parameters_mib(self) -> float | None:
        """The size in MiB, from the bytes where these are known."""
        return self.size_mib if self.size_bytes is None else self.size_bytes / 2**20


def device_latency(family: str | None = None, input_shape: Iterable[int] | None = None) -> list[DeviceLatency]:
    """All published latencies, or those of one family of networks and one input shape."""
    found = _rows("device_latency.csv", DeviceLatency)
    size = None if input_shape is None else "x".join(map(str, input_shape))
    return [row for row in found if family in (None, row.family) and size in (None, row.input)]


def networks(builder: str | None = None) -> list[PublishedNetwork]:
    """The published values of all networks, or of one builder."""
    found = _rows("networks.csv", PublishedNetwork)
    return [row for row in found if builder in (None, row.builder)]


def _rows(name: str, kind: type[_Row]) -> list[_Row]:
    """The rows of a table of this package; an empty cell is None."""
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    rows = [{column: value or None for column, value in row.items()} for row in csv.DictReader(text.splitlines())]
    return msgspec.convert(rows, list[kind], strict=False)  # type: ignore[valid-type]
