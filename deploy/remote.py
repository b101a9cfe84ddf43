"""Measuring on a device at the other end of a connection: what adb and ssh have in common.

The program and the flatbuffers are copied to a new folder on the device, run there under a time-out, in rounds in
which the flatbuffers take turns, and removed again, also after an error or Ctrl-C. Clock and temperature are read
before and after each round; a round during which the device throttled is measured once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import re
import secrets
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from bibench_tf.deploy import benchmark_tool, devices
from bibench_tf.deploy.benchmark_tool import Log, UnreadableOutput
from bibench_tf.deploy.target import Device, Measurement, OperationTime, Round, Settings
from bibench_tf.errors import BibenchError

# How long a short command may take, and how long a device may be away before it counts as gone.
SHORT_S = 30.0
RECOVERY_S = 30.0
_LAST_RECOVERY_S = 10.0
# How long a device cools before a throttled round is measured again.
PAUSE_S = 30.0
# What a run needs beyond the time-out on the device: starting, reading the output, the connection itself.
_GRACE_S = 20.0
# Throttling: the clock under load fell to less than this share, or the temperature rose by more than this.
_CLOCK_SHARE = 0.9
_TEMPERATURE_RISE_C = 10.0
_SIGNALS = {number.value: number.name for number in signal.Signals}

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Lost(BibenchError):
    """The connection ended before the command did."""


class Killed(BibenchError):
    """The device's system killed the program."""


@dataclass(frozen=True)
class Reply:
    """What a command printed on the device, and its exit code: 128 + N when signal N ended it."""

    code: int
    stdout: str
    stderr: str


class Connection(Protocol):
    """A device with a shell. `target` is its name in records, `parent` where temporary folders may be made."""

    target: str
    parent: str

    def shell(self, line: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run `line` in the device's shell. Raises subprocess.TimeoutExpired."""

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device. Raises BibenchError."""

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device. Raises BibenchError."""

    def explain(self, words: str) -> BibenchError | None:
        """The error for what the client said of a failed connection; None when it may pass."""

    def recover(self, timeout_s: float) -> bool:
        """Whether the device answers again within that time."""

    def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True)
class _Job:
    """One call of `measure`: `folder` is ours on the device, `timeout` whether the device has that command."""

    connection: Connection
    settings: Settings
    folder: str
    timeout: bool

    @property
    def program(self) -> str:
        return f"{self.folder}/lce_benchmark_model"


@dataclass(frozen=True)
class _Reading:
    clock_mhz: float | None
    limit_mhz: float | None
    temperature_c: float | None


@dataclass(frozen=True)
class _Turn:
    round: Round
    log: Log
    throttling: str


