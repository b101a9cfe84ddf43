"""The rules of measuring on a device with a shell.

The program and the flatbuffers are copied to a new folder on the device, run there under a time limit, in interleaved
rounds, and removed, also after an error or Ctrl-C. Clock and temperature are read before and after each round; a round
during which the device throttled is measured once more.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import secrets
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bibench_tf.deploy import devices
from bibench_tf.deploy.targets import Device, Measurement, OperationTime, Settings
from bibench_tf.deploy.targets.shell import benchmark_tool, program
from bibench_tf.deploy.targets.shell.benchmark_tool import Log, UnreadableOutput
from bibench_tf.deploy.targets.shell.connection import Connection, Folder, Killed, Lost, Reply, temporary_folder
from bibench_tf.errors import BibenchError

# How long a device may be away before it counts as gone.
RECOVERY_S = 30.0
# How long a device cools before a throttled round is measured again.
PAUSE_S = 30.0
# The time a run needs beyond the time limit on the device: starting, reading the output, the connection itself.
_GRACE_S = 20.0
# Throttling: the clock under load fell below this share, or the temperature rose by more than this.
_CLOCK_SHARE = 0.9
_TEMPERATURE_RISE_C = 10.0
_SIGNALS = {number.value: number.name for number in signal.Signals}

T = TypeVar("T")


@dataclass(frozen=True)
class _Job:
    """One call of `measure`: its folder on the device, and whether the device has the command `timeout`."""

    folder: Folder
    settings: Settings
    has_timeout: bool


@dataclass(frozen=True)
class _Reading:
    """The fastest clock, the highest limit of a clock and the processor's temperature; None for unreadable ones."""

    clock_mhz: float | None
    limit_mhz: float | None
    temperature_c: float | None


def device(target: str, facts: devices.Facts) -> Device:
    """The device of a target from its facts."""
    chip = devices.recognise(facts)
    return Device(
        target=target,
        model=facts.model,
        chip=chip.key if chip else None,
        abi=facts.abi,
        cores=facts.cores,
        system=facts.system,
        emulated=bool(devices.emulation(target, facts)),
    )


class ShellTarget:
    """A device at the other end of a connection, as a target; `binary` is lce_benchmark_model built for it."""

    def __init__(self, connection: Connection, binary: Path | None, *, pause_s: float = PAUSE_S) -> None:
        self._connection, self._binary, self._pause_s = connection, binary, pause_s
        self._facts: devices.Facts | None = None

    def describe(self) -> Device:
        """The device. Raises BibenchError when it cannot be reached."""
        self._facts = self._facts or devices.parse(self._connection.run(devices.SCRIPT).stdout)
        return device(self._connection.target, self._facts)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def measure(self, flatbuffers: Mapping[str, bytes], settings: Settings) -> dict[str, Measurement]:
        """Measure flatbuffers by name, in interleaved rounds. Raises BibenchError with the reason."""
        device = self.describe()
        binary = program.check(self._binary, device.abi)
        common = []
        if settings.threads > (available := len(settings.cores or range(device.cores))):
            common.append(f"{settings.threads} threads share {available} core{'s' if available > 1 else ''}")
        notes: dict[str, list[str]] = {name: [] for name in flatbuffers}
        logs: dict[str, list[Log]] = {name: [] for name in flatbuffers}
        operations: dict[str, tuple[OperationTime, ...]] = dict.fromkeys(flatbuffers, ())
        with temporary_folder(self._connection) as folder:
            has_timeout = self._connection.run("timeout -k 1 5 true").returncode == 0
            job = _Job(folder, settings, has_timeout)
            _check_cores(job, device)
            graphs = folder.copy(binary, flatbuffers)
            order = list(graphs)
            for index in range(settings.rounds):
                for name in order:
                    logs[name].append(self._turn(job, graphs[name], f"round {index + 1}", notes[name]))
                order.reverse()
            for name in graphs if settings.profile else ():
                operations[name] = _twice(job, functools.partial(_profile, job, graphs[name]), "profile", notes[name])
        every = [log for name in logs for log in logs[name]]
        if all(log.round.clock_mhz_after is None for log in every):
            common.append("the clock cannot be read on this device: throttling may go unnoticed")
        if any(log.stub for log in every):
            device = dataclasses.replace(device, emulated=True)
            common.append("the program says that it is a stub")
        if reason := devices.emulation(device.target, self._facts):
            common.append(f"the device is taken for an emulator: {reason}")
        return {
            name: Measurement(
                device=device,
                settings=settings,
                rounds=tuple(log.round for log in logs[name]),
                operations=operations[name],
                peak_memory_mib=max((log.memory_mib for log in logs[name] if log.memory_mib is not None), default=None),
                kernel="lce_benchmark_model with its default kernels",
                notes=(*common, *notes[name]),
            )
            for name in flatbuffers
        }

    def _turn(self, job: _Job, graph: str, label: str, notes: list[str]) -> Log:
        log, throttling = _twice(job, lambda: _once(job, graph), label, notes)
        if throttling:
            notes.append(f"{label}: {throttling}; measured again after {self._pause_s:g} s")
            time.sleep(self._pause_s)
            log, throttling = _once(job, graph)
            if throttling:
                notes.append(f"{label}: the device throttled again ({throttling}); its values are of that state")
        return log


