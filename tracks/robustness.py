"""Corruption robustness: how much accuracy the networks of the main task lose on corrupted test images."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bibench_tf import corruptions, metrics, records
from bibench_tf.benchmark import BASELINE, Benchmark, Session
from bibench_tf.errors import BibenchError
from bibench_tf.scores import Chart, TrackScore
from bibench_tf.tracks import base

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import ImageDataset
    from bibench_tf.runs import RunResult, RunSpec, RunStore

NAME = "robustness"
TITLE = "Corruption robustness"
FILE = "robustness.json"
METRIC = "OM_robust"
FORMULA = (
    "sqrt(mean over corruptions of (G_fp / G_bi)^2), G = max(0, 1 - corrupted accuracy / clean accuracy), "
    "corrupted accuracy averaged over the five severities"
)
BATCH_SIZE = 250


@dataclass(frozen=True)
class Robustness:
    """The accuracies of one trained network under corruption, and what decides them.

    `result` is the digest of the training result of the network, `dataset` the fingerprint of the data.
    `images` test images, the first ones, give `clean_accuracy` and, by corruption, `accuracies` at
    severities 1 to 5 (top-1, 0..1). `seed` is that of the noise.
    """

    run_id: str
    result: str
    dataset: str
    images: int
    seed: int
    version: int
    clean_accuracy: float | None = None
    accuracies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def settings(self) -> Robustness:
        """The same record without its measurements."""
        return dataclasses.replace(self, clean_accuracy=None, accuracies={})


@dataclass
class _Network:
    """A trained network that is being measured, and its record on the disk."""

    path: Path
    record: Robustness
    model: tf.keras.Model

    def keep(self, conditions: dict[str, Any], **measured) -> None:
        self.record = dataclasses.replace(self.record, **measured)
        records.write(self.path, self.record, environment=conditions)


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """The main runs: one network for each algorithm. Raises BibenchError for an unknown corruption."""
    for name in benchmark.corruptions:
        corruptions.check(name, channels=3)
    return list(base.main_specs(benchmark).values())


def measure(benchmark: Benchmark, session: Session) -> None:
    """Evaluate every completed network on clean and corrupted test images.

    All networks see a corrupted batch before the next is made. The record of a network is written after
    each corruption, so that an interrupted measurement goes on with the next one. A damaged record is set
    aside, named on stderr, and made again. Raises BibenchError for a corruption that does not fit the images,
    for data other than the networks were trained on, and for a network that cannot be loaded.
    """
    from bibench_tf import datasets, environment, runner, runs

    store = runs.RunStore(session.results)
    started = _unfinished(benchmark, store)
    if not started:
        return
    dataset = datasets.get(benchmark.tasks[0], session.data_dir, session.download)
    for name in benchmark.corruptions:
        corruptions.check(name, dataset.input_shape[2])
    if any(record.dataset != dataset.fingerprint for _, record in started):
        raise BibenchError(
            f"The data of '{dataset.name}' are not those the networks in {session.results} were trained on: "
            "give those, or another results folder."
        )
    networks = [_Network(store.folder(spec) / FILE, record, store.model(spec)) for spec, record in started]
    conditions = environment.describe()
    todo = [
        name for name in benchmark.corruptions if any(name not in network.record.accuracies for network in networks)
    ]
    steps = 1 + len(todo) * len(corruptions.SEVERITIES)
    with runner.progress_bar(steps, "set", session) as progress:
        progress.set_description(NAME)
        chosen = [network for network in networks if network.record.clean_accuracy is None]
        for network, accuracy in zip(chosen, _accuracies(chosen, dataset), strict=True):
            network.keep(conditions, clean_accuracy=accuracy)
        progress.update()
        for name in todo:
            chosen = [network for network in networks if name not in network.record.accuracies]
            rows = []
            for severity in corruptions.SEVERITIES:
                rows.append(_accuracies(chosen, dataset, partial(_corrupt, name, severity, benchmark.seed)))
                progress.update()
            for network, row in zip(chosen, zip(*rows, strict=True), strict=True):
                network.keep(conditions, accuracies={**network.record.accuracies, name: list(row)})


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_robust of each algorithm from the records beside the main runs; nothing is measured here."""
    measured: dict[str, Robustness] = {}
    failures, notes = [], []
    specs = base.main_specs(benchmark)
    results = base.read_results(store, specs, failures)
    for algorithm, result in results.items():
        if result is None:
            continue
        try:
            measured[algorithm] = _measured(benchmark, store, specs[algorithm], result)
        except BibenchError as error:
            failures.append(str(error))
    gaps = {}
    for algorithm, record in measured.items():
        try:
            gaps[algorithm] = _gaps(benchmark.corruptions, record)
        except metrics.Undefined as error:
            notes.append(f"{algorithm} has no {METRIC}: {error}")
    scores: dict[str, float | None] = dict.fromkeys(benchmark.all_algorithms)
    if BASELINE not in gaps:
        notes.append("Without the full-precision network there is nothing to compare with: no scores.")
    else:
        for algorithm in gaps:
            try:
                scores[algorithm] = metrics.om_robust(gaps[BASELINE], gaps[algorithm])
            except metrics.Undefined as error:
                notes.append(f"{algorithm} has no {METRIC}: {error}")
    images = next((record.images for record in measured.values()), benchmark.corrupted_images)
    notes.append(
        f"BiBench scores the whole of CIFAR-10-C; this covers {len(benchmark.corruptions)} of its "
        f"corruptions, made on the fly at its severities on test images of {benchmark.tasks[0]}."
    )
    notes.append(
        "The gap of a corruption is taken from its mean accuracy over the five severities: at a single mild "
        "severity a network often loses nothing, and the ratio would have no value."
    )
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=FORMULA,
        scores=scores,
        table=_table(benchmark, measured, gaps, scores),
        charts=[_chart(benchmark, measured)] if measured else [],
        conditions={
            **base.training_conditions(benchmark, list(results.values())),
            "network": benchmark.architecture,
            "test images": "all" if images is None else f"the first {images:,}, clean and corrupted",
            "corruptions": ", ".join(benchmark.corruptions),
            "severities": "1 to 5 of CIFAR-10-C",
            "noise seed": str(benchmark.seed),
        },
        notes=notes,
        failures=failures,
        complete=False,
    )


