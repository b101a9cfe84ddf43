"""Track scores as tables of text, ready to be set in HTML, Markdown or a terminal."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import pandas as pd

from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore

MISSING = "–"
INCOMPLETE = "†"
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Grid:
    """A table of text: `rows` are as long as `header`; `numeric` is true for columns of numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]


def is_missing(value: object) -> bool:
    """Whether `value` is None, NaN or another of pandas' empty values."""
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def score_of(score: TrackScore, algorithm: str) -> float | None:
    """The overall metric of `algorithm`, or None where the track has none or it is not a finite number."""
    value = score.scores.get(algorithm)
    return None if value is None or is_missing(value) or not math.isfinite(value) else float(value)


def algorithms(scores: Sequence[TrackScore]) -> dict[str, str]:
    """The titles of all algorithms of the tracks by key, the baseline first, then in the order given; all differ."""
    given = {key: title for score in scores for key, title in score.titles.items()}
    titles = {key: given.get(key, key) for score in scores for key in score.scores}
    shared = Counter(titles.values())
    return {
        key: titles[key] if shared[titles[key]] == 1 else f"{titles[key]} ({key})"
        for key in sorted(titles, key=lambda key: key != BASELINE)
    }


@dataclass(frozen=True)
class Cell:
    """One score: its text in percent, whether it is the best, and its share of the highest; None without a score."""

    text: str
    best: bool
    share: float | None


def cells(score: TrackScore, keys: Iterable[str]) -> list[Cell]:
    """The scores of `keys` to one digit, or to none from 1,000 % on; the baseline is never the best."""
    found = {key: score_of(score, key) for key in keys}
    known = {key: value for key, value in found.items() if value is not None}
    highest = max(known.values(), default=0.0)
    best = max((value for key, value in known.items() if key != BASELINE), default=None)
    digits = 0 if highest >= 10 else 1
    return [
        Cell(MISSING, False, None)
        if value is None
        else Cell(
            f"{100 * value:,.{digits}f}",
            key != BASELINE and value == best,
            max(value / highest, 0.0) if highest > 0 else 0.0,
        )
        for key, value in found.items()
    ]


def titled(scores: Sequence[TrackScore]) -> list[TrackScore]:
    """The scores for a reader: titles in place of keys in tables, in charts and at the start of sentences."""
    titles = algorithms(scores)
    first = re.compile(rf"^({'|'.join(map(re.escape, titles))})(?=[: ])")
    shown = []
    for score in scores:
        table = flat(score.table)
        if "algorithm" in table:
            table["algorithm"] = [titles.get(key, key) for key in table["algorithm"]]
        failures, notes = (
            [first.sub(lambda key: titles[key[0]], line) if titles else line for line in lines]
            for lines in (score.failures, score.notes)
        )
        charts = [chart.titled(titles) for chart in score.charts]
        shown.append(dataclasses.replace(score, table=table, charts=charts, failures=failures, notes=notes))
    return shown


def values(table: pd.DataFrame) -> Grid:
    """The table of a track: numbers to a readable number of digits, words in the headings."""
    columns = [_column(column.tolist()) for _, column in table.items()]
    return Grid(
        header=[_heading(name) for name in table.columns],
        rows=list(zip(*(texts for texts, _ in columns), strict=True)),
        numeric=[numeric for _, numeric in columns],
    )


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one level of headings; an index other than row numbers becomes columns."""
    if not isinstance(table.index, pd.RangeIndex) and len(table.index):
        names = [
            name or ("algorithm" if table.index.nlevels == 1 else f"level_{level}")
            for level, name in enumerate(table.index.names)
        ]
        table = table.reset_index(names=names)
    else:
        table = table.copy()
    table.columns = [
        " ".join(str(part) for part in name if str(part)) if isinstance(name, tuple) else str(name)
        for name in table.columns
    ]
    return table


def unscored(score: TrackScore, titles: Mapping[str, str]) -> list[str]:
    """The titles of the algorithms without a score."""
    return [title for key, title in titles.items() if score_of(score, key) is None]


def footnotes(scores: Sequence[TrackScore]) -> list[tuple[str, str]]:
    """Marks and sentences under the table of all scores: the incomplete tracks, and why scores are missing."""
    titles = algorithms(scores)
    partial = [score.title for score in scores if not score.complete]
    sentence = f"Covers only a part of the definition of BiBench, see the notes of the track: {', '.join(partial)}."
    missing = [(MISSING, _gaps(score, titles)) for score in scores if unscored(score, titles)]
    return [(INCOMPLETE, sentence), *missing] if partial else missing


def _gaps(score: TrackScore, titles: Mapping[str, str]) -> str:
    missing = unscored(score, titles)
    names = {**titles, **{title: title for title in titles.values()}}
    # The longest name first: XNOR-Net is no name in a sentence on XNOR-Net++.
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    mentions = re.compile(rf"(?<!\w)(?:{either})(?!\w)")
    lines = dict.fromkeys((*score.failures, *score.notes))
    reasons = [line for line in lines if any(names[name] in missing for name in mentions.findall(line))]
    reasons = reasons or list(score.failures) or ["The track gives no reason."]
    shown, more = reasons[:_REASONS_SHOWN], len(reasons) - _REASONS_SHOWN
    if more > 0:
        shown.append(f"({more} more.)")
    return f"{score.title}: no score for {', '.join(missing)}. {' '.join(shown)}"


def _column(values: Sequence[Any]) -> tuple[list[str], bool]:
    numbers = [value for value in values if not is_missing(value)]
    if numbers and all(isinstance(value, Real) and not isinstance(value, bool) for value in numbers):
        shape = template(numbers)
        return [MISSING if is_missing(value) else shape.format(value) for value in values], True
    return [_word(value) for value in values], False


def template(numbers: Sequence[float]) -> str:
    """The format that shows four digits of the largest number and two of the smallest."""
    if all(isinstance(value, Integral) for value in numbers):
        return "{:,}"
    sizes = [abs(value) for value in numbers if value and math.isfinite(value)] or [1.0]
    digits = max(3 - math.floor(math.log10(max(sizes))), 1 - math.floor(math.log10(min(sizes))), 0)
    return f"{{:,.{digits}f}}" if digits <= 5 else "{:.2e}"


def _heading(name: str) -> str:
    # `latency_ms` is read as words, `r_c` and `OM_task` as symbols, and what has spaces is words already.
    return name if " " in name else re.sub(r"(?<=[a-z\d]{2})_(?=[a-z\d]{2})", " ", name)


def _word(value: object) -> str:
    if is_missing(value):
        return MISSING
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
