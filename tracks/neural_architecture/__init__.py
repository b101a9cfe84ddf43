"""Track 2, neural architecture: whether an algorithm keeps its accuracy across networks and their groups."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bibench_tf import networks
from bibench_tf.benchmark.track import Track, option, register
from bibench_tf.stats import metrics

if TYPE_CHECKING:
    from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark, Setup
    from bibench_tf.report.scores import TrackScore
    from bibench_tf.results.runs import RunStore

# One network of each group, those of the default data sets, whose runs are shared, and a second convolutional one.
DEFAULT_NETWORKS = (
    "resnet20@0.5",
    "vgg_small@0.125",
    "bert_tiny2@0.5",
    "dfsmn_small@0.5",
    "pointnet_vanilla@0.25",
)


@dataclass(frozen=True)
class Options:
    """The networks of the track; without any, those of `DEFAULT_NETWORKS` that fit the data sets."""

    networks: tuple[str, ...] = option(
        (),
        "--architecture-networks",
        "Networks of the architecture track, each on the first data set that it serves.",
        metavar="NETWORK[@WIDTH],..",
        default_text=f"those of {', '.join(DEFAULT_NETWORKS)} that fit",
    )


@register
class NeuralArchitecture(Track):
    """Every algorithm on every network of the track, on the first data set of its task, for every seed."""

    number = 2
    name = "architecture"
    title = "Neural architecture"
    metric = metrics.OM_ARCH.name
    formula = metrics.OM_ARCH.formula
    question = "whether an algorithm keeps its accuracy across networks"
    examples = (
        "bibench architecture --algorithm bnn,recu",
        "bibench architecture --data fashion_mini --architecture-networks resnet20@0.5,vgg_small@0.25",
    )
    takes = (*(field for field in Track.takes if field != "networks"), "seeds")
    options = Options

    def settle(self, options: Options, job: Job) -> Options:
        if options.networks:
            return options
        setups = job.benchmark.setups
        tasks = {setup.task.key for setup in setups}
        fitting = [network for network in DEFAULT_NETWORKS if networks.task_of(network) in tasks]
        found = fitting or dict.fromkeys(setup.network for setup in setups)
        return dataclasses.replace(options, networks=tuple(found))

    def setups(self, benchmark: ResolvedBenchmark) -> tuple[Setup, ...]:
        return tuple(map(benchmark.setup_of, benchmark.options(self.name).networks))

    def score(self, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
        from bibench_tf.tracks.neural_architecture import scoring

        return scoring.score(self, benchmark, store)
