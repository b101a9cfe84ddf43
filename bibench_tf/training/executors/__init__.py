"""Several runs at a time: by processes of this machine, or as the tasks of a Ray cluster.

Both hand out futures of plain data to one loop; what they share with the runs is the results folder alone.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

from tqdm import tqdm

from bibench_tf.errors import BibenchError
from bibench_tf.results import checkpoints, records
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.training.session import Session

# How long a run that another process holds is left alone.
_HELD_PAUSE_S = 1.0


class Workers(Protocol):
    """What trains runs, `capacity` at a time.

    A future has what `worker.train` returns. It fails when the process that trained the run has died; `attempts` is
    how often a run is given out before that is held against it. `lost` are the exceptions of a process that died.
    """

    capacity: int
    attempts: int
    poll_s: float
    lost: tuple[type[BaseException], ...]

    def submit(self, spec: RunSpec) -> Future:
        """Train a run."""


@contextlib.contextmanager
def started(session: Session, runs: int) -> Iterator[Workers | None]:
    """The workers for so many runs, None where this process trains them one after the other."""
    if session.executor == "ray":
        from bibench_tf.training.executors import ray_cluster

        with ray_cluster.started(session) as workers:
            yield workers
        return
    from bibench_tf.training.executors import local

    places = local.places(session, runs)
    if len(places) == 1:
        yield None
        return
    with local.started(session, places) as workers:
        yield workers


def train_all(
    pending: Sequence[RunSpec], workers: Workers, store: RunStore, steps: Mapping[str, int], bar: tqdm
) -> None:
    """Train the runs, one that others start from before those. `steps` are those of each run by its id.

    A run is recorded as failed when its process has died `workers.attempts` times. Raises BibenchError for what no run
    could do without.
    """
    unfinished = {spec.id for spec in pending}
    after = defaultdict(list)
    ready: deque[RunSpec] = deque()
    for spec in pending:
        if spec.parent is not None and spec.parent.id in unfinished:
            after[spec.parent.id].append(spec)
        else:
            ready.append(spec)
    running: dict[Future, RunSpec] = {}
    held: list[tuple[float, RunSpec]] = []
    deaths: Counter[str] = Counter()
    done_steps, next_look_s = 0, 0.0
    while unfinished:
        now_s = time.monotonic()
        ready.extend(spec for until_s, spec in held if until_s <= now_s)
        held = [(until_s, spec) for until_s, spec in held if until_s > now_s]
        while ready and len(running) < workers.capacity:
            spec = ready.popleft()
            running[workers.submit(spec)] = spec
        if not running:
            time.sleep(_HELD_PAUSE_S / 4)
            continue
        finished, _ = wait(running, timeout=workers.poll_s, return_when=FIRST_COMPLETED)
        for future in finished:
            spec = running.pop(future)
            try:
                outcome = future.result()
            except workers.lost as error:
                deaths[spec.id] += 1
                text = f"bibench: the process that trained {spec.folder} has died ({_sentence(error)})."
                bar.write(text, file=sys.stderr)
                if deaths[spec.id] < workers.attempts:
                    ready.append(spec)
                    continue
                _record_lost(spec, store, f"its process has died ({_sentence(error)})")
            else:
                if outcome["error"]:
                    raise BibenchError(outcome["error"])
                if not outcome["done"]:
                    held.append((time.monotonic() + _HELD_PAUSE_S, spec))
                    continue
                _check_stored(spec, store)
            unfinished.remove(spec.id)
            done_steps += steps[spec.id]
            ready.extend(after.pop(spec.id, ()))
        bar.set_description(f"{len(running)} of {len(unfinished)} runs")
        if time.monotonic() >= next_look_s:
            # A thousand folders may be a thousand questions to another machine.
            begun_steps = sum(steps[spec.id] * _share_done(spec, store) for spec in running.values())
            bar.update(max(0, int(done_steps + begun_steps) - bar.n))
            next_look_s = time.monotonic() + workers.poll_s
    bar.update(done_steps - bar.n)


def _record_lost(spec: RunSpec, store: RunStore, error: str) -> None:
    from bibench_tf.training import runner

    if store.status(spec.folder) is None:
        runner.record_lost(spec, store, error)


def _check_stored(spec: RunSpec, store: RunStore) -> None:
    store.fetch_result(spec)
    try:
        found = store.status(spec.folder) is not None
    except records.RecordError:
        found = True  # named when it is scored
    if not found:
        raise BibenchError(
            f"{spec.folder} was trained, but its result is not in {store.root}: with --executor ray, --results has to "
            "be a folder that all machines share, or a URL such as s3://bucket/results."
        )


def _share_done(spec: RunSpec, store: RunStore) -> float:
    return min(1.0, checkpoints.epochs_completed(store.folder(spec)) / spec.recipe.epochs)


def _sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
