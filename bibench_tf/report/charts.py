"""Charts of a track as SVG, drawn with matplotlib and dressed so that they suit a light and a dark page."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bibench_tf.report import colours
from bibench_tf.report.scores import Chart
from bibench_tf.report.tables import is_missing, template

# Matplotlib needs real colours; this one becomes the colour of the surrounding text. It marks the baseline.
_INK = "#010203"
_RULE = "#808080"
_DARK, _LIGHT = "#030202", "#ffffff"
_MARKERS = "osD^vPXp<>h*d8"
_LABEL_LENGTH = 28
_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.color": _RULE,
    "ytick.labelcolor": _INK,
    "grid.color": _RULE,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # Fixed identifiers: the same chart is the same file.
    "svg.hashsalt": "bibench",
}

_Points = list[tuple[str | float, float]]
# The ends of the interval around a point, by series and x.
_Intervals = Mapping[tuple[str, str | float], tuple[float, float]]


def draw(chart: Chart, palette: Mapping[str, str], prefix: str) -> str:
    """The chart as one SVG element for the inside of an HTML page, whose text colour it takes.

    `palette` maps algorithms, as the chart names them, to colours (`colours.assign`); other names get colours of their
    own. `prefix` makes the identifiers in the element unique on the page. Points without a value are left out.
    """
    series = {name: _points(points) for name, points in chart.series.items()}
    series = {name: points for name, points in series.items() if points}
    # Bars and dots of a single series have the colour of their category if that is an algorithm.
    by_category = len(series) == 1 and chart.kind in ("bars", "strip")
    shown = [str(x) for points in series.values() for x, _ in points] if by_category else list(series)
    others = list(dict.fromkeys(name for name in shown if name not in palette))
    if by_category and len(others) == len(set(shown)):
        known = dict.fromkeys(others, colours.series(series)[next(iter(series))])
    else:
        known = {**palette, **colours.series(others)}
    paint = {name: _INK if colour == colours.TEXT else colour for name, colour in known.items()}
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        if not series:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no values", ha="center", va="center")
            return _svg(figure, chart.title, prefix)
        if chart.kind == "heat":
            _heat(axes, series, _label(chart.x_label), _printable(chart.y_label))
            return _svg(figure, chart.title, prefix)
        upright = _PLOTS[chart.kind](axes, series, paint, _intervals(chart))
        labels = [_label(chart.x_label), _label(chart.y_label)]
        axes.set_xlabel(labels[0] if upright else labels[1])
        axes.set_ylabel(labels[1] if upright else labels[0])
        if len(series) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
        return _svg(figure, chart.title, prefix)


def standalone(svg: str) -> str:
    """A drawn chart as a file of its own, dark on white on every page."""
    style = '<svg xmlns="http://www.w3.org/2000/svg" style="color: #22262b; background: #fff" '
    return svg.replace("<svg ", style, 1) + "\n"


def _bars(axes: Axes, series: Mapping[str, _Points], paint: Mapping[str, str], intervals: _Intervals) -> bool:
    categories = _categories(series)
    upright = _fit_side_by_side(categories, legend=len(series) > 1)
    thickness = 0.8 / len(series)
    bar = axes.bar if upright else axes.barh
    for index, (name, points) in enumerate(series.items()):
        shift = (index - (len(series) - 1) / 2) * thickness
        places = [categories[str(x)] + shift for x, _ in points]
        keys = [str(x) if len(series) == 1 else name for x, _ in points]
        errors: dict[str, Any] = {}
        if intervals:
            # The lengths below and above a bar; 0 without an interval.
            ends = [(y, *intervals.get((name, x), (y, y))) for x, y in points]
            lengths = [[max(y - low, 0.0) for y, low, _ in ends], [max(high - y, 0.0) for y, _, high in ends]]
            errors = {"yerr" if upright else "xerr": lengths, "ecolor": _INK}
        drawn = bar(places, [y for _, y in points], thickness * 0.92, label=_label(name), **errors)
        for patch, key in zip(drawn, keys, strict=True):
            patch.set_facecolor(paint[key])
            if paint[key] == _INK:
                patch.set(facecolor=(0.5, 0.5, 0.5, 0.18), edgecolor=paint[key], linestyle="--", linewidth=1)
        if len(series) == 1:
            shape = template([y for _, y in points])
            axes.bar_label(drawn, [shape.format(y) for _, y in points], padding=3, fontsize=8.5)
    _name_places(axes, categories, upright)
    if not upright:
        _resize(axes, max(2.4, 0.9 + len(categories) * max(0.3, 0.16 * len(series))))
        axes.invert_yaxis()
    axes.margins(x=0.02 if upright else 0.1, y=0.1 if upright else 0.02)
    return upright


def _lines(axes: Axes, series: Mapping[str, _Points], paint: Mapping[str, str], intervals: _Intervals) -> bool:
    for (name, points), marker in zip(series.items(), itertools.cycle(_MARKERS), strict=False):
        style: dict[str, Any] = {"linestyle": "--", "zorder": 3} if paint[name] == _INK else {}
        axes.plot(
            *zip(*points, strict=True),
            color=paint[name],
            marker=marker if len(points) <= 25 else None,
            markersize=4.5,
            linewidth=1.5,
            label=_label(name),
            **style,
        )
        if bounded := [(x, *intervals[name, x]) for x, _ in points if (name, x) in intervals]:
            x, low, high = zip(*bounded, strict=True)
            axes.fill_between(x, low, high, color=paint[name], alpha=0.15, linewidth=0)
    places = sorted({x for points in series.values() for x, _ in points})
    if len(places) <= 12 and all(float(x).is_integer() for x in places):
        axes.set_xticks(places)
    axes.grid(axis="y")
    return True


def _scatter(axes: Axes, series: Mapping[str, _Points], paint: Mapping[str, str], _: _Intervals) -> bool:
    for (name, points), marker in zip(series.items(), itertools.cycle(_MARKERS), strict=False):
        face = "none" if paint[name] == _INK else paint[name]
        axes.plot(
            *zip(*points, strict=True),
            linestyle="none",
            marker=marker,
            markersize=7.5,
            color=paint[name],
            markerfacecolor=face,
            label=_label(name),
        )
    axes.grid()
    axes.margins(0.1)
    return True


def _strip(axes: Axes, series: Mapping[str, _Points], paint: Mapping[str, str], _: _Intervals) -> bool:
    categories = _categories(series)
    upright = _fit_side_by_side(categories, legend=len(series) > 1)
    for category, place in categories.items():
        # One line from the lowest to the highest value, whatever series they are of.
        values = [y for points in series.values() for x, y in points if str(x) == category]
        ends, span = [min(values), max(values)], [place, place]
        axes.plot(*((span, ends) if upright else (ends, span)), color=paint.get(category, _RULE), alpha=0.5)
    one = len(series) == 1
    for index, (name, points) in enumerate(series.items()):
        # Side by side within a category, so that equal values of different series do not hide one another.
        shift = (index - (len(series) - 1) / 2) * 0.7 / len(series)
        places, values = [categories[str(x)] + shift for x, _ in points], [y for _, y in points]
        keys = [str(x) if one else name for x, _ in points]
        axes.scatter(
            *((places, values) if upright else (values, places)),
            s=34 if len(series) <= 4 else 20,
            marker="o" if one else _MARKERS[index % len(_MARKERS)],
            edgecolors=[paint[key] for key in keys],
            facecolors=["none" if paint[key] == _INK else paint[key] for key in keys],
            label=_label(name),
            zorder=3,
        )
    _name_places(axes, categories, upright)
    (axes.set_xlim if upright else axes.set_ylim)(-0.5, len(categories) - 0.5)
    if not upright:
        _resize(axes, max(2.4, 0.9 + len(categories) * max(0.3, 0.07 * len(series))))
        axes.invert_yaxis()
    return upright


def _heat(axes: Axes, series: Mapping[str, _Points], x_label: str, y_label: str) -> None:
    columns = _categories(series)
    values = [y for points in series.values() for _, y in points]
    shape = "{:.0f}" if max(map(abs, values)) >= 10 else template(values)
    scale = Normalize(min(0.0, *values), max(values) or 1.0)
    for row, points in enumerate(series.values()):
        for x, y in points:
            # The lightest and the darkest tones are left out: they vanish on a light or a dark page.
            colour = matplotlib.colormaps["YlOrBr"](0.08 + 0.82 * scale(y))
            axes.add_patch(Rectangle((columns[str(x)] - 0.47, row - 0.46), 0.94, 0.92, facecolor=colour, linewidth=0))
            # The cells keep their colours on a light and on a dark page, and so do the numbers on them.
            ink = _DARK if _luminance(colour) > 0.182 else _LIGHT
            size = 8.5 if len(columns) <= 12 else 7.5
            axes.text(columns[str(x)], row, shape.format(y), ha="center", va="center", color=ink, fontsize=size)
    axes.set_yticks(range(len(series)), [_label(name) for name in series])
    steep = not _fit_side_by_side(columns, legend=False)
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if steep else {}
    axes.set_xticks(list(columns.values()), [_label(name) for name in columns], **turned)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(series) - 0.5, -0.5), xlabel=x_label)
    axes.set_title(y_label, loc="left", fontsize=9.5)
    _resize(axes, max(2.2, 0.8 + 0.28 * len(series) + (1.0 if steep else 0.3)))


def _luminance(colour: Sequence[float]) -> float:
    """The relative luminance of a colour in 0..1, by WCAG 2.1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


