"""The score of the training track, from its runs and its interleaved step times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.results import environment, records
from bibench_tf.results.records import RecordError
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import metrics
from bibench_tf.stats.intervals import Estimate
from bibench_tf.tracks.shared import seeds
from bibench_tf.tracks.shared.conditions import training_conditions
from bibench_tf.tracks.training_consumption import grid, retiming, tables
from bibench_tf.tracks.training_consumption.retiming import Retiming
from bibench_tf.tracks.training_consumption.tables import Measured
from bibench_tf.training.step_timing import Ratio, ratio

if TYPE_CHECKING:
    from bibench_tf.tracks.training_consumption import TrainingConsumption

# Results by algorithm, setting and seed.
_Runs = Mapping[str, Sequence[Sequence[RunResult | None]]]
_StepRatio = Callable[[str, Sequence[int]], Ratio | None]


def score(track: TrainingConsumption, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
    """OM_train of each algorithm over the settings of the grid, of the accuracies averaged over the seeds."""
    failures: list[str] = []
    settings = track.settings(benchmark)
    results = {
        setting: seeds.results(benchmark, partial(track.specs, benchmark, setting), store, failures)
        for setting in settings
    }
    times = _times(benchmark, store, failures)
    runs = {algorithm: [results[setting][algorithm] for setting in settings] for algorithm in benchmark.all_algorithms}
    trained = [one for found in runs.values() for of_seeds in found for one in of_seeds]
    step_ratio = _ratios(runs, times, _machines(store, trained) if times is None else {})
    measured = {
        algorithm: Measured(
            found,
            step_ratio(algorithm, range(benchmark.seeds)),
            _overall(benchmark, algorithm, runs, step_ratio, failures),
        )
        for algorithm, found in runs.items()
    }
    return track.scored(
        scores=seeds.values({algorithm: one.overall for algorithm, one in measured.items()}),
        table=tables.table(benchmark, measured, times),
        charts=tables.charts(benchmark, settings, measured, times),
        conditions={
            **training_conditions(benchmark, trained, [benchmark.first], every_seed=True),
            "network": benchmark.first.network,
            **tables.conditions(settings, measured, times),
        },
        notes=[
            *tables.notes(benchmark, settings, measured, times),
            *seeds.below_zero((result for one in measured.values() for result in one.completed), track.metric),
        ],
        failures=failures,
        complete=any(set(grid.GRIDS[name]) <= set(settings) for name in grid.WHOLE),
    )


def _times(benchmark: ResolvedBenchmark, store: RunStore, failures: list[str]) -> Retiming | None:
    """The interleaved step times; None without any, and where some algorithms lack."""
    try:
        found = retiming.read(retiming.path(store.root, benchmark.first))
    except RecordError as error:
        failures.append(str(error))
        return None
    if found is not None and (lacking := found.lacks(benchmark.all_algorithms)):
        failures.append(
            f"The interleaved step times lack {', '.join(lacking)}, so those of the runs are used: bibench training "
            "--retime times all of them."
        )
        return None
    return found


def _machines(store: RunStore, results: Iterable[RunResult | None]) -> dict[str, dict[str, Any]]:
    """The machine and the packages of each run, by the run's id."""
    return {
        one.run_id: environment.of_times(records.read_envelope(store.folder(one.spec) / "result.json")["environment"])
        for one in filter(None, results)
    }


def _ratios(runs: _Runs, times: Retiming | None, machines: Mapping[str, Any]) -> _StepRatio:
    """A function of an algorithm and the indices of seeds: the step time beside that of full precision.

    It is that of the interleaved rounds, or of runs with the same setting and seed on the same machine.
    """
    if times is not None:
        return lambda algorithm, chosen: ratio(times.times.rounds_ms, algorithm)
    return lambda algorithm, chosen: tables.ratio_of_runs(runs[algorithm], runs[BASELINE], chosen, machines)


def _overall(
    benchmark: ResolvedBenchmark,
    algorithm: str,
    runs: _Runs,
    step_ratio: _StepRatio,
    failures: list[str],
) -> Estimate | None:
    # A setting that diverged leaves the spread over the others, which would flatter the algorithm: no score then.
    needed = [one for key in (algorithm, BASELINE) for of_seeds in runs[key] for one in of_seeds]

    def metric(chosen: Sequence[int]) -> float:
        beside = step_ratio(algorithm, chosen)
        if beside is None:
            raise metrics.Undefined(
                "no run with a known step time that was trained on the same machine and with the same options as that "
                "of full precision; its training may be shorter than the warm-up. bibench training --retime times all."
            )
        accuracies_fp, accuracies = (
            [seeds.mean_accuracy(of_seeds, chosen) for of_seeds in runs[key]] for key in (BASELINE, algorithm)
        )
        return metrics.om_train([1.0], [beside.median], accuracies_fp, accuracies)

    return seeds.score(benchmark, needed, metric, failures, algorithm)
