"""The command `bibench corrupt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bibench_tf import terminal
from bibench_tf.benchmark.spec import LAST_SEED
from bibench_tf.cli.options import DATA_DIR, DOWNLOAD, QUIET
from bibench_tf.cli.types import THREADS, Names

_DATA = "data:"


@click.command()
@click.argument("source", metavar="FOLDER|data:NAME")
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--corruption",
    type=Names(),
    default="standard",
    show_default=True,
    metavar="A,B,..",
    help="Corruptions, or a group of them: standard, extra or all.",
)
@click.option(
    "--severity",
    type=Names(click.IntRange(0, 5)),
    metavar="N,..",
    help="Severities, for a folder of images; all five by default.",
)
@click.option("--seed", type=click.IntRange(0, LAST_SEED), default=0, show_default=True, help="Seed of the noise.")
@click.option(
    "--severity-table",
    "table",
    default="cifar10",
    show_default=True,
    metavar="TABLE",
    help="The severities of CIFAR-10-C (cifar10), for small images, or of ImageNet-C (imagenet), for about 224 pixels.",
)
@DATA_DIR
@DOWNLOAD
@click.option("--workers", type=THREADS, help="Threads; by default the number of processors.")
@QUIET
def corrupt(
    source: str,
    target: Path,
    corruption: tuple[str, ...],
    severity: tuple[int, ...] | None,
    data_dir: Path | None,
    download: bool,
    workers: int | None,
    **options: Any,
) -> int:
    """Write corrupted copies of a folder of images, or of the test images of a data set.

    A folder of PNG and JPEG images, however deep, becomes TARGET/CORRUPTION/SEVERITY/ with the same names as PNG. A
    data set becomes TARGET/CORRUPTION.npy and labels.npy in the layout of CIFAR-10-C. Files that exist are not made
    again.

    \b
    Examples:
      bibench corrupt photos corrupted --corruption fog,jpeg_compression --severity 1,3,5 --severity-table imagenet
      bibench corrupt data:fashion_mini corrupted --corruption gaussian_noise
      bibench corrupt data:cifar10 CIFAR-10-C --data-dir ~/tensorflow_datasets
    """
    from bibench_tf import corruptions, datasets
    from bibench_tf.corruptions import export
    from bibench_tf.errors import InvalidOption
    from bibench_tf.results import environment

    names = corruptions.expand(corruption)
    options["workers"] = workers or len(environment.cores())
    if not source.startswith(_DATA):
        outcome = export.corrupt_folder(Path(source), target, names, severity or corruptions.SEVERITIES, **options)
    elif severity is None:
        dataset = datasets.get(source.removeprefix(_DATA), data_dir, download)
        if not isinstance(dataset, datasets.ImageDataset):
            raise InvalidOption(f"Corruptions are for data sets of images with classes, and '{dataset.name}' is none.")
        outcome = export.corrupt_dataset(dataset, target, names, **options)
    else:
        raise InvalidOption("A data set is written in the layout of CIFAR-10-C, with all five severities.")
    terminal.output(f"{target}: {outcome.written:,} files written, {outcome.present:,} existed.")
    failures = outcome.failures()
    for line in failures:
        terminal.message(terminal.one_line(line) if line.startswith(" ") else f"bibench: {terminal.one_line(line)}")
    return 1 if failures else 0