_PLOTS = {"bars": _bars, "lines": _lines, "points": _scatter, "strip": _strip}


def _categories(series: Mapping[str, _Points]) -> dict[str, int]:
    names = dict.fromkeys(str(x) for points in series.values() for x, _ in points)
    return dict(zip(names, itertools.count(), strict=False))


def _fit_side_by_side(categories: Iterable[str], *, legend: bool) -> bool:
    """Whether the labels fit under a horizontal axis; else they stand on the vertical axis."""
    lengths = [len(_label(name)) for name in categories]
    return (max(lengths) + 1) * len(lengths) <= (75 if legend else 88)


def _name_places(axes: Axes, categories: Mapping[str, int], upright: bool) -> None:
    (axes.set_xticks if upright else axes.set_yticks)(list(categories.values()), [_label(name) for name in categories])
    axes.tick_params(axis="x" if upright else "y", length=0)
    axes.grid(axis="y" if upright else "x")


def _resize(axes: Axes, inches: float) -> None:
    assert isinstance(axes.figure, Figure)
    axes.figure.set_figheight(inches)


def _points(points: Sequence[tuple[str | float, float]]) -> _Points:
    return [(x, y) for x, y in points if not is_missing(y) and math.isfinite(y)]


def _intervals(chart: Chart) -> _Intervals:
    """The intervals of the chart, cut off at twice the largest value."""
    sizes = [abs(y) for points in chart.series.values() for _, y in _points(points)]
    cut = 2 * max(sizes, default=0.0)
    return {
        (name, x): (max(low, -cut), min(high, cut))
        for name, bounds in chart.intervals.items()
        for x, low, high in bounds
        if not is_missing(low) and not is_missing(high)
    }


def _label(text: str) -> str:
    """A name short enough for a chart."""
    text = _printable(str(text))
    # A leading underscore would hide a series from matplotlib's legend.
    text = f"\u200b{text}" if text.startswith("_") else text
    return text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 1]}…"


def _printable(text: str) -> str:
    """Text on one line, without characters that XML forbids."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _svg(figure: Figure, title: str, prefix: str) -> str:
    """The figure as SVG without matplotlib's metadata, fonts and namespaces."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    root = ElementTree.fromstring(stream.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        for name, value in element.attrib.items():
            element.set(name, _dress(name, value, prefix))
    for parent in list(root.iter()):
        for child in [*parent.findall("style"), *parent.findall("metadata")]:
            parent.remove(child)
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "width": root.get("width", ""),
        "role": "img",
        "aria-label": _printable(title),
        "font-family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
        "stroke-linejoin": "round",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _dress(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return f"#{prefix}-{value[1:]}"
    if name == "clip-path":
        return value.replace("url(#", f"url(#{prefix}-")
    if name == "style":
        value = re.sub(r"font:\s*([\d.]+px)[^;]*", r"font-size: \1", value)
        return re.sub(r"font-family:[^;]*;?\s*", "", value).replace(_INK, "currentColor")
    return value
