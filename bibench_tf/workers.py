"""Processes beside this one that do jobs: Python objects go through a pipe, and all output goes to a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class JobError(Exception):
    """The reason why a job failed."""


class Worker:
    """A process that runs a module of this package, which calls `serve`."""

    def __init__(self, module: str) -> None:
        """Start `module` without GPUs, which are left to training."""
        self._temporary = tempfile.TemporaryDirectory(prefix="bibench-")
        self.folder = Path(self._temporary.name)
        self._connection, theirs = Pipe()
        # Libraries print to a file: a pipe that is not read would block them.
        with theirs, open(self.folder / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            )

    def ask(self, job: Any, timeout_s: float | None = None) -> Any:
        """The answer to a job. Raises JobError, TimeoutError, and EOFError when the process ended."""
        try:
            self._connection.send(job)
            if not self._connection.poll(timeout_s):
                raise TimeoutError
            answer, reason = self._connection.recv()
        except ConnectionError as error:
            raise EOFError from error
        if reason is not None:
            raise JobError(reason)
        return answer

    def end(self) -> str:
        """Wait for the end of the process; returns a description of it, such as `crashed (SIGSEGV).`."""
        code = self.process.wait()
        if code < 0:
            return f"crashed ({signal.Signals(-code).name})."
        log = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        return f"ended with code {code}: {next(filter(str.strip, reversed(log.splitlines())), 'no message')}"

    def close(self, grace_s: float = 0) -> None:
        """End the process, after at most `grace_s` seconds by force, and delete its folder."""
        self._connection.close()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._temporary.cleanup()


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer the jobs of the process that started this one, until it closes the pipe."""
    # An interrupt is handled by the process that gives the jobs; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send((answer(job), None))
        except Exception as error:
            connection.send((None, in_words(error)))


def in_words(error: Exception) -> str:
    """The reason of a JobError; the type and the message of any other error on one line."""
    if isinstance(error, JobError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
