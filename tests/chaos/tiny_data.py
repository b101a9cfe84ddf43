"""Data that are learnt in a moment, and runs on them. Processes load this file as they load a user's algorithms."""

from __future__ import annotations

import dataclasses

import numpy as np

from bibench_tf import datasets, files
from bibench_tf.recipes import Recipe
from bibench_tf.results.runs import RunResult, RunSpec

START = Recipe("tiny_start", epochs=3, batch_size=8, optimizer="adam", learning_rate=1e-2, schedule="cosine")
RECIPE = dataclasses.replace(START, name="tiny_binary", start=START)


def specs(*algorithms: str, epochs: int = START.epochs) -> list[RunSpec]:
    """The full-precision run, and runs of algorithms that start from it."""
    recipe = dataclasses.replace(START, epochs=epochs)
    start = RunSpec("tiny", "vgg_small", "full_precision", recipe, width=0.0625)
    binary = dataclasses.replace(RECIPE, epochs=epochs, start=recipe)
    return [start, *(dataclasses.replace(start, algorithm=name, recipe=binary) for name in algorithms)]


def tiny(data_dir=None, download=False):
    """64 training and 32 test images of four classes, which differ in brightness."""

    def split(count):
        labels = np.arange(count) % 4
        images = np.random.default_rng(count).integers(0, 40, (count, 8, 8, 1)) + 50 * labels[:, None, None, None]
        return images.astype(np.uint8), labels.astype(np.int32)

    arrays = datasets.Splits(*split(64), *split(32))
    return datasets.ArrayImages(
        name="tiny",
        title="Tiny",
        source="made by the tests",
        licence="none",
        input_shape=(8, 8, 1),
        class_names=tuple("abcd"),
        train_examples=64,
        test_examples=32,
        mean=(90.0,),
        std=(60.0,),
        fingerprint=files.fingerprint_arrays(arrays),
        load=lambda: arrays,
        padding=1,
    )


def outcome(result: RunResult) -> dict:
    """All of a result that must be the same whenever and wherever it is trained: not its times, memory and energy."""
    spent = ("time", "memory", "energy")
    history = [{key: row[key] for key in row if not any(word in key for word in spent)} for row in result.history]
    return {
        "status": result.status,
        "accuracy": result.accuracy,
        "test_loss": result.test_loss,
        "figures": result.metrics,
        "history": history,
    }


def losses(result: RunResult) -> list[float]:
    """Of training and test, epoch by epoch; with another number of threads they differ by rounding."""
    return [row[name] for row in result.history for name in ("train_loss", "test_loss")]


if "tiny" not in datasets.names():
    datasets.register("tiny", tiny)
