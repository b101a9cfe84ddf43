"""Runs in processes of this machine, each with its own cores or GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from bibench_tf.results import environment, records
from bibench_tf.results.runs import RunSpec
from bibench_tf.training.executors import worker
from bibench_tf.training.session import Session


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
    """A process for each place; an error or Ctrl-C in the block kills them at once."""
    workers = LocalWorkers(session, places)
    try:
        yield workers
    except BaseException:
        workers.kill()
        raise
    finally:
        workers.close()


class LocalWorkers:
    """One pool of one process for each place, so that a process that dies ends no other run."""

    attempts = 3
    poll_s = 1.0
    lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, session: Session, places: Sequence[Place]) -> None:
        self.capacity = len(places)
        self._session = records.unstructure(dataclasses.replace(session, has_neighbours=True))
        self._slots = [_Slot(place) for place in places]

    def submit(self, spec: RunSpec) -> Future[dict[str, Any]]:
        """Train a run in an idle process; there is one while fewer than `capacity` futures are unfinished."""
        slot = next(slot for slot in self._slots if slot.is_idle)
        return slot.submit(records.unstructure(spec), self._session)

    def kill(self) -> None:
        """Kill all processes; a later session resumes their runs from the last checkpoint."""
        for slot in self._slots:
            slot.kill()

    def close(self) -> None:
        """Wait until the processes have ended."""
        for slot in self._slots:
            slot.close()


class _Slot:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._future: Future[dict[str, Any]] | None = None
        self._start()

    @property
    def is_idle(self) -> bool:
        return self._future is None or self._future.done()

    def _start(self) -> None:
        # Spawned, because a process that has loaded TensorFlow must not be forked.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _prepare, (self._place.cores, self._place.gpus))
        self._pid = self._pool.submit(os.getpid)

    def submit(self, spec: dict[str, Any], session: dict[str, Any]) -> Future[dict[str, Any]]:
        try:
            self._future = self._pool.submit(worker.train, spec, session)
        except BrokenProcessPool:
            self.close()
            self._start()
            self._future = self._pool.submit(worker.train, spec, session)
        return self._future

    def kill(self) -> None:
        with contextlib.suppress(BrokenProcessPool, ProcessLookupError):
            os.kill(self._pid.result(), signal.SIGKILL)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _prepare(cores: Sequence[int], gpus: Sequence[str] | None) -> None:
    """Make this process a worker: with its own cores, without Ctrl-C, and ended with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # TensorFlow starts a thread for each core
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # several processes can share a GPU
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    parent.join()
    os._exit(1)
