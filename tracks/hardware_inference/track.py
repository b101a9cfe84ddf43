"""Hardware inference: the trained networks as Larq Compute Engine files, run and timed on any number of devices."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from bibench_tf import files, tasks
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.deploy.targets import Settings, Target, open_target
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.results import records
from bibench_tf.results.records import RecordError
from bibench_tf.stats import metrics
from bibench_tf.tracks import base
from bibench_tf.tracks.hardware_inference import tables
from bibench_tf.tracks.hardware_inference.record import (
    FILE,
    MODEL_FILE,
    VERSION,
    DeviceMeasurement,
    Inference,
    Missing,
    Parity,
    device_file,
    device_files,
    read,
    read_device,
    sha256,
)
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import Dataset
    from bibench_tf.deploy.conversion import Converter
    from bibench_tf.results.runs import RunSpec, RunStore
    from bibench_tf.tasks import Task

NAME = "inference"
TITLE = "Hardware inference"
METRIC = "OM_infer"
FORMULA = "sqrt(1/2 (mean(T_fp / T_bi)^2 + mean(S_fp / S_bi)^2)) over devices, T latency and S file size"
# Enough to see a wrong conversion, few enough for seconds.
PARITY_IMAGES = 500
# The benchmark of small networks on this computer is to take seconds; a device gets the defaults.
HOST_SETTINGS = Settings(warm_up_s=0.1, minimum_runs=20, minimum_s=0.2, rounds=3)
DEVICE_SETTINGS = Settings()
_BATCH_SIZE = 100


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """The main runs: one network for each algorithm."""
    return list(base.main_specs(benchmark).values())


def check_targets(session: Session) -> None:
    """Refuse a device that cannot be reached or is named twice, before anything is trained for it."""
    names = []
    for target in _open_targets(session):
        names.append(target.describe().target)
    if len(set(names)) < len(names):
        raise BibenchError(f"The same device is named twice: {', '.join(names)}.")


def measure(benchmark: Benchmark, session: Session) -> None:
    """Convert and check every completed network, and time it on every device of the session.

    What has a record under the same settings is not done again. The file is kept beside the record. A network that
    cannot be converted or measured gets a record with the reason and is tried again the next time. Damaged records
    are left for the score to report. Raises BibenchError for data other than the networks were trained on and for a
    device that cannot be used, NewerRecordError for records of a newer version.
    """
    from bibench_tf.results import runs

    store = runs.RunStore(session.results)
    _convert_all(benchmark, session, store)
    for target in _open_targets(session):
        _measure_all(benchmark, session, store, target)


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_infer of each algorithm over all devices that have records beside the main runs; nothing is measured here.

    An algorithm that lacks one of the devices the others were measured on has no score. Emulated devices have no part
    in it. Raises NewerRecordError for records of a newer version.
    """
    specs = base.main_specs(benchmark)
    deployed: dict[str, Inference] = {}
    failures: list[str] = []
    for algorithm, spec in specs.items():
        try:
            deployed[algorithm] = _deployed(store, spec)
        except (RecordError, Missing) as error:
            failures.append(f"{algorithm}: {error}")
    found = {algorithm: _on_devices(store, specs[algorithm], deployed, algorithm, failures) for algorithm in deployed}
    emulated = {
        algorithm: [record for record in of_devices.values() if record.emulated]
        for algorithm, of_devices in found.items()
    }
    measured = {
        algorithm: {target: record for target, record in of_devices.items() if not record.emulated}
        for algorithm, of_devices in found.items()
    }
    devices = list(dict.fromkeys(target for of_devices in measured.values() for target in of_devices))
    scores: dict[str, float | None] = dict.fromkeys(specs)
    for algorithm, record in deployed.items():
        try:
            scores[algorithm] = _score(record, deployed.get(BASELINE), measured[algorithm], devices)
        except (Missing, metrics.Undefined) as error:
            failures.append(f"{algorithm}: {error}")
    shown = {algorithm: record for algorithm, record in deployed.items() if measured[algorithm]}
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=FORMULA,
        scores=scores,
        table=tables.table(shown, measured, scores, METRIC),
        charts=tables.charts(benchmark, shown, measured, devices),
        conditions=tables.conditions(benchmark, shown, measured),
        notes=tables.notes(benchmark, shown, measured, emulated, devices),
        failures=list(dict.fromkeys(failures)),
        complete=len(devices) > 1,
    )


def _open_targets(session: Session) -> Iterator[Target]:
    """The devices of the session, one after the other, each closed before the next."""
    remote = [name for name in session.targets if name != "host"]
    if len(session.binaries) not in (0, 1, len(remote)):
        raise BibenchError(
            f"There are {len(session.binaries)} programs for {len(remote)} devices: give one for all, or one for each "
            "in the order of the devices."
        )
    binaries = session.binaries * len(remote) if len(session.binaries) == 1 else session.binaries
    programs = dict(zip(remote, binaries, strict=False))
    for name in session.targets:
        with open_target(name, binary=programs.get(name)) as target:
            yield target


