"""Runs several at a time: the order, deaths, and what is recorded; then with real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import psutil
import pytest
import tiny_data

from bibench_tf.errors import BibenchError
from bibench_tf.process import PLUGINS_VARIABLE
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.training import executors, queue
from bibench_tf.training.executors import local
from bibench_tf.training.run import Run
from bibench_tf.training.session import Session

SPECS = tiny_data.specs("bnn", "xnor", "dorefa")


class Died(Exception):
    """A process that is gone."""


class FakeWorkers:
    """Trains nothing: what becomes of a run is said by `fates`, a list for each algorithm."""

    capacity = 2
    attempts = 3
    poll_s = 0.01
    lost = (Died,)

    def __init__(self, store, **fates):
        self.store, self.fates, self.given, self.open = store, fates, [], set()

    def submit(self, spec):
        assert spec.parent is None or self.store.status(spec.parent.folder) is not None, "its start is not trained"
        self.given.append(spec.algorithm)
        future = Future()
        self.open.add(future)
        assert len([one for one in self.open if not one.done()]) <= self.capacity
        fate = (self.fates.get(spec.algorithm) or ["done"]).pop(0)
        threading.Timer(0.02, self.end, (future, spec, fate)).start()
        return future

    def end(self, future, spec, fate):
        if fate == "dies":
            future.set_exception(Died("killed by signal 9"))
        elif fate == "held":
            future.set_result({"done": False, "error": None})
        elif fate == "lost":
            future.set_result({"done": True, "error": None})
        elif fate == "done":
            self.store.write(spec, RunResult(spec.id, spec, "completed"))
            future.set_result({"done": True, "error": None})
        else:
            future.set_result({"done": False, "error": fate})


def train_all(tmp_path, **fates):
    store = RunStore(tmp_path)
    workers = FakeWorkers(store, **fates)
    session = Session(tmp_path, quiet=True)
    runs = [Run(spec, tiny_data.tiny(), store, session) for spec in SPECS]
    assert [run.steps for run in runs] == [24] * 4
    with session.progress_bar(96, "step") as bar:
        executors.train_all(runs, workers, bar)
    return [store.status(spec.folder) for spec in SPECS], workers.given


def test_what_a_run_starts_from_is_trained_before_it(tmp_path):
    states, given = train_all(tmp_path)
    assert states == ["completed"] * 4
    assert given[0] == "full_precision" and sorted(given[1:]) == ["bnn", "dorefa", "xnor"]


def test_a_run_whose_process_died_is_given_out_again_three_times_at_most(tmp_path, capfd):
    states, given = train_all(tmp_path, bnn=["dies", "done"], xnor=["dies", "dies", "dies", "done"])
    assert states == ["completed", "completed", "failed", "completed"]
    assert given.count("bnn") == 2 and given.count("xnor") == 3 and given.count("dorefa") == 1
    assert RunStore(tmp_path).result(SPECS[2]).error == "its process has died (killed by signal 9)"


def test_a_run_that_another_process_holds_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_HELD_PAUSE_S", 0.05)
    states, given = train_all(tmp_path, full_precision=["held", "held", "done"])
    assert states == ["completed"] * 4 and given[:3] == ["full_precision"] * 3


def test_what_no_run_can_do_without_ends_the_session(tmp_path):
    with pytest.raises(BibenchError, match="No space left"):
        train_all(tmp_path, full_precision=["No space left on device."])


def test_results_that_stay_on_another_machine_are_noticed(tmp_path):
    with pytest.raises(BibenchError, match="all machines share, or a URL"):
        train_all(tmp_path, full_precision=["lost"])


def test_cores_and_cards_are_divided():
    divided = local.divided(range(8), [], 1, 3)
    assert [place.cores for place in divided] == [(0, 1), (2, 3), (4, 5)] and divided[0].gpus is None
    assert [place.gpus for place in local.divided(range(8), ["2", "5"], 1, 2)] == [("2",), ("5",)]
    assert [place.gpus for place in local.divided(range(8), ["0", "1"], 0.5, 4)] == [("0",), ("0",), ("1",), ("1",)]
    assert [place.gpus for place in local.divided(range(8), list("0123"), 2, 2)] == [("0", "1"), ("2", "3")]


def test_how_many_runs_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)), raising=False)

    def count(runs=100, **options):
        return len(local.places(Session(tmp_path, **options), runs))

    assert count() == 2 and count(runs=1) == 1 and count(cpus_per_run=16) == 1 and count(cpus_per_run=1) == 9
    assert count(strategy="mirrored") == 1
    monkeypatch.setattr(local, "_gpus", lambda: ["0", "1"])
    assert count(cpus_per_run=1) == 2 and count(gpus_per_run=0.5) == 4 and count(gpus_per_run=0) == 2


def pids(workers):
    return [slot.worker.process.pid for slot in workers._slots]


def test_an_interruption_ends_the_processes(tmp_path):
    places = [local.Place((core,)) for core in [min(os.sched_getaffinity(0))] * 2]
    with pytest.raises(KeyboardInterrupt), local.started(Session(tmp_path), places) as workers:
        found = pids(workers)
        deadline = time.monotonic() + 60
        while not all(psutil.Process(pid).cpu_affinity() == list(places[0].cores) for pid in found):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        raise KeyboardInterrupt
    assert not any(psutil.pid_exists(pid) for pid in found)


ORPHANS = """
import sys, time
from pathlib import Path
from bibench_tf.training.session import Session
from bibench_tf.training.executors import local
if __name__ == "__main__":
    with local.started(Session(Path(".")), [local.Place((int(sys.argv[1]),))] * 2) as workers:
        print(*(slot.worker.process.pid for slot in workers._slots), flush=True)
        time.sleep(600)
"""


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path):
    (tmp_path / "orphans.py").write_text(ORPHANS)
    core = str(min(os.sched_getaffinity(0)))
    parent = subprocess.Popen([sys.executable, "orphans.py", core], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    found = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(found) == 2 and all(psutil.pid_exists(pid) for pid in found)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in found):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.cluster
def test_two_processes_give_the_scores_of_one_and_survive_a_kill(tmp_path, monkeypatch):
    monkeypatch.setenv(PLUGINS_VARIABLE, tiny_data.__file__)
    specs = tiny_data.specs("bnn", "recu")
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(local, "places", lambda session, runs: [local.Place((core,))] * 2)
    store = RunStore(tmp_path / "two")
    killed = []

    def kill():
        while not (store.folder(specs[0]) / "checkpoint-1").exists():
            time.sleep(0.01)
        for child in psutil.Process().children():
            if "bibench_tf.workers" in " ".join(child.cmdline()):
                killed.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    queue.execute(specs, Session(store.root, quiet=True))
    assert len(killed) == 2, "both, of which one was training"
    one = RunStore(tmp_path / "one")
    with local.started(Session(one.root, quiet=True), [local.Place((core,))]) as workers:
        assert all(workers.submit(spec).result()["done"] for spec in specs)
    for spec in specs:
        assert tiny_data.outcome(store.result(spec)) == tiny_data.outcome(one.result(spec))
        assert store.result(spec).execution["has_neighbours"]
        assert store.result(spec).energy_j is None, "it is that of the neighbours, too"
    assert len(list(store.runs.glob("*/result.json"))) == len(specs)
