"""Reports of a benchmark: one HTML file, Markdown, and CSV and JSON files with the numbers behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bibench_tf.errors import BibenchError
from bibench_tf.report import colours, data, html, markdown
from bibench_tf.report.scores import TrackScore
from bibench_tf.report.tables import algorithms
from bibench_tf.report.text import to_text

__all__ = ["to_text", "write"]


def write(
    scores: Sequence[TrackScore],
    folder: Path,
    *,
    title: str,
    conditions: Mapping[str, str],
    failures: Sequence[str] = (),
) -> Path:
    """Write the report on `scores` into `folder` and return the path of `report.html`.

    Files: `report.html` (self-contained), `report.md` with its plots and pictures (`<track>-<n>.svg` and
    `<track>-picture-<n>.jpg`), `overall.csv` and
    `overall.json`, and `<track>.csv` and `<track>.json` for each track. `conditions` tell of the whole
    benchmark (hardware, versions), `failures` of what no single track knows. The same arguments give the
    same files, byte for byte. Everything is rendered before the first file is written, and each file is
    written atomically.

    Raises BibenchError for a folder that cannot be written, and for a track whose name cannot name its files.
    """
    _check_names(scores)
    files = _render(scores, title=title, conditions=conditions, failures=failures)
    for name, content in files.items():
        files.write_atomically(folder / name, lambda path, content=content: path.write_bytes(content))
    return folder / "report.html"


def _render(
    scores: Sequence[TrackScore], *, title: str, conditions: Mapping[str, str], failures: Sequence[str]
) -> dict[str, bytes]:
    from bibench_tf.report import charts  # matplotlib takes its time, and the terminal table needs none

    palette = colours.assign(algorithms(scores))
    texts = {"title": title, "conditions": conditions, "failures": failures}
    files = {"overall.csv": data.overall_csv(scores), "overall.json": data.overall_json(scores, **texts)}
    inline, names, pictures = {}, {}, {}
    images = {}
    for score in scores:
        files[f"{score.track}.csv"] = data.track_csv(score)
        files[f"{score.track}.json"] = data.track_json(score)
        stems = [f"{score.track}-{index}" for index in range(1, len(score.charts) + 1)]
        drawn = [charts.draw(chart, palette, stem) for chart, stem in zip(score.charts, stems, strict=True)]
        inline[score.track] = [charts.inline(svg) for svg in drawn]
        names[score.track] = [f"{stem}.svg" for stem in stems]
        files |= dict(zip(names[score.track], map(charts.standalone, drawn), strict=True))
        pictures[score.track] = [f"{score.track}-picture-{index}.jpg" for index in range(1, len(score.pictures) + 1)]
        images |= {name: one.file.read_bytes() for name, one in zip(pictures[score.track], score.pictures, strict=True)}
    files["report.md"] = markdown.render(scores, names, pictures, **texts)
    # Last, so that a report.html stands beside all that it tells of.
    files["report.html"] = html.render(scores, inline, palette, **texts)
    return images | {name: text.encode() for name, text in files.items()}


def _check_names(scores: Sequence[TrackScore]) -> None:
    taken = {"overall", "report"}
    for score in scores:
        if not re.fullmatch(r"[A-Za-z0-9_]+", score.track) or score.track in taken:
            raise BibenchError(
                f"A track called '{score.track}' cannot be reported: its name must be of letters, digits and "
                "underscores, and be the only one."
            )
        taken.add(score.track)
