"""Training consumption: the time of a training step, and how far accuracy depends on hyperparameters."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.results.records import NewerRecordError, RecordError
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.stats import metrics
from bibench_tf.stats.intervals import Estimate
from bibench_tf.tracks import seeds
from bibench_tf.tracks.base import load_data, main_recipe, network_for, spec_for, training_conditions
from bibench_tf.tracks.training_consumption import grid, record, tables
from bibench_tf.tracks.training_consumption.record import Retiming
from bibench_tf.tracks.training_consumption.tables import METRIC, Figures
from bibench_tf.training.session import Session
from bibench_tf.training.step_timing import Ratio, ratio

NAME = "training"
TITLE = "Training consumption"


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """Every algorithm under every setting of the grid, for every seed."""
    return [
        spec
        for one in benchmark.by_seed
        for setting in grid.expand(benchmark.grid)
        for spec in grid_specs(one, setting).values()
    ]


def grid_specs(benchmark: Benchmark, setting: str) -> dict[str, RunSpec]:
    """The runs of one setting, by algorithm, from scratch with the network for the benchmark's first data set."""
    dataset = benchmark.data[0]
    network = network_for(benchmark, dataset)
    recipe = grid.recipe_for(main_recipe(benchmark, dataset, network), setting)
    return {
        algorithm: spec_for(benchmark, algorithm, dataset, network, recipe) for algorithm in benchmark.all_algorithms
    }


def measure(benchmark: Benchmark, session: Session) -> None:
    """Time training steps of all algorithms in turns, where the session asks for it and no record has as many rounds.

    Otherwise nothing: step times are taken while training. Raises NewerRecordError for a record of a newer version.
    """
    if not session.retime_rounds:
        return
    from tqdm import tqdm

    from bibench_tf.results import environment, records
    from bibench_tf.training import step_timing

    recipe, dataset = main_recipe(benchmark), benchmark.data[0]
    path = _retiming_path(benchmark, session.results)
    try:
        found = record.read(path)
    except NewerRecordError:
        raise
    except RecordError as error:
        print(f"{error} It is measured again.", file=sys.stderr)
        found = None
    if found is not None and not found.lacks(benchmark.all_algorithms) and found.rounds >= session.retime_rounds:
        return
    times = step_timing.measure(
        benchmark.all_algorithms,
        network=network_for(benchmark, dataset),
        data=load_data(dataset, session, network_for(benchmark, dataset)),
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        rounds=session.retime_rounds,
        seed=benchmark.seed,
        precision=recipe.precision,
        progress=lambda rounds: tqdm(
            rounds, desc="step times", unit="round", disable=session.quiet, file=sys.stderr, dynamic_ncols=True
        ),
    )
    records.write(path, Retiming(dataset, times), environment=environment.describe())


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_train of each algorithm over the settings of the grid, of the accuracies averaged over the seeds."""
    failures: list[str] = []
    settings = grid.expand(benchmark.grid)
    results = {
        setting: seeds.results(benchmark, lambda one, setting=setting: grid_specs(one, setting), store, failures)
        for setting in settings
    }
    retiming = _retiming(benchmark, store, failures)
    runs = {algorithm: [results[setting][algorithm] for setting in settings] for algorithm in benchmark.all_algorithms}
    everyone = range(benchmark.seeds)
    figures = {
        algorithm: Figures(
            runs=found,
            ratio=_ratio(algorithm, runs, retiming, everyone),
            overall=_overall(benchmark, algorithm, runs, retiming, failures),
        )
        for algorithm, found in runs.items()
    }
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=(
            "sqrt(((full-precision step time / step time)^2 + (spread of full-precision accuracy / spread of "
            "accuracy)^2) / 2), spread: standard deviation over the settings"
        ),
        scores=seeds.values({algorithm: one.overall for algorithm, one in figures.items()}),
        table=tables.table(benchmark, figures, retiming),
        charts=tables.charts(benchmark, settings, figures, retiming),
        conditions={
            **training_conditions(
                benchmark,
                [one for found in runs.values() for of_seeds in found for one in of_seeds],
                every_seed=True,
            ),
            "network": network_for(benchmark, benchmark.data[0]),
            **tables.conditions(settings, figures, retiming),
        },
        notes=[
            *tables.notes(benchmark, settings, figures, retiming),
            *seeds.below_zero((result for one in figures.values() for result in one.completed), METRIC),
        ],
        failures=failures,
        complete=any(set(grid.GRIDS[name]) <= set(settings) for name in grid.WHOLE),
    )


def _retiming_path(benchmark: Benchmark, results: Path) -> Path:
    dataset = benchmark.data[0]
    return record.path(results, dataset, network_for(benchmark, dataset), main_recipe(benchmark))


def _retiming(benchmark: Benchmark, store: RunStore, failures: list[str]) -> Retiming | None:
    """The step times that were taken in turns; None where there are none, or not of all algorithms."""
    try:
        found = record.read(_retiming_path(benchmark, store.root))
    except NewerRecordError:
        raise
    except RecordError as error:
        failures.append(str(error))
        return None
    if found is not None and (lacking := found.lacks(benchmark.all_algorithms)):
        failures.append(
            f"The step times in turns lack {', '.join(lacking)}, so those of the runs are used: bibench training "
            "--retime times all of them."
        )
        return None
    return found


def _ratio(
    algorithm: str,
    runs: Mapping[str, Sequence[Sequence[RunResult | None]]],
    retiming: Retiming | None,
    chosen: Sequence[int],
) -> Ratio | None:
    """The step time beside full precision: of the rounds in turns, or of runs with the same setting and seed."""
    if retiming is not None:
        return ratio(retiming.times, algorithm)
    return tables.ratio_of_runs(runs[algorithm], runs[BASELINE], chosen)


def _overall(
    benchmark: Benchmark,
    algorithm: str,
    runs: Mapping[str, Sequence[Sequence[RunResult | None]]],
    retiming: Retiming | None,
    failures: list[str],
) -> Estimate | None:
    # A setting that diverged leaves the spread over the others, which would flatter the algorithm: no score then.
    needed = [one for key in (algorithm, BASELINE) for of_seeds in runs[key] for one in of_seeds]

    def figure(chosen: Sequence[int]) -> float:
        times = _ratio(algorithm, runs, retiming, chosen)
        if times is None:
            raise metrics.Undefined("no run with a known step time; its training may be shorter than the warm-up.")
        accuracies_fp, accuracies = (
            [seeds.mean_accuracy(of_seeds, chosen) for of_seeds in runs[key]] for key in (BASELINE, algorithm)
        )
        return metrics.om_train([1.0], [times.median], accuracies_fp, accuracies)

    return seeds.score(benchmark, needed, figure, failures, algorithm)
