"""Data that are learnt in a moment, and runs on them. Processes load this file as they load a user's plug-in."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bibench_tf import datasets, files
from bibench_tf.recipes import Recipe
from bibench_tf.results.runs import RunResult, RunSpec

if TYPE_CHECKING:
    import pytest

    from bibench_tf.datasets.base import Factory

START = Recipe("tiny_start", epochs=3, batch_size=8, optimizer="adam", learning_rate=1e-2, schedule="cosine")
RECIPE = dataclasses.replace(START, name="tiny_binary", start=START)


def specs(*algorithms: str, epochs: int = START.epochs) -> list[RunSpec]:
    """The full-precision run, and runs of algorithms that start from it."""
    recipe = dataclasses.replace(START, epochs=epochs)
    start = RunSpec("tiny", "vgg_small", "full_precision", recipe, width=0.0625)
    binary = dataclasses.replace(RECIPE, epochs=epochs, start=recipe)
    return [start, *(dataclasses.replace(start, algorithm=name, recipe=binary) for name in algorithms)]


def tiny(options: datasets.LoadOptions | None = None, *, train: int = 64, padding: int = 1):
    """`train` training and 32 test images of four classes, which differ in brightness."""

    def split(count):
        labels = np.arange(count) % 4
        images = np.random.default_rng(count).integers(0, 40, (count, 8, 8, 1)) + 50 * labels[:, None, None, None]
        return images.astype(np.uint8), labels.astype(np.int32)

    arrays = datasets.Splits(*split(train), *split(32))
    return datasets.ArrayImages(
        name="tiny",
        title="Tiny",
        source="made by the tests",
        licence="none",
        input_shape=(8, 8, 1),
        class_names=tuple("abcd"),
        train_examples=train,
        test_examples=32,
        mean=(90.0,),
        std=(60.0,),
        fingerprint=files.fingerprint_arrays(arrays),
        load=lambda: arrays,
        padding=padding,
    )


def register(patch: pytest.MonkeyPatch, name: str, factory: Factory, task: str = "image_classification") -> None:
    """Make `factory` the data set `name`, also in place of another of that name, until `patch` is undone."""
    datasets.names()
    others = {key: entry for key, entry in datasets.DATASETS._entries.items() if key != name}
    patch.setattr(datasets.DATASETS, "_entries", others)
    datasets.register(name, task=task)(factory)


def outcome(result: RunResult) -> dict:
    """All of a result that must be the same whenever and wherever it is trained: not its times, memory and energy."""
    spent = ("time", "memory", "energy")
    history = [{key: row[key] for key in row if not any(word in key for word in spent)} for row in result.history]
    return {
        "status": result.status,
        "accuracy": result.accuracy,
        "test_loss": result.test_loss,
        "metrics": result.metrics,
        "history": history,
    }


def losses(result: RunResult) -> list[float]:
    """Of training and test, epoch by epoch; with another number of threads they differ by rounding."""
    return [row[name] for row in result.history for name in ("train_loss", "test_loss")]


if "tiny" not in datasets.names():
    datasets.register("tiny", task="image_classification", description="64 / 32 images of 8x8, of the tests")(tiny)
