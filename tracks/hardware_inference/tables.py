"""Table, charts, conditions and notes of the inference track, from its records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from bibench_tf import networks, published
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.deploy.targets.record import Latency
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import Chart
from bibench_tf.tasks.classification import TOP1
from bibench_tf.tracks.hardware_inference.record import Inference
from bibench_tf.tracks.shared.conditions import seed_condition, short_name

# By algorithm, then by device.
_Measured = Mapping[str, Mapping[str, Latency]]
_PUBLISHED_SHOWN = 12


def table(
    deployed: Mapping[str, Inference], measured: _Measured, scores: Mapping[str, float | None], metric: str
) -> pd.DataFrame:
    """A row for each network on each device; what holds for the file alone is repeated."""
    baseline = deployed.get(BASELINE)
    metric_name = next((record.parity.metric for record in deployed.values()), TOP1)
    accuracy = f"{short_name(metric_name)} of the file (%)"
    rows = []
    for algorithm, record in deployed.items():
        for target, of_device in measured[algorithm].items():
            latency_ms = of_device.network.latency_ms
            reference = of_device.network if algorithm == BASELINE else of_device.baseline
            baseline_ms = None if reference is None else reference.latency_ms
            rounds = of_device.network.rounds
            slowest_tenth = [each.p90_ms for each in rounds if each.p90_ms is not None]
            rows.append(
                {
                    "algorithm": algorithm,
                    "device": target,
                    metric: scores[algorithm],
                    "latency (ms)": latency_ms,
                    "fastest round (ms)": min(each.latency_ms for each in rounds),
                    "slowest round (ms)": max(each.latency_ms for each in rounds),
                    "90th percentile, worst round (ms)": max(slowest_tenth, default=None),
                    "full precision at the same time (ms)": baseline_ms,
                    "speed-up": None if baseline_ms is None else baseline_ms / latency_ms,
                    "memory (MiB)": of_device.network.peak_memory_mib,
                    "file size (KiB)": record.size_bytes / 1024,
                    "times smaller": baseline.size_bytes / record.size_bytes if baseline else None,
                    "binary layers": record.binary_layers,
                    "run on bits": record.binary_operations,
                    **_agreement(record),
                    "median difference to Keras (ppm of range)": 1e6 * record.parity.median_difference,
                    "largest difference to Keras (ppm of range)": 1e6 * record.parity.largest_difference,
                    accuracy: 100 * record.parity.deployed_accuracy,
                }
            )
    return pd.DataFrame(rows)


def _agreement(record: Inference) -> dict[str, float]:
    share = record.parity.top1_agreement
    return {} if share is None else {"top-1 agreement with Keras (%)": 100 * share}


def charts(
    benchmark: ResolvedBenchmark, deployed: Mapping[str, Inference], measured: _Measured, devices: Sequence[str]
) -> list[Chart]:
    """The latencies on each device, and the sizes of the files."""
    if not deployed:
        return []
    sizes = [(name, record.size_bytes / 1024) for name, record in deployed.items()]
    return [
        *(_latency_chart(benchmark.first.task.unit, deployed, measured, target) for target in devices),
        Chart("bars", "Size of the file", "algorithm", "file size (KiB)", {"the network": sizes}),
    ]


def _latency_chart(example: str, deployed: Mapping[str, Inference], measured: _Measured, target: str) -> Chart:
    here = {name: measured[name][target] for name in deployed if target in measured[name]}
    series = {"the network": [(name, record.network.latency_ms) for name, record in here.items()]}
    if beside := [(name, record.baseline.latency_ms) for name, record in here.items() if record.baseline is not None]:
        series["full precision beside it"] = beside
    name = "this computer" if target == "host" else target
    return Chart("bars", f"Latency of one {example} on {name}", "algorithm", "latency (ms)", series)


def conditions(benchmark: ResolvedBenchmark, deployed: Mapping[str, Inference], measured: _Measured) -> dict[str, str]:
    """The devices, the networks and the way of measuring."""
    by_device: defaultdict[str, list[tuple[str, Latency]]] = defaultdict(list)
    for algorithm in deployed:
        for target, record in measured[algorithm].items():
            by_device[target].append((algorithm, record))
    setup, example = benchmark.first, benchmark.first.task.unit
    stated = {"network": f"{setup.network}, trained on {setup.label}", **seed_condition(benchmark)}
    for target, found in by_device.items():
        stated[f"device: {target}"] = _all_of(_device(record) for _, record in found)
        kernels: defaultdict[str, list[str]] = defaultdict(list, binarized=[])
        for name, record in found:
            kernels["full precision" if name == BASELINE else "binarized"].append(record.network.kernel)
        stated[f"kernels on {target}"] = "; ".join(f"{who}: {_all_of(used)}" for who, used in kernels.items() if used)
        stated[f"measured on {target}"] = _all_of(_settings(record) for _, record in found)
    stated |= {
        "batch": f"1 {example}, float32 {'in and ' if example == 'image' else ''}out",
        "latency": "median over rounds of the median of a round, or of its mean where the device reports no median; "
        "rounds interleaved with the full-precision network, each after a warm-up",
        "parity": _all_of(f"{record.parity.images} test {example}s" for record in deployed.values()),
    }
    return stated


def notes(
    benchmark: ResolvedBenchmark,
    deployed: Mapping[str, Inference],
    measured: _Measured,
    emulated: Mapping[str, Sequence[Latency]],
    devices: Sequence[str],
) -> list[str]:
    """Notes for the reader of the table."""
    shown = [record for algorithm in deployed for record in measured[algorithm].values()]
    lines = list(dict.fromkeys(note for record in shown for note in record.network.notes))
    if len(devices) == 1:
        lines.append("BiBench measures on several devices; this is one.")
    lines += _emulated(emulated)
    for name, record in deployed.items():
        if record.binary_layers not in (None, record.binary_operations):
            lines.append(
                f"{name}: {record.binary_operations} of its {record.binary_layers} binary layers run on "
                "bits, the rest as float."
            )
    return lines + _published(benchmark, deployed)


def _emulated(emulated: Mapping[str, Sequence[Latency]]) -> list[str]:
    names: defaultdict[str, list[str]] = defaultdict(list)
    for algorithm, records in emulated.items():
        for record in records:
            names[record.target].append(algorithm)
    return [
        f"emulated: {', '.join(algorithms)} ran on {target}, an emulator or a stub. Its times say nothing about a "
        "device, so they are neither shown nor scored."
        for target, algorithms in names.items()
    ]


def _published(benchmark: ResolvedBenchmark, deployed: Mapping[str, Inference]) -> list[str]:
    """Latencies that others published for the same network on images of the same size."""
    name, width = networks.parse(benchmark.first.network)
    shapes = {record.input_shape for record in deployed.values()}
    if width != 1 or len(shapes) != 1:
        return []
    lines = []
    for row in published.device_latency(name, shapes.pop())[:_PUBLISHED_SHOWN]:
        threads = "" if row.threads is None else f", {row.threads} thread{'s' * (row.threads != 1)}"
        note = f"; {row.note}" if row.note else ""
        lines.append(
            f"published: {row.network} takes {row.latency_ms:g} ms with {row.library} on {row.device}{threads} "
            f"({row.source}{note})."
        )
    return lines


def _device(record: Latency) -> str:
    device = record.network.device
    chip = f" ({device.chip})" if device.chip else ""
    return f"{device.model}{chip}, {device.cores} cores, {device.abi}, {device.system}"


def _settings(record: Latency) -> str:
    settings = record.network.settings
    cores = "" if settings.cores is None else f", pinned to cores {', '.join(map(str, settings.cores))}"
    return (
        f"{settings.threads} thread{'s' * (settings.threads != 1)}{cores}, {settings.rounds} rounds of at least "
        f"{settings.minimum_runs} runs and {settings.minimum_s:g} s"
    )


def _all_of(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))
