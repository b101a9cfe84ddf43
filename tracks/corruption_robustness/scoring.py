"""The score of the robustness track, from the records beside the main runs on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf import corruptions
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.results import records
from bibench_tf.stats import bootstrap, metrics
from bibench_tf.tracks.corruption_robustness import resampling, tables
from bibench_tf.tracks.corruption_robustness.record import (
    CLEAN,
    FILE,
    MADE,
    Robustness,
    keys_of,
    read,
    settings,
    source,
)
from bibench_tf.tracks.shared.conditions import read_results, training_conditions

if TYPE_CHECKING:
    from bibench_tf.results.runs import RunResult, RunSpec, RunStore
    from bibench_tf.tracks.corruption_robustness import CorruptionRobustness, Options


def score(track: CorruptionRobustness, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
    """OM_robust of each algorithm from the records beside the main runs; nothing is measured here.

    Raises NewerRecordError for a record of a newer version.
    """
    failures: list[str] = []
    notes: list[str] = []
    setup, options = track.setup(benchmark), benchmark.options(track.name)
    specs = benchmark.specs(setup)
    results = read_results(store, specs, failures)
    measured = _comparable(benchmark, options, store, specs, results, failures)
    accuracies = {
        algorithm: {name: record.accuracies(name, options.versions) for name in options.corruptions}
        for algorithm, record in measured.items()
    }
    values = _overall(benchmark, measured, accuracies, notes)
    certain = _certainty(benchmark, options, measured, notes)
    notes += _notes(setup.label, options, measured, certain)
    images = next((record.images for record in measured.values()), options.images)
    examples = next((result.dataset["test_examples"] for result in results.values() if result), None)
    return track.scored(
        scores={algorithm: values[algorithm].get(resampling.OM) for algorithm in benchmark.all_algorithms},
        table=tables.table(benchmark.all_algorithms, options.corruptions, measured, accuracies, values, certain),
        charts=tables.charts(measured, accuracies, values, certain),
        conditions={
            **training_conditions(benchmark, list(results.values()), [setup]),
            "network": setup.network,
            "test images": "all" if images is None else f"the first {images:,}, clean and corrupted",
            "corruptions": ", ".join(options.corruptions),
            "corrupted images": _SOURCES[source(options)].format(options.severity_table),
            **({"noise seed": str(benchmark.seed)} if options.source == MADE else {}),
            **{f"version of {name}": version for name, version in options.versions.items()},
            "intervals": f"{bootstrap.LEVEL * 100:g} %, paired bootstrap over the test images, {bootstrap.RESAMPLES:,} "
            f"resamples, percentiles, seed {benchmark.seed}",
        },
        notes=notes,
        failures=failures,
        # A folder may be the authors' or one of `bibench corrupt`; only TensorFlow Datasets vouches for its images.
        complete=options.source == "tfds"
        and set(corruptions.names("standard")) <= set(options.corruptions)
        and images == examples,
    )


_SOURCES = {
    MADE: "made on the fly at the severities of the table {}",
    "tfds": "the published set, prepared by TensorFlow Datasets",
    "folder": "arrays of a folder in the layout of CIFAR-10-C",
}


def _comparable(
    benchmark: ResolvedBenchmark,
    options: Options,
    store: RunStore,
    specs: Mapping[str, RunSpec],
    results: Mapping[str, RunResult | None],
    failures: list[str],
) -> dict[str, Robustness]:
    """The complete records of networks that saw the same images; any other becomes a sentence in `failures`."""
    measured: dict[str, Robustness] = {}
    for algorithm, result in results.items():
        if result is None:
            continue
        try:
            record = _measured(benchmark, options, store, specs[algorithm], result)
        except records.NewerRecordError:
            raise
        except BibenchError as error:
            failures.append(str(error))
            continue
        first = next(iter(measured.values()), record)
        differing = [
            key
            for key in (CLEAN, *keys_of(options.corruptions, options.versions))
            if (first.answers[key].images, first.answers[key].labels)
            != (record.answers[key].images, record.answers[key].labels)
        ]
        if differing:
            failures.append(
                f"{algorithm} saw other images than {next(iter(measured))} ({differing[0]}): remove "
                f"{store.folder(specs[algorithm]) / FILE} and those of the other networks, and measure again."
            )
            continue
        measured[algorithm] = record
    return measured


def _measured(
    benchmark: ResolvedBenchmark, options: Options, store: RunStore, spec: RunSpec, result: RunResult
) -> Robustness:
    """The complete record beside a run; raises BibenchError saying why there is none."""
    path = store.folder(spec) / FILE
    record = read(path)
    if record is None:
        raise BibenchError(f"The robustness of {spec.algorithm} has not been measured.")
    if record.settings != settings(options, benchmark.seed, spec, result):
        raise BibenchError(f"{path} was measured under other settings; it is not scored.")
    missing = record.lacks(options.corruptions, options.versions)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BibenchError(f"The robustness of {spec.algorithm} to {shown} has not been measured.")
    return record


def _overall(
    benchmark: ResolvedBenchmark,
    measured: Mapping[str, Robustness],
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    notes: list[str],
) -> dict[str, dict[str, Any]]:
    """By algorithm its gaps, and OM_robust, mCE and relative mCE against full precision where they have a value."""
    values: dict[str, dict[str, Any]] = {algorithm: {} for algorithm in benchmark.all_algorithms}

    def add(algorithm: str, name: str, compute: Callable[[], Any]) -> None:
        try:
            values[algorithm][name] = compute()
        except metrics.Undefined as error:
            notes.append(f"{algorithm} has no {name}: {error}")

    for algorithm, record in measured.items():
        add(algorithm, "gaps", partial(_gaps, record.clean_accuracy, accuracies[algorithm]))
    if BASELINE not in measured:
        notes.append("Without the full-precision network there is nothing to compare with: no scores.")
        return values
    errors = {
        algorithm: {name: [1 - accuracy for accuracy in row] for name, row in rows.items()}
        for algorithm, rows in accuracies.items()
    }
    clean_errors = {algorithm: 1 - record.clean_accuracy for algorithm, record in measured.items()}
    clean, reference, gaps = clean_errors[BASELINE], errors[BASELINE], values[BASELINE].get("gaps")
    relative = metrics.relative_mean_corruption_error
    for algorithm, own in errors.items():
        if gaps is not None and "gaps" in values[algorithm]:
            add(algorithm, resampling.OM, partial(metrics.om_robust, gaps, values[algorithm]["gaps"]))
        add(algorithm, resampling.MCE, partial(metrics.mean_corruption_error, own, reference))
        add(algorithm, resampling.RELATIVE_MCE, partial(relative, clean_errors[algorithm], own, clean, reference))
    return values


def _gaps(clean_accuracy: float, accuracies: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: metrics.generalization_gap(clean_accuracy, float(np.mean(row))) for name, row in accuracies.items()}


def _certainty(
    benchmark: ResolvedBenchmark, options: Options, measured: Mapping[str, Robustness], notes: list[str]
) -> resampling.Certainty:
    """The bootstrap's intervals and ranks; empty without records, and where answers cannot be matched to images."""
    if not measured:
        return resampling.Certainty()
    first = next(iter(measured.values()))
    orders = {first.answers[key].labels for key in keys_of(options.corruptions, options.versions)}
    if len(orders) > 1:
        notes.append("The corrupted sets hold the images in different orders: there are no intervals and ranks.")
        return resampling.Certainty()
    paired = orders == {first.answers[CLEAN].labels}
    if not paired:
        notes.append(
            "The corrupted images have an order of their own: clean and corrupted images are drawn apart in the "
            "intervals, and are different ones where not all test images are used."
        )
    clean = np.stack([record.right(CLEAN) for record in measured.values()], axis=1)
    corrupted = np.stack(
        [[record.right(key) for key in keys_of(options.corruptions, options.versions)] for record in measured.values()]
    )  # [A, C * S, N]
    shape = (len(measured), len(options.corruptions), len(corruptions.SEVERITIES), first.images)
    return resampling.certainty(
        list(measured),
        options.corruptions,
        clean,
        np.moveaxis(corrupted.reshape(shape), -1, 0),
        paired=paired,
        seed=benchmark.seed,
    )


