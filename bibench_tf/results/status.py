"""The progress of a results folder: its stored plan, and the state of each run. No TensorFlow is needed."""

from __future__ import annotations

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from bibench_tf.results import checkpoints, locks, records
from bibench_tf.results.runs import RunSpec, RunStore

FILE = "plan.json"
# In the order of the report. `started`: the run has files but no process on this machine; it was interrupted, or
# another machine trains it.
STATES = ("completed", "diverged", "failed", "damaged", "running", "started", "waiting")
_WITH_RESULT = ("completed", "diverged", "failed", "damaged")


@dataclass(frozen=True, slots=True)
class Planned:
    """A run of the plan. `steps` counts the steps of the whole training; None if the size of the data is unknown."""

    folder: str
    dataset: str
    network: str
    algorithm: str
    recipe: str
    seed: int
    epochs: int
    steps: int | None

    @classmethod
    def of(cls, spec: RunSpec, train_examples: int | None = None) -> Planned:
        """The plan entry of a run with `train_examples` training examples."""
        network = spec.network if spec.width == 1 else f"{spec.network}@{spec.width:g}"
        recipe = spec.recipe
        steps = None if train_examples is None else recipe.epochs * (train_examples // recipe.batch_size)
        return cls(spec.folder, spec.dataset, network, spec.algorithm, recipe.name, spec.seed, recipe.epochs, steps)

    @property
    def text(self) -> str:
        """One line about the run."""
        run_id = self.folder.rpartition("-")[2]
        return f"{self.dataset} {self.network} {self.algorithm} {self.recipe} seed {self.seed} {run_id}"

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """The fields on which the time of a step depends."""
        return self.dataset, self.network, self.algorithm, self.recipe


_values = attrgetter(*Planned.__slots__)


@dataclass(frozen=True)
class StoredPlan:
    """The planned runs of a results folder, one line each: the fields of `Planned`, separated by tabs."""

    runs: list[str]

    @classmethod
    def of(cls, planned: Iterable[Planned]) -> StoredPlan:
        """The record of a plan."""
        return cls(["\t".join("" if value is None else str(value) for value in _values(run)) for run in planned])

    @property
    def planned(self) -> list[Planned]:
        """The entries of the plan. Raises ValueError for a line that is not one."""
        found = []
        for line in self.runs:
            folder, dataset, network, algorithm, recipe, seed, epochs, steps = line.split("\t")
            names = folder, dataset, network, algorithm, recipe
            found.append(Planned(*names, int(seed), int(epochs), int(steps) if steps else None))
        return found


@dataclass(frozen=True)
class Status:
    """The state of every planned run, and an estimate of the remaining training time; None if it is unknown."""

    runs: list[tuple[str, Planned]]
    remaining_s: float | None

    @property
    def counts(self) -> Counter[str]:
        """The number of runs in each state."""
        return Counter(state for state, _ in self.runs)

    @property
    def sentence(self) -> str:
        """The last line of `bibench status`."""
        counts = self.counts
        others = [f"{counts[state]:,} {state}" for state in STATES[1:] if counts[state]]
        text = f"{counts['completed']:,} of {len(self.runs):,} runs completed"
        text = f"{', '.join([text, *others])}."
        if self.remaining_s:
            at_once = counts["running"]
            pace = f"with {at_once} runs at a time, as now" if at_once > 1 else "one run at a time"
            text += f" About {_duration(self.remaining_s)} of training left, {pace}."
        return text


def read_plan(results: Path) -> list[Planned] | None:
    """The plan of a results folder; None if it has no plan yet. Raises RecordError for a damaged plan."""
    path = results / FILE
    if not path.exists():
        return None
    try:
        return records.read(path, StoredPlan).planned
    except (records.RecordError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise records.RecordError(
            f"{path} is no plan ({reason}): the command of the benchmark writes it again."
        ) from error


def write_plan(planned: Iterable[Planned], results: Path) -> None:
    """Store the plan, unless the same plan is stored already. Raises StorageError."""
    plan = StoredPlan.of(planned)
    try:
        if records.read(results / FILE, StoredPlan) == plan:
            return
    except records.RecordError:
        pass  # missing or damaged
    records.write(results / FILE, plan)


def of(planned: Iterable[Planned], results: Path) -> Status:
    """The state of the planned runs of a results folder."""
    store = RunStore(results)
    try:
        with os.scandir(store.runs) as entries:
            folders = {entry.name for entry in entries}
    except FileNotFoundError:
        folders = set()
    runs = [(_state(run, store) if run.folder in folders else "waiting", run) for run in planned]
    return Status(runs, _remaining_s(runs, store))


def _state(run: Planned, store: RunStore) -> str:
    try:
        if status := store.status(run.folder):
            return status
    except records.RecordError:
        return "damaged"
    return "running" if locks.is_held(store.runs / run.folder / ".lock") else "started"


def _remaining_s(runs: list[tuple[str, Planned]], store: RunStore) -> float | None:
    by_kind, known = defaultdict(list), []
    for state, run in runs:
        if state in _WITH_RESULT and (seconds := store.seconds_per_step(run.folder)):
            by_kind[run.kind].append(seconds)
            known.append(seconds)
    if not known:
        return None
    usual = statistics.median(known)
    medians = {kind: statistics.median(found) for kind, found in by_kind.items()}
    total_s, at_once = 0.0, 0
    for state, run in runs:
        if state in ("completed", "diverged"):
            continue
        if run.steps is None:
            return None
        begun = state in ("running", "started")
        done = checkpoints.epochs_completed(store.runs / run.folder) / run.epochs if begun else 0
        total_s += run.steps * (1 - done) * medians.get(run.kind, usual)
        at_once += state == "running"
    return total_s / max(1, at_once)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    if minutes < 100:
        return f"{minutes} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 100 else f"{hours / 24:.0f} days"
