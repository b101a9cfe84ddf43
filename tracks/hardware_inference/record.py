"""The records of the inference track beside a run: the deployed file with its parity, and its latency by target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bibench_tf.deploy.targets import Device, Settings
from bibench_tf.deploy.targets.record import VERSION, Latency
from bibench_tf.errors import BibenchError
from bibench_tf.files import fingerprint_files
from bibench_tf.names import BASELINE
from bibench_tf.results import environment, records
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.tasks.classification import TOP1

FILE = "inference.json"
MODEL_FILE = "model.tflite"
# The file adds the same numbers in another order, so a value next to zero may get the other sign. In a deep network
# that moves the outputs of many images slightly. Measured on ResNet-20 for CIFAR-10: noise of 1e-4 in the input moves
# the median image of a binarized network by 2.5 % of the range of its outputs, noise of 1e-2 by 4.9 %; the outputs of
# another binarized network differ by 12 to 19 %, those of a file that ignores its input by 23 to 29 %. So the median
# image decides, and more of the answers have to be equal where it is moved further.
# Pairs (limit of the median difference, least share of equal answers).
LIMITS = ((0.01, 0.8), (0.05, 0.95))
# Enough to see a wrong conversion, few enough for seconds.
PARITY_IMAGES = 500


class Missing(BibenchError):
    """A record that is missing or cannot be used; the message has the reason. Stored records are not damaged."""


@dataclass(frozen=True)
class Parity:
    """Keras against the deployed file on test examples, `images` of them.

    The differences are the largest of each example, relative to the range of the outputs over the examples: the median
    example and the worst; infinite for an output that is not a finite number. `top1_agreement` is the share of equal
    classes, over all points where these have one each, or of equal detections; None where numbers are predicted. The
    accuracies are the main metric of the task, called `metric`.
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
        """Whether both are one network, up to rounding.

        Equal answers alone are no evidence: a network that always gives one class has those of any such file.
        """
        if not math.isfinite(self.largest_difference):
            return False
        if self.top1_agreement is None:
            return self.median_difference <= LIMITS[0][0]
        return any(self.median_difference <= limit and self.top1_agreement >= share for limit, share in LIMITS)


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
    """The record of a deployed file. Raises RecordError for a damaged one, NewerRecordError for a newer version."""
    records.check_version(path, VERSION)
    return records.read(path, Inference)


def sha256(path: Path) -> str | None:
    """The digest of a file, None where there is none."""
    return fingerprint_files([path]) if path.exists() else None


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


def expected_latency(spec: RunSpec, files: Mapping[str, Inference], target: str) -> Latency:
    """The record of a file on a device before it is measured."""
    baseline = files.get(BASELINE) if spec.algorithm != BASELINE else None
    return Latency(
        run_id=spec.id,
        target=target,
        version=VERSION,
        file_sha256=files[spec.algorithm].file_sha256,
        baseline_sha256=None if baseline is None else baseline.file_sha256,
    )


def conditions(device: Device, how: Settings, described: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a latency depends on besides the files: the device, the settings, and the program that runs the files.

    `described` is the environment of the record. On this computer the program is that of the packages; on other devices
    it is lce_benchmark_model, by the digest of its file.
    """
    program = environment.of_times(described) if device.target == "host" else described.get("program")
    return dataclasses.replace(device, emulated=False), how, program


def conditions_of(path: Path, record: Latency) -> tuple[Any, ...]:
    """The `conditions` of a stored measurement."""
    return conditions(record.network.device, record.network.settings, records.read_envelope(path)["environment"])
