"""What the inference track stores beside a run: the deployed file and its parity, and its latency on each device."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_tf.deploy.target import Measurement
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE
from bibench_tf.results import records
from bibench_tf.tasks.classification import TOP1

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bibench_tf.results.runs import RunSpec, RunStore

FILE = "inference.json"
MODEL_FILE = "model.tflite"
# Version 1 kept the latency on one computer in FILE.
VERSION = 2
# The file adds the same numbers in another order, so that a value next to zero may get the other sign,
# which can change many outputs a little. A wrong conversion fails both of these, rounding at most one.
MEDIAN_LIMIT = 1e-2
AGREEMENT_LIMIT = 0.95
# Enough to see a wrong conversion, few enough for seconds.
PARITY_IMAGES = 500


class Missing(BibenchError):
    """A part that is not there, or cannot be used; the message says why. Nothing is wrong with what is stored."""


@dataclass(frozen=True)
class Parity:
    """Keras against the deployed file on test examples, `images` of them.

    The differences are the largest of each example, relative to the range of all outputs: the median example and the
    worst. `top1_agreement` is the share of equal classes, over all points where these have one each, or of equal
    detections; None where numbers are predicted. The accuracies are the main metric of the task, called `metric`.
    """

    images: int
    median_difference: float
    largest_difference: float
    top1_agreement: float | None
    keras_accuracy: float
    deployed_accuracy: float
    metric: str = TOP1

    @property
    def same(self) -> bool:
        """Whether both are one network, up to rounding."""
        agree = self.top1_agreement is not None and self.top1_agreement >= AGREEMENT_LIMIT
        return agree or self.median_difference <= MEDIAN_LIMIT


@dataclass(frozen=True)
class Inference:
    """A trained network as a file, and what decides the conversion.

    `result` is the digest of the training result, `images` how many test examples are compared. `input_shape` is that
    of an only input, () where there are several. `binary_layers` counts the layers that multiply bits in Keras (None
    where they cannot be counted), `binary_operations` those in the file. `error` is the reason why there is nothing
    else.
    """

    run_id: str
    result: str
    dataset: str
    images: int
    version: int
    error: str | None = None
    input_shape: tuple[int, ...] = ()
    size_bytes: int | None = None
    file_sha256: str | None = None
    binary_layers: int | None = None
    binary_operations: int | None = None
    operations: dict[str, int] = field(default_factory=dict)
    parity: Parity | None = None

    @property
    def settings(self) -> tuple:
        """What decides the record."""
        return self.run_id, self.result, self.dataset, self.images, self.version


@dataclass(frozen=True)
class DeviceMeasurement:
    """A file on one device, measured in turns with that of the full-precision network.

    `target` is the device's name. `file_sha256` and `baseline_sha256` are the digests of the two files; of the
    full-precision network itself there is no baseline. `error` is the reason why there is no measurement.
    """

    run_id: str
    target: str
    version: int
    file_sha256: str
    baseline_sha256: str | None
    error: str | None = None
    network: Measurement | None = None
    baseline: Measurement | None = None

    @property
    def settings(self) -> tuple:
        """What decides the record."""
        return self.run_id, self.version, self.file_sha256, self.baseline_sha256

    @property
    def emulated(self) -> bool:
        """Whether any figure in it is an emulator's or a stub's."""
        return any(part is not None and part.provenance != "measured" for part in (self.network, self.baseline))


def device_file(target: str) -> str:
    """The name of a device's record: safe in any file system, and different for different devices."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", target)
    mark = "" if safe == target else f"-{hashlib.sha256(target.encode()).hexdigest()[:6]}"
    return f"latency-{safe}{mark}.json"


def device_files(folder: Path) -> list[Path]:
    """The device records beside a run."""
    return sorted(folder.glob("latency-*.json"))


def read(path: Path) -> Inference:
    """The record of a deployed file.

    Raises RecordError for a damaged one, NewerRecordError for one of a newer version, Missing for one of an earlier.
    """

    def build(data: dict[str, Any]) -> Inference:
        _check_version(path, data)
        parity = None if data["parity"] is None else Parity(**data["parity"])
        return Inference(**{**data, "parity": parity, "input_shape": tuple(data["input_shape"])})

    return records.read(path, Inference, build)


def read_device(path: Path) -> DeviceMeasurement:
    """The record of a device; raises as `read`."""

    def build(data: dict[str, Any]) -> DeviceMeasurement:
        _check_version(path, data)
        parts = {
            name: None if data[name] is None else Measurement.from_dict(data[name]) for name in ("network", "baseline")
        }
        return DeviceMeasurement(**{**data, **parts})

    return records.read(path, DeviceMeasurement, build)


def sha256(path: Path) -> str | None:
    """The digest of a file, None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _check_version(path: Path, data: dict[str, Any]) -> None:
    if data["version"] > VERSION:
        raise records.NewerRecordError(
            f"{path} has version {data['version']}, newer than the {VERSION} this version reads: update bibench-tf."
        )
    if data["version"] < VERSION:
        raise Missing(f"{path} was measured by an earlier version of bibench-tf: measure again.")


def settings(store: RunStore, spec: RunSpec) -> Inference:
    """The record of a completed run before anything is done; raises Missing where there is no such run."""
    result = store.result(spec)
    if result is None:
        raise Missing("not trained yet.")
    if result.status != "completed":
        raise Missing(f"the training {result.status}{f' ({result.error})' if result.error else ''}.")
    return Inference(
        run_id=spec.id,
        result=result.digest,
        dataset=result.dataset["fingerprint"],
        images=min(PARITY_IMAGES, result.dataset["test_examples"]),
        version=VERSION,
    )


def deployed(store: RunStore, spec: RunSpec) -> Inference:
    """The record of the file beside a run; raises Missing saying why there is none."""
    expected = settings(store, spec)
    path = store.folder(spec) / FILE
    if not path.exists():
        raise Missing("trained, but its inference is not measured yet.")
    record = read(path)
    if record.settings != expected.settings:
        raise Missing(f"{path} was measured under other settings: measure again.")
    if record.error is not None:
        raise Missing(f"not converted: {record.error}")
    return record


def expected_record(spec: RunSpec, files: Mapping[str, Inference], target: str) -> DeviceMeasurement:
    """The record of a file on a device before it is measured."""
    baseline = files.get(BASELINE) if spec.algorithm != BASELINE else None
    return DeviceMeasurement(
        run_id=spec.id,
        target=target,
        version=VERSION,
        file_sha256=files[spec.algorithm].file_sha256,
        baseline_sha256=None if baseline is None else baseline.file_sha256,
    )
