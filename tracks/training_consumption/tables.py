"""The table, the charts and the notes of the training track."""

from __future__ import annotations

import statistics as plain
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.report.scores import Chart
from bibench_tf.results.runs import RunResult
from bibench_tf.stats import intervals, metrics
from bibench_tf.stats.intervals import Estimate
from bibench_tf.tracks.shared import seeds
from bibench_tf.tracks.shared.conditions import metric_of
from bibench_tf.tracks.training_consumption.retiming import Retiming
from bibench_tf.training.step_timing import Ratio

METRIC = metrics.OM_TRAIN.name


@dataclass(frozen=True)
class Measured:
    """The values of one algorithm: its runs by setting and seed, its step time beside full precision, its score."""

    runs: Sequence[Sequence[RunResult | None]]
    ratio: Ratio | None
    overall: Estimate | None

    @property
    def completed(self) -> list[RunResult]:
        """The results of the runs that completed."""
        return [one for of_seeds in self.runs for one in of_seeds if one]

    @property
    def accuracies(self) -> np.ndarray | None:
        """Accuracies in percent [settings, seeds]; None unless every run completed."""
        if not all(one for of_seeds in self.runs for one in of_seeds):
            return None
        return 100 * np.array([[one.accuracy for one in of_seeds] for of_seeds in self.runs])

    @property
    def spread(self) -> intervals.Spread | None:
        """The spread over settings apart from that over seeds, in points; None where they cannot be separated."""
        accuracies = self.accuracies
        return None if accuracies is None or min(accuracies.shape) < 2 else intervals.spread(accuracies)


def ratio_of_runs(
    runs: Sequence[Sequence[RunResult | None]],
    baseline: Sequence[Sequence[RunResult | None]],
    chosen: Sequence[int],
    machines: Mapping[str, Any],
) -> Ratio | None:
    """Median and quartiles of the step time beside that of full precision with the same setting and seed.

    Both are by setting and seed; `chosen` are the indices of the seeds, `machines` has the machine of each run by the
    run's id. Runs of different machines, or with different options of the session, are no pair. None where no pair of
    runs has a step time.
    """
    ratios = [
        one.train_step_time_ms / other.train_step_time_ms
        for of_seeds, of_baseline in zip(runs, baseline, strict=True)
        for one, other in ((of_seeds[index], of_baseline[index]) for index in chosen)
        if one
        and other
        and one.train_step_time_ms
        and other.train_step_time_ms
        and (one.execution, machines[one.run_id]) == (other.execution, machines[other.run_id])
    ]
    return Ratio.of(ratios) if ratios else None


def table(benchmark: ResolvedBenchmark, measured: Mapping[str, Measured], retiming: Retiming | None) -> pd.DataFrame:
    """A row for each algorithm: what the score is made of, the score, and time, memory and energy of the runs."""
    ranks = seeds.ranks({key: one.overall for key, one in measured.items()}, f"rank by {METRIC}", benchmark)
    rows = []
    for algorithm, one in measured.items():
        row: dict[str, Any] = {
            "algorithm": algorithm,
            "step / full precision": one.ratio and one.ratio.median,
            "lower quartile": one.ratio and one.ratio.low,
            "upper quartile": one.ratio and one.ratio.high,
        }
        row |= seeds.columns("accuracy mean", _mean_accuracy(one), benchmark, unit="%")
        row["spread over settings (points)"] = (
            None if one.accuracies is None or len(one.runs) < 2 else float(one.accuracies.mean(axis=1).std())
        )
        if benchmark.seeds > 1:
            row["settings without seeds (points)"] = one.spread and one.spread.settings
            row["spread over seeds (points)"] = one.spread and one.spread.seeds
        row |= {**seeds.columns(METRIC, one.overall, benchmark), **ranks[algorithm]}
        if retiming is not None:
            row["interleaved step (ms)"] = plain.median(retiming.times.rounds_ms[algorithm])
        row |= {
            "step (ms)": _median(result.train_step_time_ms for result in one.completed),
            "epoch (s)": _median(_epoch_s(result) for result in one.completed),
            "peak process memory (MiB)": _largest(result.peak_process_memory_mib for result in one.completed),
        }
        if _anywhere(measured, "peak_gpu_memory_mib"):
            row["peak GPU memory (MiB)"] = _largest(result.peak_gpu_memory_mib for result in one.completed)
        if _anywhere(measured, "energy_j"):
            row["energy of a run (J)"] = _median(result.energy_j for result in one.completed)
        rows.append({**row, "runs completed": len(one.completed)})
    return pd.DataFrame(rows)


def _anywhere(measured: Mapping[str, Measured], name: str) -> bool:
    """Whether any run knows a value that not every platform provides."""
    return any(getattr(result, name) is not None for one in measured.values() for result in one.completed)


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return plain.median(known) if known else None


