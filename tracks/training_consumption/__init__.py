"""Track 4, training consumption: the time of a training step, and how far accuracy depends on hyperparameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bibench_tf.benchmark.track import Track, option, register
from bibench_tf.stats import metrics
from bibench_tf.tracks.training_consumption import grid

if TYPE_CHECKING:
    from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
    from bibench_tf.report.scores import TrackScore
    from bibench_tf.results.runs import RunSpec, RunStore


@dataclass(frozen=True)
class Options:
    """The settings of hyperparameters, and whether steps are timed once more.

    Attributes:
        grid: Settings, or names of grids of them (`grid.GRIDS`).
        retime: Whether steps of all algorithms are timed interleaved, in one process, for the score.
        retime_rounds: The number of interleaved rounds.
    """

    grid: tuple[str, ...] = option(
        ("quick",),
        "--grid",
        "Settings of the training track: quick (4), bibench (8), bibench-released, or OPTIMIZER-RATE-SCHEDULE each.",
    )
    retime: bool = option(
        False, "--retime", "Time steps of all algorithms interleaved, in one process, for the score.", stored=False
    )
    retime_rounds: int = option(
        11,
        "--retime-rounds",
        "The number of interleaved rounds of --retime.",
        stored=False,
        minimum=3,
        maximum=10_000,
        metavar="R",
    )


@register
class TrainingConsumption(Track):
    """Every algorithm under every setting of the grid, from scratch, on the first data set, for every seed."""

    number = 4
    name = "training"
    title = "Training consumption"
    metric = metrics.OM_TRAIN.name
    formula = metrics.OM_TRAIN.formula
    question = "the time of a training step, and the spread of accuracy over hyperparameters"
    examples = (
        "bibench training --grid adam-1e-3-cosine,sgd-1e-1-step --epochs 5 --retime",
        "bibench training --grid bibench --recipe bibench_training --data cifar10 --network resnet18 --seeds 3",
    )
    takes = (*Track.takes, "seeds")
    options = Options

    def settle(self, options: Options, job: Job) -> Options:
        return dataclasses.replace(options, grid=grid.expand(options.grid))

    def check(self, job: Job) -> None:
        for setting in self.settings(job.benchmark):
            grid.recipe_for(job.benchmark.first.recipe, setting)

    def settings(self, benchmark: ResolvedBenchmark) -> tuple[str, ...]:
        """The settings of the grid."""
        return grid.expand(benchmark.options(self.name).grid)

    def specs(self, benchmark: ResolvedBenchmark, setting: str, seed: int) -> dict[str, RunSpec]:
        """The runs of one setting and seed, by algorithm."""
        recipe = grid.recipe_for(benchmark.first.recipe, setting)
        return benchmark.specs(benchmark.first, seed, recipe)

    def plan(self, benchmark: ResolvedBenchmark) -> list[RunSpec]:
        return [
            spec
            for seed in benchmark.every_seed
            for setting in self.settings(benchmark)
            for spec in self.specs(benchmark, setting, seed).values()
        ]

    def measure(self, job: Job) -> None:
        from bibench_tf.tracks.training_consumption import retiming

        retiming.measure(job, job.benchmark.options(self.name))

    def score(self, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
        from bibench_tf.tracks.training_consumption import scoring

        return scoring.score(self, benchmark, store)
