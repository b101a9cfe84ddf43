"""Counts of single networks and model files, and the conventions derived from them, as text, JSON and CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bibench_tf import complexity, networks
from bibench_tf.complexity import CONVENTIONS, ModelCost
from bibench_tf.errors import BibenchError, UnknownName
from bibench_tf.names import BASELINE, PAPER
from bibench_tf.networks import NETWORKS

if TYPE_CHECKING:
    import tensorflow as tf

ALL = "all"
# The raw counts, and their names in texts.
_WORDS = {
    "parameters": "deployed parameters",
    "weights_binary": "  of one bit",
    "weights_float": "  of more",
    "weights_training": "parameters for training only",
    "bits": "bits of the deployed parameters",
    "macs": "multiply-accumulates for one sample",
    "macs_binary": "  of bits",
    "macs_low_bit": "  of 2 to 8 bits",
    "macs_float": "  of floats",
    "other": "other operations for one sample",
}


@dataclass(frozen=True)
class Counted:
    """One network or model file, what it costs, and its full-precision twin where there is one."""

    network: str
    algorithm: str | None
    input_shape: tuple
    cost: ModelCost
    baseline: ModelCost | None = None
    larq_summary: str | None = None

    @property
    def size(self) -> str:
        """The input shape as text."""
        return " x ".join(map(str, self.input_shape))


def counted(source: str | Path, *zoo_options: Any, with_baseline: bool = True, larq_summary: bool = False) -> Counted:
    """The counts of `zoo:NAME[@WIDTH]` or of a Keras model file; `zoo_options` are those of `of_network`.

    Raises BibenchError for an unknown name, for a size the network does not take, and for a file that is not loaded.
    """
    kind, colon, network = str(source).partition(":")
    if kind == "zoo" and colon:
        return of_network(network, *zoo_options, with_baseline=with_baseline, larq_summary=larq_summary)
    return of_file(Path(source), larq_summary=larq_summary)


def of_network(
    network: str,
    algorithm: str | None = None,
    *size: Any,
    with_baseline: bool = True,
    larq_summary: bool = False,
) -> Counted:
    """A network of the zoo; without an algorithm that of its paper, or `bnn` where it has none.

    `size` is the input shape and the number of classes; those of the builder by default. The twin is counted only
    `with_baseline`, which takes as long again. Raises BibenchError for an unknown name and for a size the network does
    not take.
    """
    if algorithm is None:
        algorithm = PAPER if NETWORKS.get(networks.parse(network)[0]).has_own_binarization else "bnn"
    baseline = complexity.count_network(network, BASELINE, *size) if with_baseline else None
    with complexity.unallocated(network, algorithm, *size) as model:
        return _of_model(network, algorithm, model, baseline, larq_summary)


def of_file(path: Path, *, larq_summary: bool = False) -> Counted:
    """A Keras model file, .keras, .h5 or SavedModel. Raises BibenchError for what `model_files.load` refuses."""
    from bibench_tf import model_files

    return _of_model(str(path), None, model_files.load(path), None, larq_summary)


def _of_model(
    name: str, algorithm: str | None, model: tf.keras.Model, baseline: ModelCost | None, larq_summary: bool
) -> Counted:
    inputs = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    return Counted(
        name,
        algorithm,
        inputs[0] if len(inputs) == 1 else tuple(inputs),
        complexity.count(model),
        baseline,
        complexity.summary_text(model) if larq_summary else None,
    )


def need_baseline(conventions: Sequence[str]) -> bool:
    """Whether one of them compares with the full-precision twin."""
    return any(CONVENTIONS[name].needs_baseline for name in conventions)


def chosen_conventions(names: Sequence[str]) -> tuple[str, ...]:
    """The conventions for what the user named; `all` stands for all of them. Raises BibenchError for an unknown one."""
    for name in names:
        if name != ALL and name not in CONVENTIONS:
            raise UnknownName("convention", name, (*CONVENTIONS, ALL))
    return tuple(CONVENTIONS) if ALL in names else tuple(dict.fromkeys(names))


def values_of(counted: Counted, conventions: Sequence[str]) -> dict[str, dict[str, float]]:
    """The values of each convention; those that need a full-precision twin only where there is one."""
    if counted.baseline is None and tuple(conventions) == ("bibench",):
        raise BibenchError(
            "A model file has no full-precision twin to compare with: choose a convention other than bibench."
        )
    return {
        name: complexity.derive(name, counted.cost, counted.baseline)
        for name in conventions
        if counted.baseline is not None or not CONVENTIONS[name].needs_baseline
    }


def to_json(networks: Sequence[Counted], conventions: Sequence[str], *, per_layer: bool = False) -> Any:
    """One object for one network, a list for several, in the types of JSON."""
    content = [_content(counted, conventions, per_layer) for counted in networks]
    return content[0] if len(content) == 1 else content


def to_text(networks: Sequence[Counted], conventions: Sequence[str], *, per_layer: bool = False) -> str:
    """One network line by line, several as a table; with the tables of layers and Larq's where asked for."""
    if len(networks) > 1:
        parts = [_turned(pd.DataFrame(rows(networks, conventions)))]
    else:
        (counted,) = networks
        parts = ["\n".join(_lines(counted, conventions))]
    for counted in networks:
        if per_layer:
            parts.append(f"{counted.network}:\n{counted.cost.table().to_string(index=False)}")
        if counted.larq_summary:
            parts.append(f"As Larq counts {counted.network} (scales are operations, too):\n{counted.larq_summary}")
    return "\n\n".join(parts)


