"""The score of the inference track, from the records beside the main runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.track import Track
from bibench_tf.deploy.targets import record as latencies
from bibench_tf.deploy.targets.record import Latency
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.results.records import RecordError
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.stats import metrics
from bibench_tf.tracks.hardware_inference import tables
from bibench_tf.tracks.hardware_inference.record import (
    Inference,
    Missing,
    Parity,
    conditions_of,
    deployed,
    expected_latency,
)


def score(track: Track, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
    """OM_infer of each algorithm over all devices that have records beside the main runs; nothing is measured here.

    An algorithm that lacks one of the devices the others were measured on has no score. Emulated devices have no part
    in it. Raises NewerRecordError for records of a newer version.
    """
    specs = benchmark.specs(benchmark.first)
    files: dict[str, Inference] = {}
    failures: list[str] = []
    for algorithm, spec in specs.items():
        try:
            files[algorithm] = deployed(store, spec)
        except (RecordError, Missing) as error:
            failures.append(f"{algorithm}: {error}")
    emulated: dict[str, list[Latency]] = {}
    measured: dict[str, dict[str, Latency]] = {}
    first: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for algorithm in files:
        found = _on_devices(store, specs[algorithm], files, algorithm, first, failures)
        emulated[algorithm] = [record for record in found.values() if record.emulated]
        measured[algorithm] = {target: record for target, record in found.items() if not record.emulated}
    devices = list(dict.fromkeys(target for of_devices in measured.values() for target in of_devices))
    scores: dict[str, float | None] = dict.fromkeys(specs)
    for algorithm, record in files.items():
        try:
            scores[algorithm] = _score(record, files.get(BASELINE), measured[algorithm], devices)
        except (Missing, metrics.Undefined) as error:
            failures.append(f"{algorithm}: {error}")
    shown = {algorithm: record for algorithm, record in files.items() if measured[algorithm]}
    return track.scored(
        scores=scores,
        table=tables.table(shown, measured, scores, track.metric),
        charts=tables.charts(benchmark, shown, measured, devices),
        conditions=tables.conditions(benchmark, shown, measured),
        notes=tables.notes(benchmark, shown, measured, emulated, devices),
        failures=list(dict.fromkeys(failures)),
        complete=len(devices) > 1,
    )


def _on_devices(
    store: RunStore,
    spec: RunSpec,
    files: Mapping[str, Inference],
    algorithm: str,
    first: dict[str, tuple[str, tuple[Any, ...]]],
    failures: list[str],
) -> dict[str, Latency]:
    """The usable device records beside a run, by device; the others become sentences in `failures`.

    `first` has, by target, the first algorithm with a record and the conditions of its measurement, which those of the
    other algorithms have to equal.
    """
    found = {}
    for path in latencies.files(store.folder(spec)):
        try:
            record = latencies.read(path)
        except RecordError as error:
            failures.append(f"{algorithm}: {error} Measure again on that target.")
            continue
        if record.settings != expected_latency(spec, files, record.target).settings:
            failures.append(f"{algorithm}: {path} was measured with other files: measure again on {record.target}.")
            continue
        if record.error is not None:
            failures.append(f"{algorithm} on {record.target}: {record.error}")
            continue
        other, conditions = first.setdefault(record.target, (algorithm, conditions_of(path, record)))
        if conditions_of(path, record) != conditions:
            failures.append(
                f"{algorithm}: {path} was measured on another device, with other settings or with another program than "
                f"{other}: measure again on {record.target}."
            )
        else:
            found[record.target] = record
    return dict(sorted(found.items(), key=lambda item: (item[0] != "host", item[0])))


def _score(
    record: Inference,
    baseline: Inference | None,
    measured: Mapping[str, Latency],
    devices: list[str],
) -> float:
    if not record.parity.same:
        raise Missing(f"the file does not compute what the trained network does: {_apart(record.parity)}.")
    if not devices:
        raise Missing("its latency is not measured on any device yet.")
    lacking = [target for target in devices if target not in measured]
    if lacking:
        raise Missing(
            f"not measured on {', '.join(lacking)}, where other networks are: a score over fewer devices would not "
            "compare. Measure it there, or delete their records of that device."
        )
    if baseline is None:
        raise Missing("there is no full-precision network to compare with.")
    sizes = [float(baseline.size_bytes)] * len(devices), [float(record.size_bytes)] * len(devices)
    records_of = [measured[target] for target in devices]
    times = [each.network.latency_ms for each in records_of]
    # Of the full-precision network itself there is no second measurement.
    times_fp = [(each.baseline or each.network).latency_ms for each in records_of]
    return metrics.om_infer(times_fp, times, *sizes)


def _apart(parity: Parity) -> str:
    """The difference between Keras and the file, in words."""
    if not math.isfinite(parity.largest_difference):
        return "outputs are missing or not finite numbers"
    share = parity.top1_agreement
    agreement = "" if share is None else f", and they agree on {100 * share:.0f} % of the classes"
    return (
        f"outputs differ by {100 * parity.median_difference:.1f} % of their spread (median of the test examples)"
        f"{agreement}"
    )
