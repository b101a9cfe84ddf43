"""Runs on data that lie in a file of the user: their names and ids, and what happens when the file changes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_data

import bibench_tf as bb
from bibench_tf import contents, datasets, names, recipes
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import ResolvedBenchmark, settle
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.cli import main
from bibench_tf.contents import Contents
from bibench_tf.errors import BibenchError, MissingData
from bibench_tf.results import records, status
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.training import followers, queue, run
from bibench_tf.training.data_sets import DataSets, check
from bibench_tf.training.executors import worker
from bibench_tf.training.session import Session

RECIPE = dataclasses.replace(tiny_data.START, name="tiny_data", epochs=1)


def write(file: Path, level: int = 0) -> Path:
    """Images whose brightness follows their class, and `level` added to all; all files have the same size."""
    time.sleep(0.02)  # the clock of the file system moves on
    arrays = tiny_data.tiny().load()
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "r+b" if file.exists() else "wb") as stream:
        np.savez(stream, *(array + level if array.dtype == np.uint8 else array for array in arrays))
    return file


def rewrite(file: Path, level: int) -> None:
    """Other contents of the same size at the same time, as far as a program can set it."""
    before = file.stat()
    write(file, level)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def in_file(options: datasets.LoadOptions) -> datasets.ArrayImages:
    """The images in the file that the user names; they are read when they are needed."""
    found = Contents([options.data_dir])

    def load():
        with np.load(options.data_dir) as content:
            return datasets.Splits(*content.values())

    plain = tiny_data.tiny()
    return dataclasses.replace(
        plain,
        name=names.own_data("images", options.data_dir),
        fingerprint=lambda: found.digest,
        contents=found,
        load=load,
    )


@pytest.fixture(autouse=True)
def images(monkeypatch, tmp_path):
    """The data set `images:FILE` and its recipe, in a process that has read nothing, and the user's folder."""
    tiny_data.register(monkeypatch, "images", in_file)
    recipes.RECIPES.names()
    others = {name: recipe for name, recipe in recipes.RECIPES._entries.items() if name != RECIPE.name}
    monkeypatch.setattr(recipes.RECIPES, "_entries", others)
    recipes.register(RECIPE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "_known", {})
    # Files count as old enough for their digests to be kept.
    monkeypatch.setattr(contents, "_CLOCK_NS", -(10**10))
    run._data_of_process.cache_clear()
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "x.npz")


@pytest.fixture
def learn(monkeypatch):
    """Trainings that take no time: the accuracy of a network is the brightness of the data. Returns their specs."""
    import tensorflow as tf

    from bibench_tf.training.loop import Progress

    model, learnt = tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,))]), []

    def at_once(one, hooks):
        learnt.append(one.spec)
        row = {"epoch": 1, "accuracy": one.data.splits.train_images.mean() / 255, "test_loss": 1.0, "train_loss": 1.0}
        one.data.check_unchanged()
        return model, Progress(1, "", [row], {})

    monkeypatch.setattr(run, "learn", at_once)
    return learnt


def benchmark_of(*data, algorithms=("bnn",), **changes):
    fixed = {"networks": ("vgg_small@0.0625",), "recipe": RECIPE.name}
    return Benchmark(data=data, algorithms=algorithms, **{**fixed, **changes})


def task(*data, results="results", **changes):
    """The score of the task track after a run of it."""
    outcome = engine.run(benchmark_of(*data, **changes), Session(Path(results), quiet=True), ["task"])
    return outcome.scores["task"]


def every(results="results") -> dict[str, RunResult]:
    """The results in a folder by the name of their run."""
    files = sorted(Path(results).glob("runs/*/result.json"))
    return {file.parent.name: records.read(file, RunResult) for file in files}


