"""A report as one HTML file that needs nothing else: no network, no script, plots drawn inline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bibench_tf import __version__
from bibench_tf.report import colours, tables, wording
from bibench_tf.report.scores import Report


def render(report: Report, plots: Mapping[str, Sequence[str]]) -> str:
    """The page; `plots` maps each track to its drawn charts, SVG elements for the inside of a page."""
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    titles = tables.algorithms(report.scores)
    palette = colours.assign(titles)
    columns = [tables.cells(score, titles) for score in report.scores]
    return environment.get_template("report.html").render(
        report=report,
        rows=[(title, palette[key], row) for (key, title), *row in zip(titles.items(), *columns, strict=True)],
        titles=titles,
        plots={track: [Markup(svg) for svg in drawn] for track, drawn in plots.items()},
        colours=colours,
        tables=tables,
        wording=wording,
        version=__version__,
    )
