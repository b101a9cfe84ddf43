"""What a track hands to the report: one score per algorithm, a table, charts and the conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd


@dataclass(frozen=True)
class Chart:
    """A plot in plain data: named series of (x, y) points.

    `bars`: x is a category; `lines` and `points`: x is a number; `strip`: x is a category and every y one dot;
    `heat`: a row for each series, a column for each category x, and y the colour. `intervals` gives bars and
    lines what is shown around them: by series, (x, low, high).
    """

    kind: Literal["bars", "lines", "points", "strip", "heat"]
    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[str | float, float]]]
    intervals: Mapping[str, Sequence[tuple[str | float, float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A JPEG file to show as it is."""

    title: str
    file: Path


@dataclass(frozen=True)
class TrackScore:
    """The outcome of one track.

    `scores` maps each algorithm key to its overall metric (full precision scores 1) or to None where a part is
    missing. `table` holds the figures behind it, units in the column names. `complete` is False when the track
    covers only a part of what BiBench defines; `notes` then say which.
    """

    track: str
    title: str
    metric: str
    formula: str
    scores: Mapping[str, float | None]
    table: pd.DataFrame
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    failures: Sequence[str] = ()
    complete: bool = True
