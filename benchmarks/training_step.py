"""The time of a training step: each algorithm against full precision, Larq's own quantizers and plain PyTorch.

One step is forward, backward and an Adam update of one batch that is in memory already; the input pipeline is left
out (`input_pipeline.py` measures it). All networks are interleaved in each round, in one process, so that other work on
the computer affects all alike. A time is the median of its rounds, a ratio the median of the ratios of the rounds, with
the quartiles as its spread.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --algorithm bnn,recu --batch-size 64 --rounds 10 --csv steps.csv
    python benchmarks/training_step.py --network vgg_small --rounds 7 --no-larq
    python benchmarks/training_step.py --network ssd_lite --data canvas_mini --batch-size 16
    python benchmarks/training_step.py --torch         (ResNet-20 only; needs PyTorch, which is no dependency)
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import pandas as pd
from tqdm import tqdm

from bibench_tf import datasets, networks
from bibench_tf.names import BASELINE, BIBENCH
from bibench_tf.training import step_timing

LARQ = "larq"


@click.command()
@click.option("--network", default="resnet20", show_default=True, metavar="NETWORK[@WIDTH]")
@click.option("--data", "dataset", metavar="NAME", help="Take the batch from it; Larq and PyTorch are left out.")
@click.option("--size", type=click.IntRange(min=8), default=32, show_default=True, help="Height and width of images.")
@click.option("--classes", type=click.IntRange(min=2), default=10, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--algorithm", "algorithms", default=",".join(BIBENCH), show_default=True)
@click.option("--rounds", type=click.IntRange(min=2), default=15, show_default=True)
@click.option("--larq/--no-larq", "with_larq", default=True, help="Also Larq's stock quantizers.")
@click.option("--torch", "with_torch", is_flag=True, help="Also the same network in plain PyTorch.")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path))
def main(network, dataset, size, classes, batch_size, algorithms, rounds, with_larq, with_torch, csv_file) -> None:
    """Print the table, and write it where asked."""
    # TensorFlow warns of the graphs that many networks have to trace.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if with_torch and (network, dataset, size, classes) != ("resnet20", None, 32, 10):
        raise click.UsageError("--torch has ResNet-20 for 32 x 32 and ten classes only.")
    names = [BASELINE, *algorithms.split(",")]
    progress = partial(tqdm, unit="round", file=sys.stderr)
    if dataset:
        data = datasets.get(dataset).for_network(networks.parse(network)[0])
        steps = step_timing.Steps(network, batch_size)
        rounds_ms = step_timing.measure(names, data, steps, rounds=rounds, progress=progress).rounds_ms
    else:
        random = np.random.default_rng(0)
        images = random.standard_normal((batch_size, size, size, 3), dtype=np.float32)
        labels = random.integers(0, classes, batch_size)
        names += [LARQ] if with_larq else []
        steps = {name: network_step(network, name, classes, images, labels) for name in names}
        if with_torch:
            steps |= {f"torch {name}": torch_step(name, images, labels) for name in names if name != LARQ}
        rounds_ms = step_timing.measure_steps(steps, rounds, progress)
    table = compare(rounds_ms, names)
    batch = f"batch {batch_size} {f'of {dataset}' if dataset else f'of {size} x {size}'}"
    click.echo(f"{network}, {batch}, {rounds} rounds, Adam, no input pipeline")
    click.echo(table.to_string(index=False, float_format="{:.2f}".format, na_rep=""))
    if csv_file:
        conditions = {"network": network, **({"dataset": dataset} if dataset else {"size": size})}
        table.assign(**conditions, batch_size=batch_size, rounds=rounds).to_csv(csv_file, index=False)


def network_step(network: str, algorithm: str, classes: int, images: np.ndarray, labels: np.ndarray) -> Callable:
    """A training step of a network of the zoo; `larq` takes Larq's stock quantizers and activation."""
    name, width = networks.parse(network)
    options = {"input_shape": images.shape[1:], "num_classes": classes, "width": width}
    if algorithm == LARQ:
        import larq

        options["activation"] = larq.activations.hard_tanh
    model = networks.build(name, larq_algorithm() if algorithm == LARQ else algorithm, **options)
    return step_timing.step_on(step_timing.training_function(model), images, labels)


def larq_algorithm():
    """A network as Larq's own documentation builds it: QuantConv2D with ste_sign on both sides."""
    import larq

    from bibench_tf.algorithms import Algorithm

    class Stock(Algorithm):
        key, title, paper = LARQ, "Larq", "arXiv:1602.02830"

        def conv2d(self, filters, kernel_size, strides=1, padding="same", use_bias=False, name=None, **options):
            return larq.layers.QuantConv2D(
                filters,
                kernel_size,
                strides=strides,
                padding=padding,
                use_bias=use_bias,
                input_quantizer="ste_sign",
                kernel_quantizer="ste_sign",
                kernel_constraint="weight_clip",
                name=name,
                **options,
            )

    return Stock()


def torch_step(algorithm: str, images: np.ndarray, labels: np.ndarray) -> Callable:
    """A training step of the same network in PyTorch, eager, with as many threads as it takes by itself."""
    import torch
    from torch_resnet20 import resnet20

    model = resnet20(algorithm)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def compare(rounds_ms: dict[str, tuple[float, ...]], names: list[str]) -> pd.DataFrame:
    """A row for each algorithm: its time, and its ratios to full precision and to PyTorch."""
    rows = []
    for name in names:
        row = {"algorithm": name, "step (ms)": statistics.median(rounds_ms[name])}
        for title, other in (("to full precision", BASELINE), ("to PyTorch", f"torch {name}")):
            if other in rounds_ms:
                ratio = step_timing.ratio(rounds_ms, name, other)
                row |= {title: ratio.median, f"{title}, low": ratio.low, f"{title}, high": ratio.high}
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
