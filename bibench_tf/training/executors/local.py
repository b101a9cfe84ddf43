"""Runs in processes of this machine, each with its own cores or GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bibench_tf.results import environment, records
from bibench_tf.results.runs import RunSpec
from bibench_tf.training.session import Session
from bibench_tf.workers import Ended, Worker


@dataclass(frozen=True)
class Place:
    """The resources of one process: the numbers of its cores, and its GPUs as CUDA names them.

    `gpus=None` leaves CUDA_VISIBLE_DEVICES unchanged; used on machines without a GPU.
    """

    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None = None


def places(session: Session, runs: int) -> list[Place]:
    """At least one and at most `runs` places of this machine. With a strategy each run takes the whole machine."""
    cores = environment.cores()
    gpus = _gpus()
    wanted = 1 if session.gpus_per_run is None else session.gpus_per_run
    count = len(cores) // session.cpus_per_run
    if gpus and wanted > 0:
        count = min(len(cores), int(len(gpus) / wanted))
    count = 1 if session.strategy is not None else max(1, min(count, runs))
    return divided(cores, gpus if wanted > 0 else [], wanted, count)


def divided(cores: Sequence[int], gpus: Sequence[str], gpus_per_run: float, count: int) -> list[Place]:
    """`count` places: cores in equal shares of adjacent numbers, and GPUs, which several places can share."""

    def gpus_of(number: int) -> tuple[str, ...] | None:
        if not gpus:
            return None
        first = math.floor(number * gpus_per_run + 1e-9)
        return tuple(gpus[first : max(first + 1, math.ceil((number + 1) * gpus_per_run - 1e-9))])

    share = len(cores) // count
    return [Place(tuple(cores[number * share : (number + 1) * share]), gpus_of(number)) for number in range(count)]


def _gpus() -> list[str]:
    import tensorflow as tf

    found = len(tf.config.list_physical_devices("GPU"))
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(number) for number in range(found)])[:found]


@contextlib.contextmanager
def started(session: Session, places: Sequence[Place]) -> Iterator[LocalWorkers]:
    """A process for each place; the end of the block, also by an error or Ctrl-C, ends them at once."""
    workers = LocalWorkers(session, places)
    try:
        yield workers
    finally:
        workers.close()


class LocalWorkers:
    """A process for each place; one that has died is replaced, and ends no other run."""

    attempts = 3
    poll_s = 1.0
    lost: tuple[type[BaseException], ...] = (Ended,)

    def __init__(self, session: Session, places: Sequence[Place]) -> None:
        self.capacity = len(places)
        self._session = records.unstructure(dataclasses.replace(session, has_neighbours=True))
        self._threads = ThreadPoolExecutor(self.capacity)  # each waits for the answer of a process
        self._slots = [_Slot(place) for place in places]

    def submit(self, spec: RunSpec) -> Future[dict[str, Any]]:
        """Train a run in an idle process; there is one while fewer than `capacity` futures are unfinished."""
        slot = next(slot for slot in self._slots if slot.future is None or slot.future.done())
        if slot.worker.process.poll() is not None:
            slot.worker.close()
            slot.start()
        slot.future = self._threads.submit(
            slot.worker.ask, {"spec": records.unstructure(spec), "session": self._session}
        )
        return slot.future

    def close(self) -> None:
        """Kill all processes; a later session resumes their runs from the last checkpoint."""
        for slot in self._slots:
            slot.worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for slot in self._slots:
            slot.worker.close()


class _Slot:
    """A place, its process, and the last run of that."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.future: Future[dict[str, Any]] | None = None
        self.start()

    def start(self) -> None:
        gpus, environment = self._place.gpus, {}
        if gpus is not None:
            # Several processes can share a GPU.
            environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        module = "bibench_tf.training.executors.worker"
        self.worker = Worker(module, cores=self._place.cores, environment=environment, logged=False)