def _affinity(settings: Settings) -> str:
    """The command that pins what follows it: `taskset` with a mask, in the form that toybox and util-linux share."""
    return "" if settings.cores is None else f"taskset {sum(1 << core for core in set(settings.cores)):x} "


def _check_cores(job: _Job, device: Device) -> None:
    cores = job.settings.cores
    if cores is None:
        return
    listed = ",".join(map(str, cores))
    if max(cores) >= device.cores:
        raise BibenchError(f"{device.target} has the cores 0 to {device.cores - 1}; --cores asks for {listed}.")
    reply = job.folder.connection.run(f"{_affinity(job.settings)}true")
    if reply.returncode == 127:
        raise BibenchError(f"{device.target} has no 'taskset': leave out --cores.")
    if reply.returncode:
        raise BibenchError(
            f"{device.target} cannot pin a process to the cores {listed} ({benchmark_tool.errors(reply.stderr)}): they "
            "may be switched off; choose others or leave out --cores."
        )


def _twice(job: _Job, action: Callable[[], T], label: str, notes: list[str]) -> T:
    """The result of `action`, tried once more after a failure that may pass."""
    try:
        return action()
    except (Lost, Killed, UnreadableOutput) as error:
        if isinstance(error, Lost) and not job.folder.connection.recover(RECOVERY_S):
            raise Lost(f"{error} It did not come back within {RECOVERY_S:g} s.") from error
        notes.append(f"{label}: {str(error).rstrip('.')}; measured again")
        job.folder.stop()
        return action()


def _once(job: _Job, graph: str) -> tuple[Log, str]:
    """The output of one run, with clock and temperature, and a description of throttling, empty without any."""
    reply, before, after = _benchmark(job, benchmark_tool.arguments(graph, job.settings))
    log = benchmark_tool.parse(f"{reply.stdout}\n{reply.stderr}", job.settings.minimum_runs)
    measured = dataclasses.replace(
        log.round,
        clock_mhz_before=before.clock_mhz,
        clock_mhz_after=after.clock_mhz,
        temperature_c_before=before.temperature_c,
        temperature_c_after=after.temperature_c,
    )
    return dataclasses.replace(log, round=measured), _throttling(before, after)


def _profile(job: _Job, graph: str) -> tuple[OperationTime, ...]:
    """The operations of a further run: profiling slows the inferences, so the rounds go without."""
    csv = f"{job.folder.path}/profile.csv"
    reply, *_ = _benchmark(job, benchmark_tool.arguments(graph, job.settings, csv))
    benchmark_tool.parse(f"{reply.stdout}\n{reply.stderr}", job.settings.minimum_runs)
    if job.folder.connection.run(f"[ -s {shlex.quote(csv)} ]").returncode:
        # A build that has no such file prints tables instead.
        return benchmark_tool.parse_profile(reply.stdout)
    with tempfile.TemporaryDirectory(prefix="bibench-") as temporary:
        local = Path(temporary) / "profile.csv"
        try:
            job.folder.connection.pull(csv, local)
        except subprocess.TimeoutExpired:
            raise Lost(f"{job.folder.connection.target} did not hand over the profile in time.") from None
        return benchmark_tool.parse_profile(local.read_text(encoding="utf-8", errors="replace"))


def _benchmark(job: _Job, options: list[str]) -> tuple[Reply, _Reading, _Reading]:
    """Run the program on the device, and read clock and temperature just before and after.

    The time-out is the device's: one that only ends the client leaves the program running.
    """
    limit = math.ceil(job.settings.timeout_s)
    command = _affinity(job.settings) + shlex.join([job.folder.program, *options])
    if job.has_timeout:
        line = f"timeout -k 1 {limit} {command} </dev/null"
    else:
        expired = shlex.quote(f"{job.folder.path}/expired")
        line = (
            f"rm -f {expired}; {command} </dev/null & p=$!; "
            f"(i=0; while [ $i -lt {limit} ]; do sleep 1; kill -0 $p 2>/dev/null || exit 0; i=$((i+1)); done; "
            f": >{expired}; kill -9 $p) >/dev/null 2>&1 </dev/null & "
            f"wait $p; c=$?; [ -e {expired} ] && c=124; exit $c"
        )
    mark = secrets.token_hex(8)
    read_sensors = _affinity(job.settings) + f"sh -c {shlex.quote(_script(job.settings))}"
    line = f"{read_sensors}; echo {mark}; ({line}\n); c=$?; printf '\\n%s\\n' {mark}; {read_sensors}; exit $c"
    start = time.monotonic()
    reply = job.folder.connection.run(line, limit + _GRACE_S)
    before, stdout, after = reply.stdout.split(f"{mark}\n")
    reply = Reply(line, reply.returncode, stdout, reply.stderr)
    _judge(job, reply, time.monotonic() - start)
    return reply, _reading(before), _reading(after)


