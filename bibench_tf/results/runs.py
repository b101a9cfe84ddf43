"""Runs: their specifications, ids, results, and the folders of both."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bibench_tf import contents, files, model_files
from bibench_tf.errors import BibenchError, MissingData
from bibench_tf.names import BASELINE, data_identity
from bibench_tf.recipes import Recipe
from bibench_tf.results import environment, index, records, stores

if TYPE_CHECKING:
    import tensorflow as tf


def files_digest(path: Path) -> str:
    """SHA-256 over the names and contents of a folder's files, or over one file, as 64 hexadecimal digits.

    Hidden files are left out. Files that have not changed are not read again (`bibench_tf.contents`). Raises
    MissingData for an empty folder and for files that cannot be read.
    """
    found, names = [path], []
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        names = [file.relative_to(path).as_posix() for file in found]
    if not found:
        raise MissingData(f"There are no files in {path}.")
    return files.digest([names, contents.digest_of(found)])


@dataclass(frozen=True)
class RunSpec:
    """One training: everything that decides its outcome, apart from the machine.

    `dataset` names the data by kind, last name and fingerprint (`bibench_tf.names`); without a fingerprint, as that of
    a data set inside the package, the name alone. `bert_checkpoint` and `vocabulary` are the digests (`files_digest`)
    of the user's BERT checkpoint, which the network starts from, and of the user's vocabulary of word pieces.
    """

    dataset: str
    network: str
    algorithm: str
    recipe: Recipe
    seed: int = 0
    width: float = 1.0
    bert_checkpoint: str | None = None
    vocabulary: str | None = None

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the specification's SHA-256.

        Fields at their default are left out, so that a new field with a default changes no id; and so is the last name
        of the user's data, which is the same data under another name.
        """
        return files.digest(_without_defaults(self) | {"dataset": data_identity(self.dataset)})[:12]

    @cached_property
    def folder(self) -> str:
        """The name of the run's folder."""
        return f"{self.network}-{self.algorithm}-{self.id}"

    @cached_property
    def parent(self) -> RunSpec | None:
        """The full-precision run whose weights this one starts from."""
        if self.recipe.start is None or self.algorithm == BASELINE:
            return None
        return _only(dataclasses.replace(self, algorithm=BASELINE, recipe=self.recipe.start))


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    `accuracy` is the task's main metric on the test split, which BiBench calls accuracy everywhere: at most 1, more is
    better; `metric` is the name of this metric. `metrics` are all test metrics of the last epoch by name, with the
    loss. `train_step_time_ms` is the median over all steps but the first ones of this process, without evaluation and
    checkpoints; `train_time_s` sums those steps. `peak_process_memory_mib` is the largest resident size of the process
    while training, with the memory it held before. `peak_gpu_memory_mib` is TensorFlow's peak on the first GPU.
    `energy_j` is the energy that the processor packages of the whole machine used in the steps of `train_time_s`. A
    value that the platform does not provide is None. `execution` holds the options of the session that affect the
    times. `history` has the rows of `training.loop.Progress`. `model_digest` is the digest of the file of the trained
    network (`files.fingerprint_files`).
    """

    run_id: str
    spec: RunSpec
    status: Literal["completed", "diverged", "failed"]
    error: str | None = None
    accuracy: float | None = None
    best_accuracy: float | None = None
    test_loss: float | None = None
    train_step_time_ms: float | None = None
    train_time_s: float | None = None
    peak_process_memory_mib: float | None = None
    peak_gpu_memory_mib: float | None = None
    energy_j: float | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    epochs_completed: int = 0
    trainable_parameters: int | None = None
    dataset: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, int | float | None]] = field(default_factory=list)
    metric: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    model_digest: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the outcome of the training; measurements of its network carry it."""
        return files.digest([self.run_id, self.dataset, self.accuracy, self.test_loss, self.history])