def _settings(benchmark: Benchmark, spec: RunSpec, result: RunResult) -> Robustness:
    examples = result.dataset["test_examples"]
    return Robustness(
        run_id=spec.id,
        result=records.digest(dataclasses.asdict(result)),
        dataset=result.dataset["fingerprint"],
        images=min(benchmark.corrupted_images or examples, examples),
        seed=benchmark.seed,
        version=corruptions.VERSION,
    )


def _unfinished(benchmark: Benchmark, store: RunStore) -> list[tuple[RunSpec, Robustness]]:
    """The completed runs whose record lacks something, with what there is of it under the same settings."""
    unfinished = []
    for spec in base.main_specs(benchmark).values():
        path = store.folder(spec) / FILE
        result = base.read_result(store, spec, failures=[])
        if result is None:
            continue
        settings = _settings(benchmark, spec, result)
        try:
            record = records.read(path, Robustness) if path.exists() else settings
        except records.RecordError as error:
            aside = path.replace(path.with_suffix(".json.damaged"))
            print(f"{error} It is measured again; the file is kept as {aside.name}.", file=sys.stderr)
            record = settings
        if record.settings != settings:
            record = settings
        if record.clean_accuracy is None or not set(benchmark.corruptions) <= set(record.accuracies):
            unfinished.append((spec, record))
    return unfinished


def _measured(benchmark: Benchmark, store: RunStore, spec: RunSpec, result: RunResult) -> Robustness:
    """The complete record beside a run; raises BibenchError saying why there is none."""
    path = store.folder(spec) / FILE
    if not path.exists():
        raise BibenchError(f"The robustness of {spec.algorithm} has not been measured.")
    record = records.read(path, Robustness)
    if record.settings != _settings(benchmark, spec, result):
        raise BibenchError(f"{path} was measured under other settings; it is not scored.")
    missing = [name for name in benchmark.corruptions if name not in record.accuracies]
    if missing:
        raise BibenchError(f"Robustness of {spec.algorithm} to {', '.join(missing)} has not been measured.")
    return record


def _corrupt(name: str, severity: int, seed: int, images: np.ndarray, first_index: int) -> np.ndarray:
    return corruptions.apply(name, images, severity, seed=seed, first_index=first_index)


def _accuracies(networks: Sequence[_Network], dataset: ImageDataset, corrupt=None) -> list[float]:
    """The top-1 accuracies of networks that are to be measured on the same images."""
    if not networks:
        return []
    images = networks[0].record.images
    right = np.zeros(len(networks), np.int64)
    for batch, labels in dataset.test_batches(BATCH_SIZE, limit=images, corrupt=corrupt):
        classes = (network.model.predict_on_batch(batch).argmax(axis=-1) for network in networks)
        right += [np.sum(found == labels.numpy()) for found in classes]
    return [float(value) for value in right / images]


def _gaps(names: Sequence[str], record: Robustness) -> dict[str, float]:
    return {
        name: metrics.generalization_gap(record.clean_accuracy, float(np.mean(record.accuracies[name])))
        for name in names
    }


def _table(benchmark, measured, gaps, scores) -> pd.DataFrame:
    rows = []
    for algorithm in benchmark.all_algorithms:
        row = {"algorithm": algorithm}
        if record := measured.get(algorithm):
            means = {f"{name} (%)": 100 * float(np.mean(record.accuracies[name])) for name in benchmark.corruptions}
            row["clean accuracy (%)"] = 100 * record.clean_accuracy
            row["mean corrupted accuracy (%)"] = float(np.mean(list(means.values())))
            row.update(means)
        if algorithm in gaps:
            row["mean gap"] = float(np.mean(list(gaps[algorithm].values())))
        rows.append({**row, METRIC: scores[algorithm]})
    return pd.DataFrame(rows)


def _chart(benchmark, measured) -> Chart:
    def points(record: Robustness) -> list[tuple[float, float]]:
        by_severity = np.mean([record.accuracies[name] for name in benchmark.corruptions], axis=0)
        accuracies = [record.clean_accuracy, *by_severity.tolist()]
        return [(float(severity), 100 * accuracy) for severity, accuracy in enumerate(accuracies)]

    return Chart(
        kind="lines",
        title="Accuracy against severity, mean over corruptions",
        x_label="severity (0: clean)",
        y_label="accuracy (%)",
        series={algorithm: points(record) for algorithm, record in measured.items()},
    )
