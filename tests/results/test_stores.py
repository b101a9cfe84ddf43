"""A results folder at a URL and its working copies, as two machines with disks of their own have them."""

import dataclasses
import json
import shutil

import pytest
import tiny_data  # noqa: F401  registers the data set

from bibench_tf.errors import BibenchError, StorageError
from bibench_tf.recipes import Recipe
from bibench_tf.results import runs, stores
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.training import queue
from bibench_tf.training.session import Session

START = Recipe("start", epochs=2, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
SPEC = RunSpec("tiny", "vgg_small", "bnn", dataclasses.replace(START, name="binary", start=START), width=0.0625)


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/store"


@pytest.fixture
def machine(tmp_path, monkeypatch, url):
    """A function that makes a machine by its name the one we are on, and opens the store there."""

    def on(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        stores._store.cache_clear()
        return RunStore(stores.working_copy(url))

    return on


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write(store, name, text):
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_records_go_from_machine_to_machine(machine, tmp_path):
    one = machine("one")
    one.write(SPEC, RunResult(SPEC.id, SPEC, "completed", accuracy=0.5))
    for name in ("benchmark.json", "report/report.html", f"runs/{SPEC.folder}/robustness.json"):
        write(one, name, "{}")
    for name in (f"runs/{SPEC.folder}/.lock", f"runs/{SPEC.folder}/checkpoint-1/progress.json", ".tmp-1.json"):
        write(one, name, "{}")
    one.remote.upload_changed()
    wanted = ["benchmark.json", *(f"runs/{SPEC.folder}/{name}.json" for name in ("result", "robustness"))]
    assert sorted(names_in(tmp_path / "store")) == sorted([*wanted, "report/report.html"])
    two = machine("two")
    assert two.status(SPEC.folder) is None
    two.remote.fetch_records()
    assert two.status(SPEC.folder) == "completed" and two.result(SPEC) == one.result(SPEC)
    assert [name for name in names_in(two.root) if name != "runs/index.jsonl"] == sorted([*wanted])
    write(one, "benchmark.json", '{"more": 1}')
    machine("one").remote.upload_changed()
    again = machine("two")
    again.remote.fetch_records()
    assert (again.root / "benchmark.json").read_text() == '{"more": 1}'


def test_a_half_uploaded_checkpoint_is_not_mistaken_for_one(machine, tmp_path):
    one, run = machine("one"), f"runs/{SPEC.folder}"
    for epoch in (1, 2):
        for name in ("state.index", "progress.json"):
            write(one, f"{run}/checkpoint-{epoch}/{name}", str(epoch))
        one.remote.upload_checkpoints(run)
    assert len(names_in(tmp_path / "store")) == 4, "both that the working copy has"
    shutil.rmtree(one.root / run / "checkpoint-1")
    write(one, f"{run}/checkpoint-3/progress.json", "3")
    one.remote.upload_checkpoints(run)
    assert {name.split("/")[2] for name in names_in(tmp_path / "store")} == {"checkpoint-2", "checkpoint-3"}
    two = machine("two")
    two.remote.fetch_checkpoints(run)
    assert (two.root / run / "checkpoint-2" / "state.index").read_text() == "2"
    two.remote.drop_checkpoints(run)
    assert names_in(tmp_path / "store") == [] and (two.root / run / "checkpoint-3").exists()


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
