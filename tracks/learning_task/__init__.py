"""Track 1, learning task: how much of the full-precision accuracy each algorithm keeps, data set by data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bibench_tf.benchmark.track import Track, register
from bibench_tf.stats import metrics

if TYPE_CHECKING:
    from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark, Setup
    from bibench_tf.report.scores import TrackScore
    from bibench_tf.results.runs import RunStore


@register
class LearningTask(Track):
    """Every algorithm on every data set, with the network for it, for every seed."""

    number = 1
    name = "task"
    title = "Learning task"
    metric = metrics.OM_TASK.name
    formula = metrics.OM_TASK.formula
    question = "how much of the full-precision accuracy each algorithm keeps, data set by data set"
    examples = (
        "bibench task --data cifar10 --data-dir ~/tensorflow_datasets --network resnet20 --recipe cifar10_short",
        "bibench task --data keywords_mini,sentiment_mini --algorithm bnn,reactnet",
        "bibench task --data glue_sst2 --network bert --bert-checkpoint minilm --recipe sst2_short",
        "bibench task --data imagenet2012 --network resnet18 --recipe bibench --strategy multiworker",
    )
    takes = (*Track.takes, "seeds")

    def setups(self, benchmark: ResolvedBenchmark) -> tuple[Setup, ...]:
        return benchmark.setups

    def measure(self, job: Job) -> None:
        """Draw what detectors find; for the rest the trainings hold all this track needs."""
        from bibench_tf.tracks.learning_task import pictures

        pictures.draw(job)

    def score(self, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
        from bibench_tf.tracks.learning_task import scoring

        return scoring.score(self, benchmark, store)
