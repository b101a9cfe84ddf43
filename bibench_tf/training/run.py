"""One run: the data and the network it names, its training from the last checkpoint on, and its result."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from bibench_tf import files, networks, tasks
from bibench_tf.errors import BibenchError, InvalidOption, StorageError
from bibench_tf.names import own_data
from bibench_tf.results import checkpoints, locks, records
from bibench_tf.results.runs import RunResult, RunSpec, RunStore, files_digest
from bibench_tf.training import data_sets, distribution
from bibench_tf.training.data_sets import DataSets
from bibench_tf.training.distribution import Devices
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import Dataset
    from bibench_tf.results.stores import Remote
    from bibench_tf.training.loop import Hooks, Progress


@dataclass(frozen=True, eq=False)
class Run:
    """A run with everything that its specification names: the data as its network takes them, and where it is kept."""

    spec: RunSpec
    data: Dataset
    store: RunStore
    session: Session

    @property
    def folder(self) -> Path:
        """The folder of the run's files."""
        return self.store.folder(self.spec)

    @property
    def steps_per_epoch(self) -> int:
        """The training steps of an epoch."""
        return self.data.train_examples // self.spec.recipe.batch_size

    @property
    def steps(self) -> int:
        """The training steps of the whole run."""
        return self.spec.recipe.epochs * self.steps_per_epoch

    @property
    def devices(self) -> Devices | None:
        """The devices of the session's strategy; None without a strategy."""
        return distribution.devices(self.session.strategy)

    def build(self) -> tf.keras.Model:
        """The network, untrained. Raises BibenchError if it does not fit the data."""
        spec, options = self.spec, dict(self.data.network_options)
        if spec.bert_checkpoint is not None:
            # Also for a run with a parent, whose weights replace those of the checkpoint: it has the network's sizes.
            options["checkpoint"] = self.session.bert_checkpoint
        return networks.build(spec.network, spec.algorithm, width=spec.width, **options)


_data_of_process = cache(DataSets)


def check_files(specs: Iterable[RunSpec], session: Session) -> None:
    """Raises InvalidOption if the runs need a checkpoint or vocabulary that is not the session's."""
    for what, name in (("checkpoint", "bert_checkpoint"), ("vocabulary", "vocabulary")):
        planned = {getattr(spec, name) for spec in specs} - {None}
        path, option = getattr(session, name), f"--{name.replace('_', '-')}"
        if not planned:
            continue
        if path is None:
            raise InvalidOption(f"These runs need the {what} {_short(planned)}: name it by {option}.")
        found = files_digest(path)
        if planned != {found}:
            raise InvalidOption(
                f"These runs need the {what} {_short(planned)}, and {path} is {_short({found})}: name another by "
                f"{option}."
            )


def _short(digests: Iterable[str]) -> str:
    return ", ".join(sorted(digest[:12] for digest in digests))


def train_one(spec: RunSpec, session: Session) -> bool:
    """Train one run in a worker process, if it has no result yet; False when another process holds it."""
    session = dataclasses.replace(session, quiet=True)
    store = RunStore(session.results)
    try:
        data = _data_of_process(session).of(spec)
        data_sets.check(spec.dataset, data)
    except BibenchError as error:
        _data_of_process.cache_clear()  # the next run looks again
        return _record_unreadable(spec, store, session, error)
    with session.progress_bar(0, "step") as bar:
        return execute(Run(spec, data, store, session), bar)


def _record_unreadable(spec: RunSpec, store: RunStore, session: Session, error: BibenchError) -> bool:
    """Record a run as failed whose data are not those that it was planned on; False when another process holds it."""
    lock = locks.acquired(store.folder(spec) / ".lock")
    if lock is None:
        return False
    try:
        store.fetch_result(spec)
        if not has_result(store, spec):
            store.write(spec, RunResult(spec.id, spec, "failed", _without_paths(str(error), session)))
            if store.remote is not None:
                _upload(spec, store.remote)
    finally:
        lock.release()
    return True


def has_result(store: RunStore, spec: RunSpec) -> bool:
    """Whether a run is finished; a damaged result is renamed and named on stderr."""
    try:
        state = store.status(spec.folder)
    except records.RecordError as error:
        records.set_aside(store.folder(spec) / "result.json", error, "Its run is done again")
        return False
    # Failed runs are retried (the machine may be at fault); divergence is a final result.
    return state in ("completed", "diverged")


