"""The table and the charts of the robustness track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bibench_tf import corruptions
from bibench_tf.report.scores import Chart
from bibench_tf.stats import bootstrap
from bibench_tf.tracks.corruption_robustness import resampling
from bibench_tf.tracks.corruption_robustness.record import Robustness


def mean_gap(gaps: Mapping[str, float]) -> float:
    """The mean over corruptions of the share that is lost."""
    return float(np.mean(list(gaps.values())))


def table(
    algorithms: Sequence[str],
    names: Sequence[str],
    measured: Mapping[str, Robustness],
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    values: Mapping[str, Mapping[str, Any]],
    certain: resampling.Certainty,
) -> pd.DataFrame:
    """A row for each algorithm: metrics with intervals and ranks, accuracy by severity and by corruption.

    `names` are the corruptions, `values` by algorithm its gaps and metrics (0..1), `certain` the bootstrap's intervals.
    """
    rows = []
    for algorithm in algorithms:
        row: dict[str, Any] = {"algorithm": algorithm}
        if record := measured.get(algorithm):
            own = accuracies[algorithm]
            row["clean accuracy (%)"] = 100 * record.clean_accuracy
            row["mean corrupted accuracy (%)"] = 100 * float(np.mean(list(own.values())))
            row |= _bounds(certain, resampling.CORRUPTED, algorithm, "corrupted accuracy", 100)
            row |= _rank(certain, resampling.CORRUPTED, algorithm, "rank by accuracy")
            if "gaps" in values[algorithm]:
                row["mean gap"] = mean_gap(values[algorithm]["gaps"])
                row |= _bounds(certain, resampling.GAP, algorithm, "mean gap", 1)
                row |= _rank(certain, resampling.GAP, algorithm, "rank by mean gap")
            row[resampling.OM] = values[algorithm].get(resampling.OM)
            row |= _bounds(certain, resampling.OM, algorithm, resampling.OM, 1)
            row |= _rank(certain, resampling.OM, algorithm, f"rank by {resampling.OM}")
            if algorithm in certain.worst:
                row["hurt most by"] = _either(certain.worst[algorithm])
            for name in (resampling.MCE, resampling.RELATIVE_MCE):
                value = values[algorithm].get(name)
                row[f"{name} (%)"] = None if value is None else 100 * value
                row |= _bounds(certain, name, algorithm, name, 100)
            by_severity = 100 * np.mean(list(own.values()), axis=0)
            row |= {
                f"severity {severity} (%)": float(accuracy)
                for severity, accuracy in zip(corruptions.SEVERITIES, by_severity, strict=True)
            }
            row |= {f"{name} (%)": 100 * float(np.mean(own[name])) for name in names}
        rows.append(row)
    return pd.DataFrame(rows)


def _bounds(
    certain: resampling.Certainty, metric: str, algorithm: str, title: str, factor: float
) -> dict[str, float | None]:
    """The two columns of an interval; empty where there is none."""
    interval = certain.intervals.get(metric, {}).get(algorithm)
    if interval is None:
        return {}
    unit = " (%)" if factor == 100 else ""
    return {f"{title} low{unit}": factor * interval.low, f"{title} high{unit}": factor * interval.high}


def _rank(certain: resampling.Certainty, metric: str, algorithm: str, title: str) -> dict[str, str]:
    places = certain.ranks.get(metric, {}).get(algorithm)
    return {title: bootstrap.rank_text(places)} if places else {}


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) <= 2 else f"{names[0]} or one of {len(names) - 1} others"


def charts(
    measured: Mapping[str, Robustness],
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    values: Mapping[str, Mapping[str, Any]],
    certain: resampling.Certainty,
) -> list[Chart]:
    """Curves by severity, bars of the overall metrics, and the heat map of algorithms and corruptions."""
    if not measured:
        return []
    severities = [float(severity) for severity in (0, *corruptions.SEVERITIES)]
    shown = f"; intervals at {bootstrap.LEVEL * 100:g} %" if certain.intervals else ""
    curves, overall, gaps, scores, lost = {}, [], [], [], {}
    for algorithm, record in measured.items():
        own = list(accuracies[algorithm].values())
        by_severity = [record.clean_accuracy, *np.mean(own, axis=0).tolist()]
        curves[algorithm] = [(at, 100 * accuracy) for at, accuracy in zip(severities, by_severity, strict=True)]
        overall.append((algorithm, 100 * float(np.mean(own))))
        if values[algorithm].get(resampling.OM) is not None:
            scores.append((algorithm, 100 * values[algorithm][resampling.OM]))
        if "gaps" in values[algorithm]:
            gaps.append((algorithm, 100 * mean_gap(values[algorithm]["gaps"])))
            lost[algorithm] = [(name, 100 * gap) for name, gap in values[algorithm]["gaps"].items()]
    bands = {
        algorithm: [(at, 100 * low, 100 * high) for at, (low, high) in zip(severities, bounds, strict=True)]
        for algorithm, bounds in certain.by_severity.items()
    }
    title = f"Accuracy against severity, mean over corruptions{shown}"
    drawn = [Chart("lines", title, "severity (0: clean)", "accuracy (%)", curves, bands)]
    loss = "the share of its clean accuracy that a network loses"
    for metric, title, label, series, points in (
        (
            resampling.CORRUPTED,
            "Accuracy over all corruptions and severities",
            "accuracy (%)",
            "corrupted images",
            overall,
        ),
        (resampling.GAP, f"Mean gap: {loss}", "clean accuracy lost (%)", "mean gap", gaps),
        (
            resampling.OM,
            f"{resampling.OM}, above 100 % where less is lost than in full precision",
            f"{resampling.OM} (%)",
            resampling.OM,
            scores,
        ),
    ):
        if points:
            spans = [(key, 100 * low, 100 * high) for key, (low, high) in certain.intervals.get(metric, {}).items()]
            drawn.append(Chart("bars", f"{title}{shown}", "algorithm", label, {series: points}, {series: spans}))
    if lost:
        label = "clean accuracy lost (%), mean over severities"
        drawn.append(Chart("heat", f"Cost of each corruption: {loss}", "corruption", label, lost))
    return drawn