def _notes(
    dataset: str, options: Options, measured: Mapping[str, Robustness], certain: resampling.Certainty
) -> list[str]:
    published = corruptions.names("standard") + corruptions.names("extra")
    covered = f"{len({*options.corruptions}.intersection(published))} of the {len(published)} corruptions of CIFAR-10-C"
    origin = {
        MADE: f"made on the fly from test images of {dataset}",
        "tfds": "on the published images",
        "folder": "on the images of a folder, which are taken for what they are called",
    }
    notes = [
        f"BiBench scores the published CIFAR-10-C; this covers {covered}, {origin[source(options)]}.",
        "The gap of a corruption is taken from its mean accuracy over the five severities: at a single mild "
        "severity a network often loses nothing, and the ratio would have no value.",
        "mCE and relative mCE are errors, less is better; their baseline is the full-precision network of this "
        "benchmark, which has 100 %, and not the AlexNet of the ImageNet-C paper.",
    ]
    if not certain.intervals:
        return notes
    notes.append(
        "Ranks are the places a network may hold: two differ significantly only where a paired bootstrap of their "
        f"difference, over all pairs at once, is certain at {bootstrap.LEVEL * 100:g} %. The images vary in it, the "
        "training does not: another seed gives other networks."
    )
    if BASELINE in measured:
        notes.append(_against_baseline(certain, [key for key in measured if key != BASELINE]))
    return notes


def _against_baseline(certain: resampling.Certainty, algorithms: Sequence[str]) -> str:
    """The algorithms that lose a smaller, a larger, or not a significantly different share than full precision."""
    groups: dict[str, list[str]] = {"smaller": [], "larger": [], "open": []}
    for algorithm in algorithms:
        groups[certain.against_baseline.get(algorithm, "open")].append(algorithm)
    named = {group: ", ".join(names) or "none" for group, names in groups.items()}
    return (
        "The share of the clean accuracy that is lost (mean gap), against full precision: smaller for "
        f"{named['smaller']}; larger for {named['larger']}; not significantly different: {named['open']}."
    )
