"""The training of detectors by the trainer of all tasks: resumed, in mixed precision, and in words.

Run as a script, this file trains a detector twice: `FOLDER`.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import zoo
from bibench_tf.datasets.canvas_mini import load
from bibench_tf.datasets.kinds.detection import Annotated, DetectionDataset, DetectionSplits, View
from bibench_tf.recipes import Recipe
from bibench_tf.tasks.detection import MAP50
from bibench_tf.training import loop

RECIPE = Recipe("tiny", epochs=2, batch_size=2, optimizer="sgd", learning_rate=1e-2, schedule="constant")


def canvases():
    """Four canvases to train on and two to test on."""
    whole = load().train
    parts = (
        Annotated(whole.images[rows], whole.objects[rows.start : rows.stop]) for rows in (slice(0, 4), slice(4, 6))
    )
    splits = DetectionSplits(*parts)
    return DetectionDataset(
        name="canvases",
        title="Six canvases",
        source="made by the tests",
        licence="none",
        class_names=tuple(map(str, range(10))),
        train_examples=4,
        test_examples=2,
        fingerprint="f",
        load=lambda: splits,
        view=View((128, 192), keep_ratio=True, divisor=32, augmentation="flip"),
        protocol="voc2007",
    )


@pytest.fixture(scope="module")
def data():
    return canvases()


def train(data, name, folder, recipe=RECIPE, algorithm="full_precision", **hooks):
    data = dataclasses.replace(data, view=View((64, 64))) if name == "ssd_lite" else data.for_network(name)

    def build():
        return zoo.build(name, algorithm, width=0.125 if name != "ssd_lite" else 0.5, **data.network_options)

    model = loop.initial_model(build, 1)
    twin = None if recipe.precision == "float32" else loop.in_precision(build, recipe.precision)
    hooks = loop.Hooks(**hooks)
    return model, loop.train(loop.Trainee(model, twin), data, recipe, seed=1, folder=folder, hooks=hooks)


def resume(folder):
    """Train a detector, and again from its first checkpoint; what the test of both looks at."""
    whole, stopped = folder / "whole", folder / "stopped"
    whole.mkdir()

    def keep(progress):
        if progress.epochs_completed == 1:
            shutil.copytree(whole, stopped)

    network, expected = train(canvases(), "faster_rcnn_resnet18", whole, on_epoch=keep)
    resumed, found = train(canvases(), "faster_rcnn_resnet18", stopped)
    return {
        "weights": [weight.tolist() for weight in network.get_weights()],
        "resumed": [weight.tolist() for weight in resumed.get_weights()],
        "history": expected.history,
        "losses": [progress.history[-1]["train_loss"] for progress in (expected, found)],
        "metrics": expected.metrics,
    }


if __name__ == "__main__":
    results = resume(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "found.json").write_text(json.dumps(results))
    sys.exit()


@pytest.mark.slow
def test_a_two_stage_detector_that_is_resumed_goes_on_as_if_it_was_never_stopped(tmp_path):
    """Its training draws anchors and regions at random; threads add up the gradients of regions in any order, unless
    they are told not to, which is for a process of its own."""
    environment = {**os.environ, "TF_DETERMINISTIC_OPS": "1"}
    subprocess.run([sys.executable, __file__, tmp_path], env=environment, check=True, timeout=500)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["resumed"] == found["weights"] and len(found["weights"]) > 50
    assert found["losses"][0] == found["losses"][1]
    first, second = found["history"]
    assert second["train_loss"] < first["train_loss"]
    assert second["accuracy"] == found["metrics"][MAP50]
    assert second["test_loss"] is None and "train_accuracy" not in second


def test_boxes_are_float32_in_mixed_precision(data, tmp_path):
    name, recipe = "faster_rcnn_resnet18", dataclasses.replace(RECIPE, epochs=1, precision="mixed_bfloat16")
    twin = loop.in_precision(lambda: zoo.build(name, width=0.125, num_classes=10), recipe.precision)
    assert twin.get_layer("detections").output["boxes"].dtype == tf.float32
    assert twin.get_layer("offsets").output.dtype == tf.bfloat16
    _, progress = train(data, name, tmp_path, recipe)
    assert np.isfinite(progress.history[0]["train_loss"])
