"""The client of the process that measures on this computer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bibench_tf.deploy.targets.base import Settings
from bibench_tf.errors import BibenchError


class WorkerProcess:
    """The process `worker`, in which every network gets a process of its own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bibench-")
        self._log = Path(self._folder.name) / "log.txt"
        # The interpreters print to a file: a pipe that is not read would block them.
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bibench_tf.deploy.targets.host_process.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._jobs, self._answers = self._process.stdin, self._process.stdout

    def load(self, name: str, content: bytes, settings: Settings) -> str:
        """Load a network in a new process; the kernels that run it, in words. Raises BibenchError."""
        file = Path(self._folder.name) / "model.tflite"
        file.write_bytes(content)
        job = {"file": str(file), "threads": settings.threads, "cores": settings.cores}
        return self._ask("load", name, timeout_s=settings.timeout_s, **job)["kernel"]

    def run(self, name: str, runs: int, seconds: float, timeout_s: float) -> tuple[list[float], float | None]:
        """Run at least `runs` inferences and `seconds`: the time of each in ms, and the peak memory in MiB so far."""
        answer = self._ask("run", name, timeout_s=timeout_s, runs=runs, seconds=seconds)
        return answer["times_ms"], answer["peak_memory_mib"]

    def unload(self, name: str) -> None:
        """End the process of a network."""
        self._ask("unload", name)

    def close(self) -> None:
        """End the process and those of the networks."""
        self._jobs.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._folder.cleanup()

    def _ask(self, do: str, name: str, **job) -> dict[str, Any]:
        try:
            self._jobs.write(json.dumps({"do": do, "name": name, **job}) + "\n")
            self._jobs.flush()
        except BrokenPipeError:
            pass  # the process has ended, and its answer is empty
        answer = self._answers.readline()
        if not answer:
            code = self._process.wait()
            ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise BibenchError(f"The process that measures on this computer {ended}.")
        content = json.loads(answer)
        if "error" in content:
            raise BibenchError(f"'{name}' cannot be measured on this computer: {content['error']}")
        return content