def client(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a client (adb, ssh, scp) without a shell and without this process's stdin. Raises TimeoutExpired.

    A session of its own keeps Ctrl-C from it, so that the device can still be cleaned up through its connection.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        package = {"adb": "adb (Android SDK platform tools)", "ssh": "an OpenSSH client", "scp": "an OpenSSH client"}
        name = command[0]
        raise BibenchError(f"The program '{name}' is not installed: install {package.get(name, name)}.") from error


def run(connection: Connection, line: str, timeout_s: float = SHORT_S) -> Reply:
    """Run a line of shell on the device. The caller quotes what comes from elsewhere.

    The exit code is printed by the device itself: adb's old protocol returns none, and ssh's 255 may be its own.
    Raises Lost when the code did not arrive.
    """
    mark = f"bibench-{secrets.token_hex(8)}"
    try:
        done = connection.shell(f"({line}\n); printf '\\n%s:%d\\n' {mark} $?", timeout_s)
    except subprocess.TimeoutExpired:
        raise Lost(f"{connection.target} did not answer within {timeout_s:g} s.") from None
    stdout = done.stdout.replace("\r\n", "\n")
    match = re.search(rf"\n{mark}:(\d+)\s*$", stdout)
    if match is None:
        words = done.stderr.strip() or stdout.strip()
        if (error := connection.explain(words)) is not None:
            raise error
        said = benchmark_tool.errors(words)
        raise Lost(f"The connection to {connection.target} broke off ({said}).")
    return Reply(int(match[1]), stdout[: match.start()], done.stderr)


def facts(connection: Connection) -> devices.Facts:
    """What the device says about itself."""
    return devices.parse(run(connection, devices.SCRIPT).stdout)


class RemoteTarget:
    """A device at the other end of a connection, as a target; `binary` is lce_benchmark_model built for it."""

    def __init__(self, connection: Connection, binary: Path | None, *, pause_s: float = PAUSE_S):
        self._connection, self._binary, self._pause_s = connection, binary, pause_s
        self._facts: devices.Facts | None = None

    def describe(self) -> Device:
        """The device. Raises BibenchError when it cannot be reached."""
        self._facts = self._facts or facts(self._connection)
        return devices.device(self._connection.target, self._facts)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def measure(self, flatbuffers: Mapping[str, bytes], settings: Settings) -> dict[str, Measurement]:
        """Measure flatbuffers by name, in rounds in which they take turns. Raises BibenchError with the reason."""
        device = self.describe()
        benchmark_tool.check_binary(self._binary, device.abi)
        common = []
        if settings.threads > (available := len(settings.cores or range(device.cores))):
            common.append(f"{settings.threads} threads share {available} core{'s' if available > 1 else ''}")
        notes: dict[str, list[str]] = {name: [] for name in flatbuffers}
        turns: dict[str, list[_Turn]] = {name: [] for name in flatbuffers}
        operations: dict[str, tuple[OperationTime, ...]] = dict.fromkeys(flatbuffers, ())
        with _folder(self._connection) as folder:
            job = _Job(self._connection, settings, folder, _has_timeout(self._connection))
            _check_cores(job, device)
            graphs = _copy(job, self._binary, flatbuffers)
            order = list(graphs)
            for index in range(settings.rounds):
                for name in order:
                    turns[name].append(self._turn(job, graphs[name], f"round {index + 1}", notes[name]))
                order.reverse()
            for name in graphs if settings.profile else ():
                operations[name] = _twice(job, lambda name=name: _profile(job, graphs[name]), "profile", notes[name])
        if all(turn.round.clock_mhz_after is None for name in turns for turn in turns[name]):
            common.append("the clock cannot be read on this device: throttling may go unnoticed")
        if any(turn.log.stub for name in turns for turn in turns[name]):
            device = dataclasses.replace(device, emulated=True)
            common.append("the program says that it is a stub")
        if reason := devices.emulation(device.target, self._facts):
            common.append(f"the device is taken for an emulator: {reason}")
        return {
            name: Measurement(
                device=device,
                settings=settings,
                rounds=tuple(turn.round for turn in turns[name]),
                operations=operations[name],
                peak_memory_mib=max(
                    (t.log.memory_mib for t in turns[name] if t.log.memory_mib is not None), default=None
                ),
                kernel="lce_benchmark_model with its default kernels",
                notes=(*common, *notes[name]),
            )
            for name in flatbuffers
        }

    def _turn(self, job: _Job, graph: str, label: str, notes: list[str]) -> _Turn:
        turn = _twice(job, lambda: _once(job, graph), label, notes)
        if turn.throttling:
            notes.append(f"{label}: {turn.throttling}; measured again after {self._pause_s:g} s")
            time.sleep(self._pause_s)
            turn = _once(job, graph)
            if turn.throttling:
                notes.append(f"{label}: the device throttled again ({turn.throttling}); its figures are of that state")
        return turn


@contextlib.contextmanager
def _folder(connection: Connection) -> Iterator[str]:
    """A new folder on the device; in the end what still runs from it is stopped, and it is removed."""
    folder = f"{connection.parent}/bibench-{secrets.token_hex(8)}"
    # No -p: the folder has to be new.
    reply = run(connection, f"umask 077; mkdir {shlex.quote(folder)}")
    if reply.code:
        raise BibenchError(
            f"Cannot make a folder in {connection.parent} on {connection.target}: {benchmark_tool.errors(reply.stderr)}"
        )
    try:
        yield folder
    finally:
        code = 1
        with contextlib.suppress(BibenchError):
            try:
                code = _remove(connection, folder)
            except Lost:
                if connection.recover(_LAST_RECOVERY_S):
                    code = _remove(connection, folder)
        if code:
            _log.warning("The folder %s stays behind on %s.", folder, connection.target)


def _remove(connection: Connection, folder: str) -> int:
    _stop(connection, folder)
    return run(connection, f"rm -rf {shlex.quote(folder)}").code


def _stop(connection: Connection, folder: str) -> None:
    """Kill the processes on the device that have the folder in their command line."""
    # In two halves, so that the command line that looks for it does not contain it.
    half = len(folder) // 2
    line = (
        f"a={shlex.quote(folder[:half])}; b={shlex.quote(folder[half:])}; for p in /proc/[0-9]*; do "
        'case "$(tr "\\0" " " <$p/cmdline 2>/dev/null)" in *"$a$b"*) kill -9 ${p#/proc/} 2>/dev/null;; esac; done'
    )
    run(connection, line)


def _has_timeout(connection: Connection) -> bool:
    return run(connection, "timeout -k 1 5 true").code == 0


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
    reply = run(job.connection, f"{_affinity(job.settings)}true")
    if reply.code == 127:
        raise BibenchError(f"{device.target} has no 'taskset': leave out --cores.")
    if reply.code:
        raise BibenchError(
            f"{device.target} cannot pin a process to the cores {listed} ({benchmark_tool.errors(reply.stderr)}): they "
            "may be switched off; choose others or leave out --cores."
        )


def _copy(job: _Job, binary: Path, flatbuffers: Mapping[str, bytes]) -> dict[str, str]:
    """Copy all files under names of our own; the paths of the flatbuffers on the device, by name."""
    needed = binary.stat().st_size + sum(len(content) for content in flatbuffers.values())
    free = _free_bytes(job)
    if free is not None and free < needed:
        raise _full(job, f"{needed / 2**20:.1f} MiB are needed, {free / 2**20:.1f} MiB are free")
    graphs = {name: f"{job.folder}/{index}.tflite" for index, name in enumerate(flatbuffers)}
    _push(job, binary.resolve(), job.program)
    with tempfile.TemporaryDirectory(prefix="bibench-") as temporary:
        local = Path(temporary) / "network.tflite"
        for name, content in flatbuffers.items():
            local.write_bytes(content)
            _push(job, local, graphs[name])
    files = [job.program, *graphs.values()]
    sizes = "; ".join(f"wc -c <{shlex.quote(file)}" for file in files)
    reply = run(job.connection, f"chmod 700 {shlex.quote(job.program)} && {{ {sizes}; }}")
    if reply.code:
        raise BibenchError(
            f"{job.connection.target} does not let its new files be used: {benchmark_tool.errors(reply.stderr)}"
        )
    expected = [binary.stat().st_size, *map(len, flatbuffers.values())]
    if [int(size) for size in reply.stdout.split()] != expected:
        raise BibenchError(f"The files did not arrive whole on {job.connection.target}: try again.")
    return graphs


def _push(job: _Job, local: Path, remote: str) -> None:
    try:
        job.connection.push(local, remote)
    except subprocess.TimeoutExpired:
        raise Lost(f"{job.connection.target} did not take the files in time.") from None
    except BibenchError as error:
        # The sftp protocol only says "Failure" when the disk is full.
        free = None if "No space left" in str(error) else _free_bytes(job)
        if "No space left" in str(error) or (free is not None and free < 2**16):
            raise _full(job, f"{local.stat().st_size / 2**20:.1f} MiB did not fit") from error
        raise


def _full(job: _Job, detail: str) -> BibenchError:
    return BibenchError(f"The disk of {job.connection.target} is full ({job.connection.parent}: {detail}): free some.")


def _free_bytes(job: _Job) -> int | None:
    lines = run(job.connection, f"df -Pk {shlex.quote(job.folder)}").stdout.split("\n")
    for line in reversed(lines):
        match = re.match(r"\S+\s+\d+\s+\d+\s+(\d+)\s", line)
        if match:
            return 1024 * int(match[1])
    return None


def _twice(job: _Job, action: Callable[[], T], label: str, notes: list[str]) -> T:
    """The result of `action`, tried once more after a failure that may pass."""
    try:
        return action()
    except (Lost, Killed, UnreadableOutput) as error:
        if isinstance(error, Lost) and not job.connection.recover(RECOVERY_S):
            raise Lost(f"{error} It did not come back within {RECOVERY_S:g} s.") from error
        notes.append(f"{label}: {str(error).rstrip('.')}; measured again")
        _stop(job.connection, job.folder)
        return action()


def _once(job: _Job, graph: str) -> _Turn:
    reply, before, after = _benchmark(job, benchmark_tool.arguments(graph, job.settings))
    log = benchmark_tool.parse(f"{reply.stdout}\n{reply.stderr}", job.settings.minimum_runs)
    return _Turn(
        Round(
            mean_ms=log.mean_ms,
            std_ms=log.std_ms,
            min_ms=log.min_ms,
            max_ms=log.max_ms,
            count=log.count,
            p50_ms=log.p50_ms,
            clock_mhz_before=before.clock_mhz,
            clock_mhz_after=after.clock_mhz,
            temperature_c_before=before.temperature_c,
            temperature_c_after=after.temperature_c,
        ),
        log,
        _throttling(before, after),
    )


def _profile(job: _Job, graph: str) -> tuple[OperationTime, ...]:
    """The operations of a further run: profiling slows the inferences, so the rounds go without."""
    csv = f"{job.folder}/profile.csv"
    reply, *_ = _benchmark(job, benchmark_tool.arguments(graph, job.settings, csv))
    benchmark_tool.parse(f"{reply.stdout}\n{reply.stderr}", job.settings.minimum_runs)
    if run(job.connection, f"[ -s {shlex.quote(csv)} ]").code:
        # A build that has no such file prints tables instead.
        return benchmark_tool.parse_profile(reply.stdout)
    with tempfile.TemporaryDirectory(prefix="bibench-") as temporary:
        local = Path(temporary) / "profile.csv"
        try:
            job.connection.pull(csv, local)
        except subprocess.TimeoutExpired:
            raise Lost(f"{job.connection.target} did not hand over the profile in time.") from None
        return benchmark_tool.parse_profile(local.read_text(encoding="utf-8", errors="replace"))


def _benchmark(job: _Job, options: list[str]) -> tuple[Reply, _Reading, _Reading]:
    """Run the program on the device, and read clock and temperature just before and after.

    The time-out is the device's: one that only ends the client leaves the program running.
    """
    limit = math.ceil(job.settings.timeout_s)
    command = _affinity(job.settings) + shlex.join([job.program, *options])
    if job.timeout:
        line = f"timeout -k 1 {limit} {command} </dev/null"
    else:
        expired = shlex.quote(f"{job.folder}/expired")
        line = (
            f"rm -f {expired}; {command} </dev/null & p=$!; "
            f"(i=0; while [ $i -lt {limit} ]; do sleep 1; kill -0 $p 2>/dev/null || exit 0; i=$((i+1)); done; "
            f": >{expired}; kill -9 $p) >/dev/null 2>&1 </dev/null & "
            f"wait $p; c=$?; [ -e {expired} ] && c=124; exit $c"
        )
    mark = secrets.token_hex(8)
    sensors = _affinity(job.settings) + f"sh -c {shlex.quote(_sensors(job.settings))}"
    line = f"{sensors}; echo {mark}; ({line}\n); c=$?; printf '\\n%s\\n' {mark}; {sensors}; exit $c"
    start = time.monotonic()
    reply = run(job.connection, line, limit + _GRACE_S)
    before, stdout, after = reply.stdout.split(f"{mark}\n")
    reply = Reply(reply.code, stdout, reply.stderr)
    _judge(job, reply, time.monotonic() - start)
    return reply, reading(before), reading(after)


def _judge(job: _Job, reply: Reply, elapsed_s: float) -> None:
    """Raise what the exit code of the program means."""
    code, target = reply.code, job.connection.target
    said = benchmark_tool.errors(f"{reply.stdout}\n{reply.stderr}")
    if code == 0:
        return
    # `timeout` returns 124, or lets through the signal that ended the program: SIGTERM, or SIGKILL after a second.
    if code == 124 or (code in (137, 143) and elapsed_s >= job.settings.timeout_s):
        raise BibenchError(
            f"lce_benchmark_model took more than {job.settings.timeout_s:g} s on {target} and was stopped: raise "
            "--timeout, or lower --runs and --seconds."
        )
    # Some shells, and execvp of glibc, take a program they cannot execute for a script.
    if re.search(r"Exec format error|not executable: \d+-bit ELF|unexpected e_machine|[Ss]yntax error", said):
        raise BibenchError(f"{target} cannot execute this lce_benchmark_model, built for another processor? ({said})")
    if "GLIBC" in said or "cannot open shared object file" in said or "CANNOT LINK EXECUTABLE" in said:
        raise BibenchError(f"The libraries on {target} are not those lce_benchmark_model was built with: {said}")
    if code == 126:
        raise BibenchError(
            f"{target} does not permit to run programs in {job.connection.parent} ({said}): it may be mounted noexec."
        )
    if code == 127:
        raise BibenchError(
            f"{target} does not find lce_benchmark_model or its loader ({said}): the folder vanished, or an Android "
            "build was taken for Linux or the reverse."
        )
    if code == 137:
        raise Killed(f"{target} killed lce_benchmark_model (SIGKILL), as systems do that run out of memory.")
    if code > 128:
        name = _SIGNALS.get(code - 128, f"signal {code - 128}")
        hint = "the processor lacks an instruction it uses; " if name == "SIGILL" else ""
        raise BibenchError(f"lce_benchmark_model crashed on {target} ({name}): {hint}it said: {said}")
    raise BibenchError(f"lce_benchmark_model failed on {target} with exit code {code}: {said}")


def _sensors(settings: Settings) -> str:
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


def reading(text: str) -> _Reading:
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
