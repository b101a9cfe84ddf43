"""Pictures of the learning task: what each detector finds on the first test images, beside what is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tf import datasets, files
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import Picture
from bibench_tf.results.records import RecordError
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.tracks.base import load_data, main_specs
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    from PIL import Image

    from bibench_tf.datasets import Dataset

FOUND = "detections.jpg"
# Beside the full-precision network alone, as it is the same for all.
THERE = "objects.jpg"
_IMAGES = 4
_HEIGHT_PX = 240


def draw(benchmark: Benchmark, session: Session) -> None:
    """Draw what every trained detector finds into the folder of its run, unless it is drawn already.

    With several seeds only the first is drawn.
    """
    store = RunStore(session.results)
    for task, spec in _runs(benchmark, store):
        data = load_data(task, session, spec.network)
        folder = store.folder(spec)
        if not (folder / FOUND).exists():
            _write(folder / FOUND, _found(store, spec, data))
        if spec.algorithm == BASELINE and not (folder / THERE).exists():
            _write(folder / THERE, _there(data))


def pictures(benchmark: Benchmark, store: RunStore) -> list[Picture]:
    """What `draw` has drawn, for the report."""
    drawn = []
    for task, spec in _runs(benchmark, store):
        folder = store.folder(spec)
        if (folder / THERE).exists():
            drawn.append(Picture(f"{task}: objects of the first {_IMAGES} test images", folder / THERE))
        if (folder / FOUND).exists():
            drawn.append(Picture(f"{task}: found by {spec.algorithm}", folder / FOUND))
    return drawn


def _runs(benchmark: Benchmark, store: RunStore) -> Iterator[tuple[str, RunSpec]]:
    """The completed runs of detectors, with their data sets."""
    for task in benchmark.data:
        if datasets.task_of(task) != "detection":
            continue
        for spec in main_specs(benchmark, task=task).values():
            with contextlib.suppress(RecordError):  # the score says which
                result = store.result(spec)
                if result is not None and result.status == "completed":
                    yield task, spec


def _found(store: RunStore, spec: RunSpec, data: Dataset) -> list[Image.Image]:
    from bibench_tf.detection import drawing

    model = store.model(spec)
    return [drawing.detections(model, images, data) for images, _ in data.test_batches(1, limit=_IMAGES)]


def _there(data: Dataset) -> list[Image.Image]:
    from bibench_tf.detection import drawing

    return [
        drawing.objects(images.numpy()[0], truth.numpy()[0], data)
        for images, truth in data.test_batches(1, limit=_IMAGES)
    ]


def _write(path: Path, images: list[Image.Image]) -> None:
    from bibench_tf.detection import drawing

    row = drawing.in_a_row(images, _HEIGHT_PX)
    files.write_atomically(path, lambda file: row.save(file, format="JPEG", quality=85))
