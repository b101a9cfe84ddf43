"""Track 5, theoretical complexity: parameters, bits and multiply-accumulates, counted layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tf.benchmark.track import Track, option, register
from bibench_tf.stats import metrics

if TYPE_CHECKING:
    from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
    from bibench_tf.report.scores import TrackScore
    from bibench_tf.results.runs import RunSpec, RunStore


@dataclass(frozen=True)
class Options:
    """The plot of accuracy against operations and size."""

    pareto: str | None = option(
        None,
        "--pareto",
        "Also plot accuracy against operations and size (.svg, .png): published networks, and those of the results.",
        stored=False,
        metavar="FILE",
    )


@register
class TheoreticalComplexity(Track):
    """Counts of the network of the first data set, with every algorithm; nothing is trained."""

    number = 5
    name = "complexity"
    title = "Theoretical complexity"
    metric = metrics.OM_COMP.name
    formula = metrics.OM_COMP.formula
    question = "parameters, bits and operations, counted layer by layer"
    examples = ("bibench complexity", "bibench complexity --pareto pareto.svg")
    options = Options

    def plan(self, benchmark: ResolvedBenchmark) -> list[RunSpec]:
        """No runs: counting needs no training."""
        return []

    def measure(self, job: Job) -> None:
        from bibench_tf.tracks.theoretical_complexity import counting

        counting.measure(self, job)
        if (path := job.benchmark.options(self.name).pareto) is not None:
            from bibench_tf.tracks.theoretical_complexity import plot  # slow import of matplotlib

            plot.write(Path(path), job.benchmark, job.session.results)

    def score(self, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
        from bibench_tf.tracks.theoretical_complexity import scoring

        return scoring.score(self, benchmark, store)
