"""Processes beside this one: what they answer, how they end, and that the current folder gives them no code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bibench_tf import process
from bibench_tf.training.executors import local
from bibench_tf.training.session import Session
from bibench_tf.workers import Ended, JobError, Worker

ROOT = Path(__file__).resolve().parents[1]
JOBS = """
import os, signal, time
from bibench_tf.workers import JobError

def answer(job):
    if job == "environment":
        return {"cores": sorted(os.sched_getaffinity(0)), "more": os.environ.get("MORE")}
    if job == "refuse":
        raise JobError("it is refused.")
    if job == "fail":
        raise ValueError("two\\nlines")
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "exit":
        print("no such library")
        os._exit(3)
    if job == "sleep":
        time.sleep(600)
    return [job, job]
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The name of a module of jobs, on the path of child processes."""
    (tmp_path / "jobs_of_the_tests.py").write_text(JOBS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "jobs_of_the_tests"


@pytest.fixture
def start():
    """A function that starts a worker, which is closed at the end."""
    started = []

    def begin(*arguments, **options):
        started.append(Worker(*arguments, **options))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()


def wait_until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_answers_and_reasons(jobs, start):
    """Notices other values than JSON in a pipe, and a reason without the type of an unexpected error."""
    core = min(os.sched_getaffinity(0))
    worker = start(jobs, cores=[core], environment={"MORE": "1"})
    assert worker.ask({"a": [1, None, "x"]}) == [{"a": [1, None, "x"]}] * 2
    assert worker.ask("environment") == {"cores": [core], "more": "1"}
    with pytest.raises(JobError, match="^it is refused.$"):
        worker.ask("refuse")
    with pytest.raises(JobError, match="^ValueError: two lines$"):
        worker.ask("fail")
    with pytest.raises(TypeError):
        worker.ask({1, 2})
    assert worker.ask("again") == ["again", "again"], "errors end no process"


@pytest.mark.parametrize(
    ("job", "end"), [("crash", r"crashed \(SIGSEGV\)\."), ("exit", "ended with code 3: no such library")]
)
def test_the_end_of_a_process_is_described(jobs, start, job, end):
    """Notices a wait for an answer that never comes, and a log that is not read."""
    worker = start(jobs)
    with pytest.raises(Ended, match=end):
        worker.ask(job)
    with pytest.raises(Ended, match=end):
        worker.ask("more")


def test_a_job_has_a_time_limit_and_its_folder_goes(jobs, start):
    """Notices a process or a folder that stays."""
    worker = start(jobs)
    with pytest.raises(TimeoutError):
        worker.ask("sleep", timeout_s=0.05)
    worker.close()
    assert worker.process.poll() is not None and not worker.folder.exists()


PARENT = """
import sys
from bibench_tf.workers import Worker
worker = Worker(sys.argv[1])
worker.ask("ready")
print(worker.process.pid, worker.folder, flush=True)
worker.ask("sleep")
"""


def test_a_worker_ends_with_a_parent_that_is_killed_and_deletes_its_folder(jobs):
    """Notices a process that goes on in the midst of a job, as a training of hours would."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, jobs], stdout=subprocess.PIPE, text=True)
    pid, folder = parent.stdout.readline().split()
    assert psutil.pid_exists(int(pid)) and Path(folder).exists()
    parent.kill()
    parent.wait()
    wait_until(lambda: not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == "zombie")
    wait_until(lambda: not Path(folder).exists())


# The current folder

NAMES = ("bibench_tf", "click", "json", "larq", "larq_compute_engine", "msgspec", "numpy", "pickle", "select", "socket")
NAMES += ("tensorflow", "tqdm")


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """The current folder, with a file in place of every module; `reached` is written when one is imported."""
    folder = tmp_path / "download"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'reached')!r}, 'a').write({name!r}); raise SystemExit")
    monkeypatch.chdir(folder)
    return folder


def test_workers_of_all_kinds_import_nothing_from_the_current_folder(hostile, tmp_path, monkeypatch):
    """Notices "" on the path of a child: by -c or -m, and by an empty entry of PYTHONPATH, which comes before all."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path), ""]))
    modules = ("deploy.conversion_worker", "deploy.host_worker", "training.executors.worker")
    workers = [Worker(f"bibench_tf.{module}") for module in modules]
    try:
        for worker in workers:
            with pytest.raises(JobError, match="^(KeyError|TypeError): "):  # it has understood that this is no job
                worker.ask({})
    finally:
        for worker in workers:
            worker.close()
    with local.started(Session(tmp_path), [local.Place((0,))]) as started:
        started._slots[0].worker.folder.joinpath("x").touch()
        with pytest.raises(JobError, match="TypeError"):
            started._slots[0].worker.ask({})
    assert not (hostile / "reached").exists()


@pytest.mark.parametrize("how", [["bibench"], [sys.executable, "-m", "bibench_tf"]])
def test_the_command_line_imports_nothing_from_the_current_folder(hostile, how):
    """Notices the current folder, which `python -m` puts on the path, while a command is loaded."""
    (hostile / "bibench_tf.py").unlink()  # nothing can keep Python from that one
    command = [str(Path(sys.executable).parent / how[0]) if how == ["bibench"] else how[0], *how[1:]]
    done = subprocess.run([*command, "ls", "recipes"], capture_output=True, text=True)
    assert done.returncode == 0 and "bibench_training" in done.stdout, done.stderr
    assert not (hostile / "reached").exists()


def test_one_place_starts_python():
    """Notices a second way to start a Python process, whose path nobody looks at, and objects that are unpickled."""
    python, pickled = set(), set()
    for top in ("bibench_tf", "zoo", "tracks", "deploy"):
        for path in (ROOT / top).rglob("*.py"):
            code = path.read_text()
            if re.search(r"sys\.executable|ProcessPool|get_context|os\.(exec|spawn|fork)", code):
                python.add(path.relative_to(ROOT).as_posix())
            if re.search(r"import pickle|\.recv\(|allow_pickle=True|cloudpickle|joblib", code):
                pickled.add(path.relative_to(ROOT).as_posix())
    # The process of measurements forks one for each network.
    assert python == {"bibench_tf/workers.py", "deploy/host_worker.py"}
    assert not pickled


# Signals

COMMAND = """
import signal, sys, time
from pathlib import Path
from bibench_tf import cli
from bibench_tf.cli import main

def load(path):
    try:
        Path("begun").touch()
        time.sleep(600)
    finally:
        time.sleep(0.5)
        Path("cleaned").touch()

cli.load_plugin = load
main(["ls", "tasks", "--plugin", "x.py"])
"""


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_signals_clean_up_and_say_how_to_go_on(tmp_path, number, code, words):
    """Notices a signal that ends the process at once, and a second one that ends the clean-up."""
    command = subprocess.Popen([sys.executable, "-c", COMMAND], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until((tmp_path / "begun").exists)
    command.send_signal(number)
    if number != signal.SIGINT:  # as batch systems do: to the process and to its group
        time.sleep(0.1)
        command.send_signal(number)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == code, errors
    assert errors == f"bibench: {words}; the same command goes on where it stopped.\n"
    assert (tmp_path / "cleaned").exists()


def test_a_signal_that_is_ignored_stays_ignored_and_handlers_are_restored(monkeypatch):
    """Notices `nohup bibench` that ends with its terminal, and handlers that outlive the command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process.cleaned_up_at_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(process.Terminated, match="SIGTERM") as ended:
                signal.raise_signal(signal.SIGTERM)
            assert ended.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
