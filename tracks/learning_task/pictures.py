"""Pictures of the learning task: the detections of each network on the first test images, beside the labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tf import files
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark, Setup
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import Picture
from bibench_tf.results.records import RecordError
from bibench_tf.results.runs import RunSpec, RunStore

if TYPE_CHECKING:
    from PIL import Image

FOUND = "detections.jpg"
# Beside the full-precision network alone, as it is the same for all.
THERE = "objects.jpg"
_IMAGES = 4
_HEIGHT_PX = 240


def draw(job: Job) -> None:
    """Draw what every trained detector finds into the folder of its run, unless that is drawn since its training.

    With several seeds only the first is drawn.
    """
    from bibench_tf.detection import drawing

    for setup, spec in _runs(job.benchmark, job.store):
        data, folder = job.data(setup), job.store.folder(spec)
        if not _is_newer(folder / FOUND, job.store.model_path(spec)):
            model = job.store.model(spec)
            _write(
                folder / FOUND,
                [drawing.detections(model, images, data) for images, _ in data.test_batches(1, limit=_IMAGES)],
            )
        if spec.algorithm == BASELINE and not (folder / THERE).exists():
            examples = data.test_batches(1, limit=_IMAGES).as_numpy_iterator()
            objects = [drawing.objects(images[0], truth[0], data) for images, truth in examples]
            _write(folder / THERE, objects)


def pictures(benchmark: ResolvedBenchmark, store: RunStore) -> list[Picture]:
    """The pictures that `draw` made, for the report."""
    drawn = []
    for setup, spec in _runs(benchmark, store):
        folder = store.folder(spec)
        if (folder / THERE).exists():
            drawn.append(Picture(f"{setup.label}: objects of the first {_IMAGES} test images", folder / THERE))
        if (folder / FOUND).exists():
            drawn.append(Picture(f"{setup.label}: found by {spec.algorithm}", folder / FOUND))
    return drawn


def _runs(benchmark: ResolvedBenchmark, store: RunStore) -> Iterator[tuple[Setup, RunSpec]]:
    """The completed runs of detectors, with their setups."""
    for setup in benchmark.setups:
        if not setup.task.has_pictures:
            continue
        for spec in benchmark.specs(setup).values():
            with contextlib.suppress(RecordError):  # the score says which
                result = store.result(spec)
                if result is not None and result.status == "completed":
                    yield setup, spec


def _is_newer(picture: Path, network: Path) -> bool:
    """Whether there is a picture that was drawn after the network was written."""
    if not picture.exists():
        return False
    return not network.exists() or picture.stat().st_mtime_ns >= network.stat().st_mtime_ns


def _write(path: Path, images: list[Image.Image]) -> None:
    from bibench_tf.detection import drawing

    row = drawing.in_a_row(images, _HEIGHT_PX)
    files.write_atomically(path, lambda file: row.save(file, format="JPEG", quality=85))
