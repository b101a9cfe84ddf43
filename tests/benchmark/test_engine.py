"""Which benchmark is kept with its results when tracks are run one by one, and what the engine refuses."""

from __future__ import annotations

import dataclasses

import pytest

from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import ResolvedBenchmark, settle
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, names
from bibench_tf.errors import BibenchError, InvalidOption, UnknownName
from bibench_tf.results import environment, records
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.tracks.corruption_robustness import Options as Robustness
from bibench_tf.tracks.hardware_inference import Options as Inference
from bibench_tf.tracks.training_consumption import Options as Training
from bibench_tf.training.session import Session

DEFAULTS = {name: TRACKS.get(name).options() for name in names()}


def asked(robustness=None, training=None, inference=None, **changes):
    own = {"robustness": robustness, "training": training, "inference": inference}
    own = {name: options for name, options in own.items() if options is not None}
    return Benchmark(algorithms=("bnn",), options={**DEFAULTS, **own}, **changes)


BENCHMARK = asked()


@pytest.fixture(autouse=True)
def no_description(monkeypatch):
    monkeypatch.setattr(environment, "describe", dict)


def stored_after(folder, *steps):
    """The stored benchmark after tracks were run one after the other."""
    for tracks, benchmark in steps:
        engine._store_benchmark([TRACKS.get(name) for name in tracks], benchmark, folder)
    return engine.stored_benchmark(folder)


def test_a_track_keeps_what_the_others_asked_for(tmp_path):
    robust = Robustness(corruptions=("fog",), source="tfds", severity_table="imagenet")
    searched = Training(grid=("sgd-1e-1-step",))
    stored = stored_after(
        tmp_path,
        (["task"], BENCHMARK),
        (["robustness"], asked(robustness=robust)),
        (["training"], asked(training=searched)),
        (["task"], BENCHMARK),
    )
    assert stored.tracks == ("task", "robustness", "training")
    assert stored.benchmark == asked(robustness=robust, training=searched)


def test_a_track_that_is_run_again_is_kept_as_it_was_last_asked_for(tmp_path):
    fewer = asked(robustness=Robustness(images=100))
    stored = stored_after(tmp_path, (["task", "robustness"], BENCHMARK), (["robustness"], fewer))
    assert stored.tracks == ("task", "robustness") and stored.benchmark == fewer


def test_tracks_without_seeds_keep_those_of_the_others_and_seeds_are_as_last_asked_for(tmp_path):
    stored = stored_after(tmp_path, (["task", "training"], asked(seeds=3)), (["robustness"], BENCHMARK))
    assert stored.tracks == ("task", "robustness", "training") and stored.benchmark.seeds == 3
    stored = stored_after(tmp_path, (["training"], asked(seeds=5)))
    assert stored.tracks == ("task", "robustness", "training") and stored.benchmark.seeds == 5


def test_the_architecture_track_keeps_the_networks_of_the_others(tmp_path):
    named = asked(networks=("vgg_small",))
    stored = stored_after(tmp_path, (["task"], named), (["architecture"], BENCHMARK))
    assert stored.tracks == ("task", "architecture") and stored.benchmark.networks == ("vgg_small",)


def test_another_benchmark_takes_the_place_of_the_old_one(tmp_path):
    other = asked(robustness=Robustness(images=100), seed=1)
    stored = stored_after(tmp_path, (["robustness", "training"], BENCHMARK), (["task"], other))
    assert stored.tracks == ("task",) and stored.benchmark == other


def test_the_same_benchmark_is_not_written_again(tmp_path):
    stored_after(tmp_path, (["task"], BENCHMARK))
    before = (tmp_path / engine.FILE).stat().st_mtime_ns
    stored_after(tmp_path, (["task"], BENCHMARK), (["task"], asked(training=Training(retime=True))))
    assert (tmp_path / engine.FILE).stat().st_mtime_ns == before


def test_options_are_stored_and_read_in_their_types_without_those_of_the_session(tmp_path):
    benchmark = asked(
        robustness=Robustness(corruptions=("fog", "snow"), images=None, source="tfds", severity_table="imagenet"),
        training=Training(grid=("sgd-1e-1-step",), retime=True, retime_rounds=5),
        inference=Inference(targets=("ssh:pi@board",), binaries=("program",)),
        networks=("resnet20@0.5",),
        epochs=3,
        bert_checkpoint="a" * 64,
    )
    stored = stored_after(tmp_path, (["robustness", "training", "inference"], benchmark))
    assert stored == engine.StoredBenchmark(benchmark, ("robustness", "training", "inference"))
    options = stored.benchmark.options
    assert {name: type(value) for name, value in options.items()} == {
        name: TRACKS.get(name).options for name in names()
    }
    assert options["training"] == Training(grid=("sgd-1e-1-step",)), "how this session measures is not kept"
    assert options["inference"] == Inference() and options["inference"].targets == ("host",)
    written = records.read_envelope(tmp_path / engine.FILE)["data"]["benchmark"]["options"]
    assert written["training"] == {"grid": ["sgd-1e-1-step"]} and written["inference"] == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"robustnes": {}}}, "Did you mean 'robustness'"),
        ({"options": {"robustness": {"image": 3}}}, "robustness track has no option 'image'"),
    ],
)
def test_a_stored_benchmark_with_unknown_tracks_or_options_is_refused(change, said, tmp_path):
    record = engine.StoredBenchmark(dataclasses.replace(BENCHMARK, **change), ("task",))
    records.write(tmp_path / engine.FILE, record)
    with pytest.raises(BibenchError, match=said):
        engine.stored_benchmark(tmp_path)


