"""Objects of options refuse values of another type, range or choice: recipes, benchmarks, sessions, tracks, targets."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

import bibench_tf as bb
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, names, options_of
from bibench_tf.datasets import LoadOptions, View
from bibench_tf.deploy.targets import Settings
from bibench_tf.errors import InvalidOption
from bibench_tf.recipes import Recipe
from bibench_tf.training.session import Session

NO_COUNT = (0, -1, 1.5, True, "3", math.nan, [1])
NO_SWITCH = ("no", 1, 0, None)
NO_RATE = (0, -1, math.nan, math.inf, "x", True, None)
NO_TIME = (-1, math.nan, math.inf, "x", True, None)
NO_TEXT = (3, True, ("x",))
NO_NAMES = ("bnn", (3,), None, 3)
RECIPE = Recipe("tiny", epochs=3, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
# Each object with all of its fields: an object that fits, and values that do not.
OBJECTS = [
    (
        RECIPE,
        {
            "name": (*NO_TEXT, None),
            "epochs": NO_COUNT,
            "batch_size": NO_COUNT,
            "optimizer": ("adm", None, 3),
            "learning_rate": NO_RATE,
            "schedule": ("sine", None),
            "momentum": (-0.1, 1, 1.5, math.nan, "x", True),
            "weight_decay": NO_TIME,
            "milestones": ((2,), (-0.1,), (math.nan,), "ab", 0.5, None),
            "augment": NO_SWITCH,
            "start": ("quick", 3, Path("x")),
            "per_step": NO_SWITCH,
            "precision": ("float16", None),
            "nesterov": NO_SWITCH,
            "warm_up": (-0.1, 1, math.nan, "x", True),
            "warm_up_start": (-0.1, 1.1, math.nan, "x", True),
            "distils": NO_SWITCH,
        },
    ),
    (
        Benchmark(),
        {
            "data": NO_NAMES,
            "networks": NO_NAMES,
            "algorithms": NO_NAMES,
            "recipe": (*NO_TEXT, None),
            "epochs": NO_COUNT,
            "seed": (-1, 1.5, True, "3", None),
            "seeds": NO_COUNT,
            "precision": ("float16", None),
            "bert_checkpoint": NO_TEXT,
            "vocabulary": NO_TEXT,
            "options": (3, "robustness", None),
        },
    ),
    (
        Session(Path("results")),
        {
            "results": (3, None),
            "data_dir": (3, True),
            "download": NO_SWITCH,
            "quiet": NO_SWITCH,
            "xla": NO_SWITCH,
            "steps_per_execution": NO_COUNT,
            "strategy": ("miror", 3),
            "tensorboard": NO_SWITCH,
            "bert_checkpoint": (3,),
            "vocabulary": (3,),
            "places": (3, None),
            "executor": ("rai", None),
            "cpus_per_run": NO_COUNT,
            "gpus_per_run": (-1, math.nan, math.inf, "x", True),
            "ray_address": NO_TEXT,
            "shard": ((0, 3), (1,), "1/3", (1.5, 2), 3),
            "has_neighbours": NO_SWITCH,
            "store": NO_TEXT,
        },
    ),
    (
        View((300, 300)),
        {
            "size": ((1.5, 2), (300,), 300, "300"),
            "keep_ratio": NO_SWITCH,
            "divisor": (1.5, True, "x"),
            "augmentation": (3, None),
        },
    ),
    (
        Settings(),
        {
            "threads": NO_COUNT,
            "warm_up_s": NO_TIME,
            "minimum_runs": NO_COUNT,
            "minimum_s": NO_TIME,
            "rounds": NO_COUNT,
            "cores": ((-1,), (1.5,), (True,), "4", 4),
            "profile": NO_SWITCH,
            "timeout_s": NO_RATE,
        },
    ),
]
# The options of all tracks of the package.
TRACK_OPTIONS = {
    "task": {},
    "architecture": {"networks": ("resnet20", (3,), None)},
    "robustness": {
        "corruptions": ("fog", (3,), (), None),
        "images": (-1, 2.5, "5", True),
        "source": (3, None),
        "severity_table": ("cifar", None, 3),
        "digests": (3, None),
    },
    "training": {"grid": ("quick", (3,), ()), "retime": NO_SWITCH, "retime_rounds": (2, -1, 11.0, True, None)},
    "complexity": {"pareto": (3, True)},
    "inference": {"targets": ("host", (3,), ()), "binaries": ("x", (3,))},
}


@pytest.mark.parametrize(("fitting", "refused"), OBJECTS, ids=[type(one).__name__ for one, _ in OBJECTS])
def test_all_fields_are_checked(fitting, refused):
    """A field that takes anything, or one that is new and not in this table, fails."""
    assert [field.name for field in dataclasses.fields(fitting)] == [*refused]
    for field, values in refused.items():
        for value in values:
            with pytest.raises(InvalidOption, match=rf": {field} must be .*, not "):
                dataclasses.replace(fitting, **{field: value})


@pytest.mark.parametrize("options", [{"data_dir": 3}, {"data_dir": True}, {"download": 1}, {"vocabulary": 3}])
def test_the_options_of_loading_are_checked(options):
    with pytest.raises(InvalidOption, match=f": {[*options][0]} must be .*, not "):
        LoadOptions(**options)


def test_the_options_of_all_tracks_are_checked():
    """From a dictionary, as an object, and in a benchmark."""
    assert {name for name in names() if TRACKS.origin(name).startswith("bibench_tf.")} == TRACK_OPTIONS.keys()
    for name, refused in TRACK_OPTIONS.items():
        track = TRACKS.get(name)
        assert {field.name for field in dataclasses.fields(track.options)} == refused.keys()
        for option, values in refused.items():
            for value in values:
                for given in ({option: value}, track.options(**{option: value})):
                    with pytest.raises(InvalidOption, match=f"^The {name} track: {option} must "):
                        options_of(track, given)
                    with pytest.raises(InvalidOption, match=f"^The {name} track: {option} must "):
                        ResolvedBenchmark(Benchmark(options={name: given}))
    with pytest.raises(InvalidOption, match="^The robustness track takes its options by name, not 3"):
        options_of(TRACKS.get("robustness"), 3)


def test_run_benchmark_refuses_what_it_would_not_use(tmp_path):
    """Before anything is trained or written."""
    for settings in (
        {"epochs": "3"},
        {"seed": -1},
        {"precision": "mixed_flot16"},
        {"options": {"robustness": {"severity_table": "cifar"}}},
        {"options": {"robustness": 3}},
        {"session": {"strategy": "miror"}},
        {"session": {"executor": "rai"}},
    ):
        with pytest.raises(InvalidOption):
            bb.run_benchmark("fashion_mini", algorithms="bnn", tracks="complexity", results=tmp_path / "r", **settings)
    assert not (tmp_path / "r").exists()


def test_values_are_stored_as_declared():
    """Numbers of NumPy, integers and texts: a run has one id, however its recipe is written."""
    recipe = Recipe("tiny", np.int64(3), 16, "adam", 1, "cosine", milestones=[np.float64(0.5), 1])
    assert recipe == Recipe("tiny", 3, 16, "adam", 1.0, "cosine", milestones=(0.5, 1.0))
    assert [type(value) for value in (recipe.epochs, recipe.learning_rate, *recipe.milestones)] == [int, *[float] * 3]
    session = Session("results", data_dir="data", shard=[1, 3])
    assert (session.results, session.data_dir, session.shard) == (Path("results"), Path("data"), (1, 3))
    assert Settings(cores=[4, 5]).cores == (4, 5)


def test_what_types_do_not_say():
    with pytest.raises(InvalidOption, match="no part 4 of 3"):
        Session(Path("results"), shard=(4, 3))
    with pytest.raises(InvalidOption, match="Name the cores"):
        Settings(cores=())
    with pytest.raises(InvalidOption, match="sizes of 1 or more"):
        View((0, 1))