def test_after_a_change_all_runs_are_planned_anew_and_no_table_mixes_both(images, capsys, learn):
    """Notices an id without the data: the table would have an old baseline beside a new algorithm."""
    task("images:x.npz")
    before = every()
    assert len(before) == 2
    kept = {name: Path("results/runs", name, "result.json").read_bytes() for name in before}
    rewrite(images, level=90)
    assert "are not those of the earlier runs" not in capsys.readouterr().err
    score = task("images:x.npz", algorithms=("bnn", "xnor"))
    assert "the data of 'images:x.npz' are not those of the earlier runs" in capsys.readouterr().err
    after = every()
    new = [result for name, result in after.items() if name not in before]
    assert len(new) == 3 and {result.spec.algorithm for result in new} == {"full_precision", "bnn", "xnor"}
    assert not {result.dataset["fingerprint"] for result in new} & {
        result.dataset["fingerprint"] for result in before.values()
    }
    assert kept == {name: Path("results/runs", name, "result.json").read_bytes() for name in before}
    found = dict(zip(score.table["algorithm"], score.table["images:x.npz accuracy (%)"], strict=True))
    assert found == {result.spec.algorithm: pytest.approx(100 * result.accuracy) for result in new}
    assert not score.failures
    planned = {planned.folder for planned in status.read_plan(Path("results"))}
    assert planned == {name for name in after if name not in before}
    # As it was: the first runs are found again, and nothing is trained.
    rewrite(images, level=0)
    learn.clear()
    score = task("images:x.npz")
    assert not learn
    found = dict(zip(score.table["algorithm"], score.table["images:x.npz accuracy (%)"], strict=True))
    assert found == {result.spec.algorithm: pytest.approx(100 * result.accuracy) for result in before.values()}


def test_the_same_data_by_any_path_are_the_same_runs(images, tmp_path, learn):
    """Notices a path, its spelling or the name of a link in the ids, and a second benchmark for the same data."""
    task("images:x.npz")
    first, stored = every(), Path("results/benchmark.json").read_bytes()
    (tmp_path / "mount").mkdir()
    shutil.copy(images, tmp_path / "mount" / "x.npz")
    (tmp_path / "link.npz").symlink_to(images)
    learn.clear()
    for place in ("./x.npz", images, tmp_path / "mount" / "x.npz", tmp_path / "link.npz", "mount/../x.npz"):
        task(f"images:{place}")
        assert every() == first and Path("results/benchmark.json").read_bytes() == stored and not learn
    assert len({spec.dataset for spec in (result.spec for result in first.values())}) == 1


def test_no_record_has_the_path_of_the_data(images, tmp_path, learn):
    """Notices a path in a result, a plan, a benchmark or a report, also after a failure."""
    task(f"images:{images}")
    images.unlink()
    with pytest.raises(BibenchError):
        task(f"images:{images}")
    write(images)
    folder = tmp_path / "failed"
    spec, session = planned_on(images, folder)
    images.unlink()
    worker.train(records.unstructure(spec), records.unstructure(session))
    (failed,) = every(folder).values()
    assert failed.status == "failed" and "images:x.npz" in failed.error
    files = [file for place in ("results", "failed") for file in Path(place).rglob("*") if file.suffix != ".keras"]
    texts = [file.read_bytes() for file in files if file.is_file()]
    assert texts and not any(str(tmp_path).encode() in text for text in texts)
    benchmark = json.loads(Path("results/benchmark.json").read_text())["data"]["benchmark"]
    (name,) = benchmark["data"]
    assert names.data_label(name) == "images:x.npz" and len(names.data_fingerprint(name)) == 12


def test_two_data_sets_of_one_name_are_distinguishable_and_one_by_two_paths_is_one(tmp_path, learn):
    """Notices a table in which the second data set takes the place of the first, or one data set counts twice."""
    for number, folder in enumerate("ab"):
        write(tmp_path / folder / "x.npz", level=60 * number)
    shutil.copy(tmp_path / "a" / "x.npz", tmp_path / "c.npz")
    score = task("images:a/x.npz", "images:b/x.npz", "images:c.npz")
    shown = [
        name.removesuffix(" accuracy (%)")
        for name in score.table.columns
        if name.startswith("images:") and name.endswith(" accuracy (%)")
    ]
    assert len(shown) == 2 and all(names.data_label(name) == "images:x.npz" != name for name in shown)
    assert [name for name in score.conditions if name.startswith("data: ")] == [f"data: {name}" for name in shown]
    assert {result.spec.dataset for result in every().values()} == set(shown)
    alone = task("images:a/x.npz", results="alone")
    assert "images:x.npz accuracy (%)" in alone.table.columns
    bb.run_benchmark(["images:a/x.npz"], "vgg_small@0.0625", "bnn", tracks="task", recipe=RECIPE.name, epochs=1)
    assert {names.data_label(result.spec.dataset) for result in every().values()} == {"images:x.npz"}


