"""Images per second of the input pipeline, of training steps without it, and of training steps with it.

Without it means one batch that stays in memory. With it, every step waits for a new batch, decoded or gathered,
augmented and normalised. The three are interleaved in each round, so that other work on the computer affects all alike.
The steps are those of the full-precision network, the fastest one: if it does not wait, no binarized network does.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --data fashion_mini,cifar10 --data-dir ~/tensorflow_datasets
    python benchmarks/input_pipeline.py --data canvas_mini --network ssd_lite --batch-size 16
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pandas as pd
from tqdm import tqdm

from bibench_tf import datasets, networks, tasks
from bibench_tf.datasets import Dataset
from bibench_tf.names import BASELINE
from bibench_tf.training import step_timing

# The batches that a pipeline has ready when its turn starts are taken before the clock starts.
READY_BATCHES = 6


@click.command()
@click.option("--data", "names", default="fashion_mini", show_default=True, metavar="A,B,..")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where TensorFlow Datasets keeps prepared data.")
@click.option("--network", default="resnet20", show_default=True, metavar="NETWORK[@WIDTH]")
@click.option("--algorithm", default=BASELINE, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--batches", type=click.IntRange(min=1), default=10, show_default=True, help="Batches of a turn.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path))
def main(names, data_dir, network, algorithm, batch_size, batches, rounds, csv_file) -> None:
    """Print the table, and write it where asked."""
    rows = []
    for name in names.split(","):
        data = datasets.get(name, data_dir).for_network(networks.parse(network)[0])
        turns = turns_of(data, network, algorithm, batch_size)
        rows.append({"dataset": name, **compare(measure(turns, batches, rounds), batches * batch_size)})
    table = pd.DataFrame(rows)
    click.echo(f"{network} {algorithm}, batch {batch_size}, {rounds} rounds of {batches} batches; images per second")
    click.echo(table.to_string(index=False, float_format="{:.3g}".format))
    if csv_file:
        table.assign(network=network, algorithm=algorithm, batch_size=batch_size, rounds=rounds).to_csv(
            csv_file, index=False
        )


def turns_of(data: Dataset, network: str, algorithm: str, batch_size: int) -> dict[str, Callable[[int], float]]:
    """Functions that handle a number of batches and return the seconds that took."""
    model = step_timing.trained_graph(network, algorithm, data)
    train = step_timing.training_function(model, loss=tasks.get(data.task).loss(data))
    stream, other_stream = endless(data, batch_size), endless(data, batch_size)
    x, y = next(stream)

    def pipeline(batches):
        skip(stream)
        return seconds(lambda: [next(stream) for _ in range(batches)])

    def without(batches):
        train(x, y)
        return seconds(lambda: [train(x, y) for _ in range(batches)])

    def with_pipeline(batches):
        skip(other_stream)
        train(x, y)
        return seconds(lambda: [train(*next(other_stream)) for _ in range(batches)])

    return {"pipeline": pipeline, "without": without, "with": with_pipeline}


def endless(data: Dataset, batch_size: int) -> Iterator:
    """Training batches, epoch after epoch."""
    task = tasks.get(data.task)
    for epoch in itertools.count():
        yield from task.training_batches(data.train_batches(batch_size, seed=0, epoch=epoch, augment=True))


def skip(stream: Iterator) -> None:
    """Take the batches that are ready."""
    for _ in range(READY_BATCHES):
        next(stream)


def seconds(function: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(turns: dict[str, Callable[[int], float]], batches: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn, one value for each round; the first round, which builds graphs, is not counted."""
    found = {name: [] for name in turns}
    for number in tqdm(range(rounds + 1), unit="round", file=sys.stderr):
        for name in turns if number % 2 else reversed(turns):
            spent_s = turns[name](batches)
            if number:
                found[name].append(spent_s)
    return found


def compare(spent_s: dict[str, list[float]], images: int) -> dict[str, float]:
    """Images per second, the speed of the pipeline relative to steps, and the step time with it relative to without."""
    row = {f"{name} (images/s)": pd.Series(times).rdiv(images).median() for name, times in spent_s.items()}
    for title, name, other in (
        ("pipeline / steps", "without", "pipeline"),
        ("step with / without", "with", "without"),
    ):
        ratio = step_timing.ratio(spent_s, name, other)
        row |= {title: ratio.median, f"{title}, low": ratio.low, f"{title}, high": ratio.high}
    return row


if __name__ == "__main__":
    main()