def _completed(store: RunStore, spec: RunSpec):
    result = store.result(spec)
    if result is None:
        raise Missing("not trained yet.")
    if result.status != "completed":
        raise Missing(f"the training {result.status}{f' ({result.error})' if result.error else ''}.")
    return result


def _settings(store: RunStore, spec: RunSpec) -> Inference:
    """The record of a completed run before anything is done; raises Missing where there is no such run."""
    result = _completed(store, spec)
    return Inference(
        run_id=spec.id,
        result=result.digest,
        dataset=result.dataset["fingerprint"],
        images=min(PARITY_IMAGES, result.dataset["test_examples"]),
        version=VERSION,
    )


def _deployed(store: RunStore, spec: RunSpec) -> Inference:
    """The record of the file beside a run; raises Missing saying why there is none."""
    settings = _settings(store, spec)
    path = store.folder(spec) / FILE
    if not path.exists():
        raise Missing("trained, but its inference is not measured yet.")
    record = read(path)
    if record.settings != settings.settings:
        raise Missing(f"{path} was measured under other settings: measure again.")
    if record.error is not None:
        raise Missing(f"not converted: {record.error}")
    return record


def _to_convert(benchmark: Benchmark, store: RunStore) -> Iterator[tuple[RunSpec, Inference]]:
    """The completed runs without a usable record or file, and the empty records to fill."""
    for spec in base.main_specs(benchmark).values():
        try:
            settings = _settings(store, spec)
        except (RecordError, Missing):
            continue  # not trained, or damaged: the score says which
        with contextlib.suppress(Missing):
            try:
                record = _deployed(store, spec)
            except RecordError:
                continue
            if sha256(store.folder(spec) / MODEL_FILE) == record.file_sha256:
                continue
        yield spec, settings


@dataclass(frozen=True)
class _Examples:
    """The test examples that Keras and the file are compared on."""

    dataset: Dataset
    inputs: np.ndarray | Mapping[str, np.ndarray]
    labels: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> _Examples:
        # As one batch: those of some tasks are padded, each as it needs.
        ((inputs, labels),) = dataset.test_batches(PARITY_IMAGES, limit=PARITY_IMAGES).as_numpy_iterator()
        return cls(dataset, inputs, labels)

    @property
    def task(self) -> Task:
        return tasks.get(self.dataset.task)

    @property
    def metric(self) -> str:
        return self.task.metric(self.dataset)

    def figure(self, outputs: np.ndarray | Mapping[str, np.ndarray]) -> float:
        """The main metric of the task, of what a network gives for the inputs."""
        evaluation = self.task.evaluation(self.dataset)
        evaluation.update(self.labels, outputs)
        return evaluation.metrics()[self.metric]


def _convert_all(benchmark: Benchmark, session: Session, store: RunStore) -> None:
    from bibench_tf.deploy.conversion import Converter

    pending = dict(_to_convert(benchmark, store))
    if not pending:
        return
    name = benchmark.data[0]
    dataset = base.load_data(name, session, base.network_for(benchmark, name))
    if any(record.dataset != dataset.fingerprint for record in pending.values()):
        raise BibenchError(
            f"The data of '{dataset.name}' are not those the networks in {session.results} were trained on: "
            "give those, or another results folder."
        )
    # Not before there is a file to compare: the images of detectors that cannot be converted are large.
    examples = functools.cache(functools.partial(_Examples.of, dataset))
    progress = tqdm(pending.items(), desc="conversion", unit="network", disable=session.quiet, file=sys.stderr)
    with Converter() as converter:
        for spec, record in progress:
            _convert_one(converter, store, spec, record, examples)


def _convert_one(
    converter: Converter, store: RunStore, spec: RunSpec, record: Inference, examples: Callable[[], _Examples]
) -> None:
    from bibench_tf.deploy import flatbuffer
    from bibench_tf.results import environment

    folder = store.folder(spec)
    conditions = environment.describe()
    runtime = "tflite" if spec.algorithm == BASELINE else "lce"
    try:
        model = store.model(spec)
        content = converter.convert(model, runtime)
    except BibenchError as error:
        (folder / MODEL_FILE).unlink(missing_ok=True)
        records.write(folder / FILE, dataclasses.replace(record, error=str(error)), environment=conditions)
        return
    operations = flatbuffer.operators(content)
    files.write_atomically(folder / MODEL_FILE, lambda path: path.write_bytes(content))
    record = dataclasses.replace(
        record,
        input_shape=() if isinstance(examples().inputs, Mapping) else examples().inputs.shape[1:],
        size_bytes=len(content),
        file_sha256=hashlib.sha256(content).hexdigest(),
        binary_layers=_binary_layers(model),
        binary_operations=operations[flatbuffer.BINARY_CONVOLUTION],
        operations=dict(operations),
        parity=_parity(model, content, runtime, examples()),
    )
    records.write(folder / FILE, record, environment=conditions)


def _binary_layers(model: tf.keras.Model) -> int | None:
    from bibench_tf import complexity

    try:
        return sum(layer.calls for layer in complexity.count(model).layers if layer.binary)
    except BibenchError:
        return None  # a layer of the user's own: the complexity track says which


