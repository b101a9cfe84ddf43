"""Trains the planned runs that have no result yet, here or by an executor; failures and interruptions cost no run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from tqdm import tqdm

from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.training import executors, run
from bibench_tf.training.data_sets import DataSets
from bibench_tf.training.run import Run
from bibench_tf.training.session import Session


def ordered(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """Every run once, and a parent before the runs that start from it."""
    unique: dict[str, RunSpec] = {}
    for spec in specs:
        for needed in filter(None, (spec.parent, spec)):
            unique.setdefault(needed.id, needed)
    return list(unique.values())


def shard(specs: Iterable[RunSpec], part: int, parts: int) -> list[RunSpec]:
    """The runs of the `part`-th of `parts` disjoint parts (from 1); a run is in the same part as its parent."""
    groups: dict[str, list[RunSpec]] = {}
    for spec in ordered(specs):
        groups.setdefault((spec.parent or spec).id, []).append(spec)
    return [spec for number, group in enumerate(groups.values()) if number % parts == part - 1 for spec in group]


def execute(specs: Iterable[RunSpec], session: Session, data: DataSets | None = None) -> None:
    """Train every run that has no result yet: in this process, or several at a time by the session's executor.

    `data` are the data sets of the session where some are described already.

    A run that fails or diverges is recorded as such, and the other runs go on. The runs that another process trains are
    left to it; at the end this process waits for them. A damaged result is renamed and named on stderr, and its run is
    done again. Raises BibenchError for problems of all runs, such as missing data or a full disk.
    """
    specs = ordered(specs) if session.shard is None else shard(specs, *session.shard)
    store = RunStore(session.results)
    pending = [spec for spec in specs if not run.has_result(store, spec)]
    if not pending:
        return
    run.check_files(pending, session)
    data = data or DataSets(session)
    runs = [Run(spec, data.of(spec), store, session) for spec in pending]
    steps = sum(one.steps for one in runs)
    with executors.started(session, len(runs)) as workers, session.progress_bar(steps, "step") as bar:
        if workers is None:
            _one_after_the_other(runs, bar)
        else:
            executors.train_all(runs, workers, bar)


def redo_lost(store: RunStore, session: Session) -> None:
    """Do the runs again whose result or network `store` has found damaged or gone. Raises as `execute`."""
    execute(run.set_lost_aside(store), session)


def _one_after_the_other(pending: list[Run], bar: tqdm) -> None:
    queue, held = deque(pending), 0
    unfinished = {one.spec.id for one in pending}
    while queue:
        one = queue.popleft()
        spec = one.spec
        if held > len(queue):
            # Other processes hold all runs that are left.
            bar.set_description(f"waiting for another process: {spec.network} {spec.algorithm}")
            time.sleep(1)
        # Another process may be training this run's parent.
        is_ready = spec.parent is None or spec.parent.id not in unfinished
        if is_ready and run.execute(one, bar):
            unfinished.remove(spec.id)
            held = 0
        else:
            queue.append(one)
            held += 1
