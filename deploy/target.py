"""What every target has in common: the device, how it is measured, and what comes out.

A target measures flatbuffers: this host, an Android phone through adb, or a board through ssh.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bibench_tf.errors import BibenchError
from bibench_tf.results.records import Provenance


@dataclass(frozen=True)
class Device:
    """A device as it describes itself.

    Attributes:
        target: `host`, `adb:SERIAL` or `ssh:USER@HOST`.
        model: The product's name in its own words.
        chip: The key of the chip in devices.toml; None when the table does not know it.
        abi: `arm64-v8a`, `x86_64`, ...
        cores: Number of logical cores.
        system: Operating system and release.
        emulated: Whether it is an emulator or a stub, whose times say nothing about a device.
    """

    target: str
    model: str
    chip: str | None
    abi: str
    cores: int
    system: str
    emulated: bool = False


@dataclass(frozen=True)
class Settings:
    """How a network is measured. Each round warms up, then makes at least `minimum_runs` and `minimum_s` of inferences.

    Attributes:
        threads: Threads of the interpreter.
        warm_up_s: Seconds of untimed inferences before each round.
        minimum_runs: Least number of timed inferences of a round.
        minimum_s: Least duration of the timed inferences of a round, in seconds.
        rounds: Rounds per network; several networks take turns.
        cores: The cores the process is pinned to; None leaves that to the scheduler.
        profile: Whether the time of each operation is measured too.
        timeout_s: Most seconds that one round of one network may take.
    """

    threads: int = 1
    warm_up_s: float = 0.5
    minimum_runs: int = 50
    minimum_s: float = 1.0
    rounds: int = 3
    cores: tuple[int, ...] | None = None
    profile: bool = False
    timeout_s: float = 300.0

    def __post_init__(self):
        counts = (self.threads, self.minimum_runs, self.rounds)
        if min(counts) < 1 or self.warm_up_s < 0 or self.minimum_s < 0 or self.timeout_s <= 0:
            raise BibenchError("Threads, runs and rounds start at 1, and times may not be negative.")
        if self.cores is not None and (not self.cores or min(self.cores) < 0):
            raise BibenchError("Name the cores to use as numbers from 0, such as 4,5.")


@dataclass(frozen=True)
class Round:
    """The timed inferences of one round, in milliseconds; None stands for what the target cannot tell.

    Attributes:
        count: Number of timed inferences.
        p50_ms: Median; p90_ms and p99_ms likewise.
        clock_mhz_before: The fastest clock among the cores in use before the round.
        temperature_c_before: The hottest sensor before the round, in degrees Celsius.
    """

    mean_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    count: int
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    clock_mhz_before: float | None = None
    clock_mhz_after: float | None = None
    temperature_c_before: float | None = None
    temperature_c_after: float | None = None

    @property
    def latency_ms(self) -> float:
        """The median; the mean where the target tells no median."""
        return self.mean_ms if self.p50_ms is None else self.p50_ms


@dataclass(frozen=True)
class OperationTime:
    """The mean time of one operation of the flatbuffer: its output's name, its op type, milliseconds."""

    name: str
    kind: str
    mean_ms: float


@dataclass(frozen=True)
class Measurement:
    """What a target measured of one flatbuffer.

    Attributes:
        peak_memory_mib: Greatest memory of the process, None where unknown.
        kernel: In words, which kernels ran the binary convolutions.
        notes: What the reader of the figures has to know, such as throttling.
    """

    device: Device
    settings: Settings
    rounds: tuple[Round, ...]
    operations: tuple[OperationTime, ...] = ()
    peak_memory_mib: float | None = None
    kernel: str = ""
    notes: tuple[str, ...] = ()

    @property
    def latency_ms(self) -> float:
        """Median over the latencies of the rounds."""
        return statistics.median(r.latency_ms for r in self.rounds)

    @property
    def provenance(self) -> Provenance:
        """`emulated` for an emulator or a stub, else `measured`."""
        return "emulated" if self.device.emulated else "measured"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """The inverse of `to_dict`, also after a trip through JSON."""
        settings = dict(data["settings"])
        if settings.get("cores") is not None:
            settings["cores"] = tuple(settings["cores"])
        return cls(
            device=Device(**data["device"]),
            settings=Settings(**settings),
            rounds=tuple(Round(**item) for item in data["rounds"]),
            operations=tuple(OperationTime(**item) for item in data["operations"]),
            peak_memory_mib=data["peak_memory_mib"],
            kernel=data["kernel"],
            notes=tuple(data["notes"]),
        )


class Target(Protocol):
    """Where flatbuffers are measured."""

    def describe(self) -> Device:
        """The device. Raises BibenchError when it cannot be reached."""

    def measure(self, flatbuffers: Mapping[str, bytes], settings: Settings) -> dict[str, Measurement]:
        """Measure flatbuffers by name, in rounds in which they take turns. Raises BibenchError with the reason."""

    def close(self) -> None:
        """Leave nothing behind."""


def read_flatbuffers(paths: Sequence[Path]) -> dict[str, bytes]:
    """The contents of .tflite files by their paths as given. Raises BibenchError for what is not one."""
    contents = {}
    for path in paths:
        try:
            contents[str(path)] = path.read_bytes()
        except OSError as error:
            raise BibenchError(f"Cannot read {path}: {error.strerror}.") from error
        if contents[str(path)][4:8] != b"TFL3":
            raise BibenchError(f"{path} is not a .tflite file: make one with 'bibench deploy convert'.")
    return contents


@contextlib.contextmanager
def open_target(name: str, *, binary: Path | None = None, ssh_config: Path | None = None) -> Iterator[Target]:
    """The target called `host`, `adb`, `adb:SERIAL` or `ssh:[USER@]HOST`, closed at the end of the `with` block.

    `binary` is lce_benchmark_model built for the device; `host` needs none. `ssh_config` is a configuration file of
    ssh to use in place of the user's. Raises BibenchError for any other name.
    """
    kind, _, address = name.partition(":")
    if name == "host":
        from bibench_tf.deploy.host import HostTarget

        target: Target = HostTarget()
    elif kind in ("adb", "ssh") and (address or name == "adb"):
        from bibench_tf.deploy import adb, remote, ssh

        connection = adb.connect(address or None) if kind == "adb" else ssh.Connection(address, ssh_config)
        target = remote.RemoteTarget(connection, binary)
    else:
        raise BibenchError(f"There is no target '{name}': use host, adb, adb:SERIAL or ssh:USER@HOST.")
    with contextlib.closing(target):
        yield target
