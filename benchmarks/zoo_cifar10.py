"""Small versions of the zoo's networks on CIFAR-10, all with the same budget: accuracy beside size and operations.

Every network has its paper's own binarization, a stem for small images, and the recipe `cifar10_short`, which is far
too short to rank them: the results show that the networks train, and roughly how they compare after a short training.
The script can be interrupted at any time; the same command resumes.

    python benchmarks/zoo_cifar10.py --data-dir ~/tensorflow_datasets --folder zoo_cifar10
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path

import click
import pandas as pd
from tqdm import tqdm

# Builder and options by the name in the table.
NETWORKS = {
    "Bi-Real Net 18, width 1/4": ("birealnet18", {"width": 0.25}),
    "BinaryDenseNet 28, width 1/8": ("binary_densenet28", {"width": 0.125}),
    "MeliusNet 22, width 1/8": ("meliusnet22", {"width": 0.125}),
    "ABC-Net 18 (2 weight bases, 1 activation base), width 1/8": (
        "abc_net",
        {"width": 0.125, "weight_bases": 2, "activation_bases": 1},
    ),
    "Group-Net 18 (2 branches), width 1/8": ("group_net18", {"width": 0.125, "branches": 2}),
}


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where TensorFlow Datasets keeps prepared data.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("zoo_cifar10"))
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(data_dir: Path | None, folder: Path, epochs: int, seed: int) -> None:
    """Train the networks without a result and write `results.csv`."""
    from bibench_tf import complexity, datasets, files, networks, recipes
    from bibench_tf.names import PAPER
    from bibench_tf.training import loop

    data = datasets.get("cifar10", data_dir=data_dir)
    recipe = recipes.get("cifar10_short", epochs=epochs)
    rows = []
    for title, (name, options) in NETWORKS.items():
        build = partial(
            networks.build, name, PAPER, input_shape=data.input_shape, num_classes=data.num_classes, **options
        )
        model = loop.initial_model(build, seed)
        cost = complexity.count(model)
        own = folder / f"{name}-{files.digest([options, dataclasses.asdict(recipe), seed])[:12]}"
        own.mkdir(parents=True, exist_ok=True)
        steps = recipe.epochs * (data.train_examples // recipe.batch_size)
        with tqdm(total=steps, desc=title, unit="step", file=sys.stderr, mininterval=30) as bar:
            progress = loop.train(
                loop.Trainee(model), data, recipe, seed=seed, folder=own, hooks=loop.Hooks(on_step=bar.update)
            )
        rows.append(
            {
                "network": title,
                "builder": name,
                "options": " ".join(f"{key}={value}" for key, value in options.items()),
                "seed": seed,
                "parameters": cost.parameters,
                "size_kib": round(cost.bits / 8 / 1024, 1),
                "binary_macs": cost.macs_binary,
                "float_macs": cost.macs_float,
                **{f"accuracy_epoch{one['epoch']}": round(one["accuracy"], 4) for one in progress.history},
            }
        )
        pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    click.echo(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
