"""Targets: the devices that measure flatbuffers, the settings of a measurement, and its result.

A kind of target is one file, in this folder or outside of the package: a function that opens a target of an address,
decorated with `register`. Those of this package are `host`, `adb`, `adb:SERIAL` and `ssh:[USER@]HOST`.
"""

from __future__ import annotations

import contextlib
import inspect
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bibench_tf.errors import InvalidOption
from bibench_tf.options import Count, Index, NotNegative, Positive, check_fields
from bibench_tf.registry import Registry
from bibench_tf.results.records import Provenance


@dataclass(frozen=True)
class Device:
    """A device as it describes itself.

    Attributes:
        target: `host`, `adb:SERIAL` or `ssh:USER@HOST`.
        model: The product name that the device reports.
        chip: The key of the chip in devices.toml; None for a chip that is not in the table.
        abi: `arm64-v8a`, `x86_64`, ...
        cores: Number of logical cores.
        system: Operating system and release.
        emulated: Whether the device is an emulator or a stub, whose times do not apply to a real device.
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
        rounds: Rounds per network; the rounds of several networks are interleaved.
        cores: The cores the process is pinned to; None leaves the choice to the scheduler.
        profile: Whether the time of each operation is measured too.
        timeout_s: Time limit of one round of one network, in seconds.
    """

    threads: Count = 1
    warm_up_s: NotNegative = 0.5
    minimum_runs: Count = 50
    minimum_s: NotNegative = 1.0
    rounds: Count = 3
    cores: tuple[Index, ...] | None = None
    profile: bool = False
    timeout_s: Positive = 300.0

    def __post_init__(self) -> None:
        """Raises InvalidOption for values of another type or range."""
        check_fields(self)
        if self.cores == ():
            raise InvalidOption("Name the cores to use as numbers from 0, such as 4,5.")


@dataclass(frozen=True)
class Round:
    """The timed inferences of one round, in milliseconds; None for a value that the target does not report.

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
        """The median; the mean where the target reports no median."""
        return self.mean_ms if self.p50_ms is None else self.p50_ms


@dataclass(frozen=True)
class OperationTime:
    """The mean time of one operation of the flatbuffer: its output's name, its op type, milliseconds."""

    name: str
    kind: str
    mean_ms: float


@dataclass(frozen=True)
class Measurement:
    """The latency of one flatbuffer on a target, with the conditions.

    Attributes:
        peak_memory_mib: Greatest memory of the process, None where unknown.
        kernel: A description of the kernels that ran the binary convolutions.
        notes: Conditions that affect the values, such as throttling.
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


class Target(Protocol):
    """A device that measures flatbuffers."""

    def describe(self) -> Device:
        """The device. Raises BibenchError when it cannot be reached."""

    def measure(self, flatbuffers: Mapping[str, bytes], settings: Settings) -> dict[str, Measurement]:
        """Measure flatbuffers by name, in interleaved rounds. Raises BibenchError with the reason."""

    def close(self) -> None:
        """Release the device; no process and no file of the measurement stays on it."""


@dataclass(frozen=True)
class Access:
    """How a device is used, besides its address.

    Attributes:
        binary: The program that measures, built for the device; for kinds of target that need one.
        ssh_config: A configuration file of ssh in place of the user's.
    """

    binary: Path | None = None
    ssh_config: Path | None = None


Opener = Callable[[str, Access], Target]


@dataclass(frozen=True)
class TargetKind:
    """A kind of target.

    Attributes:
        name: The first part of a target's name, before the colon.
        open: Makes the target at an address, empty where the name has none. Raises BibenchError.
        forms: The forms of a target's name, such as `adb` and `adb:SERIAL`.
        program: The file of LCE's releases that measures on such a device; None where no program is needed.
        attached: Lists the names of the targets that can be found by searching.
    """

    name: str
    open: Opener
    forms: tuple[str, ...]
    program: str | None = None
    attached: Callable[[], list[str]] = list

    @property
    def description(self) -> str:
        """The first line of the opener's docstring."""
        return (inspect.getdoc(self.open) or "").partition("\n")[0]


TARGETS: Registry[TargetKind] = Registry("kind of target", "bibench_tf.deploy.targets", TargetKind)


def register(
    name: str, *forms: str, program: str | None = None, attached: Callable[[], list[str]] = list
) -> Callable[[Opener], Opener]:
    """A decorator that makes a function the opener of a kind of target; see `TargetKind` for the arguments.

    Raises InvalidOption where the name is taken.
    """

    def decorate(opener: Opener) -> Opener:
        kind = TargetKind(name, opener, forms or (name,), program, attached)
        TARGETS.register(name, kind, origin=opener.__module__)
        return opener

    return decorate


def kind_of(target: str) -> TargetKind:
    """The kind of a target by the target's name. Raises UnknownName, and InvalidOption for a wrong form."""
    name, colon, address = target.partition(":")
    kind = TARGETS.get(name)
    if name not in kind.forms if not colon else not (address and any(":" in form for form in kind.forms)):
        raise InvalidOption(f"There is no target '{target}': use {' or '.join(kind.forms)}.")
    return kind


@contextlib.contextmanager
def open_target(name: str, *, binary: Path | None = None, ssh_config: Path | None = None) -> Iterator[Target]:
    """The target called `name`, such as `host` or `adb:SERIAL`, closed at the end of the `with` block.

    See `Access` for the other arguments. Raises UnknownName and InvalidOption as `kind_of`, and BibenchError when the
    device cannot be used.
    """
    kind = kind_of(name)
    with contextlib.closing(kind.open(name.partition(":")[2], Access(binary, ssh_config))) as target:
        yield target
