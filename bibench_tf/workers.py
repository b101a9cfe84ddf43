"""Processes beside this one that do jobs: JSON goes through a pipe, and large data through files.

This is the only place of the package that starts Python. A child imports nothing from the current folder, where a file
such as `json.py` may lie beside a downloaded model.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# "" is the current folder. Python puts it on the path of `-c` (and of `-m`, but there before any code can remove it;
# the option -P is not in Python 3.10, and -I leaves out PYTHONPATH and packages that were installed with --user).
_START = "import sys; sys.path = [*filter(None, sys.path)]; from bibench_tf.workers import serve; serve()"
# After the end of its parent a process may take this long to end by itself.
_GRACE_S = 1.0


class JobError(Exception):
    """The reason why a job failed."""


class Ended(Exception):
    """The process has ended; the message describes how, such as `crashed (SIGSEGV).`."""


class Worker:
    """A process that answers jobs by the function `answer` of a module. Jobs and answers are JSON values.

    The process ends with this one, whatever ends this one, and leaves Ctrl-C to it. `folder` is a temporary folder for
    data that are large.
    """

    def __init__(
        self,
        module: str,
        *,
        cores: Sequence[int] | None = None,
        environment: Mapping[str, str] | None = None,
        logged: bool = True,
    ) -> None:
        """Start the process, on `cores` only and with further variables of the `environment`.

        Output goes to a file, whose last line is in the message of `Ended`; without `logged`, to that of this process.
        """
        self._temporary = tempfile.TemporaryDirectory(prefix="bibench-")
        self.folder = Path(self._temporary.name)
        self._log = self.folder / "log.txt" if logged else None
        self._connection, theirs = Pipe()
        start = {"pipe": theirs.fileno(), "folder": self._temporary.name, "module": module, "cores": cores}
        with theirs, contextlib.ExitStack() as opened:
            # Libraries print to a file: a pipe that is not read would block them.
            log = None if self._log is None else opened.enter_context(open(self._log, "wb"))
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(start)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_python_path(), **(environment or {})},
            )

    def ask(self, job: Any, timeout_s: float | None = None) -> Any:
        """The answer to a job. Raises JobError, TimeoutError, and Ended when the process ended."""
        try:
            send(self._connection, job)
            if not self._connection.poll(timeout_s):
                raise TimeoutError
            answer, reason = receive(self._connection)
        except (EOFError, ConnectionError) as error:
            raise Ended(self._end()) from error
        if reason is not None:
            raise JobError(reason)
        return answer

    def _end(self) -> str:
        code = self.process.wait()
        if code < 0:
            return f"crashed ({signal.Signals(-code).name})."
        lines = [] if self._log is None else self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"ended with code {code}: {next(filter(str.strip, reversed(lines)), 'no message')}"

    def kill(self) -> None:
        """End the process by force; another thread that waits for an answer gets Ended."""
        self.process.kill()

    def close(self, grace_s: float = 0) -> None:
        """End the process, after at most `grace_s` seconds by force, and delete its folder."""
        self._connection.close()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            self._temporary.cleanup()


def _python_path() -> dict[str, str]:
    """PYTHONPATH without its empty entries, which stand for the current folder, as in `$PYTHONPATH:/more`."""
    path = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, path.split(os.pathsep)))} if path else {}


def serve() -> None:
    """The main function of a process: answer the jobs of the process that started it, until that closes the pipe."""
    # An interrupt is handled by the process that gives the jobs; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = json.loads(sys.argv[1])
    connection = Connection(start["pipe"])
    threading.Thread(target=_end_with_parent, args=(connection.fileno(), start["folder"]), daemon=True).start()
    if start["cores"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, start["cores"])  # before libraries start a thread for each core
    answer = importlib.import_module(start["module"]).answer
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            job = receive(connection)
            try:
                reply = [answer(job), None]
            except Exception as error:
                if not isinstance(error, JobError):
                    traceback.print_exc()  # to the log
                reply = [None, in_words(error)]
            send(connection, reply)
    shutil.rmtree(start["folder"], ignore_errors=True)


def _end_with_parent(pipe: int, folder: str) -> None:
    """Wait until the parent has gone, which closes its end of the pipe; end this process in the midst of a job."""
    poll = select.poll()
    poll.register(pipe, 0)  # wakes up at the end of the connection only
    poll.poll()
    time.sleep(_GRACE_S)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def in_words(error: Exception) -> str:
    """The reason of a JobError; the type and the message of any other error on one line."""
    if isinstance(error, JobError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def send(connection: Connection, content: Any) -> None:
    """Send a JSON value. Raises ConnectionError where the other end has gone."""
    connection.send_bytes(json.dumps(content).encode())


def receive(connection: Connection) -> Any:
    """Wait for a JSON value. Raises EOFError or ConnectionError where the other end has gone."""
    return json.loads(connection.recv_bytes())
