"""The time and memory to plan, skip and survey a results folder of 100,000 runs.

    python benchmarks/scale.py [RUNS]

The runs are those of the training track: eight settings, nine algorithms, and enough seeds to reach RUNS. Every run has
a folder with a result. The index has all results, so that their files are not read and can have the same text.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import settle
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.results import index
from bibench_tf.training.session import Session


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    asked = Benchmark(
        networks=("resnet20@0.5",),
        recipe="bibench_training",
        seeds=-(-runs // 72),
        options={"training": {"grid": ("bibench",)}},
    )
    tracks = [TRACKS.get("training")]
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder) / "results", quiet=True)
        import bibench_tf.zoo  # noqa: F401  TensorFlow, whose time and memory are not the plan's

        before_mib = _memory_mib()
        job = _timed("settle", lambda: settle(asked, session))
        specs = _timed("plan", lambda: engine.planned(tracks, job.benchmark))
        _timed(f"write {len(specs):,} results", lambda: _fill(specs, session.results))
        _timed("plan, store the plan, skip all", lambda: engine.train(tracks, job))
        print(f"{'memory of the process above that of TensorFlow':<50} {_memory_mib() - before_mib:8.0f} MiB")
        print(f"{'memory of the process':<50} {_memory_mib():8.0f} MiB")
        command = [sys.executable, "-m", "bibench_tf", "status", "--results", str(session.results)]
        _timed("bibench status", lambda: subprocess.run(command, check=True))


def _fill(specs, results: Path) -> None:
    runs = results / "runs"
    runs.mkdir(parents=True)
    for spec in specs:
        os.mkdir(runs / spec.folder)
        path = runs / spec.folder / "result.json"
        path.write_text("{}")
        file = path.stat()
        index.append(runs, index.Line(spec.folder, "completed", file.st_size, file.st_mtime_ns, 0.05))


def _timed(what: str, do):
    start_s = time.perf_counter()
    result = do()
    print(f"{what:<50} {time.perf_counter() - start_s:8.2f} s", flush=True)
    return result


def _memory_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    main()
