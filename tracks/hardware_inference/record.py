"""The records of the inference track beside a run: the deployed file with its parity, and its latency by target."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bibench_tf.deploy.targets.record import VERSION
from bibench_tf.deploy.targets.record import Latency as DeviceMeasurement
from bibench_tf.deploy.targets.record import file_name as device_file
from bibench_tf.deploy.targets.record import files as device_files
from bibench_tf.deploy.targets.record import read as read_device
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.tasks.classification import TOP1

__all__ = ["DeviceMeasurement", "Inference", "Parity", "device_file", "device_files", "read", "read_device", "sha256"]

FILE = "inference.json"
MODEL_FILE = "model.tflite"
# The file adds the same numbers in another order, so a value next to zero may get the other sign, which can change many
# outputs slightly. A wrong conversion fails both limits, rounding at most one.
MEDIAN_LIMIT = 1e-2
AGREEMENT_LIMIT = 0.95


class Missing(BibenchError):
    """A record that is missing or cannot be used; the message has the reason. Stored records are not damaged."""


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
    """A trained network as a file, and the settings of the conversion.

    `result` is the digest of the training result, `images` the number of compared test examples. `input_shape` is the
    shape of the only input, () for several inputs. `binary_layers` is the number of layers that multiply bits in Keras
    (None where they cannot be counted), `binary_operations` that of such operations in the file. `error` is the reason
    why the network has no file.
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
    def settings(self) -> tuple[str | int, ...]:
        """The fields that must be equal for the record to be used again."""
        return self.run_id, self.result, self.dataset, self.images, self.version


def read(path: Path) -> Inference:
    """The record of a deployed file.

    Raises RecordError for a damaged one, NewerRecordError for one of a newer version, Missing for one of an earlier.
    """

    def build(data: dict[str, Any]) -> Inference:
        _check_version(path, data)
        return msgspec.convert(data, Inference)

    return records.read(path, Inference, build)


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