def _epoch_s(result: RunResult) -> float | None:
    if result.train_step_time_ms is None:
        return None
    return result.train_step_time_ms * (result.dataset["train_examples"] // result.spec.recipe.batch_size) / 1e3


def _mean_accuracy(one: Measured) -> Estimate | None:
    """Over settings and seeds, with an interval over seeds; over the runs there are, without one, if some lack."""
    if one.accuracies is not None:
        return intervals.mean(one.accuracies.mean(axis=0).tolist())
    found = [100 * result.accuracy for result in one.completed]
    return Estimate(plain.fmean(found)) if found else None


def charts(
    benchmark: ResolvedBenchmark, settings: Sequence[str], measured: Mapping[str, Measured], retiming: Retiming | None
) -> list[Chart]:
    """Accuracy by setting, a dot for each run; step times beside full precision; what spreads accuracy."""
    dots = "" if benchmark.seeds == 1 else f", a dot for each of {benchmark.seeds} seeds"
    known = {algorithm: one.ratio for algorithm, one in measured.items() if one.ratio}
    source = "interleaved rounds" if retiming is not None else "runs"
    drawn = [
        Chart(
            "strip",
            f"Accuracy under each setting{dots}",
            "algorithm",
            f"{metric_of(result for one in measured.values() for result in one.completed)} (%)",
            {
                setting: [
                    (algorithm, 100 * result.accuracy)
                    for algorithm, one in measured.items()
                    for result in one.runs[index]
                    if result
                ]
                for index, setting in enumerate(settings)
            },
        ),
        Chart(
            "bars",
            f"Training step beside full precision: median and quartiles of the {source}",
            "algorithm",
            "step time / full precision's",
            {"step time": [(algorithm, ratio.median) for algorithm, ratio in known.items()]},
            intervals={"step time": [(algorithm, ratio.low, ratio.high) for algorithm, ratio in known.items()]},
        ),
    ]
    if spreads := {algorithm: one.spread for algorithm, one in measured.items() if one.spread}:
        title = "Sources of the spread of accuracy: the setting, and the seed under one setting"
        series = {
            "settings without seeds": [(algorithm, one.settings) for algorithm, one in spreads.items()],
            "seeds": [(algorithm, one.seeds) for algorithm, one in spreads.items()],
        }
        drawn.append(Chart("bars", title, "algorithm", "standard deviation (points)", series))
    return drawn


def conditions(settings: Sequence[str], measured: Mapping[str, Measured], retiming: Retiming | None) -> dict[str, str]:
    """The grid, the way of timing steps, and the values that the platform does not provide."""
    found = {"settings": ", ".join(settings), "step times": "of the runs, one after the other"}
    if retiming is not None:
        found["step times"] = (
            f"all algorithms interleaved in one process, {retiming.rounds} rounds, batch {retiming.times.batch_size}, "
            f"{retiming.times.optimizer}, without the input pipeline"
        )
    if not _anywhere(measured, "energy_j"):
        found["energy"] = "not measured: the platform does not show the counters of its processors"
    return found


def notes(
    benchmark: ResolvedBenchmark, settings: Sequence[str], measured: Mapping[str, Measured], retiming: Retiming | None
) -> list[str]:
    """Notes for the reader of the table."""
    if retiming is None:
        times = (
            "Step times are those of the runs, without evaluation, checkpoints, pauses and the first steps of a "
            "process; the ratio is the median over pairs of runs with the same setting and seed. Runs follow one "
            "another, so other load on the machine while one of them trained shows in it: bibench training --retime "
            "times all algorithms interleaved."
        )
    else:
        times = (
            f"The score takes the interleaved step times: the median of {retiming.rounds} rounds' "
            "ratios, beside it their quartiles. They are of one batch in memory with the recipe's own optimizer; "
            "weight decay and the input pipeline are not in them. Step and epoch of the runs stand beside them."
        )
    lines = [
        times,
        f"The spread is the standard deviation over {len(settings)} settings, as BiBench's over eight. A network that "
        "stays near chance everywhere has a small one, too: read it next to the accuracies.",
    ]
    if benchmark.seeds == 1:
        lines.append("With one seed, the spread over settings includes that over seeds; they cannot be separated.")
    else:
        lines.append(
            "The score takes the spread over settings of the accuracies averaged over seeds. Part of it is still due "
            "to the seeds: variance components separate the two, the settings without the seeds (0 where seeds "
            "explain everything) and the seeds under one setting."
        )
    recipe = benchmark.first.recipe
    if recipe.epochs == 1 and not recipe.per_step:
        lines.append(
            f"The recipe {recipe.name} changes its rate between epochs and has one epoch: settings that differ in "
            "their schedule alone are the same training."
        )
    lines.append(seeds.note(benchmark, METRIC))
    return lines
