"""Latency of a binarized network against its full-precision version in TensorFlow Lite, float and int8, on this host.

For each algorithm the network is converted to Larq Compute Engine and timed interleaved with the two TensorFlow Lite
files; a ratio is computed within a round, so that other work on the computer affects all files alike. Weights and
inputs are random, because they do not change the time. Nothing is trained.

    python benchmarks/host_latency.py
    python benchmarks/host_latency.py --network resnet20 --size 32 --algorithm bnn,xnor --json ratios.json
"""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import click

from bibench_tf import networks
from bibench_tf.deploy.targets import Measurement, Settings
from bibench_tf.names import BASELINE, BIBENCH


@dataclass(frozen=True)
class Ratios:
    """Latency of the full-precision network over that of the binarized network.

    The ratios are medians over rounds of the round's medians; low and high are the extremes of a round. The ratios of
    the fastest runs are the least disturbed by other programs.
    """

    algorithm: str
    lce_ms: float
    float_ms: float
    int8_ms: float
    float_ratio: float
    float_ratio_low: float
    float_ratio_high: float
    float_ratio_fastest: float
    int8_ratio: float
    int8_ratio_low: float
    int8_ratio_high: float
    int8_ratio_fastest: float
    binary_convolutions: int
    file_kib: float
    memory_mib: float | None


@click.command()
@click.option("--network", default="resnet18", show_default=True, metavar="NETWORK[@WIDTH]")
@click.option("--size", type=click.IntRange(min=8), default=224, show_default=True, help="Height and width of images.")
@click.option("--classes", type=click.IntRange(min=2), default=1000, show_default=True)
@click.option("--algorithm", "algorithms", default=",".join(BIBENCH), show_default=True, metavar="A,B")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--runs", type=click.IntRange(min=1), default=20, show_default=True, help="Minimum inferences of a round."
)
@click.option("--profile", is_flag=True, help="Also measure the time by kind of operation.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path))
def main(network, size, classes, algorithms, threads, rounds, runs, profile, json_file, csv_file) -> None:
    """Print the table, and write it where asked."""
    from bibench_tf import zoo
    from bibench_tf.deploy import flatbuffer
    from bibench_tf.deploy.conversion import Converter, baselines
    from bibench_tf.deploy.targets.host import HostTarget
    from bibench_tf.results import environment

    name, width = networks.parse(network)

    def build(algorithm: str):
        return zoo.build(name, algorithm=algorithm, input_shape=(size, size, 3), num_classes=classes, width=width)

    settings = Settings(threads=threads, warm_up_s=0.2, minimum_runs=runs, minimum_s=0.2, rounds=rounds)
    references = baselines(build(BASELINE))
    table, kinds = [], {}
    target = HostTarget()
    try:
        with Converter() as converter:
            for algorithm in algorithms.split(","):
                content = converter.convert(build(algorithm), "lce")
                measured = target.measure({"lce": content, **references}, settings)
                table.append(ratios(algorithm, measured, content, flatbuffer))
                click.echo(line(table[-1]), err=True)
                if profile:
                    profiled = target.measure({algorithm: content}, dataclasses.replace(settings, profile=True))
                    kinds[algorithm] = by_kind(profiled[algorithm])
    finally:
        target.close()
    machine = environment.describe()
    conditions = {
        "network": f"{network} at {size}x{size}x3, {classes} classes, batch 1, {threads} thread{'s' * (threads != 1)}",
        "computer": f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        "kernels": f"{measured['lce'].kernel}; {measured['float'].kernel}",
        "rounds": f"{rounds} of at least {runs} inferences of each file, interleaved",
    }
    click.echo("\n".join(f"{key}: {value}" for key, value in conditions.items()))
    click.echo(HEADER)
    for row in table:
        click.echo(line(row))
    for algorithm, times in kinds.items():
        click.echo(f"{algorithm}: " + ", ".join(f"{kind} {ms:.2f} ms" for kind, ms in times.items()))
    if json_file is not None:
        rows = [dataclasses.asdict(row) for row in table]
        json_file.write_text(json.dumps({"conditions": conditions, "rows": rows, "by_kind_ms": kinds}, indent=1) + "\n")
    if csv_file is not None:
        with open(csv_file, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [field.name for field in dataclasses.fields(Ratios)])
            writer.writeheader()
            writer.writerows(dataclasses.asdict(row) for row in table)


def ratios(algorithm: str, measured: dict[str, Measurement], content: bytes, flatbuffer) -> Ratios:
    """One row: ratios are computed within a round, in which the files share the conditions."""
    by_round = {
        kind: [
            theirs.p50_ms / ours.p50_ms
            for theirs, ours in zip(measured[kind].rounds, measured["lce"].rounds, strict=True)
        ]
        for kind in ("float", "int8")
    }
    fastest_ms = {kind: min(each.min_ms for each in measurement.rounds) for kind, measurement in measured.items()}
    return Ratios(
        algorithm=algorithm,
        lce_ms=measured["lce"].latency_ms,
        float_ms=measured["float"].latency_ms,
        int8_ms=measured["int8"].latency_ms,
        float_ratio=statistics.median(by_round["float"]),
        float_ratio_low=min(by_round["float"]),
        float_ratio_high=max(by_round["float"]),
        float_ratio_fastest=fastest_ms["float"] / fastest_ms["lce"],
        int8_ratio=statistics.median(by_round["int8"]),
        int8_ratio_low=min(by_round["int8"]),
        int8_ratio_high=max(by_round["int8"]),
        int8_ratio_fastest=fastest_ms["int8"] / fastest_ms["lce"],
        binary_convolutions=flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION],
        file_kib=len(content) / 1024,
        memory_mib=measured["lce"].peak_memory_mib,
    )


def by_kind(measurement: Measurement) -> dict[str, float]:
    """Milliseconds by kind of operation, the longest first."""
    times: dict[str, float] = {}
    for operation in measurement.operations:
        times[operation.kind] = times.get(operation.kind, 0.0) + operation.mean_ms
    return dict(sorted(times.items(), key=lambda item: -item[1]))


HEADER = (
    f"{'algorithm':<12}{'LCE ms':>9}{'float ms':>10}{'int8 ms':>9}"
    f"{'float / LCE':>24}{'fastest':>9}{'int8 / LCE':>24}{'fastest':>9}{'binary':>8}{'MiB':>7}"
)


def line(row: Ratios) -> str:
    """A row as text."""
    float_ratio = f"{row.float_ratio:.2f} ({row.float_ratio_low:.2f} to {row.float_ratio_high:.2f})"
    int8_ratio = f"{row.int8_ratio:.2f} ({row.int8_ratio_low:.2f} to {row.int8_ratio_high:.2f})"
    memory = "" if row.memory_mib is None else f"{row.memory_mib:.1f}"
    return (
        f"{row.algorithm:<12}{row.lce_ms:>9.2f}{row.float_ms:>10.2f}{row.int8_ms:>9.2f}"
        f"{float_ratio:>24}{row.float_ratio_fastest:>9.2f}{int8_ratio:>24}{row.int8_ratio_fastest:>9.2f}"
        f"{row.binary_convolutions:>8}{memory:>7}"
    )


if __name__ == "__main__":
    main()
