"""One file outside of the package adds a thing of every kind, and a benchmark of them all runs."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import textwrap

import pytest

PLUGIN = '''
"""A thing of each kind: lamps that are on or off."""

from dataclasses import dataclass

import numpy as np

from bibench_tf import algorithms, corruptions, datasets, networks, recipes, tasks
from bibench_tf.benchmark import track
from bibench_tf.deploy import targets


@tasks.register
class LampState(type(tasks.get("image_classification"))):
    """Whether a lamp is on."""

    key = "lamp_state"
    title = "State of lamps"
    network = "lamp_net"
    default_data = "lamps"


class Lamps(datasets.ArrayImages):
    task = "lamp_state"


def examples(count, seed):
    labels = np.arange(count, dtype=np.int32) % 2
    noise = np.random.default_rng(seed).integers(0, 200, (count, 8, 8, 1))
    return (noise + 15 * labels[:, None, None, None]).astype(np.uint8), labels  # the two classes overlap


@datasets.register("lamps", task="lamp_state", description="Lamps that are on or off")
def lamps(options):
    return Lamps(
        name="lamps",
        title="Lamps",
        source="made by a plug-in",
        licence="none",
        class_names=("off", "on"),
        train_examples=640,
        test_examples=200,
        fingerprint="lamps",
        input_shape=(8, 8, 1),
        mean=(107.0,),
        std=(58.0,),
        load=lambda: datasets.Splits(*examples(640, 0), *examples(200, 1)),
        padding=0,
    )


@algorithms.register
class LampSign(type(algorithms.get("bnn"))):
    """Signs, as BNN has them."""

    key = "lamp_sign"
    title = "Lamp sign"
    paper = "-"


@networks.register(task="lamp_state")
def lamp_net(algorithm="full_precision", input_shape=(8, 8, 1), num_classes=2, width=1.0):
    """Two convolutions."""
    import tensorflow as tf

    layers, algorithm = tf.keras.layers, algorithms.get(algorithm)
    image = tf.keras.Input(input_shape, name="image")
    x = layers.BatchNormalization(name="norm1")(layers.Conv2D(32, 3, padding="same", name="conv1")(image))
    x = layers.BatchNormalization(name="norm2")(algorithm.conv2d(32, 3, name="conv2")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(image, layers.Dense(num_classes, name="head")(x), name="lamp_net")


recipes.register(
    recipes.Recipe("lamp_recipe", epochs=1, batch_size=32, optimizer="adam", learning_rate=1e-2, schedule="cosine"),
    quick_for="lamp_state",
)


@corruptions.register(cifar10=(0.9, 0.8, 0.7, 0.6, 0.5), imagenet=(0.9, 0.8, 0.7, 0.6, 0.5))
def dimmed(images, share, draws):
    """Less light."""
    return images * share


@targets.register("lamp")
def open_lamp(address, access):
    """A device that takes a millisecond for each KiB."""
    return LampTarget()


class LampTarget:
    def describe(self):
        return targets.Device("lamp", "a lamp", None, "lamp64", 1, "LampOS")

    def measure(self, flatbuffers, settings):
        rounds = {name: len(content) / 1024 for name, content in flatbuffers.items()}
        return {
            name: targets.Measurement(
                self.describe(), settings, tuple(targets.Round(ms, 0.0, ms, ms, 50, ms) for _ in range(3))
            )
            for name, ms in rounds.items()
        }

    def close(self):
        pass


@dataclass(frozen=True)
class Options:
    """The lamp of the score."""

    watts: int = track.option(60, "--watts", "The power of the lamp.")


@track.register
class Glow(track.Track):
    """Accuracy times the power of the lamp."""

    name = "glow"
    title = "Glow"
    metric = "OM_glow"
    formula = "accuracy times watts"
    question = "how much light there is"
    examples = ("bibench glow --watts 40",)
    options = Options

    def score(self, benchmark, store):
        import pandas as pd

        watts = benchmark.options("glow").watts
        results = {key: store.result(spec) for key, spec in benchmark.specs(benchmark.first).items()}
        scores = {key: watts * result.accuracy for key, result in results.items()}
        return self.scored(scores=scores, table=pd.DataFrame({"algorithm": scores.keys(), "OM_glow": scores.values()}))
'''

ADDED = {
    "tasks": "lamp_state",
    "datasets": "lamps",
    "networks": "lamp_net",
    "algorithms": "lamp_sign",
    "recipes": "lamp_recipe",
    "corruptions": "dimmed",
    "tracks": "glow",
    "targets": "lamp",
}
# The data, the network, and the recipe follow from the task.
ASKED = [
    *("--data", "lamp_state", "--algorithm", "lamp_sign", "--architecture-networks", "lamp_net"),
    *("--corruption", "dimmed", "--corruption-images", "200", "--grid", "adam-1e-2-cosine,sgd-1e-3-cosine"),
    *("--target", "lamp", "--watts", "40"),
]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "lamps.py"
    path.write_text(PLUGIN)
    return path


def python(*arguments, cwd, **environment):
    """A Python of its own: what a plug-in registers stays in the process that loads it."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("kind", ADDED)
