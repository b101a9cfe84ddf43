"""A training on many devices is the one on a single device, spread.

Run as a script, this file trains on two logical processors (`mirrored FOLDER`), or is the command line with the data of
these tests (`cli ARGUMENTS`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bibench_tf import benchmark, datasets, distribution, records, runner
from bibench_tf.benchmark import Session
from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe
from bibench_tf.runs import RunResult, RunSpec, RunStore

RECIPE = Recipe("tiny", epochs=3, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
DISTILS = dataclasses.replace(RECIPE, name="distils", epochs=1, start=dataclasses.replace(RECIPE, epochs=1), distils=True)
STUDENT = RunSpec("tiny", "vgg_small", "bnn", DISTILS, width=0.0625)
# What trains on one device and on two: algorithms with clipped latent weights and with schedules, all optimizers.
CASES = {
    "bnn": ("bnn", dataclasses.replace(RECIPE, learning_rate=0.1, weight_decay=1e-3), {}),
    "fda": ("fda", dataclasses.replace(RECIPE, optimizer="sgd", nesterov=True), {}),
    "recu": ("recu", dataclasses.replace(RECIPE, optimizer="bert_adam", weight_decay=0.01), {"steps_per_execution": 3}),
    "radam": ("full_precision", dataclasses.replace(RECIPE, optimizer="radam"), {}),
    "float16": ("bnn", dataclasses.replace(RECIPE, precision="mixed_float16"), {}),
}


def tiny(data_dir=None, download=False):
    """128 training and 32 test images of four classes, which differ in brightness."""

    def split(count):
        labels = np.arange(count) % 4
        images = np.random.default_rng(count).integers(0, 40, (count, 8, 8, 1)) + 50 * labels[:, None, None, None]
        return images.astype(np.uint8), labels.astype(np.int32)

    arrays = datasets.Splits(*split(128), *split(32))
    return datasets.ArrayImages(
        name="tiny",
        title="Tiny",
        source="made by the tests",
        licence="none",
        input_shape=(8, 8, 1),
        class_names=tuple("abcd"),
        train_examples=128,
        test_examples=32,
        mean=(90.0,),
        std=(60.0,),
        fingerprint=datasets.fingerprint_arrays(arrays),
        load=lambda: arrays,
        padding=1,
    )


def build(algorithm):
    """A network with a binary layer; no bias before a normalization, which would follow rounding errors alone."""
    import tensorflow as tf

    from bibench_tf import algorithms

    layers = tf.keras.layers
    inputs = tf.keras.Input((8, 8, 1))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False)(inputs))
    x = layers.BatchNormalization()(algorithms.get(algorithm).conv2d(8, 3, padding="same", name="binary")(x))
    x = layers.BatchNormalization()(layers.Dense(8)(layers.GlobalAveragePooling2D()(x)))
    return tf.keras.Model(inputs, layers.Dense(4)(x))


def train(folder, devices, algorithm, recipe, **options):
    """The trained network, its twin and its progress."""
    from bibench_tf import training

    folder.mkdir(exist_ok=True, parents=True)
    model = training.initial_model(lambda: build(algorithm), 0)

    def in_precision():
        return training.in_precision(lambda: build(algorithm), recipe.precision)

    twin = None if recipe.precision == "float32" else in_precision()
    if devices is not None:
        twin = devices.replicated(model, in_precision)
    progress = training.train(
        model, tiny(), recipe, seed=0, folder=folder, twin=twin, devices=devices, **options
    )
    return model, twin, progress


def losses(progress):
    return [row["train_loss"] for row in progress.history]


def stop_after(epochs):
    def stop(progress):
        if progress.epochs_completed == epochs:
            raise KeyboardInterrupt

    return stop


def train_on_two_processors(folder):
    """What the tests of `mirrored` look at, as JSON and arrays."""
    import tensorflow as tf

    processors = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], processors)
    devices = distribution.devices("mirrored")
    found = {"devices": devices.describe()}
    for name, (algorithm, recipe, options) in CASES.items():
        if name == "radam" and sys.version_info >= (3, 12):
            continue
        one, _, progress_of_one = train(folder / name / "1", None, algorithm, recipe)
        two, twin, progress = train(folder / name / "2", devices, algorithm, recipe, **options)
        found[name] = {"one": losses(progress_of_one), "two": losses(progress), "accuracy": progress.history[-1]["accuracy"]}
        for model, weights in (("one", one), ("two", two)):
            found[name][model + "_weights"] = {w.name: w.numpy().tolist() for w in weights.weights}
        found[name]["replicas"] = {
            w.name: [replica.numpy().tolist() for replica in devices.strategy.experimental_local_results(w)]
            for w in twin.weights
        }
    algorithm, recipe, options = CASES["recu"]
    try:
        train(folder / "stopped", devices, algorithm, recipe, on_epoch=stop_after(2), **options)
    except KeyboardInterrupt:
        resumed, _, progress = train(folder / "stopped", devices, algorithm, recipe, **options)
    found["resumed"] = {"two": losses(progress), "weights": {w.name: w.numpy().tolist() for w in resumed.weights}}
    batches = tiny().train_batches(16, seed=3, epoch=1)
    parts = []
    for images, labels in devices.spread(batches, 16):
        local = map(devices.strategy.experimental_local_results, (images, labels))
        parts.append([[part.numpy().tolist() for part in both] for both in local])
    found["parts"] = parts
    for strategy in (None, "mirrored"):
        session = Session(folder / f"store-{strategy}", quiet=True, strategy=strategy, tensorboard=True)
        runner.execute([STUDENT], session)
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    datasets.register("tiny", tiny)
    if sys.argv[1] == "mirrored":
        train_on_two_processors(Path(sys.argv[2]))
    else:
        from bibench_tf.cli import main

        main(sys.argv[2:])
    sys.exit()