def set_lost_aside(store: RunStore) -> list[RunSpec]:
    """Rename results and networks of the runs that a store has found lost; returns these runs, to be done again."""
    lost = {**store.lost}
    store.lost.clear()
    for spec, error in lost.items():
        records.set_aside(store.folder(spec) / "result.json", error, "Its run is done again")
        with contextlib.suppress(FileNotFoundError):
            store.model_path(spec).replace(f"{store.model_path(spec)}.damaged")
    return list(lost)


def record_lost(run: Run, error: str) -> None:
    """Record a run as failed whose process has ended without a result."""
    run.store.write(run.spec, RunResult(run.spec.id, run.spec, "failed", error))


def execute(run: Run, bar: tqdm) -> bool:
    """Train a run that has no result yet, and store its result; False when another process holds it.

    Every step moves `bar`. Raises StorageError for a full or read-only disk.
    """
    spec, store = run.spec, run.store
    lock = locks.acquired(run.folder / ".lock")
    if lock is None:
        return False
    try:
        store.fetch_result(spec)
        is_done = has_result(store, spec)
        if not is_done and not _parent_restored(run, bar):
            return False
        start, started_s = bar.n, time.monotonic()
        if not is_done:
            if store.remote is not None:
                store.remote.fetch_checkpoints(f"runs/{spec.folder}")
            bar.set_postfix_str("", refresh=False)  # clears that of the previous run
            bar.set_description(f"{spec.dataset} {spec.network} {spec.algorithm}")
            before = checkpoints.epochs_completed(run.folder)
            result = _train(run, bar)
            steps = (result.epochs_completed - before) * run.steps_per_epoch
            store.write(spec, result, (time.monotonic() - started_s) / steps if steps > 0 else None)
            if result.status == "completed":
                checkpoints.keep(run.folder, 1)
            if store.remote is not None:
                _upload(spec, store.remote)
        # The steps that a resumed, failed or foreign run did not make here count as done.
        bar.update(start + run.steps - bar.n)
    finally:
        lock.release()
    return True


def _parent_restored(run: Run, bar: tqdm) -> bool:
    """Do the run that this one starts from again if its result or network is lost; False when another process holds it.

    A parent that has failed is left as it is.
    """
    parent, store = run.spec.parent, run.store
    if parent is None:
        return True
    with contextlib.suppress(BibenchError):
        store.check_model(parent)
    if parent not in set_lost_aside(store):
        return True
    again = dataclasses.replace(run, spec=parent)
    bar.total = (bar.total or 0) + again.steps
    return execute(again, bar)


def _upload(spec: RunSpec, store: Remote) -> None:
    """Upload the files of a finished run, the result last."""
    folder = f"runs/{spec.folder}"
    files = (f"{folder}/{name}" for name in ("model.keras", "error.txt", "result.json"))
    store.upload(name for name in files if (store.folder / name).exists())
    store.drop_checkpoints(folder)


