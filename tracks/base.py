"""What tracks share: the main runs of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable

from bibench_tf import recipes
from bibench_tf.benchmark import BASELINE, Benchmark, parse_network
from bibench_tf.recipes import Recipe
from bibench_tf.records import RecordError
from bibench_tf.runs import RunResult, RunSpec, RunStore


def main_recipe(benchmark: Benchmark) -> Recipe:
    """The recipe of the benchmark's binary networks."""
    return recipes.get(benchmark.recipe, epochs=benchmark.epochs, precision=benchmark.precision)


def spec_for(benchmark: Benchmark, algorithm: str, task: str, architecture: str, recipe: Recipe) -> RunSpec:
    """One run. The baseline of a recipe that starts from full precision is the network it starts from."""
    if algorithm == BASELINE and recipe.start is not None:
        recipe = recipe.start
    name, width = parse_network(architecture)
    return RunSpec(task, name, algorithm, recipe, benchmark.seed, width)


def main_specs(benchmark: Benchmark, task: str | None = None, architecture: str | None = None) -> dict[str, RunSpec]:
    """The runs of the baseline and every algorithm on one task and network, by algorithm."""
    return {
        algorithm: spec_for(
            benchmark,
            algorithm,
            benchmark.tasks[0] if task is None else task,
            benchmark.architecture if architecture is None else architecture,
            main_recipe(benchmark),
        )
        for algorithm in benchmark.all_algorithms
    }


def read_result(store: RunStore, spec: RunSpec, failures: list[str]) -> RunResult | None:
    """The result of a completed run; any other becomes a sentence in `failures` and None."""
    name = f"{spec.algorithm} on {spec.task} with {spec.architecture} ({spec.recipe.name}, seed {spec.seed})"
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


def training_conditions(
    benchmark: Benchmark, results: Iterable[RunResult | None], *, every_seed: bool = False
) -> dict[str, str]:
    """What the runs behind a table have in common; `every_seed` says that they are of all seeds, not of the first."""
    recipe = main_recipe(benchmark)
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
    conditions = {
        "recipe": f"{recipe.name}: {epochs}, batch {recipe.batch_size}, {recipe.optimizer} "
        f"{recipe.learning_rate:g}, {recipe.schedule} schedule{' from step to step' if recipe.per_step else ''}",
        **({} if recipe.precision == "float32" else {"precision": recipe.precision}),
        **seed_condition(benchmark, every_seed),
    }
    for result in filter(None, results):
        data = result.dataset
        conditions[f"data: {data['name']}"] = (
            f"{data['train_examples']:,} training and {data['test_examples']:,} test images, "
            f"fingerprint {data['fingerprint'][:12]}"
        )
    return conditions


def seed_condition(benchmark: Benchmark, every_seed: bool = False) -> dict[str, str]:
    """The seed of the networks behind a table, or all seeds."""
    if benchmark.seeds == 1:
        return {"seed": str(benchmark.seed)}
    if every_seed:
        return {"seeds": ", ".join(str(one.seed) for one in benchmark.by_seed)}
    return {"seed": f"{benchmark.seed}, the networks of the first of {benchmark.seeds} seeds"}