def _parity(model: tf.keras.Model, content: bytes, runtime: str, examples: _Examples) -> Parity:
    from bibench_tf.deploy import interpreters

    expected = model.predict(examples.inputs, batch_size=_BATCH_SIZE, verbose=0)
    given = interpreters.predict(content, examples.inputs, runtime)
    differences = examples.task.differences(expected, given)
    return Parity(
        images=len(differences),
        median_difference=float(np.median(differences)),
        largest_difference=float(differences.max()),
        top1_agreement=examples.task.agreement(expected, given),
        keras_accuracy=examples.figure(expected),
        deployed_accuracy=examples.figure(given),
        metric=examples.metric,
    )


def _expected(store: RunStore, spec: RunSpec, deployed: Mapping[str, Inference], target: str) -> DeviceMeasurement:
    """The record of a file on a device before it is measured."""
    baseline = deployed.get(BASELINE) if spec.algorithm != BASELINE else None
    return DeviceMeasurement(
        run_id=spec.id,
        target=target,
        version=VERSION,
        file_sha256=deployed[spec.algorithm].file_sha256,
        baseline_sha256=None if baseline is None else baseline.file_sha256,
    )


def _to_measure(
    benchmark: Benchmark, store: RunStore, target: str
) -> Iterator[tuple[RunSpec, DeviceMeasurement, Path | None]]:
    """The files without a usable record of a device, the empty records to fill, and the full-precision file."""
    specs = base.main_specs(benchmark)
    deployed = {}
    for algorithm, spec in specs.items():
        with contextlib.suppress(RecordError, Missing):
            deployed[algorithm] = _deployed(store, spec)
    for algorithm in deployed:
        spec = specs[algorithm]
        expected = _expected(store, spec, deployed, target)
        path = store.folder(spec) / device_file(target)
        try:
            record = read_device(path) if path.exists() else None
        except RecordError:
            continue
        except Missing:
            record = None
        if record is None or record.error is not None or record.settings != expected.settings:
            baseline = None if expected.baseline_sha256 is None else store.folder(specs[BASELINE]) / MODEL_FILE
            yield spec, expected, baseline


def _measure_all(benchmark: Benchmark, session: Session, store: RunStore, target: Target) -> None:
    from bibench_tf.results import environment

    device = target.describe()
    settings = HOST_SETTINGS if device.target == "host" else DEVICE_SETTINGS
    pending = list(_to_measure(benchmark, store, device.target))
    progress = tqdm(pending, desc=device.target, unit="network", disable=session.quiet or not pending, file=sys.stderr)
    for spec, record, baseline in progress:
        folder = store.folder(spec)
        files = {"network": (folder / MODEL_FILE).read_bytes()}
        if baseline is not None:
            files["baseline"] = baseline.read_bytes()
        try:
            record = dataclasses.replace(record, **target.measure(files, settings))
        except BibenchError as error:
            record = dataclasses.replace(record, error=str(error))
        records.write(
            folder / device_file(device.target),
            record,
            environment=environment.describe(),
            provenance="emulated" if device.emulated or record.emulated else "measured",
        )


def _on_devices(
    store: RunStore, spec: RunSpec, deployed: Mapping[str, Inference], algorithm: str, failures: list[str]
) -> dict[str, DeviceMeasurement]:
    """The usable device records beside a run, by device; the others become sentences in `failures`."""
    found = {}
    for path in device_files(store.folder(spec)):
        try:
            record = read_device(path)
        except (RecordError, Missing) as error:
            failures.append(f"{algorithm}: {error}")
            continue
        if record.settings != _expected(store, spec, deployed, record.target).settings:
            failures.append(f"{algorithm}: {path} was measured with other files: measure again on {record.target}.")
        elif record.error is not None:
            failures.append(f"{algorithm} on {record.target}: {record.error}")
        else:
            found[record.target] = record
    return dict(sorted(found.items(), key=lambda item: (item[0] != "host", item[0])))


def _score(
    record: Inference,
    baseline: Inference | None,
    measured: Mapping[str, DeviceMeasurement],
    devices: list[str],
) -> float:
    if not record.parity.same:
        raise Missing(
            "the file does not compute what the trained network does: outputs differ by "
            f"{100 * record.parity.median_difference:.1f} % of their range (median of the test examples)"
            + (
                "."
                if record.parity.top1_agreement is None
                else f", and they agree on {100 * record.parity.top1_agreement:.0f} % of the classes."
            )
        )
    if not devices:
        raise Missing("its latency is not measured on any device yet.")
    lacking = [target for target in devices if target not in measured]
    if lacking:
        raise Missing(
            f"not measured on {', '.join(lacking)}, where other networks are: a score over fewer devices would not "
            "compare. Measure it there, or delete their records of that device."
        )
    if baseline is None:
        raise Missing("there is no full-precision network to compare with.")
    sizes = [float(baseline.size_bytes)] * len(devices), [float(record.size_bytes)] * len(devices)
    records_of = [measured[target] for target in devices]
    times = [each.network.latency_ms for each in records_of]
    # Of the full-precision network itself there is no second measurement.
    times_fp = [(each.baseline or each.network).latency_ms for each in records_of]
    return metrics.om_infer(times_fp, times, *sizes)