def _train(run: Run, bar: tqdm) -> RunResult:
    from bibench_tf.training import loop  # imports TensorFlow

    spec, store, data, devices, session = run.spec, run.store, run.data, run.devices, run.session
    begun = RunResult(
        spec.id,
        spec,
        "failed",
        dataset={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train_examples": data.train_examples,
            "test_examples": data.test_examples,
        },
        execution=_execution(run),
        metric=tasks.get(data.task).metric(data),
    )

    def on_epoch(progress: Progress) -> None:
        latest = progress.history[-1]
        if store.remote is not None:
            store.remote.upload_checkpoints(f"runs/{spec.folder}")
        bar.set_postfix_str(f"epoch {latest['epoch']}/{spec.recipe.epochs}, accuracy {latest['accuracy']:.1%}")

    try:
        data_sets.check(spec.dataset, data)
        check_files([spec], session)
        if devices is not None:
            devices.announce({"spec": records.unstructure(spec), "fingerprint": data.fingerprint})
        logs = run.folder / "tensorboard" if session.tensorboard else None
        model, progress = learn(run, loop.Hooks(on_step=bar.update, on_epoch=on_epoch, logs=logs))
    except loop.Diverged as error:
        return dataclasses.replace(begun, status="diverged", error=str(error))
    except Exception as error:
        if devices is not None and devices.workers > 1:
            # The other workers are in the middle of this run and cannot go on.
            raise distribution.ended(error) from error
        if isinstance(error, StorageError):
            raise
        if isinstance(error, BibenchError):
            return dataclasses.replace(begun, error=_without_paths(str(error), session, data))
        text = _without_paths(traceback.format_exc(), session, data)
        files.write_atomically(run.folder / "error.txt", lambda path: path.write_text(text, encoding="utf-8"))
        return dataclasses.replace(begun, error=_without_paths(f"{type(error).__name__}: {error}", session, data)[:500])
    files.write_atomically(store.model_path(spec), lambda path: model.save(path))
    summary = _summary(progress, model)
    if session.has_neighbours:
        # The processor's energy is that of all runs of this machine.
        summary |= {"energy_j": None, "history": [{**row, "energy_j": None} for row in summary["history"]]}
    digest = files.fingerprint_files([store.model_path(spec)])
    return dataclasses.replace(begun, status="completed", model_digest=digest, **summary)


def _without_paths(text: str, session: Session, data: Dataset | None = None) -> str:
    """The text with names in place of the user's folders, because results are published."""
    places = (place.partition(":") for _, place in session.places)
    known = {path: own_data(kind, path) for kind, _, path in places if path}
    if data is not None and data.contents is not None:
        known |= {str(file.parent): data.name for file in data.contents.files}
    for path in sorted(known, key=len, reverse=True):
        text = text.replace(path, known[path])
    return text.replace(str(Path.home()), "~")


def learn(run: Run, hooks: Hooks | None = None) -> tuple[tf.keras.Model, Progress]:
    """The network of a run, trained from its last checkpoint on, and the progress of its training.

    The followers of several workers receive the files that the run starts from into their own store. Raises
    `loop.Diverged`, and BibenchError for a run that cannot be trained.
    """
    from bibench_tf.training import loop

    spec, recipe, devices = run.spec, run.spec.recipe, run.devices
    if devices is not None:
        parents = [] if spec.parent is None else [run.store.model_path(spec.parent)]
        devices.share_files(run.store.root, [*parents, *run.folder.glob("checkpoint-*/*")])
    model = loop.initial_model(run.build, spec.seed)
    parent = None
    if spec.parent is not None:
        with distribution.scope(devices):
            parent = run.store.model(spec.parent)
        loop.copy_weights(parent, model)
    in_precision = partial(loop.in_precision, run.build, recipe.precision)
    if devices is not None:
        twin = devices.replicated(model, in_precision)
    else:
        twin = None if recipe.precision == "float32" else in_precision()
    progress = loop.train(
        loop.Trainee(model, twin, teacher=parent if recipe.distils else None),
        run.data,
        recipe,
        seed=spec.seed,
        folder=run.folder,
        execution=loop.Execution(devices, run.session.xla, run.session.steps_per_execution),
        hooks=hooks or loop.NO_HOOKS,
    )
    return model, progress


def _execution(run: Run) -> dict[str, Any]:
    """The options of the session that affect times, where they differ from the defaults."""
    session = run.session
    data: dict[str, Any] = {"xla": True} if session.xla else {}
    if session.has_neighbours:
        data |= {"executor": session.executor, "cpus_per_run": session.cpus_per_run, "has_neighbours": True}
    if session.steps_per_execution > 1 and not run.spec.recipe.changes_every_step:
        data["steps_per_execution"] = session.steps_per_execution
    return data | ({} if run.devices is None else run.devices.describe())


def _summary(progress: Progress, model: tf.keras.Model) -> dict[str, Any]:
    def known(name: str) -> list[float]:
        return [value for row in progress.history if (value := row.get(name)) is not None]

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
        # A run that was resumed on another machine may have the energy of some epochs only.
        "energy_j": round(sum(energies_j), 3) if energies_j and len(energies_j) == len(step_times_ms) else None,
        "epochs_completed": progress.epochs_completed,
        "trainable_parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        "history": progress.history,
        "metrics": progress.metrics,
    }
