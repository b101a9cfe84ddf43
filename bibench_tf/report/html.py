"""A report as one HTML file that needs nothing else: no network, no script, plots drawn inline."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from bibench_tf import __version__
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.report.style import CSS
from bibench_tf.report.tables import (
    INCOMPLETE,
    MISSING,
    Grid,
    algorithms,
    best,
    figures,
    gaps,
    partial,
    percent,
    score_of,
    unscored,
)
from bibench_tf.report.wording import HOW_TO_READ, SOURCE

# The page may style itself and nothing more, should a string ever get past the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(
    scores: Sequence[TrackScore],
    plots: Mapping[str, Sequence[str]],
    palette: Mapping[str, str],
    *,
    title: str,
    conditions: Mapping[str, str],
    failures: Sequence[str],
) -> str:
    """The whole report; `plots` maps a track to its SVG elements, `palette` algorithms to colours."""
    keys = algorithms(scores)
    sections = [_overall(scores, keys, palette)]
    sections += [_track(score, plots[score.track], keys) for score in scores]
    if conditions:
        sections.append(f'<section id="conditions"><h2>Conditions</h2>{_definitions(conditions)}</section>')
    links = "".join(f'<a href="#track-{escape(score.track)}">{escape(score.title)}</a>' for score in scores)
    links += '<a href="#conditions">Conditions</a>' if conditions else ""
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>
{CSS}
</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="soft">{escape(HOW_TO_READ)}</p>
<nav>{links}</nav>
{_failures(failures)}
</header>
{body}
<footer><p>{escape(SOURCE)}</p><p>bibench-tf {escape(__version__)}</p></footer>
</body>
</html>
"""


def _overall(scores: Sequence[TrackScore], keys: Sequence[str], palette: Mapping[str, str]) -> str:
    if not scores:
        return '<section id="overall"><h2>Overall</h2><p>No track was scored.</p></section>'
    head = "".join(
        f'<th scope="col" class="num">{escape(score.title)}{"" if score.complete else f"&nbsp;{INCOMPLETE}"}'
        f"<small>{escape(score.metric)}</small></th>"
        for score in scores
    )
    columns = [_cells(score, keys) for score in scores]
    rows = "\n".join(
        f'<tr><th scope="row">{_dot(key, palette)}{escape(key)}</th>{"".join(cells)}</tr>'
        for key, *cells in zip(keys, *columns, strict=True)
    )
    notes = [f"{INCOMPLETE} {line}" for line in [partial(scores)] if line]
    notes += [f"{MISSING} {line}" for line in (gaps(score, keys) for score in scores) if line]
    lines = "".join(f'<p class="soft">{escape(line)}</p>' for line in notes)
    return (
        '<section id="overall" class="overall"><h2>Overall</h2>\n<div class="wide"><table>'
        f'<thead><tr><th scope="col">Algorithm</th>{head}</tr></thead>\n<tbody>\n{rows}\n'
        f"</tbody></table></div>\n{lines}</section>"
    )


def _cells(score: TrackScore, keys: Sequence[str]) -> list[str]:
    texts, winners = percent(score), best(score)
    values = {key: score_of(score, key) for key in keys}
    longest = max((value for value in values.values() if value is not None), default=0)
    cells = []
    for key in keys:
        if values[key] is None:
            cells.append(f'<td class="num none">{MISSING}</td>')
            continue
        text = f"<strong>{texts[key]}</strong>" if key in winners else texts[key]
        share = max(values[key] / longest, 0) if longest > 0 else 0
        cells.append(f'<td class="num bar" style="--share:{share:.3f}">{text}</td>')
    return cells


def _dot(key: str, palette: Mapping[str, str]) -> str:
    if key == BASELINE:
        return '<span class="dot ring"></span>'
    return f'<span class="dot" style="background:{palette[key]}"></span>'


def _track(score: TrackScore, plots: Sequence[str], keys: Sequence[str]) -> str:
    badge = "" if score.complete else f'<span class="badge">{INCOMPLETE} partial</span>'
    parts = [
        f"<h2>{escape(score.title)}{badge}</h2>",
        f"<p><b>{escape(score.metric)}</b> = <code>{escape(score.formula)}</code></p>",
    ]
    if missing := unscored(score, keys):
        parts.append(f'<p class="soft">No score for {escape(", ".join(missing))}.</p>')
    parts.append(_failures(score.failures))
    if not score.table.empty:
        parts.append(_table(figures(score.table)))
    for chart, plot in zip(score.charts, plots, strict=True):
        parts.append(f"<figure><figcaption>{escape(chart.title)}</figcaption>{plot}</figure>")
    for picture in score.pictures:
        content = base64.b64encode(picture.file.read_bytes()).decode("ascii")
        title = escape(picture.title)
        image = f'<img alt="{title}" src="data:image/jpeg;base64,{content}">'
        parts.append(f"<figure><figcaption>{title}</figcaption>{image}</figure>")
    if score.notes:
        parts.append(f"<h3>Notes</h3>{_list(score.notes)}")
    if score.conditions:
        parts.append(f"<h3>Conditions</h3>{_definitions(score.conditions)}")
    body = "\n".join(part for part in parts if part)
    return f'<section id="track-{escape(score.track)}">{body}</section>'


def _table(grid: Grid) -> str:
    kinds = [' class="num"' if numeric else "" for numeric in grid.numeric]
    head = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for kind, text in zip(kinds, grid.header, strict=True))
    rows = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{escape(text)}</td>" for kind, text in zip(kinds, row, strict=True)) + "</tr>"
        for row in grid.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def _failures(lines: Sequence[str]) -> str:
    return f'<div class="box"><h3>Failures</h3>{_list(lines)}</div>' if lines else ""


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _definitions(conditions: Mapping[str, str]) -> str:
    return (
        "<dl>"
        + "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in conditions.items())
        + "</dl>"
    )
