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
    certain: resampling.Certainty | None,
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
            if certain is not None:
                row["hurt most by"] = _either(certain.worst[algorithm])
            for name in (resampling.MCE, resampling.RELATIVE_MCE):
                row[f"{name} (%)"] = _times(values[algorithm].get(name), 100)
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
    certain: resampling.Certainty | None, metric: str, algorithm: str, title: str, factor: float
) -> dict[str, float | None]:
    """The two columns of an interval; empty where there is none."""
    interval = certain.intervals.get(metric, {}).get(algorithm) if certain is not None else None
    if interval is None:
        return {}
    unit = " (%)" if factor == 100 else ""
    return {f"{title} low{unit}": factor * interval.low, f"{title} high{unit}": factor * interval.high}


def _rank(certain: resampling.Certainty | None, metric: str, algorithm: str, title: str) -> dict[str, str]:
    if certain is None or algorithm not in certain.ranks.get(metric, {}):
        return {}
    return {title: bootstrap.rank_text(certain.ranks[metric][algorithm])}


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) <= 2 else f"{names[0]} or one of {len(names) - 1} others"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def charts(
    measured: Mapping[str, Robustness],
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    values: Mapping[str, Mapping[str, Any]],
    certain: resampling.Certainty | None,
) -> list[Chart]:
    """Curves by severity, bars of the overall metrics, and the heat map of algorithms and corruptions."""
    if not measured:
        return []
    severities = (0, *corruptions.SEVERITIES)
    shown = "" if certain is None else f"; intervals at {bootstrap.LEVEL * 100:g} %"
    curves, overall, gaps, scores, lost = {}, [], [], [], {}
    for algorithm, record in measured.items():
        by_severity = [record.clean_accuracy, *np.mean(list(accuracies[algorithm].values()), axis=0).tolist()]
        curves[algorithm] = [(float(at), 100 * accuracy) for at, accuracy in zip(severities, by_severity, strict=True)]
        overall.append((algorithm, 100 * float(np.mean(list(accuracies[algorithm].values())))))
        if values[algorithm].get(resampling.OM) is not None:
            scores.append((algorithm, 100 * values[algorithm][resampling.OM]))
        if "gaps" in values[algorithm]:
            gaps.append((algorithm, 100 * mean_gap(values[algorithm]["gaps"])))
            lost[algorithm] = [(name, 100 * gap) for name, gap in values[algorithm]["gaps"].items()]
    drawn = [
        Chart(
            kind="lines",
            title=f"Accuracy against severity, mean over corruptions{shown}",
            x_label="severity (0: clean)",
            y_label="accuracy (%)",
            series=curves,
            intervals={
                algorithm: [
                    (float(at), 100 * low, 100 * high) for at, (low, high) in zip(severities, bounds, strict=True)
                ]
                for algorithm, bounds in (certain.by_severity if certain is not None else {}).items()
            },
        ),
        Chart(
            kind="bars",
            title=f"Accuracy over all corruptions and severities{shown}",
            x_label="algorithm",
            y_label="accuracy (%)",
            series={"corrupted images": overall},
            intervals={"corrupted images": _spans(certain, resampling.CORRUPTED)},
        ),
    ]
    if gaps:
        drawn.append(
            Chart(
                kind="bars",
                title=f"Mean gap: the share of its clean accuracy that a network loses{shown}",
                x_label="algorithm",
                y_label="clean accuracy lost (%)",
                series={"mean gap": gaps},
                intervals={"mean gap": _spans(certain, resampling.GAP)},
            )
        )
    if scores:
        drawn.append(
            Chart(
                kind="bars",
                title=f"{resampling.OM}, above 100 % where less is lost than in full precision{shown}",
                x_label="algorithm",
                y_label=f"{resampling.OM} (%)",
                series={resampling.OM: scores},
                intervals={resampling.OM: _spans(certain, resampling.OM)},
            )
        )
    if lost:
        drawn.append(
            Chart(
                kind="heat",
                title="Cost of each corruption: the share of its clean accuracy that a network loses",
                x_label="corruption",
                y_label="clean accuracy lost (%), mean over severities",
                series=lost,
            )
        )
    return drawn


def _spans(certain: resampling.Certainty | None, metric: str) -> list[tuple[str, float, float]]:
    found = certain.intervals.get(metric, {}) if certain is not None else {}
    return [(algorithm, 100 * low, 100 * high) for algorithm, (low, high) in found.items()]
