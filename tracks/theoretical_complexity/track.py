"""Theoretical complexity: parameters, bits and multiply-accumulates, counted layer by layer."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from bibench_tf import complexity, datasets, files
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.complexity import LayerCost, Macs, ModelCost, Weights
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import Chart, TrackScore
from bibench_tf.results import records
from bibench_tf.stats import metrics
from bibench_tf.tracks.base import IMAGES, load_data, main_specs, metric_of, network_for, read_results
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    from bibench_tf.results.runs import RunResult, RunSpec, RunStore

NAME = "complexity"
VERSION = 2
TITLE = "Theoretical complexity"
METRIC = "OM_comp"
FORMULA = "sqrt(1/2 (r_c^2 + r_s^2)), r_c compression in bits, r_s speed-up with 64 binary operations for one"


@dataclass(frozen=True)
class Key:
    """What decides a count. `version` changes when the way of counting does."""

    task: str
    network: str
    algorithm: str
    version: int = VERSION


@dataclass(frozen=True)
class Complexity:
    """The raw counts of one network for one example, layer by layer, or the reason why there are none.

    `options` are those of the network's builder, such as the size of its inputs. Conventions are derived from the
    counts and not kept.
    """

    key: Key
    options: Mapping[str, Any]
    layers: tuple[LayerCost, ...] = ()
    error: str | None = None

    @property
    def cost(self) -> ModelCost:
        """The counts, with their sums."""
        return ModelCost(self.layers)


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Nothing: counting needs no training."""
    return []


