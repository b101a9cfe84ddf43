"""The record of a latency: one file on one target, stored beside a run or below `devices` of a results folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bibench_tf.deploy.targets import Measurement
from bibench_tf.results import records, stores

VERSION = 2


@dataclass(frozen=True)
class Latency:
    """The latency of a file on a target, in rounds interleaved with those of its full-precision network, if any.

    Attributes:
        run_id: The run that trained the network; None for a file that belongs to no run.
        target: The name of the target.
        version: VERSION when it was measured.
        file_sha256: The digest of the measured file.
        baseline_sha256: The digest of the full-precision network's file; None where there is no such file.
        error: The reason why there is no measurement.
    """

    run_id: str | None
    target: str
    version: int
    file_sha256: str
    baseline_sha256: str | None
    error: str | None = None
    network: Measurement | None = None
    baseline: Measurement | None = None

    @property
    def settings(self) -> tuple[str | int | None, ...]:
        """The fields that must be equal for the record to be used again."""
        return self.run_id, self.version, self.file_sha256, self.baseline_sha256

    @property
    def emulated(self) -> bool:
        """Whether one of the measurements is of an emulator or a stub."""
        return any(part is not None and part.provenance != "measured" for part in (self.network, self.baseline))


def file_name(target: str) -> str:
    """The name of the record of a target beside a run: valid in any file system, different for different targets."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", target)
    mark = "" if safe == target else f"-{hashlib.sha256(target.encode()).hexdigest()[:6]}"
    return f"latency-{safe}{mark}.json"


def files(folder: Path) -> list[Path]:
    """The records beside a run."""
    return sorted(folder.glob("latency-*.json"))


def read(path: Path) -> Latency:
    """The record in `path`. Raises RecordError for a damaged record, NewerRecordError for one of a newer version."""
    records.check_version(path, VERSION)
    return records.read(path, Latency)


def store(
    results: Path | str, measured: Mapping[str, Mapping[str, Measurement]], flatbuffers: Mapping[str, bytes]
) -> list[Path]:
    """Write the record of each file on each target (`measured[target][file]`) below `devices` of a results folder.

    `results` may be the URL of a store. The name of a record has the first digits of the file's SHA-256. Raises
    StorageError when it cannot be written.
    """
    folder = stores.working_copy(str(results)) if "://" in str(results) else Path(results)
    paths = []
    for of_files in measured.values():
        for name, one in of_files.items():
            digest = hashlib.sha256(flatbuffers[name]).hexdigest()
            parent, stem = (re.sub(r"[^A-Za-z0-9.-]+", "-", part) for part in (one.device.target, Path(name).stem))
            path = folder / "devices" / parent / f"{stem}-{digest[:12]}.json"
            latency = Latency(None, one.device.target, VERSION, digest, None, network=one)
            environment = {"file": Path(name).name, "size_bytes": len(flatbuffers[name])}
            records.write(path, latency, environment=environment, provenance=one.provenance)
            paths.append(path)
    remote = stores.of(folder)
    if remote is not None:
        remote.upload(path.relative_to(folder).as_posix() for path in paths)
    return paths
