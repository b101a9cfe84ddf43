"""Training consumption: the time of a training step, and how far accuracy depends on hyperparameters."""

from __future__ import annotations

import dataclasses
import statistics

import pandas as pd

from bibench_tf import metrics
from bibench_tf.benchmark import BASELINE, Benchmark, Session
from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe
from bibench_tf.runs import RunResult, RunSpec, RunStore
from bibench_tf.scores import Chart, TrackScore
from bibench_tf.tracks.base import main_recipe, read_results, spec_for, training_conditions

NAME = "training"
TITLE = "Training consumption"


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Every algorithm under every setting of the grid."""
    return [spec for setting in benchmark.grid for spec in grid_specs(benchmark, setting).values()]


def grid_specs(benchmark: Benchmark, setting: str) -> dict[str, RunSpec]:
    """The runs of one setting, by algorithm, from scratch with the benchmark's network on its first task."""
    recipe = grid_recipe(main_recipe(benchmark), setting)
    return {
        algorithm: spec_for(benchmark, algorithm, benchmark.tasks[0], benchmark.architecture, recipe)
        for algorithm in benchmark.all_algorithms
    }


def grid_recipe(recipe: Recipe, setting: str) -> Recipe:
    """The recipe with the optimizer, learning rate and schedule of a setting such as `adam-1e-3-cosine`.

    A setting that is the recipe's own gives the recipe itself, so that its run is shared with the other tracks.
    Weight decay goes with the optimizer as in BiBench's sweep: 1e-4 for SGD, none for Adam.
    """
    optimizer, _, rest = setting.partition("-")
    rate, _, schedule = rest.rpartition("-")
    try:
        learning_rate = float(rate)
    except ValueError:
        learning_rate = 0.0
    if (
        optimizer not in ("adam", "sgd", "radam")
        or schedule not in ("cosine", "step", "constant")
        or learning_rate <= 0
    ):
        raise BibenchError(
            f"'{setting}' is not a setting of the grid; write OPTIMIZER-RATE-SCHEDULE, such as adam-1e-3-cosine or "
            "sgd-1e-1-step."
        )
    changed = dataclasses.replace(
        recipe,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        weight_decay=1e-4 if optimizer == "sgd" else 0.0,
        start=None,
    )
    return recipe if changed == recipe else dataclasses.replace(changed, name=f"{recipe.name}/{setting}")


def measure(benchmark: Benchmark, session: Session) -> None:
    """Nothing: step times are taken while training."""


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_train of each algorithm over the settings of the grid."""
    failures: list[str] = []
    results = {setting: read_results(store, grid_specs(benchmark, setting), failures) for setting in benchmark.grid}
    by_algorithm = {
        algorithm: [results[setting][algorithm] for setting in benchmark.grid] for algorithm in benchmark.all_algorithms
    }
    scores, rows = {}, []
    for algorithm, found in by_algorithm.items():
        try:
            scores[algorithm] = _overall(found, by_algorithm[BASELINE])
        except metrics.Undefined as error:
            scores[algorithm] = None
            failures.append(f"{algorithm}: {error}.")
        rows.append({"algorithm": algorithm, **_columns(found), "OM_train": scores[algorithm]})
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric="OM_train",
        formula=(
            "sqrt(((full-precision step time / step time)^2 + (spread of full-precision accuracy / spread of "
            "accuracy)^2) / 2), spread: standard deviation over the settings"
        ),
        scores=scores,
        table=pd.DataFrame(rows),
        charts=[
            Chart(
                "strip",
                "Accuracy under each setting",
                "algorithm",
                "top-1 accuracy (%)",
                {
                    setting: [(algorithm, 100 * one.accuracy) for algorithm, one in results[setting].items() if one]
                    for setting in benchmark.grid
                },
            ),
            Chart(
                "bars",
                "Median training step",
                "algorithm",
                "ms",
                {
                    "step time": [
                        (algorithm, time_ms)
                        for algorithm, found in by_algorithm.items()
                        if (time_ms := _time_ms(found))
                    ]
                },
            ),
        ],
        conditions={
            **training_conditions(benchmark, [one for found in by_algorithm.values() for one in found]),
            "settings": ", ".join(benchmark.grid),
        },
        notes=[
            "Step times exclude evaluation, checkpoints, pauses and the first steps of a process. Runs follow one "
            "another, so other load on the machine while one of them trained shows in its time.",
            f"The spread is over {len(benchmark.grid)} settings with one seed each; BiBench's has eight settings.",
        ],
        failures=failures,
        complete=len(benchmark.grid) >= 8,
    )


def _overall(found: list[RunResult | None], baseline: list[RunResult | None]) -> float | None:
    # A setting that diverged leaves the spread over the others, which would flatter the algorithm: no score then.
    if not all(found) or not all(baseline):
        return None
    times_ms, baseline_times_ms = _time_ms(found), _time_ms(baseline)
    if times_ms is None or baseline_times_ms is None:
        return None
    return metrics.om_train(
        [baseline_times_ms], [times_ms], [one.accuracy for one in baseline], [one.accuracy for one in found]
    )


def _time_ms(found: list[RunResult | None]) -> float | None:
    known = [one.train_step_time_ms for one in found if one and one.train_step_time_ms is not None]
    return statistics.median(known) if known else None


def _columns(found: list[RunResult | None]) -> dict[str, float | None]:
    accuracies = [100 * one.accuracy for one in found if one]
    memory = [one.peak_process_memory_mib for one in found if one and one.peak_process_memory_mib is not None]
    return {
        "step time (ms)": _time_ms(found),
        "accuracy mean (%)": statistics.fmean(accuracies) if accuracies else None,
        "accuracy spread (points)": statistics.pstdev(accuracies) if len(accuracies) > 1 else None,
        "settings completed": len(accuracies),
        "peak process memory (MiB)": max(memory, default=None),
    }
