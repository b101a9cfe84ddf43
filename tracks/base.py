"""What tracks share: the main runs of a benchmark, and which network, recipe and data they have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bibench_tf import datasets, networks, recipes, tasks
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.datasets import Dataset
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE
from bibench_tf.recipes import Recipe
from bibench_tf.results.records import RecordError
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.tasks.classification import TOP1
from bibench_tf.training.session import Session

IMAGES = "image_classification"
TEXTS = "text_classification"


def task_of_network(network: str) -> str:
    """The key of the task of a network, NAME or NAME@WIDTH. Raises BibenchError for an unknown one."""
    from bibench_tf import zoo  # imports TensorFlow, which a benchmark that names no network does not need

    return zoo.task_of(networks.parse(network)[0])


def network_for(benchmark: Benchmark, dataset: str) -> str:
    """The network for a data set: the first that the benchmark names for its task, else the default of the task.

    Raises BibenchError for unknown names.
    """
    task = datasets.task_of(dataset)
    named = (network for network in benchmark.networks if task_of_network(network) == task)
    return next(named, tasks.get(task).network)


def dataset_for(benchmark: Benchmark, network: str) -> str:
    """The first data set of a benchmark that a network serves. Raises BibenchError where there is none."""
    task = task_of_network(network)
    found = next((name for name in benchmark.data if datasets.task_of(name) == task), None)
    if found is None:
        title = tasks.get(task).title.lower()
        raise BibenchError(
            f"No data set of the benchmark ({', '.join(benchmark.data)}) fits the network '{network}', which is for "
            f"{title}: add one by --tasks, or leave the network out."
        )
    return found


def check_networks(benchmark: Benchmark) -> None:
    """Raises BibenchError for a network of `architecture` that none of the benchmark's data sets fits."""
    for network in benchmark.networks:
        dataset_for(benchmark, network)


def has_images(benchmark: Benchmark) -> bool:
    """Whether one of the benchmark's data sets is of images."""
    return any(datasets.task_of(name) == IMAGES for name in benchmark.data)


def load_data(name: str, session: Session, network: str | None = None) -> Dataset:
    """A data set as the session has it, and as a network, NAME or NAME@WIDTH, takes it.

    Raises BibenchError for missing data.
    """
    data = datasets.get(name, session.data_dir, session.download, session.vocabulary)
    return data if network is None else data.for_network(networks.parse(network)[0])


def main_recipe(benchmark: Benchmark, dataset: str | None = None, network: str | None = None) -> Recipe:
    """The recipe of the binary networks on a data set with a network, by default the first and the one for it."""
    dataset = benchmark.data[0] if dataset is None else dataset
    network = network_for(benchmark, dataset) if network is None else network
    task = datasets.task_of(dataset)
    return recipes.resolve(benchmark.recipe, task, dataset, network, benchmark.epochs, benchmark.precision)


def spec_for(benchmark: Benchmark, algorithm: str, dataset: str, network: str, recipe: Recipe) -> RunSpec:
    """One run. The baseline of a recipe that starts from full precision is the network it starts from."""
    if algorithm == BASELINE and recipe.start is not None:
        recipe = recipe.start
    name, width = networks.parse(network)
    of_texts = datasets.task_of(dataset) == TEXTS
    files = {"bert_checkpoint": benchmark.bert_checkpoint, "vocabulary": benchmark.vocabulary} if of_texts else {}
    return RunSpec(dataset, name, algorithm, recipe, benchmark.seed, width, **files)


def main_specs(benchmark: Benchmark, task: str | None = None, architecture: str | None = None) -> dict[str, RunSpec]:
    """The runs of the baseline and every algorithm on one data set and network, by algorithm."""
    dataset = benchmark.data[0] if task is None else task
    network = network_for(benchmark, dataset) if architecture is None else architecture
    recipe = main_recipe(benchmark, dataset, network)
    return {
        algorithm: spec_for(benchmark, algorithm, dataset, network, recipe) for algorithm in benchmark.all_algorithms
    }


def read_result(store: RunStore, spec: RunSpec, failures: list[str]) -> RunResult | None:
    """The result of a completed run; any other becomes a sentence in `failures` and None."""
    name = f"{spec.algorithm} on {spec.dataset} with {spec.network} ({spec.recipe.name}, seed {spec.seed})"
    try:
        result = store.result(spec)
    except RecordError as error:
        failures.append(str(error))
        return None
    if result is None:
        failures.append(f"{name} has not been trained.")
    elif result.status != "completed":
        failures.append(f"{name} {result.status}: {result.error}.")
    else:
        return result
    return None


def read_results(store: RunStore, specs: dict[str, RunSpec], failures: list[str]) -> dict[str, RunResult | None]:
    """`read_result` of each run, by algorithm."""
    return {algorithm: read_result(store, spec, failures) for algorithm, spec in specs.items()}


def metric_of(results: Iterable[RunResult | None]) -> str:
    """The name of the main metric of results; where there is none, that of images."""
    return next((result.metric for result in results if result is not None), TOP1)


def short_name(metric: str) -> str:
    """The word for a main metric in columns and titles: top-1 accuracy is `accuracy`."""
    return "accuracy" if metric == TOP1 else metric


def column(name: str, metric: str) -> str:
    """The column of the main metric of a data set or network."""
    return f"{name} {short_name(metric)}"


def training_conditions(
    benchmark: Benchmark,
    results: Iterable[RunResult | None],
    *,
    trained: Sequence[tuple[str, str]] = (),
    every_seed: bool = False,
) -> dict[str, str]:
    """What the runs behind a table have in common, and where it differs what each data set and network have.

    `trained` are those pairs, by default the first data set and the network for it; `every_seed` says that the runs are
    of all seeds, not of the first.
    """
    pairs = list(dict.fromkeys(trained)) or [(benchmark.data[0], network_for(benchmark, benchmark.data[0]))]
    by_pair = {pair: main_recipe(benchmark, *pair) for pair in pairs}
    said = {pair: _recipe_text(recipe) for pair, recipe in by_pair.items()}
    precision = next(iter(by_pair.values())).precision
    conditions = {
        **(
            {"recipe": next(iter(said.values()))}
            if len(set(said.values())) == 1
            else {f"recipe: {dataset} with {network}": text for (dataset, network), text in said.items()}
        ),
        **({} if precision == "float32" else {"precision": precision}),
        **seed_condition(benchmark, every_seed),
    }
    for result in filter(None, results):
        data = result.dataset
        kind = "images" if datasets.task_of(result.spec["dataset"]) == IMAGES else "examples"
        conditions[f"data: {data['name']}"] = (
            f"{data['train_examples']:,} training and {data['test_examples']:,} test {kind}, "
            f"fingerprint {data['fingerprint'][:12]}"
        )
    return conditions


def _recipe_text(recipe: Recipe) -> str:
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
    return (
        f"{recipe.name}: {epochs}, batch {recipe.batch_size}, {recipe.optimizer} "
        f"{recipe.learning_rate:g}, {recipe.schedule} schedule{' from step to step' if recipe.per_step else ''}"
    )


def seed_condition(benchmark: Benchmark, every_seed: bool = False) -> dict[str, str]:
    """The seed of the networks behind a table, or all seeds."""
    if benchmark.seeds == 1:
        return {"seed": str(benchmark.seed)}
    if every_seed:
        return {"seeds": ", ".join(str(one.seed) for one in benchmark.by_seed)}
    return {"seed": f"{benchmark.seed}, the networks of the first of {benchmark.seeds} seeds"}
