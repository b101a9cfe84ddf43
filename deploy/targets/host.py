"""This computer as a target: networks timed side by side, each in a process of its own."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bibench_tf import files
from bibench_tf.deploy.targets import Access, Device, Measurement, OperationTime, Round, Settings, register
from bibench_tf.errors import BibenchError
from bibench_tf.results import environment
from bibench_tf.workers import Ended, JobError, Worker

if TYPE_CHECKING:
    from bibench_tf.deploy.flatbuffer import Operation

_ON_X86 = (
    "Larq Compute Engine is written for ARM: latencies on an x86 computer, even with its fastest kernel there, do not "
    "predict those of phones and boards."
)
# A round is cut into this many turns, so that other work on the computer affects all networks alike.
_TURNS = 10


@register("host")
def open_host(address: str, access: Access) -> HostTarget:
    """This computer, with the interpreters of Larq Compute Engine and TensorFlow Lite."""
    return HostTarget()


class HostWorker:
    """The process `host_worker`, in which every network gets a process of its own."""

    def __init__(self) -> None:
        self.worker = Worker("bibench_tf.deploy.host_worker")

    def load(self, name: str, content: bytes, settings: Settings) -> str:
        """Load a network in a new process; returns a description of its kernels. Raises BibenchError."""
        file = self.worker.folder / "model.tflite"
        with files.room_in(self.worker.folder):
            file.write_bytes(content)
        job = {"file": str(file), "threads": settings.threads, "cores": settings.cores}
        return self._ask("load", name, timeout_s=settings.timeout_s, **job)

    def run(self, name: str, runs: int, seconds: float, timeout_s: float) -> tuple[list[float], float | None]:
        """Run at least `runs` inferences and `seconds`: the time of each in ms, and the peak memory in MiB so far."""
        return self._ask("run", name, timeout_s=timeout_s, runs=runs, seconds=seconds)

    def unload(self, name: str) -> None:
        """End the process of a network."""
        self._ask("unload", name)

    def _ask(self, do: str, name: str, **job: Any) -> Any:
        try:
            return self.worker.ask({"do": do, "name": name, **job})
        except JobError as error:
            raise BibenchError(f"'{name}' cannot be measured on this computer: {error}") from error
        except Ended as error:
            raise BibenchError(f"The process that measures on this computer {error}") from error


class HostTarget:
    """This computer. Networks are timed in processes of their own, so that a crash of an interpreter is an error."""

    def __init__(self) -> None:
        """The processes start with the first measurement."""
        self._worker: HostWorker | None = None

    def describe(self) -> Device:
        """This computer, by the name of its processor."""
        machine = environment.describe()
        return Device(
            target="host",
            model=machine["cpu"],
            chip=None,
            abi=platform.machine(),
            cores=machine["cores"],
            system=machine["system"],
        )

    def measure(self, flatbuffers: Mapping[str, bytes], settings: Settings) -> dict[str, Measurement]:
        """The latency of each flatbuffer, batch 1, on random inputs (zeros where an input is not float).

        Each network is loaded in its own process, and the turns of all networks are interleaved. The time of one
        inference includes copying the inputs in and the outputs out. `peak_memory_mib` is the largest private memory
        of the network's process, sampled after loading and after each turn, minus the memory before loading: the file,
        the tensors and the weights as the kernels pack them, without code; None on systems without /proc. With
        `settings.profile` the time of an operation is the difference between the prefixes of the network that end with
        it and before it (`deploy.prefixes`); the fastest run of each prefix counts.

        Raises BibenchError, which names the network, when an interpreter refuses a file, crashes, or takes longer
        than `settings.timeout_s` for a turn.
        """
        self._worker = worker = self._worker or HostWorker()
        try:
            kernels = {name: worker.load(name, content, settings) for name, content in flatbuffers.items()}
            rounds = [self._round(worker, list(flatbuffers), settings) for _ in range(settings.rounds)]
        except BaseException:
            self.close()  # processes of this measurement would slow the next one
            raise
        for name in flatbuffers:
            worker.unload(name)
        device = self.describe()
        measured = {}
        for name, content in flatbuffers.items():
            notes = [_ON_X86] if "LCE indirect" in kernels[name] else []
            operations: tuple[OperationTime, ...] = ()
            if settings.profile:
                operations, note = self._profile(worker, content, settings)
                notes.append(note)
            measured[name] = Measurement(
                device=device,
                settings=settings,
                rounds=tuple(each[name][0] for each in rounds),
                operations=operations,
                peak_memory_mib=rounds[-1][name][1],
                kernel=kernels[name],
                notes=tuple(notes),
            )
        return measured

    def close(self) -> None:
        """End the processes."""
        if self._worker is not None:
            self._worker.worker.close(grace_s=5)
            self._worker = None

    def _round(self, worker: HostWorker, names: list[str], settings: Settings) -> dict[str, tuple[Round, float | None]]:
        turns = min(_TURNS, settings.minimum_runs)
        runs, seconds = -(-settings.minimum_runs // turns), settings.minimum_s / turns
        samples: dict[str, list[float]] = {name: [] for name in names}
        memory: dict[str, float | None] = {}
        for name in names:
            worker.run(name, runs=1, seconds=settings.warm_up_s, timeout_s=settings.timeout_s)
        conditions = {"clock_mhz_before": _clock_mhz(), "temperature_c_before": _temperature_c()}
        for _ in range(turns):
            for name in names:
                times_ms, memory[name] = worker.run(name, runs, seconds, settings.timeout_s)
                samples[name] += times_ms
            names = names[::-1]
        conditions |= {"clock_mhz_after": _clock_mhz(), "temperature_c_after": _temperature_c()}
        return {name: (summary(samples[name], **conditions), memory[name]) for name in names}

    def _profile(
        self, worker: HostWorker, flatbuffer: bytes, settings: Settings
    ) -> tuple[tuple[OperationTime, ...], str]:
        """The time of each operation, and a note on their sum."""
        from bibench_tf.deploy import prefixes
        from bibench_tf.deploy.flatbuffer import graph

        operations = graph(flatbuffer).operations
        contents = (*range(len(operations) + 1), None)
        fastest_ms: dict[int | None, float] = dict.fromkeys(contents, float("inf"))
        # One prefix at a time is in memory: hundreds of copies of large weights would not fit.
        for _ in range(settings.rounds):
            for count in contents:
                worker.load("prefix", flatbuffer if count is None else prefixes.cut(flatbuffer, count), settings)
                worker.run("prefix", runs=2, seconds=0.0, timeout_s=settings.timeout_s)
                runs = -(-settings.minimum_runs // settings.rounds)
                times_ms, _ = worker.run("prefix", runs, settings.minimum_s / _TURNS, settings.timeout_s)
                worker.unload("prefix")
                # Disturbances only lengthen a run, and a difference of two latencies needs undisturbed ones.
                fastest_ms[count] = min(fastest_ms[count], *times_ms)
            contents = contents[::-1]
        prefix_ms = [fastest_ms[count] for count in range(len(operations) + 1)]
        return operation_times(operations, prefix_ms, fastest_ms[None])


def operation_times(
    operations: Sequence[Operation], prefix_ms: Sequence[float], whole_ms: float
) -> tuple[tuple[OperationTime, ...], str]:
    """The time of each operation from the latencies of the prefixes (the empty one first), and a note on their sum.

    A negative difference is noise and counts as 0; the note gives the difference between the sum and the latency of
    the whole network, call included.
    """
    steps = np.diff(prefix_ms)
    times = tuple(
        OperationTime(operation.name, operation.kind, max(float(step), 0.0))
        for operation, step in zip(operations, steps, strict=True)
    )
    total = sum(time.mean_ms for time in times)
    below = steps[steps < 0]
    note = (
        f"Times of operations are differences between prefixes of the network. They add up to {total:.3f} ms, the call "
        f"itself takes {prefix_ms[0]:.3f} ms and the whole network {whole_ms:.3f} ms: a residual of "
        f"{whole_ms - prefix_ms[0] - total:+.3f} ms."
    )
    if below.size:
        note += f" {below.size} differences were negative by noise ({below.sum():.3f} ms in all) and are shown as 0."
    return times, note


def summary(times_ms: Sequence[float], **conditions: float | None) -> Round:
    """The statistics of the timed inferences of one round; `conditions` are further fields of `Round`."""
    return Round(
        mean_ms=float(np.mean(times_ms)),
        std_ms=float(np.std(times_ms)),
        min_ms=min(times_ms),
        max_ms=max(times_ms),
        count=len(times_ms),
        **{f"p{percent}_ms": float(np.percentile(times_ms, percent)) for percent in (50, 90, 99)},
        **conditions,
    )


def _clock_mhz() -> float | None:
    clocks = psutil.cpu_freq(percpu=True) if hasattr(psutil, "cpu_freq") else []
    return max((clock.current for clock in clocks or []), default=None)


def _temperature_c() -> float | None:
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    return max((sensor.current for group in sensors.values() for sensor in group), default=None)
