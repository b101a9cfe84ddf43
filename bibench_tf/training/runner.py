"""Executes planned runs: those without a result, here or by an executor, surviving failures and interruptions."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from filelock import Timeout
from tqdm import tqdm

from bibench_tf import datasets, files, tasks
from bibench_tf.errors import BibenchError, StorageError
from bibench_tf.recipes import Recipe
from bibench_tf.results import checkpoints, locks, records
from bibench_tf.results.runs import RunResult, RunSpec, RunStore, files_digest
from bibench_tf.training import distribution, executors
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import Dataset
    from bibench_tf.results.stores import Remote
    from bibench_tf.training.loop import Progress


def ordered(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """Every run once, and a run that others start from before those."""
    unique: dict[str, RunSpec] = {}
    for spec in specs:
        for needed in filter(None, (spec.parent, spec)):
            unique.setdefault(needed.id, needed)
    return list(unique.values())


def shard(specs: Iterable[RunSpec], part: int, parts: int) -> list[RunSpec]:
    """The runs of the `part`-th of `parts` (from 1), together all of them: runs stay with the one they start from."""
    groups: dict[str, list[RunSpec]] = {}
    for spec in ordered(specs):
        groups.setdefault((spec.parent or spec).id, []).append(spec)
    return [spec for number, group in enumerate(groups.values()) if number % parts == part - 1 for spec in group]


def execute(specs: Iterable[RunSpec], session: Session) -> None:
    """Train every run that has no result yet: in this process, or several at a time by the session's executor.

    A run that fails is recorded as failed and the others go on; so does one that diverges. Runs that another process
    is training are left to it, and waited for at the end. A damaged result is set aside, named on stderr, and its run
    done again. Raises BibenchError for what no run could do without, such as missing data or space on the disk.
    """
    specs = ordered(specs) if session.shard is None else shard(specs, *session.shard)
    store = RunStore(session.results)
    pending = [spec for spec in specs if not _has_result(store, spec)]
    if not pending:
        return
    check_files(pending, session)
    load = data_loader(session)
    steps = {spec.id: _steps(spec, load) for spec in pending}
    with executors.started(session, len(pending)) as workers, progress_bar(sum(steps.values()), "step", session) as bar:
        if workers is None:
            _one_after_the_other(pending, store, load, bar, session)
        else:
            executors.train_all(pending, workers, store, steps, bar)


def train_one(spec: RunSpec, session: Session) -> bool:
    """Train one run, if it has no result yet; False when another process holds it."""
    session = dataclasses.replace(session, quiet=True)
    with progress_bar(0, "step", session) as bar:
        return _execute_one(spec, RunStore(session.results), _cached_loader(session), bar, session)


def record_lost(spec: RunSpec, store: RunStore, error: str) -> None:
    """Record a run as failed whose processes did not come to a result."""
    result = RunResult(run_id=spec.id, spec=dataclasses.asdict(spec), status="failed", error=error)
    store.write(spec, result)


def _one_after_the_other(pending: list[RunSpec], store: RunStore, load, bar: tqdm, session: Session) -> None:
    queue, held = deque(pending), 0
    unfinished = {spec.id for spec in pending}
    while queue:
        spec = queue.popleft()
        if held > len(queue):
            # Only runs that other processes hold are left: there is nothing to do but wait.
            bar.set_description(f"waiting for another process: {spec.network} {spec.algorithm}")
            time.sleep(1)
        # What another process holds may be what this one starts from.
        is_ready = spec.parent is None or spec.parent.id not in unfinished
        if is_ready and _execute_one(spec, store, load, bar, session):
            unfinished.remove(spec.id)
            held = 0
        else:
            queue.append(spec)
            held += 1


def _steps(spec: RunSpec, load) -> int:
    return spec.recipe.epochs * (load(spec).train_examples // spec.recipe.batch_size)


@cache
def _cached_loader(session: Session) -> Callable[[RunSpec], Dataset]:
    return data_loader(session)


def data_loader(session: Session) -> Callable[[RunSpec], Dataset]:
    """A function that gives the data of a run; it describes each data set once."""

    @cache
    def load(name: str, has_vocabulary: bool) -> Dataset:
        vocabulary = session.vocabulary if has_vocabulary else None
        return datasets.get(name, session.data_dir, session.download, vocabulary)

    @cache
    def prepared_for(name: str, has_vocabulary: bool, network: str) -> Dataset:
        return load(name, has_vocabulary).for_network(network)

    return lambda spec: prepared_for(spec.dataset, spec.vocabulary is not None, spec.network)


def check_files(specs: Iterable[RunSpec], session: Session) -> None:
    """Refuse a session whose files are not those of the runs."""
    for what, option in (("checkpoint", "bert_checkpoint"), ("vocabulary", "vocabulary")):
        planned = {getattr(spec, option) for spec in specs} - {None}
        path = getattr(session, option)
        if not planned:
            continue
        if path is None:
            raise BibenchError(
                f"These runs need the {what} {_short(planned)}: name it by --{option.replace('_', '-')}."
            )
        found = files_digest(path)
        if planned != {found}:
            raise BibenchError(
                f"These runs need the {what} {_short(planned)}, and {path} is {_short({found})}: name another by "
                f"--{option}."
            )


def _short(digests: Iterable[str]) -> str:
    return ", ".join(sorted(digest[:12] for digest in digests))


def progress_bar(total: int, unit: str, session: Session) -> tqdm:
    """A bar on stderr with an estimate of the time left; on a file or pipe a line every half minute."""
    interval_s = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        total=total,
        unit=unit,
        disable=session.quiet,
        file=sys.stderr,
        mininterval=interval_s,
        maxinterval=max(10, interval_s),
        dynamic_ncols=True,
        smoothing=0.05,
    )


def _has_result(store: RunStore, spec: RunSpec) -> bool:
    try:
        state = store.status(spec.folder)
    except records.RecordError as error:
        path = store.folder(spec) / "result.json"
        path.replace(path.with_suffix(".json.damaged"))
        print(f"{error} Its run is done again; the file is kept as {path.name}.damaged.", file=sys.stderr)
        return False
    # A failure may have had its cause in the machine, so it is tried again; a divergence is a result.
    return state in ("completed", "diverged")


def _execute_one(spec: RunSpec, store: RunStore, load, bar: tqdm, session: Session) -> bool:
    """Train one run; False when another process holds it."""
    folder = store.folder(spec)
    try:
        lock = locks.acquired(folder / ".lock")
    except Timeout:
        return False
    try:
        start, started_s = bar.n, time.monotonic()
        store.fetch_result(spec)
        if not _has_result(store, spec):
            if store.remote is not None:
                store.remote.fetch_checkpoints(f"runs/{spec.folder}")
            bar.set_postfix_str("", refresh=False)  # that of the run before
            bar.set_description(f"{spec.dataset} {spec.network} {spec.algorithm}")
            before = checkpoints.epochs_completed(folder)
            result = _train(spec, store, load(spec), bar, session)
            steps = (result.epochs_completed - before) * _steps(spec, load) / spec.recipe.epochs
            store.write(spec, result, (time.monotonic() - started_s) / steps if steps > 0 else None)
            if result.status == "completed":
                checkpoints.keep(folder, 1)
            if store.remote is not None:
                _upload(spec, store.remote)
        # What a resumed, failed or foreign run did not step through counts as done.
        bar.update(start + _steps(spec, load) - bar.n)
    finally:
        lock.release()
    return True


def _upload(spec: RunSpec, store: Remote) -> None:
    """Put a run that has a result into the store, the result last."""
    folder = f"runs/{spec.folder}"
    files = (f"{folder}/{name}" for name in ("model.keras", "error.txt", "result.json"))
    store.upload(name for name in files if (store.folder / name).exists())
    store.drop_checkpoints(folder)


def _train(spec: RunSpec, store: RunStore, data: Dataset, bar: tqdm, session: Session) -> RunResult:
    from bibench_tf.training import loop  # TensorFlow starts only when there is something to train

    folder, recipe = store.folder(spec), spec.recipe
    devices = distribution.devices(session.strategy)
    common = {
        "run_id": spec.id,
        "spec": dataclasses.asdict(spec),
        "dataset": _dataset_data(data),
        "execution": _execution_data(session, recipe) | ({} if devices is None else devices.describe()),
        "metric": tasks.get(data.task).metric(data),
    }

    def on_epoch(progress: Progress) -> None:
        latest = progress.history[-1]
        if store.remote is not None:
            store.remote.upload_checkpoints(f"runs/{spec.folder}")
        bar.set_postfix_str(f"epoch {latest['epoch']}/{recipe.epochs}, accuracy {latest['accuracy']:.1%}")

    try:
        if devices is not None:
            devices.announce({"spec": common["spec"], "fingerprint": data.fingerprint})
        model, progress = learn(
            spec,
            store,
            data,
            session,
            logs=folder / "tensorboard" if session.tensorboard else None,
            on_step=bar.update,
            on_epoch=on_epoch,
        )
    except loop.Diverged as error:
        return RunResult(**common, status="diverged", error=str(error))
    except Exception as error:
        if devices is not None and devices.workers > 1:
            # The others are in the middle of this run: none can go on.
            raise distribution.ended(error) from error
        if isinstance(error, StorageError):
            raise
        if isinstance(error, BibenchError):
            return RunResult(**common, status="failed", error=str(error))
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return RunResult(**common, status="failed", error=f"{type(error).__name__}: {error}"[:500])
    files.write_atomically(store.model_path(spec), lambda path: model.save(path))
    summary = _summary(progress, model)
    if session.has_neighbours:
        # What the processor used, it used for all runs of this machine.
        summary |= {"energy_j": None, "history": [{**row, "energy_j": None} for row in summary["history"]]}
    digest = files.fingerprint_files([store.model_path(spec)])
    return RunResult(**common, status="completed", model_digest=digest, **summary)


def learn(
    spec: RunSpec, store: RunStore, data: Dataset, session: Session, **options
) -> tuple[tf.keras.Model, Progress]:
    """The network of a run, trained from its checkpoint on; `options` are those of `loop.train`.

    Of several workers the others get what the run starts from into a `store` of their own.
    """
    from bibench_tf.training import loop

    recipe, folder, devices = spec.recipe, store.folder(spec), distribution.devices(session.strategy)
    if devices is not None:
        parents = [] if spec.parent is None else [store.model_path(spec.parent)]
        devices.share_files(store.root, [*parents, *folder.glob("checkpoint-*/*")])
    build = partial(_build, spec, data, session)
    model = loop.initial_model(build, spec.seed)
    parent = None
    if spec.parent is not None:
        with distribution.scope(devices):
            parent = store.model(spec.parent)
        loop.copy_weights(parent, model)
    in_precision = partial(loop.in_precision, build, recipe.precision)
    if devices is not None:
        twin = devices.replicated(model, in_precision)
    else:
        twin = None if recipe.precision == "float32" else in_precision()
    progress = loop.train(
        model,
        data,
        recipe,
        seed=spec.seed,
        folder=folder,
        teacher=parent if recipe.distils else None,
        twin=twin,
        devices=devices,
        xla=session.xla,
        steps_per_execution=session.steps_per_execution,
        **options,
    )
    return model, progress


def _build(spec: RunSpec, data: Dataset, session: Session) -> tf.keras.Model:
    from bibench_tf import zoo

    # With a parent too, whose weights come on top: a network may have the sizes of its checkpoint.
    init = {} if spec.bert_checkpoint is None else {"checkpoint": session.bert_checkpoint}
    return zoo.build(spec.network, algorithm=spec.algorithm, width=spec.width, **data.network_options, **init)


def _dataset_data(data: Dataset) -> dict:
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "train_examples": data.train_examples,
        "test_examples": data.test_examples,
    }


def _execution_data(session: Session, recipe: Recipe) -> dict:
    """The options that differ from the defaults."""
    data = {"xla": True} if session.xla else {}
    if session.has_neighbours:
        data |= {"executor": session.executor, "cpus_per_run": session.cpus_per_run, "has_neighbours": True}
    if session.steps_per_execution > 1 and not recipe.changes_every_step:
        data["steps_per_execution"] = session.steps_per_execution
    return data


def _summary(progress: Progress, model: tf.keras.Model) -> dict:
    def known(name):
        return [epoch[name] for epoch in progress.history if epoch.get(name) is not None]

    last = progress.history[-1]
    step_times_ms, energies_j = known("train_step_time_ms"), known("energy_j")
    return {
        "accuracy": last["accuracy"],
        "best_accuracy": max(known("accuracy")),
        "test_loss": last["test_loss"],
        "train_step_time_ms": statistics.median(step_times_ms) if step_times_ms else None,
        "train_time_s": sum(known("train_time_s")) or None,
        "peak_process_memory_mib": max(known("peak_process_memory_mib"), default=None),
        "peak_gpu_memory_mib": max(known("peak_gpu_memory_mib"), default=None),
        # A run that was resumed on another machine may know the energy of some epochs only.
        "energy_j": round(sum(energies_j), 3) if energies_j and len(energies_j) == len(step_times_ms) else None,
        "epochs_completed": progress.epochs_completed,
        "trainable_parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        "history": progress.history,
        "metrics": progress.metrics,
    }
