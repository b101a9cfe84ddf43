"""The record of interleaved step times, beside the runs of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bibench_tf import files
from bibench_tf.recipes import Recipe
from bibench_tf.results import records
from bibench_tf.training.step_timing import StepTimes

FOLDER = "step-times"


@dataclass(frozen=True)
class Retiming:
    """Step times of a network on the examples of a data set, all algorithms in turns."""

    task: str
    times: StepTimes

    @property
    def rounds(self) -> int:
        """How often every network had its turn."""
        return min((len(found) for found in self.times.rounds_ms.values()), default=0)

    def lacks(self, algorithms: Sequence[str]) -> list[str]:
        """The algorithms that were not timed with the others."""
        return [algorithm for algorithm in algorithms if algorithm not in self.times.rounds_ms]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Retiming:
        """The inverse of `dataclasses.asdict`."""
        return cls(data["task"], StepTimes.from_dict(data["times"]))


def path(results: Path, task: str, network: str, recipe: Recipe) -> Path:
    """The file of the step times of a network with the batches, the optimizer and the precision of a recipe."""
    key = files.digest([task, network, recipe.batch_size, recipe.optimizer, recipe.precision])[:12]
    return results / FOLDER / f"{network}-{key}.json"


def read(file: Path) -> Retiming | None:
    """The record in `file`, None where there is none. Raises RecordError for a damaged one."""
    return records.read(file, Retiming, Retiming.from_dict) if file.exists() else None
