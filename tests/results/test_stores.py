"""A results folder at a URL and its working copies, as two machines with disks of their own have them."""

import dataclasses
import hashlib
import json
import shutil
import time

import fsspec
import pytest
import tiny_data  # noqa: F401  registers the data set
from fsspec.implementations.memory import MemoryFileSystem

from bibench_tf import files
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.errors import BibenchError, StorageError
from bibench_tf.recipes import Recipe
from bibench_tf.results import runs, stores
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.training import queue
from bibench_tf.training.session import Session

START = Recipe("start", epochs=2, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
SPEC = RunSpec("tiny", "vgg_small", "bnn", dataclasses.replace(START, name="binary", start=START), width=0.0625)


class Bare(MemoryFileSystem):
    """Says nothing of a file but its size, as some HTTP servers do."""

    protocol, store, pseudo_dirs = "bare", {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("bare://").removeprefix("tagged://"))

    def info(self, path, **options):
        return self._said(super().info(path, **options))

    def ls(self, path, detail=True, **options):
        found = super().ls(path, detail=detail, **options)
        return [self._said(each) for each in found] if detail else found

    def _said(self, details):
        return {name: value for name, value in details.items() if name != "created"}


class Tagged(Bare):
    """Gives a checksum of the content and a time that never changes, as object stores that round their times."""

    protocol, store, pseudo_dirs = "tagged", {}, [""]

    def _said(self, details):
        if details["type"] == "file":
            content = self.store[details["name"]].getvalue()
            details = details | {"ETag": hashlib.md5(content).hexdigest(), "LastModified": 0}
        return super()._said(details)


@pytest.fixture(params=["file", "memory", "bare", "tagged"])
def url(request, tmp_path):
    for kind in (Bare, Tagged):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
    for kind in (MemoryFileSystem, Bare, Tagged):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
    return f"{request.param}://{tmp_path}/store"


@pytest.fixture
def machine(tmp_path, monkeypatch, url):
    """A function that makes a machine by its name the one we are on, and opens the store there."""

    def on(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        stores._store.cache_clear()
        return RunStore(stores.working_copy(url))

    return on


@pytest.fixture
def stored(url):
    """A function that returns the contents of the files in the store, by name."""
    files, root = fsspec.core.url_to_fs(url)

    def contents():
        files.invalidate_cache()
        return {path[len(root) + 1 :]: files.cat_file(path).decode() for path in files.find(root)}

    return contents


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write(store, name, text):
    time.sleep(0.02)  # longer than the resolution of the times of files
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(store, name):
    return (store.root / name).read_text()


def test_records_go_from_machine_to_machine(machine, stored):
    one = machine("one")
    one.write(SPEC, RunResult(SPEC.id, SPEC, "completed", accuracy=0.5))
    for name in ("benchmark.json", "report/report.html", f"runs/{SPEC.folder}/robustness.json"):
        write(one, name, "{}")
    for name in (f"runs/{SPEC.folder}/.lock", f"runs/{SPEC.folder}/checkpoint-1/progress.json", ".tmp-1.json"):
        write(one, name, "{}")
    one.remote.upload_changed()
    wanted = ["benchmark.json", *(f"runs/{SPEC.folder}/{name}.json" for name in ("result", "robustness"))]
    assert sorted(stored()) == sorted([*wanted, "report/report.html"])
    two = machine("two")
    assert two.status(SPEC.folder) is None
    two.remote.fetch_records()
    assert two.status(SPEC.folder) == "completed" and two.result(SPEC) == one.result(SPEC)
    own = (".synchronised.jsonl", "runs/index.jsonl")
    assert [name for name in names_in(two.root) if name not in own] == sorted([*wanted])
    write(one, "benchmark.json", '{"more": 1}')
    machine("one").remote.upload_changed()
    again = machine("two")
    again.remote.fetch_records()
    assert (again.root / "benchmark.json").read_text() == '{"more": 1}'


RECORD = f"runs/{SPEC.folder}/robustness.json"


@pytest.fixture
def two_machines(machine):
    """Both have the same record, network, checkpoint and report."""
    one = machine("one")
    for name in ("model.keras", "result.json", "robustness.json"):
        write(one, f"runs/{SPEC.folder}/{name}", "before")
    write(one, "benchmark.json", "before")
    write(one, "report/report.html", "before")
    write(one, f"runs/{SPEC.folder}/checkpoint-1/state.index", "before")
    write(one, f"runs/{SPEC.folder}/checkpoint-1/progress.json", "before")
    one.remote.upload_changed()
    one.remote.upload_checkpoints(f"runs/{SPEC.folder}")
    two = machine("two")
    fetch_all(two)
    assert {read(two, name) for name in EVERY_KIND} == {"before"}
    return one, two


EVERY_KIND = (
    "benchmark.json",
    RECORD,
    f"runs/{SPEC.folder}/result.json",
    f"runs/{SPEC.folder}/model.keras",
    f"runs/{SPEC.folder}/checkpoint-1/progress.json",
)


def fetch_all(store):
    store.remote.fetch_records()
    store.remote.fetch(f"runs/{SPEC.folder}/model.keras")
    store.remote.fetch_checkpoints(f"runs/{SPEC.folder}")


def upload_all(store):
    store.remote.upload([name for name in EVERY_KIND if "checkpoint" not in name])
    store.remote.upload_checkpoints(f"runs/{SPEC.folder}")


@pytest.mark.parametrize("after", ["after_", "after, longer"], ids=["same length", "longer"])
def test_a_file_that_another_machine_has_changed_is_fetched(two_machines, machine, stored, after, capsys):
    """Notices a comparison of sizes, for each kind of file that is fetched."""
    one, two = two_machines
    machine("one")
    for name in EVERY_KIND:
        write(one, name, after)
    upload_all(one)
    machine("two")
    fetch_all(two)
    assert {name: read(two, name) for name in EVERY_KIND} == dict.fromkeys(EVERY_KIND, after)
    assert capsys.readouterr().err == ""
    two.remote.upload_changed()
    assert {stored()[name] for name in EVERY_KIND} == {after}


@pytest.mark.parametrize("after", ["after_", "after, longer"], ids=["same length", "longer"])
def test_a_stale_working_copy_overwrites_nothing(two_machines, machine, stored, after, capsys):
    """Notices that a copy which was not fetched again is uploaded because it differs from the store."""
    one, two = two_machines
    machine("one")
    for name in (*EVERY_KIND, "report/report.html"):
        write(one, name, after)
    upload_all(one)
    one.remote.upload_changed()
    machine("two").remote.upload_changed()
    assert set(stored().values()) == {after, "before"}
    assert [name for name, text in stored().items() if text == "before"] == [
        f"runs/{SPEC.folder}/checkpoint-1/state.index"
    ]
    assert capsys.readouterr().err == ""


def test_a_change_that_was_not_uploaded_is_kept_and_uploaded_later(two_machines, machine, stored, capsys):
    """Notices that the measurement of a process that was killed before its upload is replaced by the older one."""
    one, two = two_machines
    write(two, RECORD, "measured here")
    fetch_all(machine("two"))
    assert read(two, RECORD) == "measured here" and stored()[RECORD] == "before"
    machine("two").remote.upload_changed()
    assert stored()[RECORD] == "measured here" and capsys.readouterr().err == ""
    machine("one").remote.fetch_records()
    assert read(one, RECORD) == "measured here"


def test_a_record_that_has_changed_on_both_sides_is_kept_twice(two_machines, machine, stored, capsys):
    """Notices that either of two measurements is lost without a word."""
    one, two = two_machines
    machine("one")
    write(one, RECORD, "by one")
    one.remote.upload_changed()
    machine("two")
    write(two, RECORD, "by two")
    write(two, "benchmark.json", "by two")
    two.remote.upload_changed()
    said = capsys.readouterr().err
    assert f"{RECORD} in {two.remote.url} changed meanwhile: the files there are kept" in said
    assert (stored()[RECORD], stored()["benchmark.json"]) == ("by one", "by two")
    two.remote.fetch_records()
    own = (two.root / RECORD).with_name(".own-robustness.json")
    said = capsys.readouterr().err
    assert f"{RECORD} has changed both here and in {two.remote.url}" in said and str(own) in said
    assert (read(two, RECORD), own.read_text()) == ("by one", "by two")
    two.remote.upload_changed()
    assert stored()[RECORD] == "by one" and not any(".own-" in name for name in stored())
    assert capsys.readouterr().err == ""


def test_the_same_change_on_both_sides_is_no_conflict(two_machines, machine, stored, capsys):
    """Notices a sentence about a conflict between equal files."""
    one, two = two_machines
    for name, store in (("one", one), ("two", two)):
        machine(name)
        write(store, RECORD, "the same")
        store.remote.upload_changed()
    two.remote.fetch_records()
    assert read(two, RECORD) == "the same" and capsys.readouterr().err == ""


def test_a_file_of_another_machine_is_replaced_with_a_sentence(two_machines, machine, stored, capsys):
    """Notices that a run that two machines have trained is replaced without a word."""
    one, two = two_machines
    machine("one")
    write(one, f"runs/{SPEC.folder}/result.json", "by one")
    one.remote.upload([f"runs/{SPEC.folder}/result.json"])
    machine("two")
    write(two, f"runs/{SPEC.folder}/result.json", "by two")
    two.remote.upload([f"runs/{SPEC.folder}/result.json"])
    assert stored()[f"runs/{SPEC.folder}/result.json"] == "by two"
    assert f"runs/{SPEC.folder}/result.json in {two.remote.url} is of another machine" in capsys.readouterr().err
    write(two, f"runs/{SPEC.folder}/result.json", "by two, again")
    two.remote.upload([f"runs/{SPEC.folder}/result.json"])
    assert capsys.readouterr().err == ""


def test_a_report_of_the_newest_records_takes_the_place_of_another_machines(two_machines, machine, stored, capsys):
    """Notices a report that stays the first machine's for ever, and one that was made before another came."""
    one, two = two_machines
    machine("two").remote.fetch_records()
    write(two, "report/report.html", "by two")
    two.remote.upload_changed()
    assert stored()["report/report.html"] == "by two"
    machine("one").remote.fetch_records()
    write(one, "report/report.html", "by one, meanwhile")
    machine("two")
    write(two, "report/report.html", "by two, later")
    two.remote.upload_changed()
    machine("one").remote.upload_changed()
    assert stored()["report/report.html"] == "by two, later"
    assert "report/report.html" in capsys.readouterr().err


def test_without_notes_the_contents_are_compared(two_machines, machine, stored, capsys):
    """Notices files that are taken for equal, or for conflicts, because nothing is known of them."""
    one, two = two_machines
    notes = two.root / ".synchronised.jsonl"
    lines = notes.read_bytes().splitlines()
    notes.write_bytes(b"\n".join([b"garbage", b"[1]", b"{}", *lines[: len(lines) // 2], lines[-1][:20]]))
    fetch_all(machine("two"))
    two.remote.upload_changed()
    assert capsys.readouterr().err == "" and {read(two, name) for name in EVERY_KIND} == {"before"}
    notes.unlink()
    machine("one")
    write(one, RECORD, "after_")
    one.remote.upload_changed()
    two = machine("two")
    two.remote.upload_changed()
    assert stored()[RECORD] == "after_" and RECORD in capsys.readouterr().err
    two.remote.fetch_records()
    assert read(two, RECORD) == "after_" and ".own-robustness.json" in capsys.readouterr().err


def test_an_unchanged_file_is_not_transferred_again(two_machines, machine, monkeypatch):
    """Notices that every start downloads every record."""
    _, two = two_machines
    remote = machine("two").remote
    monkeypatch.setattr(remote, "_get", lambda wanted: pytest.fail(f"{wanted} are here"))
    monkeypatch.setattr(remote, "_put", lambda name: pytest.fail(f"{name} is there"))
    fetch_all(two)
    two.remote.upload_changed()


def test_the_transfers_of_another_process_are_known(two_machines, machine):
    """Notices that a process asks for what a worker process of the same machine has uploaded."""
    _, two = two_machines
    main, worker = machine("two").remote, stores.Remote(two.remote.url, two.root)
    main.fetch_records()
    write(two, RECORD, "by the worker")
    worker.upload([RECORD])
    main._put = lambda name: pytest.fail(f"{name} is there")
    main.upload_changed()


def test_a_checkpoint_of_more_epochs_is_not_deleted(two_machines, machine, stored):
    """Notices that a machine with fewer epochs deletes the checkpoint of a machine that is ahead."""
    one, two = two_machines
    run = f"runs/{SPEC.folder}"
    for epoch in (2, 7):
        write(one, f"{run}/checkpoint-{epoch}/progress.json", "ahead")
    machine("one").remote.upload_checkpoints(run)
    write(two, f"{run}/checkpoint-2/progress.json", "behind")
    shutil.rmtree(two.root / run / "checkpoint-1")
    machine("two").remote.upload_checkpoints(run)
    assert {name.split("/")[2] for name in stored() if "checkpoint" in name} == {"checkpoint-2", "checkpoint-7"}


def test_a_half_uploaded_checkpoint_does_not_replace_a_whole_one(two_machines, machine):
    """Notices that the weights of a killed upload take the place of a checkpoint with its record."""
    one, two = two_machines
    run = f"runs/{SPEC.folder}"
    write(two, f"{run}/checkpoint-2/state.index", "whole")
    write(two, f"{run}/checkpoint-2/progress.json", "whole")
    files, root = fsspec.core.url_to_fs(two.remote.url)
    files.makedirs(f"{root}/{run}/checkpoint-2", exist_ok=True)
    files.pipe_file(f"{root}/{run}/checkpoint-2/state.index", b"half")
    machine("two").remote.fetch_checkpoints(run)
    assert read(two, f"{run}/checkpoint-2/state.index") == "whole"


def put(store, spec, accuracy):
    data = {"name": "tiny", "fingerprint": "f" * 64, "train_examples": 64, "test_examples": 32}
    result = RunResult(
        spec.id, spec, "completed", accuracy=accuracy, best_accuracy=accuracy, metric="accuracy", dataset=data,
        history=[{"epoch": 1, "accuracy": accuracy, "train_loss": 1.0}],
    )  # fmt: skip
    time.sleep(0.02)
    store.write(spec, result)
    return (store.folder(spec) / "result.json").stat().st_size


def test_a_report_of_a_url_is_of_the_records_that_are_there(machine, url, stored, capsys):
    """Notices a report that is made from the working copy of yesterday, and uploaded over that of today."""
    one = machine("one")
    benchmark = ResolvedBenchmark(Benchmark(data=("tiny",), networks=("vgg_small@0.0625",), algorithms=("bnn",)))
    engine._store_benchmark([TRACKS.get("task")], benchmark.benchmark, one.root)
    specs = benchmark.specs(benchmark.first)
    sizes = [put(one, spec, accuracy) for spec, accuracy in zip(specs.values(), (0.5, 0.25), strict=True)]
    one.remote.upload_changed()
    machine("two")
    first = engine.rescore(Session.at(url, quiet=True))
    assert first.scores["task"].scores["bnn"] == 0.5
    machine("one")
    assert put(one, specs["bnn"], 0.75) == sizes[1], "a record of the same length"
    one.remote.upload_changed()
    engine.rescore(Session.at(url, quiet=True))
    newest = stored()["report/report.md"]
    machine("two")
    second = engine.rescore(Session.at(url, quiet=True))
    assert second.scores["task"].scores["bnn"] == 1.5 and stored()["report/report.md"] == newest
    assert "150" in newest and capsys.readouterr().err == ""


def test_a_network_is_that_of_the_newest_training(machine, monkeypatch):
    """Notices a network of today beside a result of yesterday, which is refused, and a network of yesterday."""
    monkeypatch.setattr(runs.model_files, "load_file", lambda path, algorithm: path.read_text())

    def train(store, content):
        write(store, f"runs/{SPEC.folder}/model.keras", content)
        digest = files.fingerprint_files([store.model_path(SPEC)])
        store.write(SPEC, RunResult(SPEC.id, SPEC, "completed", model_digest=digest))
        store.remote.upload([f"runs/{SPEC.folder}/{name}" for name in ("model.keras", "result.json")])

    for content in ("first", "later"):
        train(machine("one"), content)
        assert machine("two").model(SPEC) == content


def test_a_half_uploaded_checkpoint_is_not_mistaken_for_one(machine, stored):
    one, run = machine("one"), f"runs/{SPEC.folder}"
    for epoch in (1, 2):
        for name in ("state.index", "progress.json"):
            write(one, f"{run}/checkpoint-{epoch}/{name}", str(epoch))
        one.remote.upload_checkpoints(run)
    assert len(stored()) == 4, "both that the working copy has"
    shutil.rmtree(one.root / run / "checkpoint-1")
    write(one, f"{run}/checkpoint-3/progress.json", "3")
    one.remote.upload_checkpoints(run)
    assert {name.split("/")[2] for name in stored()} == {"checkpoint-2", "checkpoint-3"}
    two = machine("two")
    two.remote.fetch_checkpoints(run)
    assert (two.root / run / "checkpoint-2" / "state.index").read_text() == "2"
    two.remote.drop_checkpoints(run)
    assert stored() == {} and (two.root / run / "checkpoint-3").exists()


# Unknown, a package that is missing, arguments that are missing, a server and a file that are missing, no archive.
BAD_URLS = (
    *("nothing://bucket/results", "s3n://bucket", "dropbox://x", "github://x", "gist://x", "reference://x", "jlab://x"),
    *("ftp://127.0.0.1:9/x", "generic://x", "zip://x::file:///missing.zip", f"tar://::file://{__file__}", "webhdfs://"),
)


def test_a_results_folder_does_not_choose_where_files_are_written_to(tmp_path, machine):
    """Fails when a file in the folder makes it the working copy of a store."""
    machine("one")
    hostile = RunStore(tmp_path / "hostile")
    for name in (".store.json", "store.json"):
        write(hostile, name, json.dumps({"url": f"file://{tmp_path}/elsewhere"}))
    assert hostile.remote is None


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_urls_that_cannot_be_used(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "untouched"))
    for bad in BAD_URLS:
        with pytest.raises(BibenchError, match="cannot be used"):
            stores.working_copy(bad)
    assert not (tmp_path / "untouched").exists()
    (tmp_path / "store").write_text("a file in the way")
    store = machine("one")
    write(store, "benchmark.json", "{}")
    with pytest.raises(StorageError, match="Cannot read or write benchmark.json"):
        store.remote.upload(["benchmark.json"])
    assert stores.of(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_a_run_goes_on_on_another_machine(machine, tmp_path, monkeypatch):
    from bibench_tf.training import loop

    one = machine("one")
    write_checkpoint, epochs = loop._save, []

    def die_after_upload(*arguments):
        if len(epochs) == 3:
            raise KeyboardInterrupt
        epochs.append(1)
        return write_checkpoint(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_save", die_after_upload)
        queue.execute([SPEC], Session(one.root, quiet=True))
    shutil.rmtree(tmp_path / "one")  # the machine is gone, with its disk
    two = machine("two")
    two.remote.fetch_records()
    assert two.status(SPEC.parent.folder) == "completed" and two.status(SPEC.folder) is None
    trained = []
    real = loop._save
    monkeypatch.setattr(loop, "_save", lambda *arguments: trained.append(1) or real(*arguments))
    queue.execute([SPEC], Session(two.root, quiet=True))
    assert len(trained) == 1, "the last epoch of the second run"
    stored = {name.split("/")[-1] for name in names_in(tmp_path / "store")}
    assert stored == {"model.keras", "result.json"}, "checkpoints go when there is a result"
    monkeypatch.undo()
    queue.execute([SPEC], Session(tmp_path / "reference", quiet=True))
    reference = RunStore(tmp_path / "reference").result(SPEC)
    found = two.result(SPEC)
    assert (found.accuracy, found.test_loss) == (reference.accuracy, reference.test_loss)
    # A network that belongs to another training is not measured.
    path = two.model_path(SPEC)
    path.write_bytes(two.model_path(SPEC.parent).read_bytes())
    with pytest.raises(BibenchError, match="not the network that its result was measured on"):
        runs.RunStore(two.root).model(SPEC)
