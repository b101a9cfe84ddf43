"""Results of runs for a table, the words for their metric, and the conditions they were trained under."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bibench_tf import datasets, tasks
from bibench_tf.benchmark.resolve import ResolvedBenchmark, Setup
from bibench_tf.recipes import Recipe
from bibench_tf.results.records import RecordError
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.tasks.classification import TOP1


def read_result(store: RunStore, spec: RunSpec, failures: list[str]) -> RunResult | None:
    """The result of a completed run; otherwise appends an explanation to `failures` and returns None."""
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


def read_results(store: RunStore, specs: Mapping[str, RunSpec], failures: list[str]) -> dict[str, RunResult | None]:
    """`read_result` of each run, by algorithm."""
    return {algorithm: read_result(store, spec, failures) for algorithm, spec in specs.items()}


def metric_of(results: Iterable[RunResult | None]) -> str:
    """The name of the main metric of results; without any result, that of images."""
    return next((result.metric for result in results if result is not None), TOP1)


def short_name(metric: str) -> str:
    """The word for a main metric in columns and titles: top-1 accuracy is `accuracy`."""
    return "accuracy" if metric == TOP1 else metric


def column(name: str, metric: str) -> str:
    """The column of the main metric of a data set or network."""
    return f"{name} {short_name(metric)}"


def training_conditions(
    benchmark: ResolvedBenchmark,
    results: Iterable[RunResult | None],
    setups: Sequence[Setup],
    *,
    every_seed: bool = False,
) -> dict[str, str]:
    """The conditions that the runs behind a table share, and for each setup those that differ.

    `every_seed` states that the runs are of all seeds, not of the first.
    """
    texts = {setup: _recipe_text(setup.recipe) for setup in setups}
    precision = setups[0].recipe.precision
    conditions = {
        **(
            {"recipe": texts[setups[0]]}
            if len(set(texts.values())) == 1
            else {f"recipe: {setup.label} with {setup.network}": text for setup, text in texts.items()}
        ),
        **({} if precision == "float32" else {"precision": precision}),
        **seed_condition(benchmark, every_seed),
    }
    for result in filter(None, results):
        data = result.dataset
        examples = tasks.get(datasets.task_of(result.spec.dataset)).unit + "s"
        conditions[f"data: {benchmark.label(result.spec.dataset)}"] = (
            f"{data['train_examples']:,} training and {data['test_examples']:,} test {examples}, "
            f"fingerprint {data['fingerprint'][:12]}"
        )
    return conditions


def _recipe_text(recipe: Recipe) -> str:
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
    return (
        f"{recipe.name}: {epochs}, batch {recipe.batch_size}, {recipe.optimizer} "
        f"{recipe.learning_rate:g}, {recipe.schedule} schedule{' from step to step' if recipe.per_step else ''}"
    )


def seed_condition(benchmark: ResolvedBenchmark, every_seed: bool = False) -> dict[str, str]:
    """The seed of the networks behind a table, or all seeds."""
    if benchmark.seeds == 1:
        return {"seed": str(benchmark.seed)}
    if every_seed:
        return {"seeds": ", ".join(map(str, benchmark.every_seed))}
    return {"seed": f"{benchmark.seed}, the networks of the first of {benchmark.seeds} seeds"}
