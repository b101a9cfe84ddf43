"""Track scores for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bibench_tf.report import tables
from bibench_tf.report.scores import TrackScore
from bibench_tf.report.tables import INCOMPLETE, MISSING, Grid

# A wider table of values is transposed.
_WIDTH = 120
_ASCII = {INCOMPLETE: "+", MISSING: "-"}


def to_text(scores: Sequence[TrackScore]) -> str:
    """The scores as an aligned table in percent of full precision, with footnotes; for one track its values too.

    Plain ASCII except for titles and notes, so that any terminal shows it: `*` marks the best binarized network, `+` a
    track that covers only a part, `-` a missing score.
    """
    if not scores:
        return "No track was scored."
    scores = tables.titled(scores)
    titles = tables.algorithms(scores)
    columns = [[("*" if cell.best else "") + cell.text for cell in tables.cells(score, titles)] for score in scores]
    header = ["algorithm", *(score.track if score.complete else f"{score.track}+" for score in scores)]
    overall = Grid(header, list(zip(titles.values(), *columns, strict=True)), [False] + [True] * len(scores))
    parts = [
        "Overall metrics in percent of full precision (100); more is better, * is the best.",
        _set(overall),
    ]
    lines = [f"{_ASCII[mark]} {line}" for mark, line in tables.footnotes(scores)]
    if len(scores) == 1:
        (score,) = scores
        lines += score.notes
        if not score.table.empty:
            grid = tables.values(score.table)
            text = _set(grid)
            parts.append(text if text.index("\n") <= _WIDTH else _set(_turned(grid)))
    return "\n\n".join([*parts, "\n".join(lines)]).rstrip("\n")


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
