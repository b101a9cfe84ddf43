"""Hardware inference: the trained networks as Larq Compute Engine files, run and timed on this computer."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bibench_tf import metrics, records
from bibench_tf.benchmark import BASELINE, Benchmark, Session
from bibench_tf.errors import BibenchError
from bibench_tf.scores import Chart, TrackScore
from bibench_tf.tracks import base

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.deploy.convert import Converter
    from bibench_tf.deploy.host import HostNetwork, Latency
    from bibench_tf.runs import RunSpec, RunStore

NAME = "inference"
TITLE = "Hardware inference"
FILE = "inference.json"
MODEL_FILE = "model.tflite"
METRIC = "OM_infer"
FORMULA = "sqrt(1/2 ((T_fp / T_bi)^2 + (S_fp / S_bi)^2)), T latency and S file size, on this computer"
# Enough to see a wrong conversion, few enough for seconds.
PARITY_IMAGES = 500
# The file adds the same numbers in another order, so that a value next to zero may get the other sign,
# which can change many outputs a little. A wrong conversion fails both of these, rounding at most one.
MEDIAN_LIMIT = 1e-2
AGREEMENT_LIMIT = 0.95
VERSION = 1
_BATCH_SIZE = 100


@dataclass(frozen=True)
class Parity:
    """Keras against the deployed file on test images.

    The differences are the largest of each image, relative to the range of all outputs: the median image
    and the worst. `top1_agreement` and the accuracies are shares in 0..1.
    """

    images: int
    median_difference: float
    largest_difference: float
    top1_agreement: float
    keras_accuracy: float
    deployed_accuracy: float

    @property
    def same(self) -> bool:
        """Whether both are one network, up to rounding."""
        return self.median_difference <= MEDIAN_LIMIT or self.top1_agreement >= AGREEMENT_LIMIT


@dataclass(frozen=True)
class Inference:
    """A trained network as a file on this computer, and what decides the measurement.

    `result` and `baseline` are the digests of the training results of the network and of its full-precision
    twin. `binary_layers` counts the layers that multiply bits in Keras (None where they cannot be counted),
    `binary_operations` those in the file. `baseline_latency` is that of the twin, measured in turns with
    `latency`; None when there is no twin. `error` is the reason why there is nothing else.
    """

    run_id: str
    result: str
    baseline: str | None
    dataset: str
    images: int
    version: int
    error: str | None = None
    host: dict[str, Any] = field(default_factory=dict)
    kernel: str | None = None
    threads: int | None = None
    size_bytes: int | None = None
    file_sha256: str | None = None
    binary_layers: int | None = None
    binary_operations: int | None = None
    operations: dict[str, int] = field(default_factory=dict)
    parity: Parity | None = None
    latency: Latency | None = None
    baseline_latency: Latency | None = None

    @property
    def settings(self) -> tuple:
        """What decides the measurement."""
        return self.run_id, self.result, self.baseline, self.dataset, self.images, self.version


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """The main runs: one network for each algorithm."""
    return list(base.main_specs(benchmark).values())


def measure(benchmark: Benchmark, session: Session) -> None:
    """Convert, check and time every completed network that has no record of it under the same settings.

    The file is kept beside the record. A network that cannot be converted gets a record with the reason and
    is tried again the next time. Damaged records are left for the score to report. Raises BibenchError for
    data other than the networks were trained on.
    """
    from bibench_tf import datasets, runs
    from bibench_tf.deploy import convert

    store = runs.RunStore(session.results)
    pending = dict(_pending(benchmark, store))
    if not pending:
        return
    dataset = datasets.get(benchmark.tasks[0], session.data_dir, session.download)
    if any(record.dataset != dataset.fingerprint for record in pending.values()):
        raise BibenchError(
            f"The data of '{dataset.name}' are not those the networks in {session.results} were trained on: "
            "give those, or another results folder."
        )
    batches = dataset.test_batches(_BATCH_SIZE, limit=PARITY_IMAGES)
    images, labels = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
    # The full-precision network comes first: the others are timed against it.
    progress = tqdm(pending.items(), desc=NAME, unit="network", disable=session.quiet, file=sys.stderr)
    with convert.Converter() as converter:
        for spec, record in progress:
            _measure_one(converter, store, spec, record, _twin(benchmark, store, spec), images, labels)


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_infer of each algorithm from the records beside the main runs; nothing is measured here."""
    specs = base.main_specs(benchmark)
    measured: dict[str, Inference] = {}
    scores: dict[str, float | None] = dict.fromkeys(specs)
    failures = []
    for algorithm, spec in specs.items():
        try:
            measured[algorithm] = _measured(benchmark, store, spec)
        except BibenchError as error:
            failures.append(f"{algorithm}: {error}")
    for algorithm, record in measured.items():
        try:
            scores[algorithm] = _score(record, measured.get(BASELINE), algorithm == BASELINE)
        except (BibenchError, metrics.Undefined) as error:
            failures.append(f"{algorithm}: {error}")
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=FORMULA,
        scores=scores,
        table=_table(measured, scores),
        charts=_charts(measured),
        conditions=_conditions(benchmark, measured),
        notes=_notes(measured),
        failures=failures,
        complete=False,
    )


