"""Neural architecture: whether an algorithm keeps its accuracy across networks."""

from __future__ import annotations

import pandas as pd

from bibench_tf import metrics
from bibench_tf.benchmark import BASELINE, Benchmark, Session
from bibench_tf.runs import RunSpec, RunStore
from bibench_tf.scores import Chart, TrackScore
from bibench_tf.tracks.base import main_specs, read_results, training_conditions

NAME = "architecture"
TITLE = "Neural architecture"


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Every algorithm on every network of the track, on the benchmark's first task."""
    return [
        spec
        for architecture in benchmark.architectures
        for spec in main_specs(benchmark, architecture=architecture).values()
    ]


def measure(benchmark: Benchmark, session: Session) -> None:
    """Nothing: the trainings hold all this track needs."""


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """The convolutional part of OM_arch; the zoo has no transformers and MLPs yet, so the whole is not given."""
    failures: list[str] = []
    results = {
        architecture: read_results(store, main_specs(benchmark, architecture=architecture), failures)
        for architecture in benchmark.architectures
    }
    scores, rows = {}, []
    for algorithm in benchmark.all_algorithms:
        row: dict[str, float | str | None] = {"algorithm": algorithm}
        relative = []
        for architecture, found in results.items():
            result, baseline = found[algorithm], found[BASELINE]
            row[f"{architecture} accuracy (%)"] = result and 100 * result.accuracy
            if result and baseline and baseline.accuracy > 0:
                relative.append(metrics.relative_accuracy(result.accuracy, baseline.accuracy))
        complete = len(relative) == len(benchmark.architectures)
        scores[algorithm] = metrics.architecture_group_mean(relative) if complete else None
        rows.append({**row, "CNN mean relative accuracy": scores[algorithm]})
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric="OM_arch (CNN)",
        formula="mean over the convolutional networks of accuracy / full-precision accuracy",
        scores=scores,
        table=pd.DataFrame(rows),
        charts=[
            Chart(
                "bars",
                f"Test accuracy on {benchmark.tasks[0]} by network",
                "algorithm",
                "top-1 accuracy (%)",
                {
                    architecture: [(algorithm, 100 * one.accuracy) for algorithm, one in found.items() if one]
                    for architecture, found in results.items()
                },
            )
        ],
        conditions=training_conditions(benchmark, [one for found in results.values() for one in found.values()]),
        notes=[
            "BiBench joins the means of convolutional networks, transformers and MLPs; only the first are covered "
            "here, so this is one of its three parts and not OM_arch as a whole."
        ],
        failures=failures,
        complete=False,
    )
