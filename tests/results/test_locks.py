"""Locks: held by one process, released with it, and refused in a sentence where a file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

import pytest
import tiny_data

from bibench_tf.errors import BibenchError, StorageError
from bibench_tf.results import locks, status
from bibench_tf.training import queue
from bibench_tf.training.session import Session

HOLDER = """
import sys, time
from pathlib import Path
from bibench_tf.results import locks
lock = locks.acquired(Path(sys.argv[1]))
print(lock is not None, flush=True)
time.sleep(600)
"""


@pytest.fixture
def refused(monkeypatch):
    """A function after which the system refuses locks with an error of this number."""

    def refuse(number: int):
        def flock(descriptor, operation):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return refuse


def test_a_lock_belongs_to_one_process_and_goes_with_it(tmp_path):
    """Notices a lock that is only a file: it would outlive its process."""
    path = tmp_path / "deep" / ".lock"
    assert not locks.is_held(path) and not path.exists(), "asking makes no file"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    assert locks.is_held(path) and locks.acquired(path) is None
    holder.kill()
    holder.wait()
    assert path.exists() and not locks.is_held(path)
    lock = locks.acquired(path)
    assert lock is not None and lock.is_locked
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
@pytest.mark.parametrize("left", [False, True])
def test_a_file_system_without_locks_is_one_sentence_at_once(tmp_path, refused, number, left):
    """Notices a wait without end, on a lock file that another command left, and advice to free space."""
    path = tmp_path / ".lock"
    if left:
        path.write_text("4242\nanother-host\n")
    refused(number)
    for timeout_s in (0, 5):
        with pytest.raises(BibenchError) as told:
            locks.acquired(path, timeout_s)
        assert not isinstance(told.value, StorageError)
        assert f"The file system of {tmp_path} has no locks ({os.strerror(number)})" in str(told.value)
        assert "--results file:///FOLDER" in str(told.value) and "--shard" in str(told.value)
    assert not locks.is_held(path)
    assert not left or path.read_text() == "4242\nanother-host\n"


def test_other_errors_are_those_of_a_disk(tmp_path, refused):
    """Notices a full disk that is taken for one without locks."""
    refused(errno.ENOSPC)
    with pytest.raises(StorageError, match="Cannot write to .*No space left on device"):
        locks.acquired(tmp_path / ".lock")


def test_trainings_and_their_state_without_locks(tmp_path, refused, monkeypatch):
    """Notices a command, or `bibench status`, that does not use `results.locks`."""
    (spec,) = tiny_data.specs()
    session = Session(tmp_path, quiet=True)
    (tmp_path / "runs" / spec.folder).mkdir(parents=True)
    (tmp_path / "runs" / spec.folder / ".lock").touch()
    refused(errno.ENOSYS)
    assert status.of([status.Planned.of(spec)], tmp_path).counts == {"started": 1}
    with pytest.raises(BibenchError, match="has no locks"):
        queue.execute([spec], session)


def test_a_benchmark_that_is_not_stored_in_time_says_who_is_in_the_way(tmp_path, monkeypatch):
    """Notices a command that waits without limit, and without a word, for one that hangs."""
    from bibench_tf.benchmark import engine
    from bibench_tf.benchmark.spec import Benchmark

    monkeypatch.setattr(engine, "_LONGEST_WRITE_S", 0.1)
    lock = locks.acquired(tmp_path / ".lock")
    with pytest.raises(BibenchError, match=f"Another process has held {tmp_path / '.lock'} for 0.1 s: end it"):
        engine._store_benchmark([], Benchmark(), tmp_path)
    lock.release()
    assert not locks.is_held(tmp_path / ".lock")
