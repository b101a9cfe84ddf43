"""Learning task: how much of the full-precision accuracy each algorithm keeps, data set by data set.

BiBench's tasks are data sets, and its accuracy is the main metric of each: top-1 accuracy, instance mIoU, a
correlation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.track import Track
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import Chart, TrackScore
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import intervals, metrics
from bibench_tf.stats.intervals import Estimate
from bibench_tf.tasks.detection import OF_CLASS
from bibench_tf.tracks.learning_task import pictures
from bibench_tf.tracks.shared import seeds
from bibench_tf.tracks.shared.conditions import short_name, training_conditions

# Results by data set and algorithm, one for each seed.
_Results = Mapping[str, Mapping[str, Sequence[RunResult | None]]]


def score(track: Track, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
    """OM_task of each algorithm over the benchmark's tasks, of the accuracies averaged over its seeds."""
    failures: list[str] = []
    results = {
        setup.label: seeds.results(benchmark, partial(benchmark.specs, setup), store, failures)
        for setup in benchmark.setups
    }
    trained = [one for of_dataset in results.values() for found in of_dataset.values() for one in found]
    only_images = all(setup.task.is_of_images for setup in benchmark.setups)
    overall = {algorithm: _overall(benchmark, algorithm, results, failures) for algorithm in benchmark.all_algorithms}
    ranks = seeds.ranks(overall, f"rank by {track.metric}", benchmark)
    rows = [
        {
            "algorithm": algorithm,
            **seeds.accuracy_columns(benchmark, algorithm, results),
            **seeds.columns(track.metric, overall[algorithm], benchmark),
            **ranks[algorithm],
            **_further_metrics(algorithm, results),
        }
        for algorithm in benchmark.all_algorithms
    ]
    return track.scored(
        scores=seeds.values(overall),
        table=pd.DataFrame(rows),
        charts=[
            *(
                seeds.accuracy_bars(benchmark, name, seeds.metric_of_all(of), {name: of})
                for name, of in results.items()
            ),
            *(
                _curves(benchmark, setup.label, results[setup.label])
                for setup in benchmark.setups
                if setup.recipe.epochs > 1
            ),
            *filter(None, (_of_classes(benchmark, dataset, results[dataset]) for dataset in results)),
        ],
        pictures=pictures.pictures(benchmark, store),
        conditions={
            **training_conditions(benchmark, trained, benchmark.setups, every_seed=True),
            **({f"network: {setup.label}": setup.network for setup in benchmark.setups} if len(results) > 1 else {}),
        },
        notes=[
            f"Accuracy is that of the last epoch on the test {'images' if only_images else 'examples'}; the best epoch "
            "is not picked by it.",
            seeds.note(benchmark, track.metric),
            *seeds.below_zero(trained, track.metric),
        ],
        failures=failures,
    )


def _overall(benchmark: ResolvedBenchmark, algorithm: str, results: _Results, failures: list[str]) -> Estimate | None:
    needed = [one for found in results.values() for key in (algorithm, BASELINE) for one in found[key]]

    def metric(chosen: Sequence[int]) -> float:
        binary, full_precision = (
            {dataset: [seeds.mean_accuracy(found[key], chosen)] for dataset, found in results.items()}
            for key in (algorithm, BASELINE)
        )
        return metrics.om_task(binary, full_precision)

    return seeds.score(benchmark, needed, metric, failures, algorithm)


def _further_metrics(algorithm: str, results: _Results) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for dataset, found in results.items():
        of_seeds, main = found[algorithm], seeds.metric_of_all(found)
        best = seeds.mean(of_seeds, lambda result: result.best_accuracy)
        columns[f"{dataset} best epoch (%)"] = 100 * best.value if best else None
        others = dict.fromkeys(
            name
            for of_algorithm in found.values()
            for one in filter(None, of_algorithm)
            for name in one.metrics
            if name not in (main, "loss") and not name.startswith(OF_CLASS)
        )
        for name in others:
            value = seeds.mean(of_seeds, partial(_metric_of, name))
            columns[f"{dataset} {name} (%)"] = 100 * value.value if value else None
        # Detectors have no loss outside of their training graph.
        if not any(one.test_loss is None for of_algorithm in found.values() for one in filter(None, of_algorithm)):
            loss = seeds.mean(of_seeds, lambda result: result.test_loss)
            columns[f"{dataset} test loss"] = loss.value if loss else None
    return columns


def _metric_of(name: str, result: RunResult) -> float:
    return result.metrics.get(name, math.nan)


def _of_classes(
    benchmark: ResolvedBenchmark, dataset: str, results: Mapping[str, Sequence[RunResult | None]]
) -> Chart | None:
    """The metrics of single classes, where the task has them."""
    series = {
        algorithm: [
            (name.removeprefix(OF_CLASS), 100 * seeds.mean(found, partial(_metric_of, name)).value)
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
        f"Average precision of each class on {dataset}{seeds.of_title(benchmark)}",
        "class",
        f"{OF_CLASS.strip()} (%)",
        series,
    )


def _curves(benchmark: ResolvedBenchmark, dataset: str, results: Mapping[str, Sequence[RunResult | None]]) -> Chart:
    series, bounds, metric = {}, {}, seeds.metric_of_all(results)
    for algorithm, found in results.items():
        if not all(found):
            continue
        histories = zip(*(result.history for result in found), strict=True)
        by_epoch = {epochs[0]["epoch"]: intervals.mean([epoch["accuracy"] for epoch in epochs]) for epochs in histories}
        series[algorithm] = [(epoch, 100 * estimate.value) for epoch, estimate in by_epoch.items()]
        bounds[algorithm] = seeds.accuracy_intervals(by_epoch)
    return Chart(
        "lines",
        f"Test {short_name(metric)} by epoch on {dataset}{seeds.of_title(benchmark)}",
        "epoch",
        f"{metric} (%)",
        series,
        intervals=bounds,
    )