def test_what_a_plug_in_adds_is_listed(kind, plugin, tmp_path):
    done = python("-m", "bibench_tf", "ls", kind, "--json", "-", "--plugin", plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows[ADDED[kind]]["description"] and len(rows) > 1


def test_the_track_of_a_plug_in_is_a_command_with_its_options(plugin, tmp_path):
    for how in ({"BIBENCH_PLUGINS": str(plugin)}, {}):
        arguments = [] if how else ["--plugin", plugin]
        done = python("-m", "bibench_tf", "glow", "--help", *arguments, cwd=tmp_path, **how)
        assert done.returncode == 0, done.stderr
        assert "Track glow: how much light there is." in done.stdout and "--watts" in done.stdout
    done = python("-m", "bibench_tf", "glow", "--help", cwd=tmp_path)
    assert done.returncode == 2 and "No such command 'glow'" in done.stderr


def assert_whole(results):
    """All seven tracks are scored, with what the plug-in has."""
    with open(results / "report" / "overall.csv") as stream:
        rows = {row["algorithm"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["full_precision", "lamp_sign"]
    values = {name: float(value) for name, value in rows["full_precision"].items() if name != "algorithm"}
    assert len(values) == 7
    glow = next(name for name in values if "glow" in name.lower())
    assert 20 <= values[glow] <= 40, "at least chance, at 40 watts"
    assert "lamp" in (results / "report" / "inference.csv").read_text()
    assert "dimmed" in (results / "report" / "robustness.csv").read_text()


@pytest.mark.slow
def test_a_benchmark_of_all_that_a_plug_in_adds_runs_from_the_command_line(plugin, tmp_path):
    command = ["-m", "bibench_tf", "run", *ASKED, "--plugin", plugin, "--results", "small", "-q"]
    done = python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "small")
    # The folder needs the plug-in again: its track is in it.
    done = python("-m", "bibench_tf", "report", "--results", "small", "-q", cwd=tmp_path)
    assert done.returncode == 2 and "Unknown track 'glow'" in done.stderr
    done = python("-m", "bibench_tf", "report", "--results", "small", "-q", "--plugin", plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_benchmark_of_all_that_a_plug_in_adds_runs_from_python(plugin, tmp_path):
    script = """
        import sys

        import bibench_tf as bb
        from bibench_tf.registry import load_plugin

        load_plugin(sys.argv[1])
        scores = bb.run_benchmark(
            data="lamps",
            network="lamp_net",
            algorithms=["lamp_sign"],
            recipe="lamp_recipe",
            results="small",
            options={
                "robustness": {"corruptions": ("dimmed",), "images": 200},
                "training": {"grid": ("adam-1e-2-cosine", "sgd-1e-3-cosine")},
                "inference": {"targets": ("lamp",)},
                "glow": {"watts": 40},
            },
        )
        assert not any(score.failures for score in scores.values()), [score.failures for score in scores.values()]
        assert list(scores)[-1] == "glow"
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    done = python("script.py", plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "small")
