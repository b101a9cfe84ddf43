"""Track scores as tables of text, ready to be set in HTML, Markdown or a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import pandas as pd

from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore

MISSING = "–"
INCOMPLETE = "†"
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Grid:
    """A table of text: `rows` are as long as `header`; `numeric` says which columns hold numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]


def is_missing(value: object) -> bool:
    """Whether `value` is None, NaN or another of pandas' empty values."""
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def score_of(score: TrackScore, algorithm: str) -> float | None:
    """The overall metric of `algorithm`, or None where the track has none or it is not a finite number."""
    value = score.scores.get(algorithm)
    return None if is_missing(value) or not math.isfinite(value) else float(value)


def algorithms(scores: Sequence[TrackScore]) -> list[str]:
    """All algorithms of the tracks, the baseline first, then in the order given."""
    keys = list(dict.fromkeys(key for score in scores for key in score.scores))
    return sorted(keys, key=lambda key: key != BASELINE)


def best(score: TrackScore) -> set[str]:
    """The algorithms with the highest overall metric, the baseline left out."""
    values = {key: score_of(score, key) for key in score.scores if key != BASELINE}
    found = [value for value in values.values() if value is not None]
    return {key for key, value in values.items() if found and value == max(found)}


def percent(score: TrackScore) -> dict[str, str]:
    """The overall metrics as percentages without the sign, to one digit, or to none from 1,000 % on."""
    values = {key: score_of(score, key) for key in score.scores}
    digits = 0 if any(value is not None and value >= 10 for value in values.values()) else 1
    return {key: MISSING if value is None else f"{100 * value:,.{digits}f}" for key, value in values.items()}


def figures(table: pd.DataFrame) -> Grid:
    """The figures of a track: numbers to a readable number of digits, identifiers in headings as words."""
    table = flat(table)
    columns = [_column(table.iloc[:, index].tolist()) for index in range(table.shape[1])]
    return Grid(
        header=[_heading(name) for name in table.columns],
        rows=list(zip(*(texts for texts, _ in columns), strict=True)),
        numeric=[numeric for _, numeric in columns],
    )


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its index, where it says something, as columns, and with one level of headings."""
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


def unscored(score: TrackScore, keys: Sequence[str]) -> list[str]:
    """The algorithms of `keys` that have no score."""
    return [key for key in keys if score_of(score, key) is None]


def gaps(score: TrackScore, keys: Sequence[str]) -> str | None:
    """A sentence that names the algorithms of `keys` without a score, and why; None when all have one."""
    missing = unscored(score, keys)
    if not missing:
        return None
    mentions = re.compile(rf"(?<!\w)({'|'.join(re.escape(key) for key in missing)})(?!\w)")
    reasons = [line for line in dict.fromkeys((*score.failures, *score.notes)) if mentions.search(line)]
    reasons = reasons or list(score.failures) or ["The track gives no reason."]
    shown, more = reasons[:_REASONS_SHOWN], len(reasons) - _REASONS_SHOWN
    if more > 0:
        shown.append(f"({more} more.)")
    return f"{score.title}: no score for {', '.join(missing)}. {' '.join(shown)}"


def partial(scores: Sequence[TrackScore]) -> str | None:
    """A sentence that names the incomplete tracks; None when all are complete."""
    names = [score.title for score in scores if not score.complete]
    if not names:
        return None
    return f"Covers only a part of what BiBench defines, which the notes of the track name: {', '.join(names)}."


def _column(values: Sequence[object]) -> tuple[list[str], bool]:
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


def named(mapping: Mapping[str, str], first: str, second: str) -> Grid:
    """A mapping as a table of two columns."""
    return Grid(
        header=[first, second],
        rows=[(str(key), str(value)) for key, value in mapping.items()],
        numeric=[False, False],
    )
