"""Several runs at a time: by processes of this machine, or as the tasks of a Ray cluster.

Both return futures of plain data to one loop; all other data are exchanged in the results folder.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from tqdm import tqdm

from bibench_tf import terminal
from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.results import checkpoints, records
from bibench_tf.results.runs import RunSpec
from bibench_tf.training.run import Run, record_lost
from bibench_tf.training.session import Session

# The pause before a run that another process holds is tried again.
_HELD_PAUSE_S = 1.0


class Workers(Protocol):
    """Processes that train runs, `capacity` at a time.

    A future has the value that `worker.train` returns. It raises one of the exceptions `lost` if the process that
    trained the run has died; after `attempts` deaths the run has failed. The state of the runs is looked up every
    `poll_s` seconds.
    """

    capacity: int
    attempts: int
    poll_s: float
    lost: tuple[type[BaseException], ...]

    def submit(self, spec: RunSpec) -> Future[dict[str, Any]]:
        """Start to train a run."""


@contextlib.contextmanager
def started(session: Session, runs: int) -> Iterator[Workers | None]:
    """Workers for `runs` runs; None to train them in this process, one after the other."""
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


def train_all(pending: Sequence[Run], workers: Workers, bar: tqdm) -> None:
    """Train the runs, a parent before the runs that start from it.

    A run is recorded as failed when its process has died `workers.attempts` times. Raises BibenchError for problems of
    all runs.
    """
    unfinished = {run.spec.id for run in pending}
    after: defaultdict[str, list[Run]] = defaultdict(list)
    ready: deque[Run] = deque()
    for run in pending:
        parent = run.spec.parent
        if parent is not None and parent.id in unfinished:
            after[parent.id].append(run)
        else:
            ready.append(run)
    running: dict[Future[dict[str, Any]], Run] = {}
    held: list[tuple[float, Run]] = []
    deaths: Counter[str] = Counter()
    done_steps, next_look_s = 0, 0.0
    while unfinished:
        now_s = time.monotonic()
        ready.extend(run for until_s, run in held if until_s <= now_s)
        held = [(until_s, run) for until_s, run in held if until_s > now_s]
        while ready and len(running) < workers.capacity:
            run = ready.popleft()
            running[workers.submit(run.spec)] = run
        if not running:
            time.sleep(_HELD_PAUSE_S / 4)
            continue
        finished, _ = wait(running, timeout=workers.poll_s, return_when=FIRST_COMPLETED)
        for future in finished:
            run = running.pop(future)
            try:
                outcome = future.result()
            except workers.lost as error:
                deaths[run.spec.id] += 1
                text = f"bibench: the process that trained {run.spec.folder} has died ({_sentence(error)})."
                bar.write(terminal.visible(text), file=sys.stderr)
                if deaths[run.spec.id] < workers.attempts:
                    ready.append(run)
                    continue
                if run.store.status(run.spec.folder) is None:
                    record_lost(run, f"its process has died ({_sentence(error)})")
            else:
                if outcome["error"]:
                    raise BibenchError(outcome["error"])
                if not outcome["done"]:
                    held.append((time.monotonic() + _HELD_PAUSE_S, run))
                    continue
                _check_stored(run)
            unfinished.remove(run.spec.id)
            done_steps += run.steps
            ready.extend(after.pop(run.spec.id, ()))
        bar.set_description(f"{len(running)} of {len(unfinished)} runs")
        if time.monotonic() >= next_look_s:
            # Not at every pass: a thousand folders may be a thousand requests to another machine.
            begun_steps = sum(run.steps * _share_done(run) for run in running.values())
            bar.update(max(0, int(done_steps + begun_steps) - bar.n))
            next_look_s = time.monotonic() + workers.poll_s
    bar.update(done_steps - bar.n)


def _check_stored(run: Run) -> None:
    run.store.fetch_result(run.spec)
    try:
        found = run.store.status(run.spec.folder) is not None
    except records.RecordError:
        found = True  # the scores report the damage
    if not found:
        raise InvalidOption(
            f"{run.spec.folder} was trained, but its result is not in {run.store.root}: with --executor ray, --results "
            "has to be a folder that all machines share, or a URL such as s3://bucket/results."
        )


def _share_done(run: Run) -> float:
    return min(1.0, checkpoints.epochs_completed(run.folder) / run.spec.recipe.epochs)


def _sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