def measure(benchmark: Benchmark, session: Session) -> None:
    """Count every network that has no record yet; nothing is trained or timed.

    A network that cannot be counted gets a record with the reason and is tried again the next time. Damaged
    records are left for the score to report.
    """
    pending = [key for key in _keys(benchmark) if not _is_counted(session.results, key)]
    if not pending:
        return
    dataset = benchmark.data[0]
    options = dict(load_data(dataset, session, network_for(benchmark, dataset)).fixed_options)
    for key in tqdm(pending, desc=NAME, unit="network", disable=session.quiet, file=sys.stderr):
        try:
            _, cost = describe(key.network, key.algorithm, **options)
            record = Complexity(key=key, options=options, layers=cost.layers)
        except BibenchError as error:
            record = Complexity(key=key, options=options, error=str(error))
        records.write(_path(session.results, key), record)


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_comp of each algorithm on the benchmark's network, from the counts kept in the results folder.

    Raises NewerRecordError for a record of a newer version.
    """
    failures: list[str] = []
    counts = _read_counts(benchmark, store.root, failures)
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
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=FORMULA,
        scores=scores,
        table=_table(costs, ratios, scores),
        charts=_charts(ratios) + _accuracy_charts(costs, _trained(benchmark, store)),
        conditions={
            "network": network_for(benchmark, benchmark.data[0]),
            "input": "; ".join(sorted(inputs)),
            "counted": f"multiply-accumulates of kernels for one {_example(benchmark)}; deployed parameters, two for "
            "each channel of batch norm",
        },
        notes=[
            "Bits and operations are counted, not measured: the inference track says what they are worth on "
            "this computer.",
            "Other operations (batch norm, scales, thresholds, pooling, activations) are counted by the rules of "
            "docs/complexity.md and are no part of the ratios, as in BiBench; OPs are binary multiply-accumulates / 64 "
            "and all others.",
        ],
        failures=failures,
    )


def counted(benchmark: Benchmark, results: Path) -> dict[str, ModelCost]:
    """The counts a results folder holds, by algorithm; raises NewerRecordError for a record of a newer version."""
    return {algorithm: record.cost for algorithm, record in _read_counts(benchmark, results, []).items()}


def describe(
    network: str, algorithm: str, input_shape: Sequence[int] | None = None, num_classes: int | None = None, **options
) -> tuple[pd.DataFrame, ModelCost]:
    """What one network of the zoo (`resnet20`, `resnet20@0.5`) costs: one row per layer, and the whole.

    Without a size the network has that of its builder; `options` are further ones of it. Raises BibenchError for an
    unknown name and for a size the network does not take.
    """
    cost = complexity.count_network(network, algorithm, input_shape, num_classes, **options)
    return cost.table(), cost


def _keys(benchmark: Benchmark) -> list[Key]:
    dataset = benchmark.data[0]
    network = network_for(benchmark, dataset)
    return [Key(dataset, network, algorithm) for algorithm in benchmark.all_algorithms]


def _read_counts(benchmark: Benchmark, results: Path, failures: list[str]) -> dict[str, Complexity]:
    """The records by algorithm; why one is missing goes into `failures`."""
    found: dict[str, Complexity] = {}
    for key in _keys(benchmark):
        try:
            found[key.algorithm] = _counted(results, key)
        except records.NewerRecordError:
            raise
        except BibenchError as error:
            failures.append(f"{key.algorithm}: {error}")
    return found


def _path(results: Path, key: Key) -> Path:
    digest = files.digest(dataclasses.asdict(key))[:12]
    return results / "complexity" / f"{key.network}-{key.algorithm}-{digest}.json"


def _is_counted(results: Path, key: Key) -> bool:
    try:
        return _path(results, key).exists() and _read(_path(results, key)).error is None
    except records.RecordError:
        return True


def _counted(results: Path, key: Key) -> Complexity:
    """The counts of a network; raises BibenchError saying why there are none."""
    path = _path(results, key)
    if not path.exists():
        raise BibenchError("not counted yet.")
    record = _read(path)
    if record.key != key:
        raise records.RecordError(f"{path} belongs to another network; it is not scored.")
    if record.error is not None:
        raise BibenchError(record.error)
    return record


def _read(path: Path) -> Complexity:
    def build(data: dict[str, Any]) -> Complexity:
        # Records of earlier versions are of images and have the two options of their networks beside each other.
        images = {name: data[name] for name in ("input_shape", "num_classes") if name in data}
        options = images or data["options"]
        return Complexity(
            key=Key(**data["key"]),
            options={name: tuple(value) if isinstance(value, list) else value for name, value in options.items()},
            layers=tuple(_layer(layer) for layer in data["layers"]),
            error=data["error"],
        )

    return records.read(path, Complexity, build)


def _layer(data: dict[str, Any]) -> LayerCost:
    pairs = tuple(Macs(**macs) for macs in data["mac_pairs"])
    return LayerCost(**{**data, "mac_pairs": pairs, "weights": tuple(Weights(**part) for part in data["weights"])})


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


def _example(benchmark: Benchmark) -> str:
    return "image" if datasets.task_of(benchmark.data[0]) == IMAGES else "example"


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
                "low-bit MACs (M)": cost.macs_low_bit / 1e6,
                "float MACs (M)": cost.macs_float / 1e6,
                "other operations (M)": cost.other / 1e6,
                "OPs (M)": complexity.derive("ops64", cost)["operations"] / 1e6,
            }
        )
    return pd.DataFrame(rows)


def _trained(benchmark: Benchmark, store: RunStore) -> dict[str, RunResult]:
    """The networks that were trained for other tracks, by algorithm."""
    results = read_results(store, main_specs(benchmark), [])
    return {algorithm: result for algorithm, result in results.items() if result is not None}


def _accuracy_charts(costs: Mapping[str, ModelCost], trained: Mapping[str, RunResult]) -> list[Chart]:
    """Accuracy against operations and against size, where networks were trained."""
    shown = [algorithm for algorithm in costs if algorithm in trained]
    figures = {
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
            {algorithm: [(figure(costs[algorithm]), 100 * trained[algorithm].accuracy)] for algorithm in shown},
        )
        for name, (label, figure) in figures.items()
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