def test_a_store_is_read_without_the_data(images, monkeypatch, capsys, learn):
    """Notices a report or a status that looks for the data, and a plan that cannot be read."""
    score = task("images:x.npz")
    images.unlink()
    monkeypatch.setattr(datasets, "get", lambda *arguments: pytest.fail("the data are looked for"))
    again = engine.rescore(Session(Path("results"), quiet=True)).scores["task"]
    assert again.scores == score.scores and again.table.equals(score.table)
    for command in ("report", "status"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--results", "results"])
        assert ended.value.code == 0
    assert "2 of 2 runs completed" in capsys.readouterr().out


def test_a_command_describes_each_data_set_once(tmp_path, monkeypatch, learn):
    """Notices a description, or a digest, for each part of the engine or each run."""
    write(tmp_path / "y.npz", level=9)
    described, hashed, get, read = [], [], datasets.get, contents.fingerprint_files
    monkeypatch.setattr(datasets, "get", lambda name, *given: described.append(name) or get(name, *given))
    monkeypatch.setattr(contents, "fingerprint_files", lambda some: hashed.extend(some) or read(some))
    tracks = ["task", "complexity", "robustness"]
    options = {"robustness": {"corruptions": ("brightness",), "images": 4}}
    engine.run(
        benchmark_of("images:x.npz", "images:./y.npz", "fashion_mini", options=options, networks=()),
        Session(Path("results"), quiet=True, shard=(1, 10**6)),
        tracks,
    )
    assert described == [f"images:{tmp_path}/x.npz", f"images:{tmp_path}/y.npz", "fashion_mini"]
    assert hashed == [tmp_path / "x.npz", tmp_path / "y.npz"]


# While a benchmark is running --------------------------------------------------------------------------------------


def planned_on(file: Path, results: Path, epochs: int = 1) -> tuple[RunSpec, Session]:
    """A planned run, and the session that other processes get."""
    job = settle(benchmark_of(f"images:{file}", epochs=epochs), Session(results, quiet=True))
    return job.benchmark.specs(job.benchmark.first)["full_precision"], job.session


def train(spec: RunSpec, session: Session) -> RunResult:
    """The result of a run that a worker trains; it knows of the session what it gets as JSON, and works elsewhere."""
    here = Path.cwd()
    os.chdir("/")
    try:
        found = worker.train(*json.loads(json.dumps([records.unstructure(spec), records.unstructure(session)])))
    finally:
        os.chdir(here)
    assert found == {"done": True, "error": None}
    return RunStore(session.results).result(spec)


def test_a_worker_finds_the_data_through_the_session(images, tmp_path):
    """Notices a name of a run that a process in another working directory cannot resolve."""
    spec, session = planned_on(Path("x.npz"), tmp_path / "results")
    result = train(spec, session)
    assert result.status == "completed" and result.spec == spec and spec.dataset.startswith("images:x.npz#")


@pytest.mark.parametrize("how", ["changed", "exchanged", "removed", "unusable"])
def test_data_that_change_between_plan_and_worker_fail_the_run(how, images, tmp_path):
    """Notices a number that belongs to other data than the plan, and a session that one data set ends for all."""
    spec, session = planned_on(images, tmp_path / "results")
    if how == "changed":
        rewrite(images, level=90)
    elif how == "exchanged":
        os.replace(write(tmp_path / "other.npz", level=90), images)
    elif how == "removed":
        images.unlink()
    else:
        images.unlink(), images.mkdir()
    result = train(spec, session)
    assert result.status == "failed" and result.accuracy is None and not result.history
    assert "images:x.npz" in result.error and str(tmp_path) not in result.error
    assert not list(RunStore(session.results).folder(spec).glob("checkpoint-*"))
    # As it was: the same run is trained.
    if images.is_dir():
        images.rmdir()
    write(images)
    assert train(spec, session).status == "completed"


def test_data_that_change_in_a_worker_that_has_read_them_fail_the_next_run(images, tmp_path):
    """Notices arrays that a process keeps from the run before."""
    spec, session = planned_on(images, tmp_path / "results")
    assert train(spec, session).status == "completed"
    rewrite(images, level=90)
    other = dataclasses.replace(spec, seed=1)
    assert "images:x.npz' have changed" in train(other, session).error
    rewrite(images, level=0)
    assert train(other, session).status == "completed"


@pytest.mark.parametrize("in_process", [True, False])
def test_an_epoch_on_changed_data_is_not_kept_and_a_resume_mixes_no_epochs(in_process, images, tmp_path, monkeypatch):
    """Notices a check at the start only, and a checkpoint of an epoch that read other data."""
    spec, session = planned_on(images, tmp_path / "results", epochs=3)
    reference, elsewhere = planned_on(images, tmp_path / "reference", epochs=3)
    expected = train(reference, elsewhere)
    batches = datasets.ArrayImages._train_batches
    run._data_of_process.cache_clear()

    def changing(data, batch_size, seed, epoch, augment):
        if epoch == 1:
            rewrite(images, level=90)
        return batches(data, batch_size, seed, epoch, augment)

    with monkeypatch.context() as changed:
        changed.setattr(datasets.ArrayImages, "_train_batches", changing)
        if in_process:
            queue.execute([spec], session)
            result = RunStore(session.results).result(spec)
        else:
            result = train(spec, session)
    assert result.status == "failed" and "images:x.npz' have changed" in result.error and result.accuracy is None
    folder = RunStore(session.results).folder(spec)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-1"]
    # On the new data other runs are planned, which do not start from this checkpoint.
    renewed, _ = planned_on(images, tmp_path / "results", epochs=3)
    assert renewed.id != spec.id and not RunStore(session.results).folder(renewed).exists()
    rewrite(images, level=0)
    run._data_of_process.cache_clear()
    assert tiny_data.outcome(train(spec, session)) == tiny_data.outcome(expected)


def test_a_change_fails_the_runs_on_these_data_alone(images, tmp_path, capsys, learn):
    """Notices that runs on other data end with them."""
    write(tmp_path / "y.npz", level=9)
    load, changed = in_file, []

    def in_changing_file(options):
        found = load(options)

        def read():
            if options.data_dir.name == "x.npz" and not changed:
                changed.append(rewrite(images, level=90))
            return found.load()

        return dataclasses.replace(found, load=read)

    with pytest.MonkeyPatch.context() as patch:
        tiny_data.register(patch, "images", in_changing_file)
        score = task("images:x.npz", "images:y.npz")
    found = {(result.spec.algorithm, names.data_label(result.spec.dataset)): result for result in every().values()}
    assert {key: result.status for key, result in found.items()} == {
        (algorithm, f"images:{name}"): state
        for algorithm in ("full_precision", "bnn")
        for name, state in (("x.npz", "failed"), ("y.npz", "completed"))
    }
    assert score.scores["bnn"] is None and len(score.failures) >= 2


def test_measurements_compare_with_the_data_of_the_runs(images, tmp_path):
    """Notices a measurement of a trained network on other data."""
    job = settle(benchmark_of("images:x.npz"), Session(tmp_path / "results", quiet=True))
    setup = job.benchmark.first
    fingerprint = job.data(setup).fingerprint
    assert job.same_data(setup, {fingerprint}) is job.data(setup)
    with pytest.raises(BibenchError, match="are not those the networks"):
        job.same_data(setup, {fingerprint, "0" * 64})
    rewrite(images, level=90)
    for look in (job.data, lambda setup: job.same_data(setup, {fingerprint})):
        with pytest.raises(BibenchError, match="images:x.npz' have changed"):
            look(setup)


def test_a_network_is_not_measured_on_data_that_change_meanwhile(images, monkeypatch):
    """Notices a check before the measurement only."""
    options = {"robustness": {"corruptions": ("brightness",), "images": 8}}
    changed = {"options": options}
    task("images:x.npz", **changed)
    batches = datasets.ArrayImages._test_batches

    def changing(data, *arguments):
        rewrite(images, level=90)
        return batches(data, *arguments)

    monkeypatch.setattr(datasets.ArrayImages, "_test_batches", changing)
    with pytest.raises(BibenchError, match="images:x.npz' have changed"):
        engine.run(benchmark_of("images:x.npz", **changed), Session(Path("results"), quiet=True), ["robustness"])
    assert not list(Path("results").glob("runs/*/robustness.json"))


class Announced:
    """A chief that announces one run."""

    def __init__(self, spec: RunSpec, fingerprint: str) -> None:
        self.announcements = [{"spec": records.unstructure(spec), "fingerprint": fingerprint}, {}]

    def announced(self):
        return self.announcements.pop(0)


def test_a_follower_has_its_own_place_and_the_same_data(images, tmp_path, monkeypatch):
    """Notices a follower that looks for the chief's path, or takes part with other data."""
    spec, session = planned_on(images, tmp_path / "results")
    fingerprint = DataSets(session).get(spec.dataset).fingerprint
    own = write(tmp_path / "another" / "mount" / "renamed.npz")
    learnt = []
    monkeypatch.setattr(run, "learn", learnt.append)
    mine = DataSets(Session(tmp_path / "unused", quiet=True))
    mine.named(f"images:{own}")
    followers.follow(mine, Announced(spec, fingerprint))
    assert learnt[0].data.contents.files == (own,) and learnt[0].spec == spec
    for other in (f"images:{write(tmp_path / 'other.npz', level=9)}", "fashion_mini"):
        mine = DataSets(Session(tmp_path / "unused", quiet=True))
        mine.named(other)
        with pytest.raises(BibenchError, match="images:x.npz.* is not the same on all workers"):
            followers.follow(mine, Announced(spec, fingerprint))


def test_a_checkpoint_that_changes_fails_the_run(images, tmp_path, monkeypatch):
    """Notices that a worker starts from another checkpoint than the plan: it is in the ids as the data are."""
    bert = write(tmp_path / "bert" / "model.safetensors")
    session = Session(tmp_path / "results", quiet=True, bert_checkpoint=bert.parent)
    found = run.files_digest(bert.parent)
    spec, located = planned_on(images, tmp_path / "results")
    spec = dataclasses.replace(spec, bert_checkpoint=found)
    located = dataclasses.replace(located, bert_checkpoint=session.bert_checkpoint)
    rewrite(bert, level=9)
    result = train(spec, located)
    assert result.status == "failed" and "These runs need the checkpoint" in result.error


# Names -------------------------------------------------------------------------------------------------------------


def test_names_of_data_in_records():
    """Notices another form of the names, which are in ids."""
    digest = "0123456789abcdef" * 4
    for asked, name, identity, label in (
        ("cifar10", "cifar10#0123456789ab", "cifar10#0123456789ab", "cifar10"),
        ("tsv:/a/b/x.tsv", "tsv:x.tsv#0123456789ab", "tsv#0123456789ab", "tsv:x.tsv"),
        ("tsv:x#y:z", "tsv:x#y:z#0123456789ab", "tsv#0123456789ab", "tsv:x#y:z"),
        ("voc_folder:/a/b/", "voc_folder:b#0123456789ab", "voc_folder#0123456789ab", "voc_folder:b"),
        ("wav_folder:/", "wav_folder:/#0123456789ab", "wav_folder#0123456789ab", "wav_folder:/"),
        ("tsv:a\tb\n\x1b[2J\udcff", "tsv:a?b??[2J?#0123456789ab", "tsv#0123456789ab", "tsv:a?b??[2J?"),
    ):
        assert names.data_name(asked, digest) == name
        assert (names.data_identity(name), names.data_label(name)) == (identity, label)
        assert (names.data_kind(name), names.data_fingerprint(name)) == (asked.partition(":")[0], "0123456789ab")
    for plain in ("fashion_mini", "voc_folder:bccd_voc/BCCD", "tsv:x#1"):
        assert names.data_identity(plain) == names.data_label(plain) == plain
        assert names.data_fingerprint(plain) is None
        assert names.data_kind(plain) == plain.partition(":")[0]


@pytest.mark.parametrize("fingerprint", ["i", "version 3", "0123456789AB", "0123456789a"])
def test_a_fingerprint_that_is_no_digest_has_a_name_too(fingerprint):
    """Notices names that cannot be told from those without a fingerprint."""
    name = names.data_name("mine", fingerprint)
    assert names.data_kind(name) == "mine" and len(names.data_fingerprint(name)) == 12
    assert name != names.data_name("mine", fingerprint + "1")


def test_the_ids_of_runs_on_data_of_the_package_and_of_published_runs_stay():
    """Notices a change of all ids; these are in docs/results."""
    folder = Path(__file__).parents[2] / "docs" / "results"
    found = 0
    for file in folder.glob("*/runs/*/result.json"):
        result = records.read(file, RunResult)
        assert result.spec.id == result.run_id and file.parent.name == result.spec.folder
        found += 1
    assert found > 150
    benchmark = ResolvedBenchmark(engine.stored_benchmark(folder / "quick").benchmark)
    assert settle(benchmark.benchmark, Session(Path("unused"))).benchmark.benchmark.data == benchmark.benchmark.data


def test_only_data_of_the_package_have_names_without_a_fingerprint(monkeypatch, tmp_path):
    """Notices a plug-in whose data may change under one id."""
    tiny_data.register(monkeypatch, "made", tiny_data.tiny)
    data = DataSets(Session(tmp_path))
    assert data.named("fashion_mini") == "fashion_mini" and data.session.places == ()
    name = data.named("made")
    assert name == f"made#{tiny_data.tiny().fingerprint[:12]}" and data.named(name) == name
    assert data.get(name).name == "tiny"
    check(name, data.get(name))
    tiny_data.register(monkeypatch, "made", lambda options: tiny_data.tiny(train=128))
    changed = DataSets(data.session).get(name)
    with pytest.raises(BibenchError, match="The data of 'made' are not those of this run"):
        check(name, changed)


def test_a_name_from_a_record_says_what_data_but_not_where(images, tmp_path):
    """Notices a guess of a place, and a fingerprint that the user writes and nobody compares."""
    spec, session = planned_on(images, tmp_path / "results")
    with pytest.raises(MissingData, match="'images:x.npz' is not known here: name it by --data"):
        DataSets(Session(tmp_path)).get(spec.dataset)
    assert DataSets(session).get(spec.dataset).name == "images:x.npz"
    for asked in (names.data_identity(spec.dataset), "fashion_mini#0123456789ab"):
        with pytest.raises(BibenchError, match="Unknown data set"):
            DataSets(Session(tmp_path)).named(asked)
    with pytest.raises(MissingData):
        DataSets(Session(tmp_path)).named(spec.dataset)


def test_predictions_are_for_the_data_of_the_run(images, capsys):
    """Notices predictions for other data than the run's, and a traceback where no record has the place."""
    task("images:x.npz")
    folder = str(next(Path("results/runs").glob("*-bnn-*")))

    def ended(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["predict", folder, *arguments])
        return end.value.code, capsys.readouterr()

    code, said = ended()
    assert code == 2 and "name it by --data" in said.err and "Traceback" not in said.err
    code, said = ended("--data", "images:x.npz")
    assert code == 0 and "accuracy: " in said.out


def test_an_embedded_data_set_with_a_folder_is_refused_by_commands(capsys):
    """Notices a command that trains on the package's data in place of the user's, or ends with a traceback."""
    for command in (["run"], ["task"], ["complexity"], ["robustness"]):
        with pytest.raises(SystemExit) as end:
            main([*command, "--data", "fashion_mini:/any/folder", "--results", "unused"])
        said = capsys.readouterr().err
        assert end.value.code == 2 and said.count("\n") == 1
        assert "'fashion_mini' is not read from a folder, so that /any/folder would have no effect" in said
    assert not Path("unused").exists()
