"""Neural architecture: whether an algorithm keeps its accuracy across networks and the groups they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from bibench_tf.benchmark.resolve import ResolvedBenchmark, Setup
from bibench_tf.benchmark.track import Track
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import metrics
from bibench_tf.stats.intervals import Estimate
from bibench_tf.stats.metrics import ARCHITECTURE_GROUPS, Metric
from bibench_tf.tracks.shared import seeds
from bibench_tf.tracks.shared.conditions import training_conditions

# Results by network and algorithm, one for each seed.
_Results = Mapping[str, Mapping[str, Sequence[RunResult | None]]]


def score(track: Track, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
    """OM_arch of each algorithm over all three groups of networks; over fewer groups the mean of those."""
    failures: list[str] = []
    setups = track.setups(benchmark)
    results = {
        setup.network: seeds.results(benchmark, partial(benchmark.specs, setup), store, failures) for setup in setups
    }
    trained = [one for of_network in results.values() for found in of_network.values() for one in found]
    groups = _groups(setups)
    complete = len(groups) == len(ARCHITECTURE_GROUPS)
    covered = ", ".join(ARCHITECTURE_GROUPS[group] for group in groups)
    metric = Metric.of_architectures(groups)
    # The mean of a single group is the score, under its own name.
    title = metric.name if len(groups) > 1 else f"{covered} mean relative accuracy"
    overall = {
        algorithm: _estimate(benchmark, algorithm, results, groups, failures) for algorithm in benchmark.all_algorithms
    }
    ranks = seeds.ranks(overall, "rank", benchmark)
    rows = []
    for algorithm in benchmark.all_algorithms:
        row: dict[str, float | str | None] = {"algorithm": algorithm}
        row |= seeds.accuracy_columns(benchmark, algorithm, results)
        for group, networks in groups.items() if len(groups) > 1 else ():
            of_group = _estimate(benchmark, algorithm, results, {group: networks}, [])
            row |= seeds.columns(f"{ARCHITECTURE_GROUPS[group]} mean relative accuracy", of_group, benchmark)
        rows.append({**row, **seeds.columns(title, overall[algorithm], benchmark), **ranks[algorithm]})
    data = list(dict.fromkeys(setup.label for setup in setups))
    names = {seeds.metric_of_all(found) for found in results.values()}
    name = names.pop() if len(names) == 1 else "main metric of the data"
    return track.scored(
        metric=metric.name,
        formula=metric.formula,
        scores=seeds.values(overall),
        table=pd.DataFrame(rows),
        charts=[seeds.accuracy_bars(benchmark, f"{', '.join(data)} by network", name, results)],
        conditions={
            **training_conditions(benchmark, trained, setups, every_seed=True),
            **(
                {
                    f"network: {setup.network}": f"{ARCHITECTURE_GROUPS[setup.task.group]}, on {setup.label}"
                    for setup in setups
                }
                if len(data) > 1
                else {}
            ),
        },
        notes=[
            *_coverage(groups),
            seeds.note(benchmark, metric.name if len(groups) > 1 else "the mean relative accuracy"),
            *seeds.below_zero(trained, metric.name),
        ],
        failures=failures,
        complete=complete,
    )


def _groups(setups: Sequence[Setup]) -> dict[str, list[str]]:
    """The networks of each group that has any, in BiBench's order."""
    by_group = {
        group: [setup.network for setup in setups if setup.task.group == group] for group in ARCHITECTURE_GROUPS
    }
    return {group: networks for group, networks in by_group.items() if networks}


def _coverage(groups: Mapping[str, Sequence[str]]) -> list[str]:
    if len(groups) == len(ARCHITECTURE_GROUPS):
        return [
            "Each group is measured on its own data: CNNs on images, transformers on text, MLPs on point clouds and "
            "speech, as in BiBench. Accuracies of different data do not compare, their shares of full precision do."
        ]
    covered = " and ".join(ARCHITECTURE_GROUPS[group] for group in groups)
    part = "one of its three parts" if len(groups) == 1 else f"{len(groups)} of its three parts"
    return [
        "BiBench joins the means of convolutional networks, transformers and MLPs; only "
        f"{'the first are' if list(groups) == ['cnn'] else f'{covered} are'} covered here, so this is {part} and not "
        "OM_arch as a whole."
    ]


def _estimate(
    benchmark: ResolvedBenchmark,
    algorithm: str,
    results: _Results,
    groups: Mapping[str, Sequence[str]],
    failures: list[str],
) -> Estimate | None:
    """The quadratic mean over groups of the mean relative accuracy of their networks."""
    needed = [
        one
        for networks in groups.values()
        for network in networks
        for key in (algorithm, BASELINE)
        for one in results[network][key]
    ]

    def metric(chosen: Sequence[int]) -> float:
        relative = {
            group: [
                metrics.relative_accuracy(
                    seeds.mean_accuracy(results[network][algorithm], chosen),
                    seeds.mean_accuracy(results[network][BASELINE], chosen),
                )
                for network in networks
            ]
            for group, networks in groups.items()
        }
        if len(relative) == len(ARCHITECTURE_GROUPS):
            return metrics.om_arch(relative)
        return metrics.quadratic_mean(map(metrics.architecture_group_mean, relative.values()))

    return seeds.score(benchmark, needed, metric, failures, algorithm)
