"""The meaning of a benchmark: the network and the recipe of every data set, and the runs; resolved once.

A `ResolvedBenchmark` needs no data and no TensorFlow, but for the names of networks; `settle` describes the data.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bibench_tf import datasets, networks, recipes, tasks
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, options_of
from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.names import BASELINE, data_identity, data_label
from bibench_tf.recipes import Recipe
from bibench_tf.results.runs import RunSpec, RunStore, files_digest
from bibench_tf.tasks import Task
from bibench_tf.training import data_sets
from bibench_tf.training.data_sets import DataSets
from bibench_tf.training.session import Session


@dataclass(frozen=True)
class Setup:
    """A data set with its task, the network for it (NAME or NAME@WIDTH), and the recipe of the binary networks.

    `dataset` is its name in runs, `label` that in tables: without its fingerprint, where the benchmark has no other
    data set of that name.
    """

    dataset: str
    label: str
    task: Task
    network: str
    recipe: Recipe


class ResolvedBenchmark:
    """A benchmark with all that follows from it.

    `setups` has one setup for each data set, in their order. Raises BibenchError for unknown names and options, and for
    a network that fits no data set.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        """Resolve a benchmark."""
        self.benchmark = benchmark
        self.all_algorithms = benchmark.all_algorithms
        self.seed = benchmark.seed
        self.seeds = benchmark.seeds
        recipes.describe(benchmark.recipe)
        if not benchmark.data:
            raise InvalidOption("A benchmark needs a data set.")
        self.setups = tuple(self._setup(name, self._network_for(name)) for name in benchmark.data)
        for network in benchmark.networks:
            self.setup_of(network)
        for track in benchmark.options:
            self.options(track)

    @property
    def first(self) -> Setup:
        """The setup of the first data set, which the tracks with one data set take."""
        return self.setups[0]

    @property
    def every_seed(self) -> range:
        """The seeds of the tracks that train several."""
        return range(self.seed, self.seed + self.seeds)

    @cached_property
    def first_of_images(self) -> Setup | None:
        """The setup of the first data set of images; None where there is none."""
        return next((setup for setup in self.setups if setup.task.is_of_images), None)

    def label(self, dataset: str) -> str:
        """The name of a data set in tables and titles of this benchmark."""
        label = data_label(dataset)
        return dataset if [data_label(name) for name in self.benchmark.data].count(label) > 1 else label

    def options(self, track: str) -> Any:
        """The options of a track. Raises UnknownName and InvalidOption."""
        known = TRACKS.get(track)
        return options_of(known, self.benchmark.options.get(track, {}))

    def setup_of(self, network: str) -> Setup:
        """A network with the first data set that it serves. Raises BibenchError where there is none."""
        task = tasks.get(networks.task_of(network))
        found = next((setup for setup in self.setups if setup.task == task), None)
        if found is None:
            raise InvalidOption(
                f"No data set of the benchmark ({', '.join(self.benchmark.data)}) fits the network '{network}', which "
                f"is for {task.title.lower()}: add one by --data, or leave the network out."
            )
        return found if found.network == network else self._setup(found.dataset, network)

    def specs(self, setup: Setup, seed: int | None = None, recipe: Recipe | None = None) -> dict[str, RunSpec]:
        """The runs of the baseline and of every algorithm, by algorithm; with the first seed where none is given."""
        recipe = recipe or setup.recipe
        name, width = networks.parse(setup.network)
        files = {"bert_checkpoint": self.benchmark.bert_checkpoint, "vocabulary": self.benchmark.vocabulary}
        return {
            algorithm: RunSpec(
                setup.dataset,
                name,
                algorithm,
                # The baseline of a recipe that starts from full precision is the network it starts from.
                recipe.start if algorithm == BASELINE and recipe.start is not None else recipe,
                self.seed if seed is None else seed,
                width,
                **(files if setup.task.takes_vocabulary else {}),
            )
            for algorithm in self.all_algorithms
        }

    def _network_for(self, dataset: str) -> str:
        task = datasets.task_of(dataset)
        named = (network for network in self.benchmark.networks if networks.task_of(network) == task)
        return next(named, tasks.get(task).network)

    def _setup(self, dataset: str, network: str) -> Setup:
        asked = self.benchmark
        task = datasets.task_of(dataset)
        recipe = recipes.resolve(asked.recipe, task, dataset, network, asked.epochs, asked.precision)
        return Setup(dataset, self.label(dataset), tasks.get(task), network, recipe)


class Job:
    """A resolved benchmark in a session: what measurements work with."""

    def __init__(self, benchmark: ResolvedBenchmark, session: Session, data: DataSets | None = None) -> None:
        """Nothing is read yet; `data` are the data sets of the session where some are described already."""
        self.benchmark = benchmark
        self.data_sets = data or DataSets(session)
        self.session = self.data_sets.session
        self.store = RunStore(session.results)

    def train_examples(self, dataset: str) -> int:
        """The number of training examples of a data set. Raises BibenchError for missing data."""
        return self.data_sets.get(dataset).train_examples

    def data(self, setup: Setup) -> Any:
        """The data set of a setup, of the class of its task, as its network takes it.

        Raises BibenchError for data that are missing or are not those of the benchmark, or no longer.
        """
        data = self.data_sets.get(setup.dataset, networks.parse(setup.network)[0])
        data_sets.check(setup.dataset, data)
        return data

    def same_data(self, setup: Setup, fingerprints: set[str]) -> Any:
        """The data set of a setup; raises BibenchError unless it is the one that networks were trained on."""
        data = self.data(setup)
        if fingerprints - {data.fingerprint}:
            raise BibenchError(
                f"The data of '{data.name}' are not those the networks in {self.session.results} were trained on: "
                "give those, or another results folder."
            )
        return data


def settle(benchmark: Benchmark, session: Session, data: DataSets | None = None) -> Job:
    """The benchmark with all that its options leave open or have a word for written out, in the session.

    These are the options of the tracks, the names of the data with their fingerprints, and the digests of the user's
    checkpoint and vocabulary; the session keeps the paths. Data that are named twice are taken once. `data` are the
    data sets of the session where some are described already. Raises BibenchError for data that are missing, and for
    files that no data set needs.
    """
    data = data or DataSets(session)
    named: dict[str, str] = {}
    for name in map(data.named, benchmark.data):
        named.setdefault(data_identity(name), name)
    files = {"bert_checkpoint": session.bert_checkpoint, "vocabulary": session.vocabulary}
    digests: dict[str, Any] = {name: path and files_digest(path) for name, path in files.items()}
    resolved = ResolvedBenchmark(dataclasses.replace(benchmark, data=tuple(named.values()), **digests))
    if any(files.values()) and not any(setup.task.takes_vocabulary for setup in resolved.setups):
        raise InvalidOption("--bert-checkpoint and --vocabulary are for texts, and no data set has texts.")
    job = Job(resolved, session, data)
    options = {name: TRACKS.get(name).settle(resolved.options(name), job) for name in TRACKS.names()}
    return Job(ResolvedBenchmark(dataclasses.replace(resolved.benchmark, options=options)), session, data)


def with_data_sets(benchmark: Benchmark) -> Benchmark:
    """The benchmark with the data set inside the package in place of the name of a task."""
    embedded = {key: tasks.get(key).default_data for key in tasks.names()}
    return dataclasses.replace(
        benchmark, data=tuple(dict.fromkeys(embedded.get(name) or name for name in benchmark.data))
    )
