"""The robustness record of a network: its answers to every image of every set."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bibench_tf import corruptions
from bibench_tf.results import records

if TYPE_CHECKING:
    from bibench_tf.results.runs import RunResult, RunSpec
    from bibench_tf.tracks.corruption_robustness import Options

# `Options.versions`: digests by corruption, of images that the settings of a record do not determine.
Versions = Mapping[str, str]
NO_VERSIONS: Versions = {}
FILE = "robustness.json"
CLEAN = "clean"
MADE = "made"


@dataclass(frozen=True)
class Answers:
    """The answers of a network to the images of one set, in their order: right or wrong.

    `right` is one bit per image, the first in the highest bit of the first byte, as Base64. `images` and `labels` are
    the first 16 hexadecimal digits of the SHA-256 of the images (float32) and the labels (int32): networks are compared
    on the same images only.
    """

    right: str
    images: str
    labels: str

    @classmethod
    def pack(cls, right: np.ndarray, images: str, labels: str) -> Answers:
        """The answers bool [N] to images and labels with these digests."""
        return cls(base64.b64encode(np.packbits(right).tobytes()).decode("ascii"), images[:16], labels[:16])

    def unpack(self, count: int) -> np.ndarray:
        """The answers to `count` images, bool [count]. Raises ValueError for answers to another number of images."""
        packed = np.frombuffer(base64.b64decode(self.right, validate=True), np.uint8)
        if len(packed) != -(-count // 8):
            raise ValueError(f"{8 * len(packed)} answers for {count} images")
        return np.unpackbits(packed, count=count).astype(bool)


@dataclass(frozen=True)
class Robustness:
    """The answers of one trained network on clean and corrupted images, and the settings that determine them.

    `result` is the digest of the training result of the network, `dataset` the fingerprint of the data. The first
    `images` test images are used. `source` is `made`, `tfds` or `folder`; `seed` and `severities` (the table) are those
    of made corruptions, `version` the version of their code. `answers` are by set (`key_of`): `clean`, `fog-3`. A set
    of files has their digest in its name, so that other files are another set.
    """

    run_id: str
    result: str
    dataset: str
    images: int
    source: str
    severities: str | None
    seed: int | None
    version: int | None
    answers: dict[str, Answers] = field(default_factory=dict)

    @property
    def settings(self) -> Robustness:
        """The same record without its measurements."""
        return dataclasses.replace(self, answers={})

    def lacks(self, names: Sequence[str], versions: Versions = NO_VERSIONS) -> list[str]:
        """The sets without answers, of the clean set and those of the corruptions `names`."""
        return [key for key in (CLEAN, *keys_of(names, versions)) if key not in self.answers]

    def right(self, key: str) -> np.ndarray:
        """The answers on one set, bool [images]."""
        return self.answers[key].unpack(self.images)

    @property
    def clean_accuracy(self) -> float:
        """The accuracy on clean images, 0..1."""
        return float(self.right(CLEAN).mean())

    def accuracies(self, name: str, versions: Versions = NO_VERSIONS) -> list[float]:
        """The accuracies under one corruption at severities 1 to 5, 0..1."""
        return [float(self.right(key).mean()) for key in keys_of([name], versions)]


def key_of(name: str, severity: int, versions: Versions = NO_VERSIONS) -> str:
    """The name of a corrupted set: `fog-3`, or `fog-3@0123456789abcdef` where the corruption has a version."""
    version = versions.get(name)
    return f"{name}-{severity}" if version is None else f"{name}-{severity}@{version}"


def keys_of(names: Sequence[str], versions: Versions = NO_VERSIONS) -> list[str]:
    """The names of the sets of these corruptions at all severities."""
    return [key_of(name, severity, versions) for name in names for severity in corruptions.SEVERITIES]


def source(options: Options) -> str:
    """The kind of corrupted images: `made`, `tfds` or `folder`."""
    return options.source if options.source in (MADE, "tfds") else "folder"


def settings(options: Options, seed: int, spec: RunSpec, result: RunResult) -> Robustness:
    """The record of a run before anything is measured."""
    examples = result.dataset["test_examples"]
    made = options.source == MADE
    return Robustness(
        run_id=spec.id,
        result=result.digest,
        dataset=result.dataset["fingerprint"],
        images=min(options.images or examples, examples),
        source=source(options),
        severities=options.severity_table if made else None,
        seed=seed if made else None,
        version=corruptions.VERSION if made else None,
    )


def read(path: Path) -> Robustness | None:
    """The record in `path`; None where there is none.

    Raises RecordError for a damaged record and NewerRecordError for one of a newer version.
    """
    if not path.exists():
        return None
    record = records.read(path, Robustness)
    try:
        for key in record.answers:
            record.right(key)
    except ValueError as error:
        raise records.RecordError(f"{path} does not fit Robustness: {error}.") from error
    return record
