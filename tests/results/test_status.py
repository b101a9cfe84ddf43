"""The index of results, shards, the stored plan, and `bibench status`, on results that nobody trained."""

import dataclasses
import os
import subprocess
import sys

import pytest
from filelock import FileLock

from bibench_tf import cli
from bibench_tf.recipes import Recipe
from bibench_tf.results import index, records, status
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.training import queue
from bibench_tf.training.session import Session

START = Recipe("start", epochs=4, batch_size=10, optimizer="adam", learning_rate=1e-2, schedule="cosine")
RECIPE = dataclasses.replace(START, name="binary", start=START)
ALGORITHMS = ("full_precision", "bnn", "xnor", "dorefa")
SPECS = [
    RunSpec("tiny", "vgg_small", name, START if name == "full_precision" else RECIPE, seed=seed)
    for seed in range(5)
    for name in ALGORITHMS
]


def result_of(spec, state="completed"):
    return RunResult(spec.id, spec, state, accuracy=0.5, train_step_time_ms=100.0)


@pytest.fixture
def store(tmp_path):
    """Ten runs are completed, one has diverged, one failed."""
    store = RunStore(tmp_path)
    for spec in SPECS[:10]:
        store.write(spec, result_of(spec), seconds_per_step=0.2)
    store.write(SPECS[10], result_of(SPECS[10], "diverged"))
    store.write(SPECS[11], result_of(SPECS[11], "failed"))
    status.write_plan([status.Planned.of(spec, train_examples=100) for spec in SPECS], tmp_path)
    return store


def bibench_status(folder):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bibench_tf", "status", "--results", str(folder)],
        capture_output=True,
        text=True,
    )


def test_status_counts_and_estimates_without_tensorflow(store):
    store.folder(SPECS[12]).mkdir()
    (store.folder(SPECS[13]) / "checkpoint-3").mkdir(parents=True)
    with FileLock(store.folder(SPECS[13]) / ".lock"):
        done = bibench_status(store.root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("10 of 20 runs completed, 1 diverged, 1 failed, 1 running, 1 started, 6 waiting.")
    assert "running    tiny vgg_small bnn binary seed 3" in done.stdout
    # Forty steps of 0.2 s: the failed one again, the started one, six that wait, and a quarter of the running one.
    found = status.of(status.read_plan(store.root), store.root)
    assert found.remaining_s == pytest.approx((1 + 1 + 6 + 1 / 4) * 40 * 0.2)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "bibench_tf.results.status" in imported
    assert not imported & {"tensorflow", "pandas", "larq", "ray", "fsspec"}


def test_the_time_left_knows_what_is_done_and_how_many_run_at_once(store):
    for spec in SPECS[12:14]:
        (store.folder(spec) / "checkpoint-3").mkdir(parents=True)
    with FileLock(store.folder(SPECS[12]) / ".lock"), FileLock(store.folder(SPECS[13]) / ".lock"):
        found = status.of(status.read_plan(store.root), store.root)
    assert found.remaining_s == pytest.approx((7 + 2 / 4) * 40 * 0.2 / 2)
    assert "with 2 runs at a time" in found.sentence


def test_results_that_the_index_knows_are_not_read_again(store, monkeypatch):
    again = RunStore(store.root)
    monkeypatch.setattr(records, "read", lambda *_: pytest.fail("a result was read"))
    assert again.status(SPECS[0].folder) == "completed"
    assert again.status(SPECS[11].folder) == "failed"
    assert again.status(SPECS[19].folder) is None
    # Nothing to train, so that neither data nor TensorFlow are asked for.
    queue.execute(SPECS[:11], Session(results=store.root, quiet=True))


@pytest.mark.parametrize("harm", ["deleted", "garbled", "cut"])
def test_a_harmed_index_costs_a_look_and_no_result(store, harm):
    path = store.runs / index.NAME
    if harm == "deleted":
        path.unlink()
    elif harm == "garbled":
        text = path.read_text()
        path.write_text(text[:50] + "\x00]]" + text[60:])
    else:
        path.write_bytes(path.read_bytes()[:-20])
    healed = RunStore(store.root)
    assert [healed.status(spec.folder) for spec in SPECS[9:13]] == ["completed", "diverged", "failed", None]
    assert healed.status(SPECS[0].folder) == "completed"
    lines = index.read(store.runs)
    assert {SPECS[number].folder for number in (0, 9, 10, 11)} <= set(lines), "what was looked at is in the index again"


def test_a_result_that_changed_is_not_taken_from_the_index(store):
    path = store.folder(SPECS[0]) / "result.json"
    path.write_text(path.read_text().replace("0.5", "0.9"))  # of the same size
    with pytest.raises(records.RecordError, match="changed after it was written"):
        RunStore(store.root).status(SPECS[0].folder)
    assert status.of([status.Planned.of(SPECS[0])], store.root).counts == {"damaged": 1}
    other = store.folder(SPECS[1]) / "result.json"
    os.replace(store.folder(SPECS[2]) / "result.json", other)
    with pytest.raises(records.RecordError, match="belongs to run"):
        RunStore(store.root).status(SPECS[1].folder)


def test_shards_are_all_runs_once_each_with_what_it_starts_from():
    parts = [queue.shard(SPECS, part, 3) for part in (1, 2, 3)]
    assert sorted(spec.id for part in parts for spec in part) == sorted(spec.id for spec in SPECS)
    assert [len(part) for part in parts] == [8, 8, 4]
    for part in parts:
        ids = [spec.id for spec in part]
        assert all(spec.parent is None or ids.index(spec.parent.id) < ids.index(spec.id) for spec in part)
    assert queue.shard(reversed(SPECS), 1, 1) == queue.ordered(reversed(SPECS))


def test_a_plan_is_kept_and_checked(tmp_path):
    planned = [status.Planned.of(spec, 100) for spec in SPECS]
    assert status.read_plan(tmp_path) is None
    status.write_plan(planned, tmp_path)
    assert status.read_plan(tmp_path) == planned and planned[0].steps == 40
    written = (tmp_path / status.FILE).stat().st_mtime_ns
    status.write_plan(planned, tmp_path)
    assert (tmp_path / status.FILE).stat().st_mtime_ns == written, "the same plan is not written again"
    (tmp_path / status.FILE).write_text("{}")
    with pytest.raises(records.RecordError):
        status.read_plan(tmp_path)


def test_a_shard_says_what_comes_next_and_counts_its_failures(store, monkeypatch, capsys):
    from bibench_tf.benchmark import engine
    from bibench_tf.benchmark.spec import Benchmark

    session = Session(results=store.root, shard=(1, 2))
    monkeypatch.setattr(engine, "train", lambda *_: SPECS[9:12])
    outcome = engine.run(Benchmark(data=("fashion_mini",)), session, ["task"])
    assert outcome == engine.Outcome({}, None, 1)
    said = capsys.readouterr().err
    assert "part 1 of 2, 3 runs, 1 failed" in said and "without --shard" in said
    monkeypatch.setattr(engine, "train", lambda *_: SPECS[:3])
    assert engine.run(Benchmark(data=("fashion_mini",)), session, ["task"]).failures == 0
    with pytest.raises(SystemExit) as end:
        cli.main(["task", "--shard", "3/2"])
    assert end.value.code == 2 and "'3/2' is not I/N" in capsys.readouterr().err
