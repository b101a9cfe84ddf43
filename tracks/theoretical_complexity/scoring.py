"""The score of the complexity track, from the counts kept in a results folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bibench_tf import complexity
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.track import Track
from bibench_tf.complexity import ModelCost
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import Chart, TrackScore
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import metrics
from bibench_tf.tracks.shared.conditions import metric_of, read_results
from bibench_tf.tracks.theoretical_complexity.counting import read_counts


def score(track: Track, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
    """OM_comp of each algorithm on the benchmark's network, from the counts kept in the results folder.

    Raises NewerRecordError for a record of a newer version.
    """
    failures: list[str] = []
    counts = read_counts(benchmark, store.root, failures)
    costs = {algorithm: record.cost for algorithm, record in counts.items()}
    scores: dict[str, float | None] = dict.fromkeys(benchmark.all_algorithms)
    ratios: dict[str, tuple[float, float]] = {}
    for algorithm, cost in costs.items():
        if BASELINE not in costs:
            failures.append(f"{algorithm}: there is no full-precision network to compare with.")
            continue
        try:
            ratios[algorithm] = complexity.ratios(cost, costs[BASELINE])
            scores[algorithm] = metrics.om_comp(*([ratio] for ratio in ratios[algorithm]))
        except metrics.Undefined as error:
            failures.append(f"{algorithm}: {error}")
    inputs = {_size_text(record.options) for record in counts.values()}
    return track.scored(
        scores=scores,
        table=_table(track.metric, costs, ratios, scores),
        charts=_charts(ratios) + _accuracy_charts(costs, read_results(store, benchmark.specs(benchmark.first), [])),
        conditions={
            "network": benchmark.first.network,
            "input": "; ".join(sorted(inputs)),
            "counted": f"multiply-accumulates of kernels for one {benchmark.first.task.unit}; deployed parameters, "
            "two for each channel of batch norm",
        },
        notes=[
            "Bits and operations are counted, not measured: the inference track says their worth on this computer.",
            "Other operations (batch norm, scales, thresholds, pooling, activations) are counted by the rules of "
            "docs/complexity.md and are no part of the ratios, as in BiBench; OPs are binary multiply-accumulates / 64 "
            "and all others.",
        ],
        failures=failures,
    )


def _size_text(options: Mapping[str, Any]) -> str:
    """The options of a builder in words: `32 x 32 x 3, 10 classes`."""
    words = []
    for name, value in options.items():
        if name == "input_shape":
            words.append(" x ".join(map(str, value)))
        elif name.startswith("num_"):
            words.append(f"{value} {name.removeprefix('num_')}")
        else:
            words.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(words)


def _table(
    metric: str,
    costs: Mapping[str, ModelCost],
    ratios: Mapping[str, tuple[float, float]],
    scores: Mapping[str, float | None],
) -> pd.DataFrame:
    rows = []
    for algorithm, cost in costs.items():
        compression, speedup = ratios.get(algorithm, (None, None))
        rows.append(
            {
                "algorithm": algorithm,
                metric: scores[algorithm],
                "r_c": compression,
                "r_s": speedup,
                "parameters": cost.parameters,
                "binary parameters": cost.weights_binary,
                "parameters for training only": cost.weights_training,
                "size (kbit)": cost.bits / 1000,
                "binary MACs (M)": cost.macs_binary / 1e6,
                "low-bit MACs (M)": cost.macs_low_bit / 1e6,
                "float MACs (M)": cost.macs_float / 1e6,
                "other operations (M)": cost.other / 1e6,
                "OPs (M)": complexity.derive("ops64", cost)["operations"] / 1e6,
            }
        )
    return pd.DataFrame(rows)


def _accuracy_charts(costs: Mapping[str, ModelCost], trained: Mapping[str, RunResult | None]) -> list[Chart]:
    """Accuracy against operations and against size, of the networks that were trained for other tracks."""
    shown = [algorithm for algorithm in costs if trained[algorithm] is not None]
    costs_of = {
        "operations": (
            "binary MACs / 64 + others (M)",
            lambda cost: complexity.derive("ops64", cost)["operations"] / 1e6,
        ),
        "size": ("deployed parameters (kbit)", lambda cost: cost.bits / 1000),
    }
    return [
        Chart(
            "points",
            f"Accuracy against {name}",
            label,
            f"{metric_of(trained.values())} (%)",
            {algorithm: [(cost_of(costs[algorithm]), 100 * trained[algorithm].accuracy)] for algorithm in shown},
        )
        for name, (label, cost_of) in costs_of.items()
        if shown
    ]


def _charts(ratios: Mapping[str, tuple[float, float]]) -> list[Chart]:
    if not ratios:
        return []
    series = {
        "compression r_c": [(algorithm, pair[0]) for algorithm, pair in ratios.items()],
        "speed-up r_s": [(algorithm, pair[1]) for algorithm, pair in ratios.items()],
    }
    return [Chart("bars", "Against the full-precision network", "algorithm", "times", series)]
