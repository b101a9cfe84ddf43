"""The process of measurements: `python -m bibench_tf.deploy.targets.host_process.worker`, started by `client`.

The process imports the interpreters once and forks a child for each network, so that a crash ends one child alone and
the memory of one network can be measured. Each input line is a job, a JSON object with `do` (`load`, `run` or
`unload`), `name` and the arguments of that job; each job is answered by one line, with `error` where it failed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Do the jobs until the input ends."""
    # Libraries print to standard output, which is the channel of the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # An interrupt is handled by the process that gives the jobs; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_interpreters()
    networks = _Networks()
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = networks.do(job)
        except Exception as error:
            answer = {"error": _in_words(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    networks.close()


class _Networks:
    """The children, by the name of the network."""

    def __init__(self) -> None:
        self._children: dict[str, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    def do(self, job: Mapping[str, Any]) -> dict[str, Any]:
        name = job["name"]
        if job["do"] == "unload":
            self._end(name)
            return {}
        if job["do"] == "load":
            self._start(name, job)
        process, connection = self._children[name]
        try:
            if job["do"] == "run":
                connection.send(job)
            if connection.poll(job["timeout_s"]):
                return connection.recv()
            self._end(name)
            return {"error": f"it was stopped after {job['timeout_s']:g} s."}
        except (EOFError, OSError):  # the other end is gone
            process.join()
            code = process.exitcode or 0
            del self._children[name]
            return {"error": f"its interpreter crashed ({signal.Signals(-code).name if code < 0 else code})."}

    def close(self) -> None:
        for name in list(self._children):
            self._end(name)

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
    from bibench_tf.deploy import interpreters

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
        connection.send({"error": _in_words(error)})
        return
    connection.send({"kernel": network.kernel})
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        times_ms = _turn(network, inputs, job["runs"], job["seconds"])
        now = _private_kib()
        peak = None if peak is None or now is None else max(peak, now)
        memory = None if peak is None or before is None else (peak - before) / 1024
        connection.send({"times_ms": times_ms, "peak_memory_mib": memory})


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


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _import_interpreters() -> None:
    """Import the slow libraries once for all children."""
    import tensorflow as tf
    from larq_compute_engine.tflite.python import interpreter_wrapper_lite

    from bibench_tf.deploy import interpreters

    del tf, interpreter_wrapper_lite, interpreters


if __name__ == "__main__":
    main()
