"""Runs in processes of this machine, each with cores, or graphics cards, of its own."""

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

from bibench_tf.results.runs import RunSpec
from bibench_tf.training.executors import worker
from bibench_tf.training.session import Session


@dataclass(frozen=True)
class Place:
    """What one process gets: the numbers of its cores, and its graphics cards as CUDA names them.

    None of `gpus` leaves it all, which are none.
    """

    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None = None


def places(session: Session, runs: int) -> list[Place]:
    """The places of this machine for so many runs, at least one. With a strategy each run takes the whole machine."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    gpus = _gpus()
    wanted = 1 if session.gpus_per_run is None else session.gpus_per_run
    count = len(cores) // session.cpus_per_run
    if gpus and wanted > 0:
        count = min(len(cores), int(len(gpus) / wanted))
    count = 1 if session.strategy is not None else max(1, min(count, runs))
    return divided(cores, gpus if wanted > 0 else [], wanted, count)


def divided(cores: Sequence[int], gpus: Sequence[str], gpus_per_run: float, count: int) -> list[Place]:
    """Cores in equal shares, neighbours together, and graphics cards, which several may share."""

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
    """A process for each place; they are ended at once when the block is left by an error or Ctrl-C."""
    workers = LocalWorkers(session, places)
    try:
        yield workers
    except BaseException:
        workers.kill()
        raise
    finally:
        workers.close()


class LocalWorkers:
    """One pool of one process for each place, so that a process that dies takes no other run with it."""

    attempts = 3
    poll_s = 1.0
    lost = (BrokenProcessPool,)

    def __init__(self, session: Session, places: Sequence[Place]):
        self.capacity = len(places)
        self._session = dataclasses.replace(session, has_neighbours=True).to_dict()
        self._slots = [_Slot(place) for place in places]

    def submit(self, spec: RunSpec) -> Future:
        """Train a run in an idle process, of which there is one while less than `capacity` futures are not done."""
        slot = next(slot for slot in self._slots if slot.is_idle)
        return slot.submit(dataclasses.asdict(spec), self._session)

    def kill(self) -> None:
        """End all processes; their runs go on from the last checkpoint another time."""
        for slot in self._slots:
            slot.kill()

    def close(self) -> None:
        """Wait until the processes are gone."""
        for slot in self._slots:
            slot.close()


class _Slot:
    def __init__(self, place: Place):
        self._place = place
        self._future: Future | None = None
        self._start()

    @property
    def is_idle(self) -> bool:
        return self._future is None or self._future.done()

    def _start(self) -> None:
        # Spawned, for a process that has TensorFlow in it must not be copied.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _prepare, (self._place.cores, self._place.gpus))
        self._pid = self._pool.submit(os.getpid)

    def submit(self, spec: dict, session: dict) -> Future:
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
    """Make this process a worker: its own cores, no Ctrl-C, and an end when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # TensorFlow has a thread for each
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # several may share a card
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