def _judge(job: _Job, reply: Reply, elapsed_s: float) -> None:
    """Raise what the exit code of the program means."""
    code, target = reply.returncode, job.folder.connection.target
    words = benchmark_tool.errors(f"{reply.stdout}\n{reply.stderr}")
    if code == 0:
        return
    # `timeout` returns 124, or lets through the signal that ended the program: SIGTERM, or SIGKILL after a second.
    if code == 124 or (code in (137, 143) and elapsed_s >= job.settings.timeout_s):
        raise BibenchError(
            f"lce_benchmark_model took more than {job.settings.timeout_s:g} s on {target} and was stopped: raise "
            "--timeout, or lower --runs and --seconds."
        )
    # Some shells, and execvp of glibc, take a program they cannot execute for a script.
    if re.search(r"Exec format error|not executable: \d+-bit ELF|unexpected e_machine|[Ss]yntax error", words):
        raise BibenchError(f"{target} cannot execute this lce_benchmark_model, built for another processor? ({words})")
    if "GLIBC" in words or "cannot open shared object file" in words or "CANNOT LINK EXECUTABLE" in words:
        raise BibenchError(f"The libraries on {target} are not those lce_benchmark_model was built with: {words}")
    if code == 126:
        raise BibenchError(
            f"{target} does not permit to run programs in {job.folder.connection.parent} ({words}): it may be mounted "
            "noexec."
        )
    if code == 127:
        raise BibenchError(
            f"{target} does not find lce_benchmark_model or its loader ({words}): the folder vanished, or an Android "
            "build was taken for Linux or the reverse."
        )
    if code == 137:
        raise Killed(f"{target} killed lce_benchmark_model (SIGKILL), as systems do that run out of memory.")
    if code > 128:
        name = _SIGNALS.get(code - 128, f"signal {code - 128}")
        hint = "the processor lacks an instruction it uses; " if name == "SIGILL" else ""
        raise BibenchError(f"lce_benchmark_model crashed on {target} ({name}): {hint}its output: {words}")
    raise BibenchError(f"lce_benchmark_model failed on {target} with exit code {code}: {words}")


def _script(settings: Settings) -> str:
    """Shell that prints clocks and temperatures for `reading`.

    A short loop before it lets the clock rise, so that a reading of an idle and one of a busy device compare.
    """
    cpus = "/sys/devices/system/cpu/cpu"
    chosen = " ".join(f"{cpus}{core}" for core in settings.cores or ()) or f"{cpus}[0-9]*"
    return (
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; "
        f'for d in {chosen}; do echo "clock=$(cat $d/cpufreq/scaling_cur_freq 2>/dev/null)"; '
        'echo "limit=$(cat $d/cpufreq/scaling_max_freq 2>/dev/null)"; done; '
        "for z in /sys/class/thermal/thermal_zone*; do "
        'echo "zone=$(cat $z/temp 2>/dev/null)=$(cat $z/type 2>/dev/null)"; done'
    )


def _reading(text: str) -> _Reading:
    """A reading from lines `clock=KHZ`, `limit=KHZ` and `zone=TEMPERATURE=TYPE`.

    Sensors give thousandths, tenths or whole degrees; those of the processor count, where there are any.
    """
    clocks = {
        kind: [float(v) / 1e3 for v in re.findall(rf"^{kind}=(\d+)\s*$", text, re.M)] for kind in ("clock", "limit")
    }
    zones = []
    for value, kind in re.findall(r"^zone=(-?\d+)=(.*)$", text, re.M):
        degrees = float(value) / (1000 if abs(int(value)) >= 1000 else 10 if abs(int(value)) > 150 else 1)
        # A sensor that is off reports 0 or nonsense.
        if 0 < degrees <= 150:
            zones.append((degrees, re.search(r"cpu|soc|tsens|apc", kind, re.I) is not None))
    processor = [degrees for degrees, ours in zones if ours] or [degrees for degrees, _ in zones]
    return _Reading(
        clock_mhz=max(clocks["clock"], default=None),
        limit_mhz=max(clocks["limit"], default=None),
        temperature_c=max(processor, default=None),
    )


def _throttling(before: _Reading, after: _Reading) -> str:
    """In words, what shows that the device slowed down; empty when nothing does."""
    for what, was, now in (
        ("the clock", before.clock_mhz, after.clock_mhz),
        ("the limit of the clock", before.limit_mhz, after.limit_mhz),
    ):
        if was and now and now < _CLOCK_SHARE * was:
            return f"{what} fell from {was:.0f} to {now:.0f} MHz"
    was, now = before.temperature_c, after.temperature_c
    if was is not None and now is not None and now - was > _TEMPERATURE_RISE_C:
        return f"the temperature rose from {was:.0f} to {now:.0f} degrees Celsius"
    return ""