def _settings(benchmark: Benchmark, store: RunStore, spec: RunSpec) -> Inference:
    """The record of a completed run before anything is measured; raises BibenchError where there is none."""
    result = _completed(store, spec)
    twin = base.main_specs(benchmark)[BASELINE]
    try:
        baseline = _digest(_completed(store, twin))
    except BibenchError:
        baseline = None
    return Inference(
        run_id=spec.id,
        result=_digest(result),
        baseline=baseline,
        dataset=result.dataset["fingerprint"],
        images=min(PARITY_IMAGES, result.dataset["test_examples"]),
        version=VERSION,
    )


def _completed(store: RunStore, spec: RunSpec):
    result = store.result(spec)
    if result is None:
        raise BibenchError("not trained yet.")
    if result.status != "completed":
        raise BibenchError(f"the training {result.status}{f' ({result.error})' if result.error else ''}.")
    return result


def _digest(result) -> str:
    return records.digest(dataclasses.asdict(result))


def _pending(benchmark: Benchmark, store: RunStore) -> Iterator[tuple[RunSpec, Inference]]:
    """The completed runs without a usable record or file, and the empty records to fill."""
    for spec in base.main_specs(benchmark).values():
        folder = store.folder(spec)
        try:
            settings = _settings(benchmark, store, spec)
            record = _read(folder / FILE) if (folder / FILE).exists() else settings
        except BibenchError:
            continue  # not trained, or damaged: the score says which
        whole = record.settings == settings.settings and record.latency is not None
        twin_missing = settings.baseline is not None and record.baseline_latency is None
        if not whole or twin_missing or _sha256(folder / MODEL_FILE) != record.file_sha256:
            yield spec, settings


def _twin(benchmark: Benchmark, store: RunStore, spec: RunSpec) -> bytes | None:
    """The file of the full-precision network, if it was converted and `spec` is another one."""
    twin = base.main_specs(benchmark)[BASELINE]
    path = store.folder(twin) / MODEL_FILE
    return path.read_bytes() if spec.id != twin.id and path.exists() else None