class RunStore:
    """The runs of one results folder, each in `runs/<network>-<algorithm>-<id>`.

    `lost` are the runs whose result or network was asked for and is damaged or gone, with the reason.
    """

    def __init__(self, folder: Path | str):
        self.root = Path(folder)
        self.runs = self.root / "runs"
        self.lost: dict[RunSpec, records.RecordError] = {}

    def folder(self, spec: RunSpec) -> Path:
        """The folder of a run, which need not exist."""
        return self.runs / spec.folder

    @cached_property
    def _index(self) -> dict[str, index.Line]:
        return index.read(self.runs)

    def status(self, folder: str) -> str | None:
        """`completed`, `diverged` or `failed` by the name of a run's folder; None before there is a result.

        A result that the index has is not read. Raises RecordError for a damaged record.
        """
        path = f"{self.runs}/{folder}/result.json"
        try:
            file = os.stat(path)
        except OSError:
            return None
        line = self._index.get(folder)
        if line is not None and line.is_of(file):
            return line.status
        result = records.read(Path(path), RunResult)
        if not folder.endswith(f"-{result.run_id}"):
            raise records.RecordError(f"{path} belongs to run {result.run_id}; it is not scored.")
        step_time_ms = result.train_step_time_ms
        self._keep(index.Line.of(folder, result.status, file, step_time_ms and step_time_ms / 1e3))
        return result.status

    def _keep(self, line: index.Line) -> None:
        self._index[line.folder] = line
        index.append(self.runs, line)

    def seconds_per_step(self, folder: str) -> float | None:
        """The wall-clock time of a step of a run whose `status` was asked for; None if it is unknown."""
        line = self._index.get(folder)
        return None if line is None else line.seconds_per_step

    def write(self, spec: RunSpec, result: RunResult, seconds_per_step: float | None = None) -> None:
        """Store the result of a run. Raises StorageError when it cannot be written."""
        path = self.folder(spec) / "result.json"
        records.write(path, result, environment=environment.describe())
        self._keep(index.Line.of(spec.folder, result.status, path.stat(), seconds_per_step))

    @cached_property
    def remote(self) -> stores.Remote | None:
        """The store that this folder is the working copy of, if it is one."""
        return stores.of(self.root)

    def fetch_result(self, spec: RunSpec) -> None:
        """Get the result of a run that another machine trained, where this folder is a working copy."""
        if self.remote is not None:
            self.remote.fetch(f"runs/{spec.folder}/result.json")

    def result(self, spec: RunSpec) -> RunResult | None:
        """The result of a run, None before it has one. Raises RecordError for a damaged record."""
        path = self.folder(spec) / "result.json"
        if not path.exists():
            return None
        try:
            result = records.read(path, RunResult)
            if result.run_id != spec.id:
                raise records.RecordError(f"{path} belongs to run {result.run_id}, not to {spec.id}; it is not scored.")
        except records.RecordError as error:
            # The index trusts size and time of the file: from now on the next command reads it.
            self._keep(index.Line(spec.folder, "damaged", size_bytes=-1, modified_ns=-1))
            self.lost[spec] = error
            raise
        return result

    def model_path(self, spec: RunSpec) -> Path:
        """The trained network of a run, a Keras file."""
        return self.folder(spec) / "model.keras"

    def model(self, spec: RunSpec) -> tf.keras.Model:
        """The trained network of a run, for inference. Raises as `check_model`."""
        self.check_model(spec)
        return model_files.load_file(self.model_path(spec), spec.algorithm)

    def check_model(self, spec: RunSpec) -> None:
        """Raises RecordError for a run whose result or network is damaged or gone, BibenchError for one without any."""
        path = self.model_path(spec)
        if self.remote is not None:
            self.fetch_result(spec)  # both may be of a newer training
            self.remote.fetch(f"runs/{spec.folder}/{path.name}")
        result = self.result(spec)
        if result is None or result.status != "completed":
            raise BibenchError(f"{path} is missing: train the run first.")
        if not path.exists():
            reason = "is missing"
        elif result.model_digest not in (None, files.fingerprint_files([path])):
            reason = "is not the network that its result was measured on"
        else:
            return
        if self.remote is not None:
            reason += f" (if it is not in {self.remote.url} either, delete runs/{spec.folder} there)"
        self.lost[spec] = records.RecordError(f"{path} {reason}.")
        raise self.lost[spec]


def _without_defaults(specification: Any) -> dict[str, Any]:
    content = {}
    for each in dataclasses.fields(specification):
        value = getattr(specification, each.name)
        if each.type == "float":
            value = float(value)  # 1 and 1.0 are equal, and so are the ids
        if value != each.default:
            content[each.name] = _recipe_content(value) if isinstance(value, Recipe) else value
    return content


@cache
def _only(spec: RunSpec) -> RunSpec:
    # One object for all runs that start from this one, so that its id is computed once.
    return spec


@cache
def _recipe_content(recipe: Recipe) -> dict[str, Any]:
    # Computed once for all runs with this recipe.
    return _without_defaults(recipe)
