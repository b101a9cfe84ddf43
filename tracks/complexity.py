"""Theoretical complexity: parameters, bits and multiply-accumulates of the network, counted layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from bibench_tf import metrics
from bibench_tf.benchmark import BASELINE, Benchmark, Session
from bibench_tf.errors import BibenchError
from bibench_tf.scores import Chart, TrackScore

if TYPE_CHECKING:
    from bibench_tf.complexity import ModelCost
    from bibench_tf.runs import RunSpec, RunStore

NAME = "complexity"
TITLE = "Theoretical complexity"
METRIC = "OM_comp"
FORMULA = "sqrt(1/2 (r_c^2 + r_s^2)), r_c compression in bits, r_s speed-up with 64 binary operations for one"


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Nothing: counting needs no training."""
    return []


def measure(benchmark: Benchmark, session: Session) -> None:
    """Nothing: `score` counts."""


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_comp of each algorithm on the benchmark's network, at the image size and classes of its first task."""
    from bibench_tf import complexity, datasets

    dataset = datasets.get(benchmark.tasks[0])
    costs: dict[str, ModelCost] = {}
    scores: dict[str, float | None] = dict.fromkeys(benchmark.all_algorithms)
    ratios: dict[str, tuple[float, float]] = {}
    failures = []
    for algorithm in benchmark.all_algorithms:
        try:
            costs[algorithm] = complexity.count(
                _network(
                    benchmark.architecture,
                    algorithm,
                    dataset.input_shape,
                    dataset.num_classes,
                    benchmark.width,
                )
            )
            ratios[algorithm] = complexity.ratios(costs[algorithm], costs[BASELINE])
            scores[algorithm] = metrics.om_comp(*([ratio] for ratio in ratios[algorithm]))
        except KeyError:
            failures.append(f"{algorithm}: there is no full-precision network to compare with.")
        except (BibenchError, metrics.Undefined) as error:
            failures.append(f"{algorithm}: {error}")
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=FORMULA,
        scores=scores,
        table=_table(costs, ratios, scores),
        charts=_charts(ratios),
        conditions={
            "network": f"{benchmark.architecture}, width {benchmark.width:g}",
            "input": f"{' x '.join(map(str, dataset.input_shape))}, {dataset.num_classes} classes",
            "counted": "kernels' multiply-accumulates for one image; deployed parameters, two for each channel "
            "of batch norm",
        },
        notes=[
            "Bits and operations are counted, not measured: the inference track says what they are worth on "
            "this computer.",
            "Operations besides the multiply-accumulates of convolutions and dense layers (batch norm, scales, "
            "thresholds, pooling, activations) are not counted, as in BiBench.",
        ],
        failures=failures,
        complete=False,
    )


def describe(
    network: str,
    algorithm: str,
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    width: float = 1.0,
) -> tuple[pd.DataFrame, ModelCost]:
    """What one network of the zoo costs: one row per layer, and the whole.

    Raises BibenchError for an unknown name and for a size the network does not take.
    """
    from bibench_tf import complexity

    cost = complexity.count(_network(network, algorithm, input_shape, num_classes, width))
    return cost.table(), cost


def summary(
    network: str,
    algorithm: str,
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    width: float = 1.0,
) -> str:
    """The table `larq.models.summary` prints for the same network. Larq counts scales as operations, too."""
    from bibench_tf import complexity

    return complexity.summary_text(_network(network, algorithm, input_shape, num_classes, width))


def _network(network: str, algorithm: str, input_shape: Sequence[int], num_classes: int, width: float):
    from bibench_tf import zoo

    return zoo.build(
        network, algorithm=algorithm, input_shape=tuple(input_shape), num_classes=num_classes, width=width
    )


def _table(
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
                METRIC: scores[algorithm],
                "r_c": compression,
                "r_s": speedup,
                "parameters": cost.parameters,
                "binary parameters": cost.weights_binary,
                "parameters for training only": cost.weights_training,
                "size (kbit)": cost.bits / 1000,
                "binary MACs (M)": cost.macs_binary / 1e6,
                "float MACs (M)": cost.macs_float / 1e6,
            }
        )
    return pd.DataFrame(rows)


def _charts(ratios: Mapping[str, tuple[float, float]]) -> list[Chart]:
    if not ratios:
        return []
    series = {
        "compression r_c": [(algorithm, pair[0]) for algorithm, pair in ratios.items()],
        "speed-up r_s": [(algorithm, pair[1]) for algorithm, pair in ratios.items()],
    }
    return [Chart("bars", "Against the full-precision network", "algorithm", "times", series)]