def test_the_ids_of_runs_do_not_depend_on_the_options_of_tracks():
    changed = asked(robustness=Robustness(("fog",), None, "tfds", "imagenet"), training=Training(("bibench",)))
    resolved = map(ResolvedBenchmark, (BENCHMARK, changed))
    ids = [[spec.id for spec in each.specs(each.first).values()] for each in resolved]
    assert ids[0] == ids[1]
    assert "options" not in {field.name for field in dataclasses.fields(RunSpec)}


def test_groups_and_sizes_are_written_out_before_anything_is_run(tmp_path):
    benchmark = asked(robustness=Robustness(corruptions=("standard", "fog"), images=0))
    settled = settle(benchmark, Session(tmp_path)).benchmark
    robustness = settled.options("robustness")
    assert len(robustness.corruptions) == 15 and robustness.severity_table == "cifar10" and robustness.images is None
    grid = ("adam-2e-3-cosine", "adam-2e-3-step", "sgd-1e-1-cosine", "sgd-1e-1-step")
    assert settled.options("training").grid == grid
    explicit = asked(robustness=Robustness(severity_table="imagenet"))
    assert settle(explicit, Session(tmp_path)).benchmark.options("robustness").severity_table == "imagenet"
    assert settle(settled.benchmark, Session(tmp_path)).benchmark.benchmark == settled.benchmark, "settled is settled"


@pytest.mark.parametrize(
    ("change", "tracks", "error"),
    [
        ({"recipe": "quik"}, None, UnknownName),
        ({"data": ()}, None, InvalidOption),
        ({"data": ("cifar11",)}, ["task"], UnknownName),
        ({"options": {"task": {"colour": 1}}}, ["task"], InvalidOption),
        ({"options": {"tusk": {}}}, ["task"], UnknownName),
        ({}, ["tusk"], UnknownName),
        ({"algorithms": ("bnm",)}, ["task"], UnknownName),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(change, tracks, error, tmp_path):
    benchmark = dataclasses.replace(BENCHMARK, **{"data": ("fashion_mini",), **change})
    with pytest.raises(error):
        engine.run(benchmark, Session(tmp_path / "results", quiet=True), tracks)
    assert not (tmp_path / "results").exists()


def test_a_batch_larger_than_the_data_is_refused(tmp_path, registered_data):
    from bibench_tf import datasets

    few = dataclasses.replace(datasets.get("fashion_mini"), name="few", train_examples=10)
    with registered_data("few", lambda *given: few, "image_classification"):
        benchmark = asked(data=("few",))
        with pytest.raises(BibenchError, match="A batch of 64 is more than the 10 training examples of few"):
            engine.run(benchmark, Session(tmp_path / "results", quiet=True), ["task"])
    assert not (tmp_path / "results").exists()


def test_a_folder_without_a_benchmark_is_not_scored(tmp_path):
    with pytest.raises(BibenchError, match="holds no benchmark"):
        engine.rescore(Session(tmp_path, quiet=True))
    assert engine.stored_benchmark(tmp_path) is None


def test_every_run_is_planned_once_and_starts_come_first():
    tracks = [TRACKS.get(name) for name in names()]
    benchmark = ResolvedBenchmark(asked(data=("cifar10",), recipe="bibench_cifar10"))
    specs = engine.planned(tracks, benchmark)
    ids = [spec.id for spec in specs]
    assert len(ids) == len(set(ids))
    assert any(spec.parent for spec in specs)
    assert all(ids.index(spec.parent.id) < ids.index(spec.id) for spec in specs if spec.parent)


def test_scores_are_in_the_order_of_the_tracks(tmp_path):
    tracks = [TRACKS.get(name) for name in ("training", "task")]
    scores = engine.score(tracks, ResolvedBenchmark(BENCHMARK), RunStore(tmp_path))
    assert [score.track for score in scores] == ["training", "task"] and all(score.failures for score in scores)
