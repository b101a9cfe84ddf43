"""Theoretical complexity: parameters, bits and multiply-accumulates, counted layer by layer."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from bibench_tf import complexity, metrics, records
from bibench_tf.benchmark import BASELINE, Benchmark, Session, parse_network
from bibench_tf.complexity import LayerCost, ModelCost
from bibench_tf.errors import BibenchError
from bibench_tf.scores import Chart, TrackScore

if TYPE_CHECKING:
    from bibench_tf.runs import RunSpec, RunStore

NAME = "complexity"
VERSION = 1
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
    """The counts of one network for one image, layer by layer, or the reason why there are none."""

    key: Key
    input_shape: tuple[int, ...]
    num_classes: int
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
    from bibench_tf import datasets

    dataset = datasets.get(benchmark.tasks[0], session.data_dir, session.download)
    for key in tqdm(pending, desc=NAME, unit="network", disable=session.quiet, file=sys.stderr):
        shape = {"input_shape": tuple(dataset.input_shape), "num_classes": dataset.num_classes}
        try:
            _, cost = describe(key.network, key.algorithm, **shape)
            record = Complexity(key=key, layers=cost.layers, **shape)
        except BibenchError as error:
            record = Complexity(key=key, error=str(error), **shape)
        records.write(_path(session.results, key), record)


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_comp of each algorithm on the benchmark's network, from the counts kept in the results folder.

    Raises NewerRecordError for a record of a newer version.
    """
    counted: dict[str, Complexity] = {}
    failures = []
    for key in _keys(benchmark):
        try:
            counted[key.algorithm] = _counted(store.root, key)
        except records.NewerRecordError:
            raise
        except BibenchError as error:
            failures.append(f"{key.algorithm}: {error}")
    costs = {algorithm: record.cost for algorithm, record in counted.items()}
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
    inputs = {(*record.input_shape, record.num_classes) for record in counted.values()}
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=FORMULA,
        scores=scores,
        table=_table(costs, ratios, scores),
        charts=_charts(ratios),
        conditions={
            "network": benchmark.architecture,
            "input": "; ".join(f"{h} x {w} x {c}, {classes} classes" for h, w, c, classes in sorted(inputs)),
            "counted": "multiply-accumulates of kernels for one image; deployed parameters, two for each "
            "channel of batch norm",
        },
        notes=[
            "Bits and operations are counted, not measured: the inference track says what they are worth on "
            "this computer.",
            "Operations besides the multiply-accumulates of convolutions and dense layers (batch norm, "
            "scales, thresholds, pooling, activations) are not counted, as in BiBench.",
        ],
        failures=failures,
    )


def describe(
    network: str, algorithm: str, input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10
) -> tuple[pd.DataFrame, ModelCost]:
    """What one network of the zoo (`resnet20`, `resnet20@0.5`) costs: one row per layer, and the whole.

    Raises BibenchError for an unknown name and for a size the network does not take.
    """
    cost = complexity.count(_build(network, algorithm, input_shape, num_classes))
    return cost.table(), cost


def describe_text(
    network: str,
    algorithm: str,
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    per_layer: bool = False,
    as_json: bool = False,
) -> str:
    """`describe` for reading, with Larq's own summary below it, or as JSON. Raises what `describe` raises."""
    model = _build(network, algorithm, input_shape, num_classes)
    cost = complexity.count(model)
    baseline = complexity.count(_build(network, BASELINE, input_shape, num_classes))
    r_c, r_s = complexity.ratios(cost, baseline)
    whole = {
        "network": network,
        "algorithm": algorithm,
        "input_shape": list(input_shape),
        "num_classes": num_classes,
        "parameters": cost.parameters,
        "weights_binary": cost.weights_binary,
        "weights_float": cost.weights_float,
        "weights_training": cost.weights_training,
        "bits": cost.bits,
        "macs": cost.macs,
        "macs_binary": cost.macs_binary,
        "macs_float": cost.macs_float,
        "r_c": r_c,
        "r_s": r_s,
        "om_comp": metrics.om_comp([r_c], [r_s]),
    }
    if as_json:
        layers = {"layers": cost.table().to_dict("records")} if per_layer else {}
        return json.dumps({**whole, **layers}, indent=1)
    lines = [f"{_WORDS.get(name, name)}: {_readable(value)}" for name, value in whole.items()]
    parts = [
        "\n".join(lines),
        f"As Larq counts it (scales are operations, too):\n{complexity.summary_text(model)}",
    ]
    if per_layer:
        parts.insert(1, cost.table().to_string(index=False))
    return "\n\n".join(parts)


_WORDS = {
    "input_shape": "input shape",
    "num_classes": "classes",
    "parameters": "deployed parameters",
    "weights_binary": "  of one bit",
    "weights_float": "  of more",
    "weights_training": "parameters for training only",
    "bits": "bits of the deployed parameters",
    "macs": "multiply-accumulates for one image",
    "macs_binary": "  of bits",
    "macs_float": "  of floats",
    "r_c": "compression r_c",
    "r_s": "theoretical speed-up r_s",
    "om_comp": METRIC,
}


def _readable(value: object) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _build(network: str, algorithm: str, input_shape: Sequence[int], num_classes: int):
    from bibench_tf import zoo

    name, width = parse_network(network)
    return zoo.build(name, algorithm=algorithm, input_shape=tuple(input_shape), num_classes=num_classes, width=width)


def _keys(benchmark: Benchmark) -> list[Key]:
    return [Key(benchmark.tasks[0], benchmark.architecture, algorithm) for algorithm in benchmark.all_algorithms]


def _path(results: Path, key: Key) -> Path:
    digest = records.digest(dataclasses.asdict(key))[:12]
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
        return Complexity(
            **{
                **data,
                "key": Key(**data["key"]),
                "input_shape": tuple(data["input_shape"]),
                "layers": tuple(LayerCost(**layer) for layer in data["layers"]),
            }
        )

    return records.read(path, Complexity, build)


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
