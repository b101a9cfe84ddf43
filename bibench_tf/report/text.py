"""Track scores for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bibench_tf.report.scores import TrackScore
from bibench_tf.report.tables import MISSING, Grid, algorithms, best, figures, gaps, partial, percent

# A wider table of figures is turned on its side.
_WIDTH = 120


def to_text(scores: Sequence[TrackScore]) -> str:
    """The scores as an aligned table in percent of full precision, with footnotes; for one track its figures too.

    Plain ASCII but for names and notes, so that any terminal shows it: `*` marks the best binarized
    network, `+` a track that covers only a part, `-` a missing score.
    """
    if not scores:
        return "No track was scored."
    keys = algorithms(scores)
    header, columns = ["algorithm"], [keys]
    for score in scores:
        values, winners = percent(score), best(score)
        header.append(score.track if score.complete else f"{score.track}+")
        columns.append([("*" if key in winners else "") + values.get(key, MISSING) for key in keys])
    overall = Grid(header, list(zip(*columns, strict=True)), [False] + [True] * len(scores))
    parts = [
        "Overall metrics in percent of full precision (100); more is better, * is the best.",
        _set(overall),
    ]
    if len(scores) == 1 and not scores[0].table.empty:
        grid = figures(scores[0].table)
        text = _set(grid)
        parts.append(text if text.index("\n") <= _WIDTH else _set(_turned(grid)))
    lines = [f"+ {line}" for line in [partial(scores)] if line]
    lines += [f"- {line}" for line in (gaps(score, keys) for score in scores) if line]
    if len(scores) == 1:
        lines += scores[0].notes
    if lines:
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _turned(grid: Grid) -> Grid:
    """The table with a row for each of its columns."""
    header, *rows = zip(grid.header, *grid.rows, strict=True)
    return Grid(header, rows, [False] + [True] * len(grid.rows))


def _set(grid: Grid) -> str:
    columns = [
        ["-" if text == MISSING else text.replace("±", "+-") for text in column]
        for column in zip(grid.header, *grid.rows, strict=True)
    ]
    for column, numeric in zip(columns, grid.numeric, strict=True):
        if not numeric:
            width = max(map(len, column))
            column[:] = [text.ljust(width) for text in column]
    header, *rows = zip(*columns, strict=True)
    return pd.DataFrame(rows, columns=list(header)).to_string(index=False)
