"""Which benchmark is kept with its results when tracks are run one by one."""

from __future__ import annotations

import dataclasses

import pytest

from bibench_tf.benchmark import engine
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.cli import tracks as commands
from bibench_tf.results import environment
from bibench_tf.results.runs import RunSpec
from bibench_tf.tracks import base
from bibench_tf.training.session import Session

BENCHMARK = Benchmark(algorithms=("bnn",))


@pytest.fixture(autouse=True)
def no_description(monkeypatch):
    monkeypatch.setattr(environment, "describe", dict)


def stored_after(folder, *steps):
    for tracks, benchmark in steps:
        engine._store_benchmark(tracks, benchmark, folder)
    return engine.stored_benchmark(folder)


def test_a_track_keeps_what_the_others_asked_for(tmp_path):
    robust = dataclasses.replace(BENCHMARK, corruptions=("fog",), corrupted="tfds", severities="imagenet")
    searched = dataclasses.replace(BENCHMARK, grid=("sgd-1e-1-step",))
    stored = stored_after(
        tmp_path, (["task"], BENCHMARK), (["robustness"], robust), (["training"], searched), (["task"], BENCHMARK)
    )
    assert stored.tracks == ("task", "robustness", "training")
    assert stored.benchmark == dataclasses.replace(robust, grid=searched.grid)


def test_a_track_that_is_run_again_is_kept_as_it_was_last_asked_for(tmp_path):
    fewer = dataclasses.replace(BENCHMARK, corrupted_images=100)
    stored = stored_after(tmp_path, (["task", "robustness"], BENCHMARK), (["robustness"], fewer))
    assert stored.tracks == ("task", "robustness") and stored.benchmark == fewer


def test_tracks_without_seeds_keep_those_of_the_others_and_seeds_are_as_last_asked_for(tmp_path):
    three = dataclasses.replace(BENCHMARK, seeds=3)
    stored = stored_after(tmp_path, (["task", "training"], three), (["robustness"], BENCHMARK))
    assert stored.tracks == ("task", "robustness", "training") and stored.benchmark.seeds == 3
    stored = stored_after(tmp_path, (["training"], dataclasses.replace(BENCHMARK, seeds=5)))
    assert stored.tracks == ("task", "robustness", "training") and stored.benchmark.seeds == 5


def test_another_benchmark_takes_the_place_of_the_old_one(tmp_path):
    other = dataclasses.replace(BENCHMARK, seed=1, corrupted_images=100)
    stored = stored_after(tmp_path, (["robustness", "training"], BENCHMARK), (["task"], other))
    assert stored.tracks == ("task",) and stored.benchmark == other


def test_the_ids_of_runs_do_not_depend_on_what_the_robustness_track_asks_for():
    changed = dataclasses.replace(
        BENCHMARK, corruptions=("fog",), corrupted_images=None, corrupted="tfds", severities="imagenet"
    )
    ids = [[spec.id for spec in base.main_specs(each).values()] for each in (BENCHMARK, changed)]
    assert ids[0] == ids[1]
    assert not {"corrupted", "severities"} & {field.name for field in dataclasses.fields(RunSpec)}


def test_a_benchmark_of_an_earlier_version_is_read_with_made_corruptions():
    old = dataclasses.asdict(BENCHMARK)
    del old["corrupted"], old["severities"], old["seeds"]
    assert Benchmark.from_dict(old) == BENCHMARK
    assert (BENCHMARK.corrupted, BENCHMARK.severities) == ("made", "cifar10")


def test_groups_and_sizes_are_written_out_before_anything_is_run(tmp_path):
    asked = dataclasses.replace(BENCHMARK, corruptions=("standard", "fog"), severities="by-size")
    settled = commands._written_out(asked, Session(tmp_path))
    assert len(settled.corruptions) == 15 and settled.severities == "cifar10"
    assert settled.grid == ("adam-2e-3-cosine", "adam-2e-3-step", "sgd-1e-1-cosine", "sgd-1e-1-step")
    explicit = dataclasses.replace(asked, severities="imagenet")
    assert commands._written_out(explicit, Session(tmp_path)).severities == "imagenet"
