"""Accuracy against operations and size: published networks, and those measured in a results folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bibench_tf import complexity, published
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.errors import BibenchError
from bibench_tf.files import write_atomically
from bibench_tf.results.runs import RunStore
from bibench_tf.tracks.theoretical_complexity import counting

_PUBLISHED, _MEASURED = "#6b7280", "#1d6fb8"
# Names stand beside points on the front, and beside all measured ones; more would cover each other.
_LABEL: dict[str, Any] = {"fontsize": 7, "textcoords": "offset points"}


@dataclass(frozen=True)
class Point:
    """A network: its top-1 accuracy in percent, and what it costs where that is known."""

    name: str
    top1_percent: float
    operations: float | None
    size_mib: float | None


def published_points() -> list[Point]:
    """The published networks of ImageNet, one for each name, size and cost."""
    return [
        Point(row.network, row.top1_percent, row.operations_64, row.size_of_parameters_mib)
        for row in published.networks()
    ]


def measured_points(benchmark: ResolvedBenchmark, results: Path) -> list[Point]:
    """The networks of a results folder that are counted and trained, by algorithm."""
    store = RunStore(results)
    counts = counting.read_counts(benchmark, results, [])
    points = []
    for algorithm, spec in benchmark.specs(benchmark.first).items():
        run = store.result(spec)
        if algorithm in counts and run is not None and run.accuracy is not None and math.isfinite(run.accuracy):
            cost = counts[algorithm].cost
            operations = complexity.derive("ops64", cost)["operations"]
            points.append(Point(algorithm, 100 * run.accuracy, operations, cost.bits / 8 / 2**20))
    return points


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of points (cost, accuracy): no other point costs as little and is as accurate."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def draw(known: Sequence[Point], measured: Sequence[Point], dataset: str) -> Figure:
    """Two panels, operations and size; published points are hollow, measured ones filled, each with its front."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    groups = [
        (known, "published, ImageNet", {"color": _PUBLISHED, "markerfacecolor": "white"}),
        (measured, f"measured, {dataset}", {"color": _MEASURED}),
    ]
    costs = (
        (lambda point: point.operations and point.operations / 1e6, "binary MACs / 64 + other MACs (millions)"),
        (lambda point: point.size_mib, "size of the parameters (MiB)"),
    )
    for axes, (cost, label) in zip(panels, costs, strict=True):
        axes.set_xscale("log")
        axes.margins(x=0.26, y=0.08)
        for points, name, style in groups:
            _draw_points(axes, [(point.name, cost(point), point.top1_percent) for point in points], name, style)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("top-1 accuracy (%)")
    panels[0].legend(loc="lower right", frameon=False, fontsize=8, title="line: Pareto front", title_fontsize=8)
    return figure


def write(path: Path, benchmark: ResolvedBenchmark, results: Path) -> None:
    """Plot the published networks and those of a results folder.

    Raises BibenchError for a format matplotlib does not write, and StorageError for a path that cannot be written.
    """
    figure = draw(published_points(), measured_points(benchmark, results), benchmark.first.label)
    try:
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=160))
    except ValueError as error:
        raise BibenchError(f"Cannot write the plot {path}: {error}.") from error


def _draw_points(axes: Axes, points: Sequence[tuple[str, float | None, float]], label: str, style: dict) -> None:
    points = [point for point in points if point[1]]
    if not points:
        return
    axes.plot([x for _, x, _ in points], [y for *_, y in points], "o", markersize=5, label=label, **style)
    best = front([(x, y) for _, x, y in points])
    axes.plot(*zip(*best, strict=True), color=style["color"], linewidth=1, drawstyle="steps-post", zorder=0)
    shown: list[tuple[float, float]] = []
    # The best come first: if labels overlap, the better network keeps its label.
    for name, x, y in sorted(points, key=lambda point: -point[2]):
        on_front = (x, y) in best
        if (on_front or len(points) <= 12) and not any(_close((x, y), other) for other in shown):
            axes.annotate(name, (x, y), xytext=(-5, 4), ha="right", color=style["color"], **_LABEL)
            shown.append((x, y))


def _close(point: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether names beside both points would cover each other."""
    return abs(math.log(point[0] / other[0])) < 0.6 and abs(point[1] - other[1]) < 1.5
