"""The content of a report: for each track one score per algorithm, a table, charts and the conditions."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd


@dataclass(frozen=True)
class Chart:
    """A plot in plain data: named series of (x, y) points.

    `bars`: x is a category; `lines` and `points`: x is a number; `strip`: x is a category and every y one dot;
    `heat`: a row for each series, a column for each category x, and y the colour. `intervals` are shown as error bars
    of bars and as bands around lines: by series, (x, low, high).
    """

    kind: Literal["bars", "lines", "points", "strip", "heat"]
    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[str | float, float]]]
    intervals: Mapping[str, Sequence[tuple[str | float, float, float]]] = field(default_factory=dict)

    def titled(self, titles: Mapping[str, str]) -> Chart:
        """The same chart with titles in place of the keys of algorithms."""

        def titled(points: Mapping[str, Sequence[tuple]]) -> dict[str, list[tuple]]:
            return {titles.get(name, name): [(titles.get(x, x), *y) for x, *y in of] for name, of in points.items()}

        return dataclasses.replace(self, series=titled(self.series), intervals=titled(self.intervals))


@dataclass(frozen=True)
class Picture:
    """A JPEG file to show as it is."""

    title: str
    file: Path

    @property
    def base64(self) -> str:
        """The content of the file as Base64."""
        return base64.b64encode(self.file.read_bytes()).decode("ascii")


@dataclass(frozen=True)
class TrackScore:
    """The outcome of one track.

    `scores` maps each algorithm key to its overall metric (full precision scores 1) or to None if a part is missing.
    `table` holds the values behind the metric, units in the column names. `complete` is False if the track covers only
    a part of BiBench's definition; `notes` then name the part. `titles` of the algorithms, by key, are shown in place
    of keys in the scores, in columns and charts; an algorithm without a title is shown by its key. Failures and notes
    that explain a missing score name the algorithm by its key or its title.
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
    titles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The tracks, and what concerns no single track: conditions of the whole benchmark and failures."""

    scores: Sequence[TrackScore]
    title: str
    conditions: Mapping[str, str]
    failures: Sequence[str] = ()
