"""Learning task: how much of the full-precision accuracy each algorithm keeps, data set by data set.

BiBench's tasks are data sets, and what it calls accuracy is the main metric of each: top-1 accuracy, instance mIoU, a
correlation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from bibench_tf import datasets
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import Chart, TrackScore
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.stats import intervals, metrics
from bibench_tf.stats.intervals import Estimate
from bibench_tf.tasks.detection import OF_CLASS
from bibench_tf.tracks import seeds
from bibench_tf.tracks.base import (
    IMAGES,
    column,
    main_recipe,
    main_specs,
    metric_of,
    network_for,
    short_name,
    training_conditions,
)
from bibench_tf.tracks.learning_task import pictures
from bibench_tf.training.session import Session

NAME = "task"
TITLE = "Learning task"
METRIC = "OM_task"

# Results by task and algorithm, one for each seed.
_Results = Mapping[str, Mapping[str, Sequence[RunResult | None]]]


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Every algorithm on every task, with the network for it, for every seed."""
    return [
        spec for one in benchmark.by_seed for task in benchmark.data for spec in main_specs(one, task=task).values()
    ]


def measure(benchmark: Benchmark, session: Session) -> None:
    """Draw what detectors find; for the rest the trainings hold all this track needs."""
    pictures.draw(benchmark, session)


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_task of each algorithm over the benchmark's tasks, of the accuracies averaged over its seeds."""
    failures: list[str] = []
    results = {
        task: seeds.results(benchmark, lambda one, task=task: main_specs(one, task=task), store, failures)
        for task in benchmark.data
    }
    trained = [one for of_task in results.values() for found in of_task.values() for one in found]
    only_images = all(datasets.task_of(task) == IMAGES for task in results)
    overall = {algorithm: _overall(benchmark, algorithm, results, failures) for algorithm in benchmark.all_algorithms}
    ranks = seeds.ranks(overall, f"rank by {METRIC}", benchmark)
    rows = [
        {
            "algorithm": algorithm,
            **_main_figures(benchmark, algorithm, results),
            **seeds.columns(METRIC, overall[algorithm], benchmark),
            **ranks[algorithm],
            **_further_figures(algorithm, results),
        }
        for algorithm in benchmark.all_algorithms
    ]
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula="sqrt(mean over tasks of (accuracy / full-precision accuracy)^2)",
        scores=seeds.values(overall),
        table=pd.DataFrame(rows),
        charts=[
            *(_bars(benchmark, task, results[task]) for task in benchmark.data),
            *(
                _curves(benchmark, task, results[task])
                for task in benchmark.data
                if main_recipe(benchmark, task).epochs > 1
            ),
            *filter(None, (_of_classes(benchmark, task, results[task]) for task in benchmark.data)),
        ],
        pictures=pictures.pictures(benchmark, store),
        conditions={
            **training_conditions(
                benchmark, trained, trained=[(task, network_for(benchmark, task)) for task in results], every_seed=True
            ),
            **({f"network: {task}": network_for(benchmark, task) for task in results} if len(results) > 1 else {}),
        },
        notes=[
            f"Accuracy is that of the last epoch on the test {'images' if only_images else 'examples'}; the best epoch "
            "is not picked by it.",
            seeds.note(benchmark, METRIC),
            *seeds.below_zero(trained, METRIC),
        ],
        failures=failures,
    )


def _overall(benchmark: Benchmark, algorithm: str, results: _Results, failures: list[str]) -> Estimate | None:
    needed = [one for found in results.values() for key in (algorithm, BASELINE) for one in found[key]]

    def figure(chosen: Sequence[int]) -> float:
        binary, full_precision = (
            {task: [seeds.mean_accuracy(found[key], chosen)] for task, found in results.items()}
            for key in (algorithm, BASELINE)
        )
        return metrics.om_task(binary, full_precision)

    return seeds.score(benchmark, needed, figure, failures, algorithm)


def _main_figures(benchmark: Benchmark, algorithm: str, results: _Results) -> dict[str, float | None]:
    columns = {}
    for task, found in results.items():
        accuracy = seeds.accuracy(found[algorithm])
        columns |= seeds.columns(column(task, _metric(found)), accuracy, benchmark, factor=100, unit="%")
    return columns


def _further_figures(algorithm: str, results: _Results) -> dict[str, float | None]:
    columns = {}
    for task, found in results.items():
        of_seeds = found[algorithm]
        best = seeds.mean(of_seeds, lambda result: result.best_accuracy)
        columns[f"{task} best epoch (%)"] = best and 100 * best.value
        # Runs of earlier versions have the main metric alone.
        others = dict.fromkeys(
            name
            for of_algorithm in found.values()
            for one in filter(None, of_algorithm)
            for name in one.metrics
            if name not in (_metric(found), "loss") and not name.startswith(OF_CLASS)
        )
        for name in others:
            value = seeds.mean(of_seeds, lambda result, name=name: result.metrics.get(name, math.nan))
            columns[f"{task} {name} (%)"] = value and 100 * value.value
        # Detectors have no loss outside of their training graph.
        if not any(one.test_loss is None for of_algorithm in found.values() for one in filter(None, of_algorithm)):
            loss = seeds.mean(of_seeds, lambda result: result.test_loss)
            columns[f"{task} test loss"] = loss and loss.value
    return columns


def _bars(benchmark: Benchmark, task: str, results: Mapping[str, Sequence[RunResult | None]]) -> Chart:
    accuracies = {algorithm: seeds.accuracy(found) for algorithm, found in results.items()}
    metric = _metric(results)
    return Chart(
        "bars",
        f"Test {short_name(metric)} on {task}{seeds.of_title(benchmark)}",
        "algorithm",
        f"{metric} (%)",
        {task: [(algorithm, 100 * found.value) for algorithm, found in accuracies.items() if found]},
        intervals={task: seeds.accuracy_intervals(accuracies)},
    )


def _of_classes(benchmark: Benchmark, task: str, results: Mapping[str, Sequence[RunResult | None]]) -> Chart | None:
    """The figures of single classes, where the task has them."""
    series = {
        algorithm: [
            (name.removeprefix(OF_CLASS), 100 * seeds.mean(found, lambda one, name=name: one.metrics[name]).value)
            for name in found[0].metrics
            if name.startswith(OF_CLASS)
        ]
        for algorithm, found in results.items()
        if all(found)
    }
    if not any(series.values()):
        return None
    return Chart(
        "heat",
        f"Average precision of each class on {task}{seeds.of_title(benchmark)}",
        "class",
        f"{OF_CLASS.strip()} (%)",
        series,
    )


def _metric(results: Mapping[str, Sequence[RunResult | None]]) -> str:
    return metric_of(one for of_algorithm in results.values() for one in of_algorithm)


def _curves(benchmark: Benchmark, task: str, results: Mapping[str, Sequence[RunResult | None]]) -> Chart:
    series, bounds, metric = {}, {}, _metric(results)
    for algorithm, found in results.items():
        if not all(found):
            continue
        histories = zip(*(result.history for result in found), strict=True)
        by_epoch = {epochs[0]["epoch"]: intervals.mean([epoch["accuracy"] for epoch in epochs]) for epochs in histories}
        series[algorithm] = [(epoch, 100 * estimate.value) for epoch, estimate in by_epoch.items()]
        bounds[algorithm] = seeds.accuracy_intervals(by_epoch)
    return Chart(
        "lines",
        f"Test {short_name(metric)} by epoch on {task}{seeds.of_title(benchmark)}",
        "epoch",
        f"{metric} (%)",
        series,
        intervals=bounds,
    )
