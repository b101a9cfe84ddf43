"""A report as Markdown (GitHub's dialect, which has tables)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from bibench_tf.report import tables
from bibench_tf.report.scores import Report, TrackScore
from bibench_tf.report.tables import INCOMPLETE
from bibench_tf.report.wording import HOW_TO_READ, SOURCE
from bibench_tf.terminal import visible


def render(report: Report, files: Collection[str] = ()) -> str:
    """The whole report; plots and pictures are shown if their names (`<track>-<n>.svg`) are among `files`."""
    titles = tables.algorithms(report.scores)
    parts = [f"# {escape(report.title)}", HOW_TO_READ, *_overall(report.scores, titles)]
    parts.append(_list("Failures", report.failures))
    for score in report.scores:
        parts += _track(score, titles, files)
    if report.conditions:
        rows = [["condition", "value"], *([escape(str(cell)) for cell in row] for row in report.conditions.items())]
        parts += ["## Conditions", _table(rows, [False, False])]
    parts.append(SOURCE)
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """`text` on one line, with the special characters of Markdown and HTML escaped."""
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", visible(" ".join(text.split())))
    # Underscores inside a word are left alone by the dialect, and most names have some.
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return re.sub(r"^([#+-])(?=\s|#)", r"\\\1", text)


def code(text: str) -> str:
    """`text` as code, whatever it contains."""
    text = visible(" ".join(text.split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _table(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _overall(scores: Sequence[TrackScore], titles: Mapping[str, str]) -> Iterator[str]:
    if not scores:
        yield "No track was scored."
        return
    rows = [["algorithm", *(escape(score.title) + _mark(score) for score in scores)]]
    rows.append(["metric", *(escape(score.metric) for score in scores)])
    columns = [tables.cells(score, titles) for score in scores]
    for title, *row in zip(titles.values(), *columns, strict=True):
        rows.append([escape(title), *(f"**{cell.text}**" if cell.best else cell.text for cell in row)])
    yield "## Overall"
    yield _table(rows, [False] + [True] * len(scores))
    yield "\n".join(f"- {mark} {escape(line)}" for mark, line in tables.footnotes(scores))


def _track(score: TrackScore, titles: Mapping[str, str], files: Collection[str]) -> Iterator[str]:
    yield f"## {escape(score.title)}{_mark(score)}"
    yield f"**{escape(score.metric)}** = {code(score.formula)}"
    if missing := tables.unscored(score, titles):
        yield f"No score for {escape(', '.join(missing))}."
    if not score.table.empty:
        grid = tables.values(score.table)
        yield _table([[escape(text) for text in row] for row in (grid.header, *grid.rows)], grid.numeric)
    shown = [(f"{score.track}-{number}.svg", chart.title) for number, chart in enumerate(score.charts, 1)]
    shown += [(f"{score.track}-picture-{number}.jpg", one.title) for number, one in enumerate(score.pictures, 1)]
    for name, title in shown:
        if name in files:
            yield f"{escape(title)}\n\n![{escape(title)}]({name})"
    yield _list("Failures", score.failures)
    yield _list("Notes", score.notes)
    yield _list("Conditions", [f"{key}: {value}" for key, value in score.conditions.items()])


def _list(heading: str, lines: Sequence[str]) -> str:
    return "\n".join([f"**{heading}**\n", *(f"- {escape(line)}" for line in lines)]) if lines else ""


def _mark(score: TrackScore) -> str:
    return "" if score.complete else f" {INCOMPLETE}"