def rows(networks: Sequence[Counted], conventions: Sequence[str], *, per_layer: bool = False) -> list[dict[str, Any]]:
    """A row for each network, or for each layer of each network.

    The row of a network has raw counts, then the values of the conventions as `convention.value`.
    """
    if not per_layer:
        return [_row(counted, conventions) for counted in networks]
    return [
        {"network": counted.network, **row} for counted in networks for row in counted.cost.table().to_dict("records")
    ]


def _row(counted: Counted, conventions: Sequence[str]) -> dict[str, Any]:
    derived = {
        f"{convention}.{name}": value
        for convention, values in values_of(counted, conventions).items()
        for name, value in values.items()
    }
    names = {"network": counted.network, "algorithm": counted.algorithm or "-", "input_shape": counted.size}
    return {**names, **_counts(counted), **derived}


def _counts(counted: Counted) -> dict[str, int]:
    return {name: getattr(counted.cost, name) for name in _WORDS}


def _content(counted: Counted, conventions: Sequence[str], per_layer: bool) -> dict[str, Any]:
    cost = counted.cost
    rows = zip(cost.layers, cost.table().to_dict("records"), strict=True)
    layers = [dataclasses.asdict(layer) | row for layer, row in rows]
    return {
        "network": counted.network,
        "algorithm": counted.algorithm,
        "input_shape": list(counted.input_shape),
        **_counts(counted),
        "mac_pairs": [dataclasses.asdict(pair) for pair in cost.mac_pairs],
        "weights": [dataclasses.asdict(part) for part in cost.weights],
        "conventions": values_of(counted, conventions),
        **({"layers": layers} if per_layer else {}),
    }


def _lines(counted: Counted, conventions: Sequence[str]) -> list[str]:
    lines = [
        f"network: {counted.network}",
        f"algorithm: {counted.algorithm or '-'}",
        f"input shape: {counted.size}",
        *(f"{_WORDS[name]}: {number:,}" for name, number in _counts(counted).items()),
    ]
    for name, values in values_of(counted, conventions).items():
        lines += ["", f"{name}: {CONVENTIONS[name].title} ({CONVENTIONS[name].source})"]
        lines += [f"  {key}: {_readable(value)}" for key, value in values.items()]
    return lines


def _turned(rows: pd.DataFrame) -> str:
    """The networks side by side: there are fewer networks than values."""
    turned = rows.map(_readable).T
    turned.columns = turned.iloc[0]
    turned.columns.name = None
    return turned.iloc[1:].to_string()


def _readable(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
