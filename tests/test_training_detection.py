"""The training of detectors by the trainer of all tasks: resumed, in mixed precision, and in words."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import training, zoo
from bibench_tf.datasets.canvas_mini import load
from bibench_tf.datasets.detection import Annotated, DetectionDataset, DetectionSplits, View
from bibench_tf.recipes import Recipe
from bibench_tf.tasks.detection import MAP50

RECIPE = Recipe("tiny", epochs=2, batch_size=2, optimizer="sgd", learning_rate=1e-2, schedule="constant")


@pytest.fixture(scope="module")
def data():
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
        views={"ssd_lite": View((64, 64))},
        protocol="voc2007",
    )


def train(data, name, folder, recipe=RECIPE, algorithm="full_precision", **options):
    data = data.seen_by(name)

    def build():
        return zoo.build(name, algorithm, width=0.125 if name != "ssd_lite" else 0.5, **data.network_options)

    model = training.initial_model(build, 1)
    if recipe.precision != "float32":
        options["twin"] = training.in_precision(build, recipe.precision)
    return model, training.train(model, data, recipe, seed=1, folder=folder, **options)


def test_a_two_stage_detector_that_is_resumed_goes_on_as_if_it_was_never_stopped(data, tmp_path):
    """Its training draws anchors and regions at random, and adds up the gradients of regions in any order."""
    folder, stopped = tmp_path / "whole", tmp_path / "stopped"
    folder.mkdir()

    def keep(progress):
        if progress.epochs_completed == 1:
            shutil.copytree(folder, stopped)

    whole, expected = train(data, "faster_rcnn_resnet18", folder, on_epoch=keep)
    resumed, found = train(data, "faster_rcnn_resnet18", stopped)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert found.history[-1]["train_loss"] == pytest.approx(expected.history[-1]["train_loss"], abs=1e-3)
    first, second = expected.history
    assert second["train_loss"] < first["train_loss"]
    assert second["accuracy"] == expected.figures[MAP50]
    assert second["test_loss"] is None and "train_accuracy" not in second


def test_boxes_are_float32_in_mixed_precision(data, tmp_path):
    name, recipe = "faster_rcnn_resnet18", dataclasses.replace(RECIPE, epochs=1, precision="mixed_bfloat16")
    twin = training.in_precision(lambda: zoo.build(name, width=0.125, num_classes=10), recipe.precision)
    assert twin.get_layer("detections").output["boxes"].dtype == tf.float32
    assert twin.get_layer("offsets").output.dtype == tf.bfloat16
    _, progress = train(data, name, tmp_path, recipe)
    assert np.isfinite(progress.history[0]["train_loss"])
