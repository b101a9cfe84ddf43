"""The measurement of the inference track: conversion, parity with Keras, and latency on every target."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf import files, tasks
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
from bibench_tf.deploy.targets import Settings, Target, open_target
from bibench_tf.deploy.targets import record as latencies
from bibench_tf.deploy.targets.record import Latency
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE
from bibench_tf.results import environment, records
from bibench_tf.results.records import RecordError
from bibench_tf.tracks.hardware_inference.record import (
    FILE,
    MODEL_FILE,
    PARITY_IMAGES,
    Inference,
    Missing,
    Parity,
    conditions,
    conditions_of,
    deployed,
    expected_latency,
    read,
    settings,
    sha256,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import Dataset
    from bibench_tf.deploy.conversion import Converter, Runtime
    from bibench_tf.results.runs import RunSpec, RunStore
    from bibench_tf.tasks import Task
    from bibench_tf.tracks.hardware_inference import Options

# The benchmark of small networks on this computer is to take seconds; a device gets the defaults.
HOST_SETTINGS = Settings(warm_up_s=0.1, minimum_runs=20, minimum_s=0.2, rounds=3)
DEVICE_SETTINGS = Settings()
_BATCH_SIZE = 100


def check_targets(options: Options) -> None:
    """Refuse a device that cannot be reached or is named twice, before anything is trained for it."""
    if options.targets == ("host",):
        return
    names = [target.describe().target for target, _ in _open_targets(options)]
    if len(set(names)) < len(names):
        raise BibenchError(f"The same device is named twice: {', '.join(names)}.")


def measure(job: Job, options: Options) -> None:
    """Convert and check every completed network, and time it on every device of the session.

    A measurement with a record under the same settings is not repeated; a latency also needs the same device, way of
    measuring and program (`record.conditions`). The file is kept beside the record. A network that cannot be converted
    or measured gets a record with the reason and is tried again the next time. A damaged record is set aside, named on
    stderr, and made again. Raises BibenchError for data other than the networks were trained on and for a device that
    cannot be used, NewerRecordError for records of a newer version.
    """
    _convert_all(job)
    for target, program in _open_targets(options):
        _measure_all(job, target, program)


def _open_targets(options: Options) -> Iterator[tuple[Target, Path | None]]:
    """The devices of the options and their programs, one after the other, each closed before the next."""
    remote = [name for name in options.targets if name != "host"]
    if len(options.binaries) not in (0, 1, len(remote)):
        raise BibenchError(
            f"There are {len(options.binaries)} programs for {len(remote)} devices: give one for all, or one for each "
            "in the order of the devices."
        )
    binaries = options.binaries * len(remote) if len(options.binaries) == 1 else options.binaries
    programs = dict(zip(remote, map(Path, binaries), strict=False))
    for name in options.targets:
        with open_target(name, binary=programs.get(name)) as target:
            yield target, programs.get(name)


def _to_convert(benchmark: ResolvedBenchmark, store: RunStore) -> Iterator[tuple[RunSpec, Inference]]:
    """The completed runs without a usable record or file, and the empty records to fill."""
    for spec in benchmark.specs(benchmark.first).values():
        try:
            expected = settings(store, spec)
        except (RecordError, Missing):
            continue  # not trained, or damaged: the score says which
        with contextlib.suppress(Missing):
            records.read_or_set_aside(store.folder(spec) / FILE, read)
            record = deployed(store, spec)
            if sha256(store.folder(spec) / MODEL_FILE) == record.file_sha256:
                continue
        yield spec, expected


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
        dataset.check_unchanged()
        return cls(dataset, inputs, labels)

    @property
    def task(self) -> Task:
        return tasks.get(self.dataset.task)

    @property
    def metric(self) -> str:
        return self.task.metric(self.dataset)

    def metric_value(self, outputs: np.ndarray | Mapping[str, np.ndarray]) -> float:
        """The main metric of the task, from the outputs of a network for the inputs."""
        evaluation = self.task.evaluation(self.dataset)
        evaluation.update(self.labels, outputs)
        return evaluation.metrics()[self.metric]


def _convert_all(job: Job) -> None:
    from bibench_tf.deploy.conversion import Converter

    store = job.store
    pending = dict(_to_convert(job.benchmark, store))
    if not pending:
        return
    dataset = job.same_data(job.benchmark.first, {record.dataset for record in pending.values()})
    # Not before there is a file to compare: the images of detectors that cannot be converted are large.
    examples = functools.cache(functools.partial(_Examples.of, dataset))
    with Converter() as converter:
        for spec, record in job.session.progress(pending.items(), "conversion", "network"):
            _convert_one(converter, store, spec, record, examples)


def _convert_one(
    converter: Converter, store: RunStore, spec: RunSpec, record: Inference, examples: Callable[[], _Examples]
) -> None:
    from bibench_tf.deploy import flatbuffer

    folder = store.folder(spec)
    conditions = environment.describe()
    runtime: Runtime = "tflite" if spec.algorithm == BASELINE else "lce"
    try:
        model = store.model(spec)
        content = converter.convert(model, runtime)
    except BibenchError as error:
        (folder / MODEL_FILE).unlink(missing_ok=True)
        records.write(folder / FILE, dataclasses.replace(record, error=str(error)), environment=conditions)
        return
    operations = flatbuffer.operators(content)
    files.write_atomically(folder / MODEL_FILE, lambda path: path.write_bytes(content))
    inputs = examples().inputs
    record = dataclasses.replace(
        record,
        input_shape=inputs.shape[1:] if isinstance(inputs, np.ndarray) else (),
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
        keras_accuracy=examples.metric_value(expected),
        deployed_accuracy=examples.metric_value(given),
        metric=examples.metric,
    )


def _to_measure(
    benchmark: ResolvedBenchmark, store: RunStore, target: str, wanted: tuple[Any, ...]
) -> Iterator[tuple[RunSpec, Latency, Path | None]]:
    """The files without a usable record of a device, the empty records to fill, and the full-precision file.

    `wanted` are the `conditions` that a record needs.
    """
    specs = benchmark.specs(benchmark.first)
    files: dict[str, Inference] = {}
    for algorithm, spec in specs.items():
        with contextlib.suppress(RecordError, Missing):
            files[algorithm] = deployed(store, spec)
    for algorithm in files:
        spec = specs[algorithm]
        expected = expected_latency(spec, files, target)
        path = store.folder(spec) / latencies.file_name(target)
        record = records.read_or_set_aside(path, latencies.read)
        if record is None or not _is_usable(path, record, expected, wanted):
            baseline = None if expected.baseline_sha256 is None else store.folder(specs[BASELINE]) / MODEL_FILE
            yield spec, expected, baseline


def _is_usable(path: Path, record: Latency, expected: Latency, wanted: tuple[Any, ...]) -> bool:
    if record.error is not None or record.settings != expected.settings:
        return False
    return conditions_of(path, record) == wanted


def _measure_all(job: Job, target: Target, program: Path | None) -> None:
    store = job.store
    device = target.describe()
    how = HOST_SETTINGS if device.target == "host" else DEVICE_SETTINGS
    described = environment.describe() | ({"program": files.fingerprint_files([program])} if program else {})
    pending = list(_to_measure(job.benchmark, store, device.target, conditions(device, how, described)))
    for spec, record, baseline in job.session.progress(pending, device.target, "network"):
        folder = store.folder(spec)
        flatbuffers = {"network": (folder / MODEL_FILE).read_bytes()}
        if baseline is not None:
            flatbuffers["baseline"] = baseline.read_bytes()
        try:
            measured: dict[str, Any] = target.measure(flatbuffers, how)
            record = dataclasses.replace(record, **measured)
        except BibenchError as error:
            record = dataclasses.replace(record, error=str(error))
        records.write(
            folder / latencies.file_name(device.target),
            record,
            environment=described,
            provenance="emulated" if device.emulated or record.emulated else "measured",
        )
