"""Values over seeds for the tracks that train every seed: columns, ranks, intervals and notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.report.scores import Chart
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.stats import bootstrap, intervals, metrics
from bibench_tf.stats.intervals import Estimate
from bibench_tf.tracks.shared.conditions import column, metric_of, read_results, short_name


def results(
    benchmark: ResolvedBenchmark, specs: Callable[[int], dict[str, RunSpec]], store: RunStore, failures: list[str]
) -> dict[str, list[RunResult | None]]:
    """The results of the runs that `specs` names for a seed: by algorithm, one for each seed.

    A missing result appends an explanation to `failures` and is None.
    """
    by_seed = [read_results(store, specs(seed), failures) for seed in benchmark.every_seed]
    return {algorithm: [found[algorithm] for found in by_seed] for algorithm in benchmark.all_algorithms}


def accuracy(found: Sequence[RunResult | None]) -> Estimate | None:
    """`mean` of the accuracy."""
    return mean(found, lambda result: result.accuracy)


def mean_accuracy(found: Sequence[RunResult], chosen: Sequence[int]) -> float:
    """The mean accuracy of the seeds of these indices; one below 0, as correlations may be, counts as 0."""
    mean = math.fsum(found[index].accuracy for index in chosen) / len(chosen)
    return 0.0 if mean < 0 else mean  # `max` would make 0 of NaN


def below_zero(results: Iterable[RunResult | None], metric: str) -> list[str]:
    """A note on the results whose main metric is below 0, where there are any."""
    named = (
        f"{result.spec.algorithm} on {result.spec.dataset} ({result.metric} {result.accuracy:.3f})"
        for result in results
        if result is not None and result.accuracy < 0
    )
    text = ", ".join(dict.fromkeys(named))
    return [f"A mean value below 0 counts as 0 in {metric}. Below 0: {text}."] if text else []


def mean(found: Sequence[RunResult | None], value: Callable[[RunResult], float]) -> Estimate | None:
    """The mean of a value over the results of all seeds; None where one of them is missing."""
    return intervals.mean([value(result) for result in found]) if all(found) else None


def score(
    benchmark: ResolvedBenchmark,
    needed: Iterable[RunResult | None],
    metric: Callable[[Sequence[int]], float],
    failures: list[str],
    what: str,
) -> Estimate | None:
    """The metric that `metric` computes from the seeds of some indices, over all seeds, and its interval.

    None where one of the results `needed` is missing, and where the metric is undefined; the reason of that goes to
    `failures`, after `what`.
    """
    if not all(needed):
        return None
    try:
        return intervals.jackknife(metric, benchmark.seeds)
    except metrics.Undefined as error:
        failures.append(f"{what}: {error}")
        return None


def values(estimates: Mapping[str, Estimate | None]) -> dict[str, float | None]:
    """The values without their intervals, as a track's scores."""
    return {key: None if estimate is None else estimate.value for key, estimate in estimates.items()}


def columns(
    title: str, estimate: Estimate | None, benchmark: ResolvedBenchmark, factor: float = 1, unit: str = ""
) -> dict[str, float | None]:
    """The columns of a value in a table: the value, and +- half its interval where there are several seeds."""
    found = {f"{title} ({unit})" if unit else title: None if estimate is None else factor * estimate.value}
    if benchmark.seeds > 1:
        width = None if estimate is None or estimate.half_width is None else factor * estimate.half_width
        found[f"{title} ± ({'points' if unit == '%' else unit})" if unit else f"{title} ±"] = width
    return found


def accuracy_columns(
    benchmark: ResolvedBenchmark, algorithm: str, results: Mapping[str, Mapping[str, Sequence[RunResult | None]]]
) -> dict[str, float | None]:
    """The `columns` of the accuracies of an algorithm, from results by data set or network, algorithm and seed."""
    found: dict[str, float | None] = {}
    for name, of in results.items():
        found |= columns(column(name, metric_of_all(of)), accuracy(of[algorithm]), benchmark, factor=100, unit="%")
    return found


def ranks(
    estimates: Mapping[str, Estimate | None], title: str, benchmark: ResolvedBenchmark
) -> dict[str, dict[str, str]]:
    """A column of the places each algorithm may hold; no column with one seed, and no place without a value."""
    if benchmark.seeds == 1:
        return {key: {} for key in estimates}
    known = [key for key, estimate in estimates.items() if estimate is not None]
    places = bootstrap.ranks(intervals.better([estimates[key] for key in known]))
    texts = dict(zip(known, map(bootstrap.rank_text, places), strict=True))
    return {key: {title: texts.get(key)} for key in estimates}


def metric_of_all(results: Mapping[str, Sequence[RunResult | None]]) -> str:
    """The name of the main metric of results by algorithm."""
    return metric_of(one for found in results.values() for one in found)


def accuracy_bars(
    benchmark: ResolvedBenchmark,
    what: str,
    metric: str,
    results: Mapping[str, Mapping[str, Sequence[RunResult | None]]],
) -> Chart:
    """Bars of accuracies with their intervals, from results by series, algorithm and seed."""
    accuracies = {
        name: {algorithm: accuracy(of_seeds) for algorithm, of_seeds in found.items()}
        for name, found in results.items()
    }
    return Chart(
        "bars",
        f"Test {short_name(metric)} on {what}{of_title(benchmark)}",
        "algorithm",
        f"{metric} (%)",
        {name: [(key, 100 * one.value) for key, one in found.items() if one] for name, found in accuracies.items()},
        intervals={name: accuracy_intervals(found) for name, found in accuracies.items()},
    )


def accuracy_intervals(estimates: Mapping[Any, Estimate | None]) -> list[tuple[str | float, float, float]]:
    """The intervals of accuracies for a chart in percent, within what an accuracy can be."""
    return [
        (key, max(0.0, 100 * estimate.low), min(100.0, 100 * estimate.high))
        for key, estimate in estimates.items()
        if estimate is not None and estimate.half_width is not None
    ]


def note(benchmark: ResolvedBenchmark, metric: str) -> str:
    """The note on intervals and ranks, or on their absence."""
    if benchmark.seeds == 1:
        return (
            f"One seed ({benchmark.seed}): there are no intervals and no ranks, and differences between algorithms may "
            "be chance."
        )
    return (
        f"Values are means over {benchmark.seeds} seeds, and {metric} is that of the mean accuracies. ± is half a "
        f"{bootstrap.LEVEL * 100:g} % interval by Student's t over the seeds (t = "
        f"{intervals.t_value(benchmark.seeds):.1f} standard errors), for {metric} by the jackknife. Ranks are the "
        "places an algorithm may hold: two algorithms differ significantly where their intervals do not overlap."
    )


def of_title(benchmark: ResolvedBenchmark) -> str:
    """The addition to the title of a chart with intervals."""
    return (
        "" if benchmark.seeds == 1 else f"; mean of {benchmark.seeds} seeds, intervals at {bootstrap.LEVEL * 100:g} %"
    )
