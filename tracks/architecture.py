"""Neural architecture: whether an algorithm keeps its accuracy across networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bibench_tf import metrics
from bibench_tf.benchmark import BASELINE, Benchmark, Session
from bibench_tf.runs import RunResult, RunSpec, RunStore
from bibench_tf.scores import Chart, TrackScore
from bibench_tf.statistics import Estimate
from bibench_tf.tracks import seeds
from bibench_tf.tracks.base import main_specs, training_conditions

NAME = "architecture"
TITLE = "Neural architecture"
_SCORE = "CNN mean relative accuracy"

# Results by network and algorithm, one for each seed.
_Results = Mapping[str, Mapping[str, Sequence[RunResult | None]]]


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Every algorithm on every network of the track, on the benchmark's first task, for every seed."""
    return [
        spec
        for one in benchmark.by_seed
        for architecture in benchmark.architectures
        for spec in main_specs(one, architecture=architecture).values()
    ]


def measure(benchmark: Benchmark, session: Session) -> None:
    """Nothing: the trainings hold all this track needs."""


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """The convolutional part of OM_arch; the zoo has no transformers and MLPs yet, so the whole is not given."""
    failures: list[str] = []
    results = {
        architecture: seeds.results(
            benchmark, lambda one, network=architecture: main_specs(one, architecture=network), store, failures
        )
        for architecture in benchmark.architectures
    }
    overall = {algorithm: _overall(benchmark, algorithm, results, failures) for algorithm in benchmark.all_algorithms}
    ranks = seeds.ranks(overall, "rank", benchmark)
    rows = []
    for algorithm in benchmark.all_algorithms:
        row: dict[str, float | str | None] = {"algorithm": algorithm}
        for architecture, found in results.items():
            accuracy = seeds.accuracy(found[algorithm])
            row |= seeds.columns(f"{architecture} accuracy", accuracy, benchmark, factor=100, unit="%")
        rows.append({**row, **seeds.columns(_SCORE, overall[algorithm], benchmark), **ranks[algorithm]})
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric="OM_arch (CNN)",
        formula="mean over the convolutional networks of accuracy / full-precision accuracy",
        scores=seeds.values(overall),
        table=pd.DataFrame(rows),
        charts=[_bars(benchmark, results)],
        conditions=training_conditions(
            benchmark,
            [one for of_network in results.values() for found in of_network.values() for one in found],
            every_seed=True,
        ),
        notes=[
            "BiBench joins the means of convolutional networks, transformers and MLPs; only the first are covered "
            "here, so this is one of its three parts and not OM_arch as a whole.",
            seeds.note(benchmark, "the mean relative accuracy"),
        ],
        failures=failures,
        complete=False,
    )


def _overall(benchmark: Benchmark, algorithm: str, results: _Results, failures: list[str]) -> Estimate | None:
    needed = [one for found in results.values() for key in (algorithm, BASELINE) for one in found[key]]

    def figure(chosen: Sequence[int]) -> float:
        return metrics.architecture_group_mean(
            [
                metrics.relative_accuracy(
                    seeds.mean_accuracy(found[algorithm], chosen), seeds.mean_accuracy(found[BASELINE], chosen)
                )
                for found in results.values()
            ]
        )

    return seeds.score(benchmark, needed, figure, failures, algorithm)


def _bars(benchmark: Benchmark, results: _Results) -> Chart:
    accuracies = {
        architecture: {algorithm: seeds.accuracy(of_seeds) for algorithm, of_seeds in found.items()}
        for architecture, found in results.items()
    }
    return Chart(
        "bars",
        f"Test accuracy on {benchmark.tasks[0]} by network{seeds.of_title(benchmark)}",
        "algorithm",
        "top-1 accuracy (%)",
        {
            architecture: [(algorithm, 100 * one.value) for algorithm, one in found.items() if one]
            for architecture, found in accuracies.items()
        },
        intervals={architecture: seeds.accuracy_intervals(found) for architecture, found in accuracies.items()},
    )
