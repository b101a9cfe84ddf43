"""Figures that others published, with where they stand: to show beside measured ones, never among them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class DeviceLatency:
    """A published latency of one image.

    Attributes:
        network: The network's name in its source, or one convolution with its input.
        family: The network of this package with the same convolutions; None where there is none.
        input: Height, width and channels.
        threads: None where the source does not say.
        latency_ms: Milliseconds.
        source: Repository, commit and file.
        note: Date and circumstances, as far as the source tells.
    """

    network: str
    family: str | None
    input: str
    device: str
    library: str
    threads: int | None
    latency_ms: float
    source: str
    note: str


def device_latency(family: str | None = None, input_shape: Iterable[int] | None = None) -> list[DeviceLatency]:
    """All published latencies, or those of one family of networks and one input shape."""
    text = resources.files(__name__).joinpath("device_latency.csv").read_text(encoding="utf-8")
    found = [_row(row) for row in csv.DictReader(text.splitlines())]
    size = None if input_shape is None else "x".join(map(str, input_shape))
    return [row for row in found if family in (None, row.family) and size in (None, row.input)]


def _row(row: dict[str, str]) -> DeviceLatency:
    return DeviceLatency(
        **{
            **row,
            "family": row["family"] or None,
            "threads": int(row["threads"]) if row["threads"] else None,
            "latency_ms": float(row["latency_ms"]),
        }
    )
