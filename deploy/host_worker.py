"""The process of measurements, started by `targets.host`.

The process imports the interpreters once and forks a child for each network, so that a crash ends one child alone and
the memory of one network can be measured. A job is a dictionary with `do` (`load`, `run` or `unload`), `name` and the
arguments of that job.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf  # noqa: F401  # the slow libraries are imported once for all children
from larq_compute_engine.tflite.python import interpreter_wrapper_lite  # noqa: F401

from bibench_tf import workers
from bibench_tf.deploy import interpreters
from bibench_tf.workers import JobError


class _Networks:
    """The children, by the name of the network."""

    def __init__(self) -> None:
        self._children: dict[str, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    def do(self, job: Mapping[str, Any]) -> Any:
        """The answer to one job. Raises JobError."""
        name = job["name"]
        if job["do"] == "unload":
            return self._end(name)
        if job["do"] == "load":
            self._start(name, job)
        process, connection = self._children[name]
        try:
            if job["do"] == "run":
                workers.send(connection, job)
            if connection.poll(job["timeout_s"]):
                answer, reason = workers.receive(connection)
            else:
                self._end(name)
                answer, reason = None, f"it was stopped after {job['timeout_s']:g} s."
        except (EOFError, OSError):  # the other end is gone
            process.join()
            code = process.exitcode or 0
            del self._children[name]
            answer, reason = None, f"its interpreter crashed ({signal.Signals(-code).name if code < 0 else code})."
        if reason is not None:
            raise JobError(reason)
        return answer

    def _start(self, name: str, job: Mapping[str, Any]) -> None:
        here, there = multiprocessing.Pipe()
        others = [connection for _, connection in self._children.values()]
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_serve, args=(there, [here, *others], job), daemon=True)
        process.start()
        # Held by the child alone, so that its end is seen here.
        there.close()
        self._children[name] = process, here

    def _end(self, name: str) -> None:
        process, connection = self._children.pop(name)
        connection.close()
        process.kill()
        process.join()


def _serve(connection: Connection, others: list[Connection], job: Mapping[str, Any]) -> None:
    """Load one network, then do the jobs of the connection until it closes."""
    for other in others:
        other.close()
    if job["cores"] is not None:
        os.sched_setaffinity(0, job["cores"])
    before = peak = _private_kib()
    try:
        network = interpreters.load(Path(job["file"]).read_bytes(), threads=job["threads"])
        inputs = [_example(*each) for each in zip(network.input_shapes, network.input_types, strict=True)]
        network.run(inputs)
    except Exception as error:
        workers.send(connection, (None, workers.in_words(error)))
        return
    workers.send(connection, (network.kernel, None))
    while True:
        try:
            job = workers.receive(connection)
        except EOFError:
            return
        times_ms = _turn(network, inputs, job["runs"], job["seconds"])
        now = _private_kib()
        peak = None if peak is None or now is None else max(peak, now)
        memory = None if peak is None or before is None else (peak - before) / 1024
        workers.send(connection, ((times_ms, memory), None))


def _turn(network: Any, inputs: list[np.ndarray], runs: int, seconds: float) -> list[float]:
    # Not timed: the caches hold another network.
    network.run(inputs)
    times_ms: list[float] = []
    total_ms = 0.0
    while len(times_ms) < runs or total_ms < 1e3 * seconds:
        start = time.perf_counter()
        network.run(inputs)
        times_ms.append(1e3 * (time.perf_counter() - start))
        total_ms += times_ms[-1]
    return times_ms


def _example(shape: tuple[int, ...], kind: str) -> np.ndarray:
    if np.issubdtype(np.dtype(kind), np.floating):
        return np.random.default_rng(0).normal(size=shape).astype(kind)
    return np.zeros(shape, kind)


def _private_kib() -> int | None:
    """The resident memory of this process that no file backs, in KiB; None on systems without /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), None)


answer = _Networks().do
