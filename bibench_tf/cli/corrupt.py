"""The command `bibench corrupt`."""

from __future__ import annotations

from pathlib import Path

import click

_DATA = "data:"
_SHOWN = 10


def _severities(ctx, param, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        chosen = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        chosen = ()
    if not chosen or not set(chosen) <= {1, 2, 3, 4, 5}:
        raise click.BadParameter("write numbers from 1 to 5, such as 1,3,5", ctx, param)
    return chosen


@click.command()
@click.argument("source", metavar="FOLDER|data:NAME")
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--corruptions",
    "wanted",
    default="standard",
    show_default=True,
    metavar="A,B,..",
    help="Corruptions; standard, extra and all stand for 15, 4 and 19 of them.",
)
@click.option(
    "--severities",
    callback=_severities,
    metavar="1,3,5",
    help="Severities, of a folder of images; all five by default.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the noise.")
@click.option(
    "--table",
    type=click.Choice(("cifar10", "imagenet")),
    default="cifar10",
    show_default=True,
    help="The severities of CIFAR-10-C, for small images, or of ImageNet-C, for images of about 224 pixels.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where TensorFlow Datasets keeps prepared data.")
@click.option("--download", is_flag=True, help="Let TensorFlow Datasets download and prepare what is missing.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; by default as many as there are processors.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def corrupt(source, target, wanted, severities, seed, table, data_dir, download, workers, quiet) -> int:
    """Write corrupted copies of a folder of images, or of the test images of a data set.

    A folder of PNG and JPEG images, however deep, becomes TARGET/CORRUPTION/SEVERITY/ with the same names as PNG. A
    data set becomes TARGET/CORRUPTION.npy and labels.npy in the layout of CIFAR-10-C. What is there is not made again.

    \b
    Examples:
      bibench corrupt photos corrupted --corruptions fog,jpeg_compression --severities 1,3,5 --table imagenet
      bibench corrupt data:fashion_mini corrupted --corruptions gaussian_noise
      bibench corrupt data:cifar10 CIFAR-10-C --data-dir ~/tensorflow_datasets
    """
    from bibench_tf import corruptions
    from bibench_tf.corruptions import export
    from bibench_tf.errors import BibenchError

    names = corruptions.expand(part.strip() for part in wanted.split(","))
    for name in names:
        corruptions.check(name, channels=3)
    options = {"seed": seed, "table": table, "workers": workers or export.default_workers(), "quiet": quiet}
    try:
        if source.startswith(_DATA):
            if severities is not None:
                raise BibenchError("A data set is written in the layout of CIFAR-10-C, with all five severities.")
            outcome = export.corrupt_dataset(
                source.removeprefix(_DATA), target, names, data_dir=data_dir, download=download, **options
            )
        else:
            outcome = export.corrupt_folder(
                Path(source), target, names, severities or corruptions.SEVERITIES, **options
            )
    except OSError as error:
        raise BibenchError(f"Cannot go on with {target}: {error.strerror or error}.") from error
    return _tell(outcome, target)


def _tell(outcome, target: Path) -> int:
    """Say what was done, and return the exit code: 1 when something could not be."""
    click.echo(f"{target}: {outcome.written:,} files written, {outcome.present:,} were there.")
    for reason, count in outcome.refused.items():
        click.echo(f"bibench: {count:,} files were not made: {reason}", err=True)
    unreadable = sorted(outcome.unreadable.items())
    if unreadable:
        click.echo(f"bibench: {len(unreadable):,} images could not be read:", err=True)
    for name, reason in unreadable[:_SHOWN]:
        click.echo(f"  {name}: {reason}", err=True)
    if len(unreadable) > _SHOWN:
        click.echo(f"  and {len(unreadable) - _SHOWN:,} more", err=True)
    return 1 if unreadable or outcome.refused else 0