def _measure_one(
    converter: Converter,
    store: RunStore,
    spec: RunSpec,
    record: Inference,
    twin: bytes | None,
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    from bibench_tf import environment
    from bibench_tf.deploy import flatbuffer, host

    folder = store.folder(spec)
    conditions = environment.describe()
    record = dataclasses.replace(record, host={key: conditions[key] for key in ("cpu", "cores", "system")})
    runtime = "tflite" if spec.algorithm == BASELINE else "lce"
    try:
        model = store.model(spec)
        content = converter.convert(model, runtime)
    except BibenchError as error:
        (folder / MODEL_FILE).unlink(missing_ok=True)
        record = dataclasses.replace(record, error=str(error))
        records.write(folder / FILE, record, environment=conditions)
        return
    network = host.load(content, runtime)
    networks = {"network": network}
    if twin is not None:
        networks["twin"] = host.load(twin, "tflite")
    latencies = host.latency(networks, [images[:1]])
    operations = flatbuffer.operators(content)
    records.write_atomically(folder / MODEL_FILE, lambda path: path.write_bytes(content))
    record = dataclasses.replace(
        record,
        kernel=network.kernel,
        threads=network.threads,
        size_bytes=len(content),
        file_sha256=hashlib.sha256(content).hexdigest(),
        binary_layers=_binary_layers(model),
        binary_operations=operations[flatbuffer.BINARY_CONVOLUTION],
        operations=dict(operations),
        parity=_parity(model, network, images, labels),
        latency=latencies["network"],
        baseline_latency=latencies["network"] if spec.algorithm == BASELINE else latencies.get("twin"),
    )
    records.write(folder / FILE, record, environment=conditions)


def _binary_layers(model: tf.keras.Model) -> int | None:
    from bibench_tf import complexity

    try:
        return sum(layer.calls for layer in complexity.count(model).layers if layer.binary)
    except BibenchError:
        return None  # a layer of the user's own: the complexity track says which


def _parity(model: tf.keras.Model, network: HostNetwork, images: np.ndarray, labels: np.ndarray) -> Parity:
    expected = model.predict(images, batch_size=_BATCH_SIZE, verbose=0)
    given = np.concatenate([network.run([images[index : index + 1]])[0] for index in range(len(images))])
    difference = np.abs(expected - given).max(axis=1) / np.ptp(expected)
    classes, deployed = expected.argmax(axis=1), given.argmax(axis=1)
    return Parity(
        images=len(images),
        median_difference=float(np.median(difference)),
        largest_difference=float(difference.max()),
        top1_agreement=float(np.mean(classes == deployed)),
        keras_accuracy=float(np.mean(classes == labels)),
        deployed_accuracy=float(np.mean(deployed == labels)),
    )


def _read(path: Path) -> Inference:
    from bibench_tf.deploy.host import Latency

    nested = {"parity": Parity, "latency": Latency, "baseline_latency": Latency}

    def build(data: dict[str, Any]) -> Inference:
        made = {name: cls(**data[name]) for name, cls in nested.items() if data[name] is not None}
        return Inference(**{**data, **made})

    return records.read(path, Inference, build)


def _measured(benchmark: Benchmark, store: RunStore, spec: RunSpec) -> Inference:
    """The record beside a run; raises BibenchError saying why there is none."""
    settings = _settings(benchmark, store, spec)
    path = store.folder(spec) / FILE
    if not path.exists():
        raise BibenchError("trained, but its inference is not measured yet.")
    record = _read(path)
    if record.settings != settings.settings:
        raise BibenchError(f"{path} was measured under other settings: measure again.")
    if record.error is not None:
        raise BibenchError(f"not converted: {record.error}")
    return record


def _score(record: Inference, baseline: Inference | None, is_baseline: bool) -> float:
    if not record.parity.same:
        raise BibenchError(
            "the file does not compute what the trained network does: they agree on the class of "
            f"{100 * record.parity.top1_agreement:.0f} % of the test images."
        )
    if baseline is None or record.baseline_latency is None:
        raise BibenchError("there is no full-precision network on this computer to compare with.")
    times = record.baseline_latency.median_ms, record.latency.median_ms
    if is_baseline:
        times = times[:1] * 2
    return metrics.om_infer([times[0]], [times[1]], [float(baseline.size_bytes)], [float(record.size_bytes)])


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _table(measured: Mapping[str, Inference], scores: Mapping[str, float | None]) -> pd.DataFrame:
    baseline = measured.get(BASELINE)
    rows = []
    for algorithm, record in measured.items():
        twin = record.baseline_latency
        rows.append(
            {
                "algorithm": algorithm,
                METRIC: scores[algorithm],
                "latency (ms)": record.latency.median_ms,
                "latency 10th percentile (ms)": record.latency.p10_ms,
                "latency 90th percentile (ms)": record.latency.p90_ms,
                "full precision at the same time (ms)": twin.median_ms if twin else None,
                "speed-up": twin.median_ms / record.latency.median_ms if twin else None,
                "file size (KiB)": record.size_bytes / 1024,
                "times smaller": baseline.size_bytes / record.size_bytes if baseline else None,
                "binary layers": record.binary_layers,
                "run on bits": record.binary_operations,
                "top-1 agreement with Keras (%)": 100 * record.parity.top1_agreement,
                "median difference to Keras (ppm of range)": 1e6 * record.parity.median_difference,
                "largest difference to Keras (ppm of range)": 1e6 * record.parity.largest_difference,
                "accuracy of the file (%)": 100 * record.parity.deployed_accuracy,
            }
        )
    return pd.DataFrame(rows)


def _charts(measured: Mapping[str, Inference]) -> list[Chart]:
    if not measured:
        return []
    latencies = {"the network": [(name, record.latency.median_ms) for name, record in measured.items()]}
    twins = [
        (name, record.baseline_latency.median_ms)
        for name, record in measured.items()
        if record.baseline_latency is not None
    ]
    if twins:
        latencies["full precision, at the same time"] = twins
    sizes = [(name, record.size_bytes / 1024) for name, record in measured.items()]
    return [
        Chart("bars", "Latency of one image on this computer", "algorithm", "latency (ms)", latencies),
        Chart("bars", "Size of the file", "algorithm", "file size (KiB)", {"the network": sizes}),
    ]


def _conditions(benchmark: Benchmark, measured: Mapping[str, Inference]) -> dict[str, str]:
    def all_of(values) -> str:
        return "; ".join(dict.fromkeys(values))

    found = measured.values()
    hosts = all_of(f"{record.host['cpu']}, {record.host['cores']} cores, {record.host['system']}" for record in found)
    binary = [record for name, record in measured.items() if name != BASELINE]
    return {
        "network": f"{benchmark.architecture}, trained on {benchmark.tasks[0]}",
        "computer": hosts,
        "kernels of the binarized networks": all_of(record.kernel for record in binary),
        "kernels of the full-precision network": all_of(
            record.kernel for name, record in measured.items() if name == BASELINE
        ),
        "threads": all_of(str(record.threads) for record in found),
        "batch": "1 image, float32 in and out",
        "latency": "median over repetitions, in turns with the full-precision network, after a warm-up",
        "parity": all_of(f"{record.parity.images} test images" for record in found),
    }


def _notes(measured: Mapping[str, Inference]) -> list[str]:
    notes = []
    if any(record.host["system"].lower().endswith(("x86_64", "amd64")) for record in measured.values()):
        notes.append(
            "Timings on an x86 computer say nothing about ARM phones and boards, which Larq Compute "
            "Engine is written for."
        )
    notes.append("BiBench measures on several devices; this is one, the computer the benchmark ran on.")
    for name, record in measured.items():
        if record.binary_layers not in (None, record.binary_operations):
            notes.append(
                f"{name}: {record.binary_operations} of its {record.binary_layers} binary layers run on "
                "bits, the rest as float."
            )
    return notes
