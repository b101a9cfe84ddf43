"""Learning task: how much of the full-precision accuracy each algorithm keeps, task by task."""

from __future__ import annotations

import pandas as pd

from bibench_tf import metrics
from bibench_tf.benchmark import BASELINE, Benchmark, Session
from bibench_tf.runs import RunResult, RunSpec, RunStore
from bibench_tf.scores import Chart, TrackScore
from bibench_tf.tracks.base import main_recipe, main_specs, read_results, training_conditions

NAME = "task"
TITLE = "Learning task"


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Every algorithm on every task, with the benchmark's network."""
    return [spec for task in benchmark.tasks for spec in main_specs(benchmark, task=task).values()]


def measure(benchmark: Benchmark, session: Session) -> None:
    """Nothing: the trainings hold all this track needs."""


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_task of each algorithm over the benchmark's tasks."""
    failures: list[str] = []
    results = {task: read_results(store, main_specs(benchmark, task=task), failures) for task in benchmark.tasks}
    scores, rows = {}, []
    for algorithm in benchmark.all_algorithms:
        accuracies = {task: results[task][algorithm] for task in benchmark.tasks}
        scores[algorithm] = _overall(accuracies, {task: results[task][BASELINE] for task in benchmark.tasks})
        rows.append({"algorithm": algorithm, **_columns(accuracies), "OM_task": scores[algorithm]})
    bars = {
        task: [(algorithm, 100 * found.accuracy) for algorithm, found in results[task].items() if found]
        for task in benchmark.tasks
    }
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric="OM_task",
        formula="sqrt(mean over tasks of (accuracy / full-precision accuracy)^2)",
        scores=scores,
        table=pd.DataFrame(rows),
        charts=[
            *(
                Chart("bars", f"Test accuracy on {task}", "algorithm", "top-1 accuracy (%)", {task: points})
                for task, points in bars.items()
            ),
            *(_curves(task, results[task]) for task in benchmark.tasks if main_recipe(benchmark).epochs > 1),
        ],
        conditions=training_conditions(benchmark, [found for each in results.values() for found in each.values()]),
        notes=["Accuracy is that of the last epoch on the test images; the best epoch is not picked by it."],
        failures=failures,
    )


def _overall(accuracies: dict[str, RunResult | None], baseline: dict[str, RunResult | None]) -> float | None:
    if not all(accuracies.values()) or not all(baseline.values()):
        return None
    try:
        return metrics.om_task(
            {task: [result.accuracy] for task, result in accuracies.items()},
            {task: [result.accuracy] for task, result in baseline.items()},
        )
    except metrics.Undefined:
        return None


def _columns(results: dict[str, RunResult | None]) -> dict[str, float | None]:
    columns = {}
    for task, result in results.items():
        columns[f"{task} accuracy (%)"] = result and 100 * result.accuracy
        columns[f"{task} best epoch (%)"] = result and 100 * result.best_accuracy
        columns[f"{task} test loss"] = result and result.test_loss
    return columns


def _curves(task: str, results: dict[str, RunResult | None]) -> Chart:
    return Chart(
        "lines",
        f"Test accuracy by epoch on {task}",
        "epoch",
        "top-1 accuracy (%)",
        {
            algorithm: [(epoch["epoch"], 100 * epoch["accuracy"]) for epoch in result.history]
            for algorithm, result in results.items()
            if result
        },
    )
