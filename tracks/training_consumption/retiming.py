"""Interleaved step times: their measurement, and their record beside the runs of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tf import files
from bibench_tf.benchmark.resolve import Job, Setup
from bibench_tf.names import data_identity
from bibench_tf.results import environment, records
from bibench_tf.training.step_timing import StepTimes

if TYPE_CHECKING:
    from bibench_tf.datasets import Dataset
    from bibench_tf.tracks.training_consumption import Options

FOLDER = "step-times"


@dataclass(frozen=True)
class Retiming:
    """Step times of a network on the examples of a data set, all algorithms interleaved."""

    dataset: str
    times: StepTimes

    @property
    def rounds(self) -> int:
        """The number of rounds of every network."""
        return min((len(found) for found in self.times.rounds_ms.values()), default=0)

    def lacks(self, algorithms: Sequence[str]) -> list[str]:
        """The algorithms that were not timed with the others."""
        return [algorithm for algorithm in algorithms if algorithm not in self.times.rounds_ms]


def path(results: Path, setup: Setup) -> Path:
    """The file of the step times of a network with the batches, the optimizer and the precision of its recipe."""
    recipe = setup.recipe
    data = data_identity(setup.dataset)
    key = files.digest([data, setup.network, recipe.batch_size, recipe.optimizer, recipe.precision])[:12]
    return results / FOLDER / f"{setup.network}-{key}.json"


def read(file: Path) -> Retiming | None:
    """The record in `file`, None where there is none. Raises RecordError for a damaged one."""
    return records.read(file, Retiming) if file.exists() else None


def measure(job: Job, options: Options) -> None:
    """Time interleaved training steps of all algorithms, where that is asked for and no record has them.

    The record is used again for the same inputs and number of classes, on the same machine with the same packages, if
    it has as many rounds. A damaged record is set aside. Raises NewerRecordError for a record of a newer version.
    """
    if not options.retime:
        return
    benchmark, session, setup = job.benchmark, job.session, job.benchmark.first
    file, data = path(session.results, setup), job.data(setup)
    found = records.read_or_set_aside(file, read)
    if found is not None and _is_usable(file, found, benchmark.all_algorithms, options.retime_rounds, data):
        return
    from bibench_tf.training import step_timing  # imports TensorFlow

    recipe = setup.recipe
    steps = step_timing.Steps(setup.network, recipe.batch_size, recipe.optimizer, recipe.precision, benchmark.seed)
    times = step_timing.measure(
        benchmark.all_algorithms,
        data,
        steps,
        rounds=options.retime_rounds,
        progress=lambda rounds: session.progress(rounds, "step times", "round"),
    )
    records.write(file, Retiming(setup.dataset, times), environment=environment.describe())


def _is_usable(file: Path, found: Retiming, algorithms: Sequence[str], rounds: int, data: Dataset) -> bool:
    """Whether the record in `file` has the times that a new measurement would give."""
    if found.lacks(algorithms) or found.rounds < rounds:
        return False
    machine = environment.of_times(records.read_envelope(file)["environment"])
    same_machine = machine == environment.of_times(environment.describe())
    return same_machine and found.times.options == dict(data.network_options)
