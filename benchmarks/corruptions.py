"""Images per second of each corruption, against imagecorruptions-imaug where it is installed, and of the whole grid.

The other package has the severities of ImageNet-C alone, so both work with those. It brings OpenCV, scikit-image and
Numba, so install it into an environment of its own. Both are interleaved in rounds, so that other work on the computer
affects both alike; the first call, in which Numba compiles, is not counted. Each has one thread, and times are
processor times; the time of the grid is wall-clock time.

    python benchmarks/corruptions.py
    python benchmarks/corruptions.py --size 224 --images 20
    python benchmarks/corruptions.py --grid --data cifar10 --data-dir ~/tensorflow_datasets --workers 2
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

# Before NumPy and OpenCV start their threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import numpy as np

from bibench_tf import corruptions, datasets


@dataclass(frozen=True)
class Speed:
    """Images per second of processor time under one corruption, medians over rounds of all five severities.

    `slowest_per_s` is that of the slowest severity. `ratio` is the speed here over that of the other package, the
    median over rounds; low and high are the extremes of a round.
    """

    corruption: str
    per_s: float
    slowest_per_s: float
    other_per_s: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None


@click.command()
@click.option("--size", type=click.IntRange(min=32), default=32, show_default=True, help="Height and width of images.")
@click.option("--images", type=click.IntRange(min=1), default=200, show_default=True, help="Images of a round.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--severity-table", "table", type=click.Choice(corruptions.TABLES), default="imagenet", show_default=True)
@click.option("--grid", is_flag=True, help="Instead: the time of the standard grid over a whole test set.")
@click.option("--data", "dataset", default="fashion_mini", show_default=True, help="Test set of the grid.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where TensorFlow Datasets keeps prepared data.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the grid.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(size, images, rounds, table, grid, dataset, data_dir, workers, json_file) -> None:
    """Print the table, and write it where asked."""
    if grid:
        result = time_grid(dataset, data_dir, workers)
    else:
        pictures = colour_images(size, images)
        result = [asdict(measure(name, pictures, rounds, table)) for name in corruptions.names()]
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")


def colour_images(size: int, count: int) -> np.ndarray:
    """Images of three items of clothing each, enlarged with smooth edges, and a little noise as photos have it."""
    from PIL import Image

    items = datasets.get("fashion_mini").splits.test_images[: 3 * count, :, :, 0]
    items = np.resize(items, (3 * count, *items.shape[1:]))
    large = np.stack(
        [np.asarray(Image.fromarray(item).resize((size, size), Image.Resampling.BICUBIC)) for item in items]
    )
    noise = np.random.default_rng(0).normal(0, 3, (count, size, size, 3))
    return np.clip(large.reshape(count, 3, size, size).transpose(0, 2, 3, 1) + noise, 0, 255).astype(np.uint8)


def measure(name: str, images: np.ndarray, rounds: int, table: str) -> Speed:
    """The speed of one corruption, here and in the other package, interleaved."""
    other = find_other(name) if table == "imagenet" else None
    for severity in corruptions.SEVERITIES:  # tables and textures are made, Numba compiles
        corruptions.apply(name, images[:2], severity, table=table)
        if other:
            other(images[0], severity)
    ours, theirs, slowest = [], [], []
    few = images[: max(2, len(images) // 4)]  # enough for what takes one image at a time
    for _ in range(rounds):
        spent = [
            timed(partial(corruptions.apply, name, images, level, table=table)) for level in corruptions.SEVERITIES
        ]
        ours.append(len(spent) * len(images) / sum(spent))
        slowest.append(len(images) / max(spent))
        if other:
            spent = [timed(partial(one_by_one, other, few, level)) for level in corruptions.SEVERITIES]
            theirs.append(len(spent) * len(few) / sum(spent))
    ratios = [mine / their for mine, their in zip(ours, theirs, strict=False)]
    speed = Speed(
        corruption=name,
        per_s=round(statistics.median(ours), 1),
        slowest_per_s=round(statistics.median(slowest), 1),
        other_per_s=round(statistics.median(theirs), 1) if theirs else None,
        ratio=round(statistics.median(ratios), 2) if ratios else None,
        ratio_low=round(min(ratios), 2) if ratios else None,
        ratio_high=round(max(ratios), 2) if ratios else None,
    )
    against = (
        f"  other {speed.other_per_s:>9,.0f}/s  {speed.ratio:6.1f} x ({speed.ratio_low:.1f} to {speed.ratio_high:.1f})"
    )
    click.echo(
        f"{name:18} {speed.per_s:>9,.0f}/s  slowest severity {speed.slowest_per_s:>9,.0f}/s"
        + (against if theirs else "")
    )
    return speed


def find_other(name: str):
    """The corruption of the other package as a function of (image, severity), or None."""
    try:
        from imagecorruptions import corrupt
    except ImportError:
        return None
    try:
        import cv2

        cv2.setNumThreads(1)
        corrupt(np.zeros((32, 32, 3), np.uint8), severity=1, corruption_name=name)
    except Exception as error:  # the other package may raise anything; its corruption is not measured
        click.echo(f"{name:18} fails in the other package: {error}")
        return None
    return lambda image, severity: corrupt(image, severity=severity, corruption_name=name)


def one_by_one(corrupt, images: np.ndarray, severity: int) -> None:
    """All images through a function that takes one."""
    for image in images:
        corrupt(image, severity)


def timed(function, clock=time.process_time) -> float:
    """Seconds of a call, by default of processor time, which other programs do not lengthen."""
    start = clock()
    function()
    return clock() - start


def time_grid(name: str, data_dir: Path | None, workers: int) -> dict:
    """Seconds for the standard corruptions at all severities over a test set, through its tf.data pipeline."""
    dataset = datasets.get(name, data_dir)
    for _ in dataset.test_batches(250):  # decoded once, and kept
        pass
    spent_s = {}
    for corruption in corruptions.names("standard"):
        corruptions.check(corruption, dataset.input_shape[-1])

        def run(corruption=corruption) -> None:
            for severity in corruptions.SEVERITIES:

                def corrupt(images, first, severity=severity):
                    return corruptions.apply(corruption, images, severity, first_index=first, workers=workers)

                for _ in dataset.test_batches(250, corrupt=corrupt):
                    pass

        spent_s[corruption] = round(timed(run, time.perf_counter), 2)
        click.echo(f"{corruption:18} {spent_s[corruption]:7.2f} s")
    total_s = round(sum(spent_s.values()), 1)
    click.echo(f"the grid, {dataset.test_examples:,} images, {workers} threads: {total_s} s")
    return {"images": dataset.test_examples, "workers": workers, "total_s": total_s, "corruptions": spent_s}


if __name__ == "__main__":
    main()
