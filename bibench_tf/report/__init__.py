"""Reports of a benchmark: one HTML file, Markdown, and CSV and JSON files with the numbers behind them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.files import write_atomically
from bibench_tf.report import colours, data, html, markdown
from bibench_tf.report.scores import Report, TrackScore
from bibench_tf.report.tables import algorithms, titled
from bibench_tf.report.text import to_text

__all__ = ["FORMS", "to_text", "write"]

FORMS = ("html", "md", "csv", "json", "svg", "jpg")


def write(
    scores: Sequence[TrackScore],
    folder: Path,
    *,
    title: str,
    conditions: Mapping[str, str],
    failures: Sequence[str] = (),
    forms: Collection[str] = FORMS,
) -> Path:
    """Write the report on `scores` into `folder` and return the path of `report.html`, else of the last file.

    Files: `report.html` (self-contained), `report.md` with its plots and pictures (`<track>-<n>.svg` and
    `<track>-picture-<n>.jpg`), `overall.csv` and `overall.json`, and `<track>.csv` and `<track>.json` for each track;
    of these the files with a suffix of `forms`. `conditions` describe the whole benchmark (hardware, versions),
    `failures` concern no single track. The same arguments give the same files, byte for byte. Everything is
    rendered before the first file is written, and each file is written atomically.

    Raises StorageError for a folder that cannot be written, InvalidOption for an unknown form, and BibenchError for a
    track whose name cannot name its files.
    """
    if unknown := set(forms) - set(FORMS):
        raise InvalidOption(f"A report has no form {', '.join(sorted(unknown))}. Forms: {', '.join(FORMS)}.")
    _check_names(scores)
    files = _render(Report(scores, title, conditions, failures), forms)
    for name, content in files.items():
        write_atomically(folder / name, partial(Path.write_bytes, data=content))
    return folder / next(reversed(files), "")


def _render(report: Report, forms: Collection[str]) -> dict[str, bytes]:
    """The files by name, `report.html` last: when it is there, all files are."""
    from bibench_tf.report import charts  # slow import of matplotlib, which the terminal table does not need

    files: dict[str, str | bytes] = {
        "overall.csv": data.overall_csv(report.scores),
        "overall.json": data.overall_json(report),
    }
    titles = algorithms(report.scores)
    shown = dataclasses.replace(report, scores=titled(report.scores))
    palette = {titles.get(key, key): colour for key, colour in colours.assign(titles).items()}
    plots: dict[str, list[str]] = {score.track: [] for score in report.scores}
    for score in report.scores:
        files |= {f"{score.track}.csv": data.track_csv(score), f"{score.track}.json": data.track_json(score)}
    for score in shown.scores:
        for number, chart in enumerate(score.charts if {"html", "svg"} & set(forms) else (), 1):
            svg = charts.draw(chart, palette, f"{score.track}-{number}")
            plots[score.track].append(svg)
            files[f"{score.track}-{number}.svg"] = charts.standalone(svg)
        for number, picture in enumerate(score.pictures, 1):
            files[f"{score.track}-picture-{number}.jpg"] = picture.file.read_bytes()
    files = {name: content for name, content in files.items() if name.rpartition(".")[2] in forms}
    if "md" in forms:
        files["report.md"] = markdown.render(shown, files)
    if "html" in forms:
        files["report.html"] = html.render(shown, plots)
    return {name: content if isinstance(content, bytes) else content.encode() for name, content in files.items()}


def _check_names(scores: Sequence[TrackScore]) -> None:
    taken = {"overall", "report"}
    for score in scores:
        if not re.fullmatch(r"[A-Za-z0-9_]+", score.track) or score.track in taken:
            raise BibenchError(
                f"A track called '{score.track}' cannot be reported: its name must be of letters, digits and "
                "underscores, and be the only one."
            )
        taken.add(score.track)
