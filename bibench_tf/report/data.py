"""The machine-readable files of a report: scores and values as CSV and JSON, unrounded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bibench_tf.report.scores import Report, TrackScore
from bibench_tf.report.tables import algorithms, flat, is_missing, score_of


def overall_csv(scores: Sequence[TrackScore]) -> str:
    """Algorithms by tracks, full precision scoring 1; empty where there is no score."""
    keys = list(algorithms(scores))
    columns = {score.track: [score_of(score, key) for key in keys] for score in scores}
    table = pd.DataFrame(columns, index=pd.Index(keys, name="algorithm", dtype=object), dtype=float)
    return table.to_csv(lineterminator="\n")


def overall_json(report: Report) -> str:
    """Title, conditions, failures, the titles of the algorithms by key, and the scores of every track by key."""
    tracks = [
        {
            "track": score.track,
            "title": score.title,
            "metric": score.metric,
            "complete": score.complete,
            "scores": {key: score_of(score, key) for key in score.scores},
        }
        for score in report.scores
    ]
    content = {
        "title": report.title,
        "conditions": report.conditions,
        "failures": report.failures,
        "algorithms": algorithms(report.scores),
        "tracks": tracks,
    }
    return _dumps(content)


def track_csv(score: TrackScore) -> str:
    """The table of one track."""
    return flat(score.table).to_csv(index=False, lineterminator="\n")


def track_json(score: TrackScore) -> str:
    """All fields of a track, with its charts and the titles of its pictures."""
    table = flat(score.table)
    content = {
        **vars(score),
        "scores": {key: score_of(score, key) for key in score.scores},
        "table": [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)],
        "charts": list(map(vars, score.charts)),
        "pictures": [picture.title for picture in score.pictures],
    }
    return _dumps(content)


def _dumps(content: Any) -> str:
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """`value` in the types of JSON: NumPy's scalars as Python's, and null for what has no value."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if is_missing(value):
        return None
    if hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) else str(value)
