"""A report as Markdown (GitHub's dialect, which has tables)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bibench_tf.report.scores import TrackScore
from bibench_tf.report.tables import (
    INCOMPLETE,
    MISSING,
    Grid,
    algorithms,
    best,
    figures,
    gaps,
    named,
    partial,
    percent,
    unscored,
)
from bibench_tf.report.wording import HOW_TO_READ, SOURCE


def render(
    scores: Sequence[TrackScore],
    plots: Mapping[str, Sequence[str]],
    pictures: Mapping[str, Sequence[str]],
    *,
    title: str,
    conditions: Mapping[str, str],
    failures: Sequence[str],
) -> str:
    """The whole report; `plots` and `pictures` map a track to the names of their files."""
    parts = [f"# {escape(title)}", HOW_TO_READ, _overall(scores)]
    parts += [_list("Failures", failures)]
    for score in scores:
        parts += _track(score, plots[score.track], pictures[score.track], algorithms(scores))
    if conditions:
        parts += ["## Conditions", table(named(conditions, "condition", "value"))]
    parts.append(SOURCE)
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown or HTML would take for a sign of its own."""
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", " ".join(text.split()))
    # Underscores inside a word are left alone by the dialect, and most names have some.
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return re.sub(r"^([#+-])(?=\s|#)", r"\\\1", text)


def code(text: str) -> str:
    """`text` as code, whatever it contains."""
    text = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def table(grid: Grid) -> str:
    """A table of texts that are escaped here."""
    return _table([[escape(text) for text in row] for row in [grid.header, *grid.rows]], grid.numeric)


def _table(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _overall(scores: Sequence[TrackScore]) -> str:
    if not scores:
        return "No track was scored."
    keys = algorithms(scores)
    rows = [["algorithm", *(escape(score.title) + _mark(score) for score in scores)]]
    rows.append(["metric", *(escape(score.metric) for score in scores)])
    cells = [(percent(score), best(score)) for score in scores]
    for key in keys:
        row = [(values.get(key, MISSING), key in winners) for values, winners in cells]
        rows.append([escape(key), *(f"**{text}**" if wins else text for text, wins in row)])
    notes = [f"- {INCOMPLETE} {escape(line)}" for line in [partial(scores)] if line]
    notes += [f"- {MISSING} {escape(line)}" for line in (gaps(score, keys) for score in scores) if line]
    return "\n\n".join(["## Overall", _table(rows, [False] + [True] * len(scores)), "\n".join(notes)]).strip()


def _track(score: TrackScore, plots: Sequence[str], pictures: Sequence[str], keys: Sequence[str]) -> list[str]:
    parts = [f"## {escape(score.title)}{_mark(score)}", f"**{escape(score.metric)}** = {code(score.formula)}"]
    if missing := unscored(score, keys):
        parts.append(f"No score for {escape(', '.join(missing))}.")
    if not score.table.empty:
        parts.append(table(figures(score.table)))
    shown = [*zip(score.charts, plots, strict=True), *zip(score.pictures, pictures, strict=True)]
    parts += [f"{escape(one.title)}\n\n![{escape(one.title)}]({name})" for one, name in shown]
    parts += [_list("Failures", score.failures), _list("Notes", score.notes)]
    parts.append(_list("Conditions", [f"{key}: {value}" for key, value in score.conditions.items()]))
    return parts


def _list(heading: str, lines: Sequence[str]) -> str:
    return "\n".join([f"**{heading}**\n", *(f"- {escape(line)}" for line in lines)]) if lines else ""


def _mark(score: TrackScore) -> str:
    return "" if score.complete else f" {INCOMPLETE}"
