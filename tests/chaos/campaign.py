"""What clusters do to a benchmark, done to a small one on purpose.

    python tests/chaos/campaign.py [KILLS]      the campaign, 50 kills without a number; `make chaos`

After each harm the same runs are trained again, and their results, networks included, must be those of a training
that nobody harmed. The trainings are children of a server process that has loaded TensorFlow already, so that kills
fall into trainings and not into imports.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bibench_tf.errors import BibenchError
from bibench_tf.results import checkpoints
from bibench_tf.results.runs import RunStore
from bibench_tf.training import queue
from bibench_tf.training.session import Session

sys.path.append(str(Path(__file__).parents[1]))  # as pytest does, for the script
import tiny_data  # noqa: E402

# FDA has all that a run can have to go on from: optimizer, batch normalization, schedules, noise weights, a start.
SPECS = tiny_data.specs("fda")
# A training that takes longer hangs.
_LIMIT_S = 3600
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tensorflow", "bibench_tf.training", "bibench_tf.zoo", "tiny_data"])


def train(results: Path, log: Path, max_file_bytes: int | None = None) -> None:
    """Train the runs, in a process of its own; what it says goes to `log`.

    No file may become larger than `max_file_bytes`, which is a full disk to those who write.
    """
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    if max_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))
    try:
        queue.execute(SPECS, Session(results, quiet=True))
    except BibenchError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


class Campaign:
    """A folder for stores and logs, with the store that nobody harms."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.reference = RunStore(folder / "reference")
        start_s = time.monotonic()
        assert self.run(self.reference.root) == 0, self.log.read_text()
        self.duration_s = time.monotonic() - start_s

    @property
    def log(self) -> Path:
        """What the last trainings said."""
        return self.folder / "log.txt"

    def start(self, results: Path, **options):
        """A training in a process of its own."""
        process = _SERVER.Process(target=train, args=(results, self.log), kwargs=options)
        process.start()
        return process

    def run(self, results: Path, **options) -> int:
        """The exit code of a training."""
        self.log.unlink(missing_ok=True)
        process = self.start(results, **options)
        process.join(_LIMIT_S)
        return process.exitcode

    def interrupted(self, name: str, epochs: int = 2) -> RunStore:
        """A store whose first run was killed after some epochs."""
        store = RunStore(self.folder / name)
        process = self.start(store.root)
        while checkpoints.epochs_completed(store.folder(SPECS[0])) < epochs:
            assert process.is_alive()
            time.sleep(0.005)
        process.kill()
        process.join()
        return store

    def check(self, store: RunStore) -> None:
        """Every run is there once, with the outcome and the weights that it has in the reference."""
        assert sorted(path.name for path in store.runs.iterdir() if path.is_dir()) == sorted(
            spec.folder for spec in SPECS
        )
        for spec in SPECS:
            found, wanted = store.result(spec), self.reference.result(spec)
            assert tiny_data.outcome(found) == tiny_data.outcome(wanted), spec.folder
            for one, two in zip(store.model(spec).get_weights(), self.reference.model(spec).get_weights(), strict=True):
                np.testing.assert_array_equal(one, two)
            left = [path.name for path in store.folder(spec).iterdir()]
            assert sorted(left) == [".lock", "checkpoint-3", "model.keras", "result.json"], left

    def kills(self, count: int, seed: int = 0) -> int:
        """SIGKILL at random moments, no later than a training takes; returns how many trainings were killed.

        After each kill no epoch is lost that had a checkpoint, and no result.
        """
        random.seed(seed)
        killed, number = 0, 0
        while killed < count:
            store = RunStore(self.folder / f"killed-{number}")
            number += 1
            kept: dict[str, int] = {}
            while killed < count:
                process = self.start(store.root)
                process.join(random.uniform(0, self.duration_s))
                if process.exitcode is not None:
                    assert process.exitcode == 0, self.log.read_text()
                    break
                process.kill()
                process.join()
                killed += 1
                now = {spec.folder: self._kept(store, spec) for spec in SPECS}
                assert all(now[folder] >= epochs for folder, epochs in kept.items()), (kept, now)
                kept = now
            assert self.run(store.root) == 0, self.log.read_text()
            self.check(store)
            shutil.rmtree(store.root)
        return killed

    @staticmethod
    def _kept(store: RunStore, spec) -> int:
        """Epochs of a run that nobody has to make again."""
        result = store.result(spec)  # raises for a damaged one
        return spec.recipe.epochs + 1 if result else checkpoints.epochs_completed(store.folder(spec))

    def full_disk(self) -> None:
        """Files cannot grow: one sentence, exit code 2, nothing marked as failed; with room it goes on."""
        store = self.interrupted("full", epochs=1)
        assert self.run(store.root, max_file_bytes=4000) == 2
        self._is_told(store, "File too large")
        assert all(store.result(spec) is None for spec in SPECS)
        assert checkpoints.names(store.folder(SPECS[0])), "the checkpoint from before is kept"
        assert self.run(store.root) == 0, self.log.read_text()
        self.check(store)

    def small_disk(self) -> bool:
        """The same with a real file system of 300 kB; False where this computer lets nobody mount one."""
        store = RunStore(self.folder / "small")
        store.root.mkdir()
        if not _done("mount", "-t", "tmpfs", "-o", "size=300k", "none", store.root):
            return False
        try:
            assert self.run(store.root) == 2
            self._is_told(store, "No space left on device")
            assert _done("mount", "-o", "remount,size=100m", store.root)
            assert self.run(store.root) == 0, self.log.read_text()
            self.check(store)
        finally:
            _done("umount", store.root)
        return True

    def read_only(self) -> None:
        """A folder that may not be written: the same."""
        store = self.interrupted("read-only", epochs=1)
        folder = store.folder(SPECS[0])
        with _read_only(folder):
            assert self.run(store.root) == 2
        self._is_told(store, "Cannot write to")
        assert all(store.result(spec) is None for spec in SPECS)
        assert self.run(store.root) == 0, self.log.read_text()
        self.check(store)

    def damaged_checkpoints(self) -> None:
        """A bit in the newest checkpoint: said, and trained from the one before."""
        store = self.interrupted("damaged")
        newest = store.folder(SPECS[0]) / checkpoints.names(store.folder(SPECS[0]))[0]
        state = next(newest.glob("*.data*"))
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
        assert self.run(store.root) == 0, self.log.read_text()
        assert f"{newest} is damaged" in self.log.read_text()
        self.check(store)

    def two_at_once(self) -> None:
        """Two benchmarks on one store share the work, and one that is killed leaves its part to the other."""
        store = RunStore(self.folder / "two")
        processes = [self.start(store.root) for _ in range(3)]
        time.sleep(self.duration_s / 4)
        processes[0].kill()
        for process in processes[1:]:
            process.join(_LIMIT_S)
            assert process.exitcode == 0, self.log.read_text()
        self.check(store)

    def _is_told(self, store: RunStore, reason: str) -> None:
        said = self.log.read_text()
        assert reason in said and str(store.root) in said and "start the same command again" in said, said
        assert "Traceback" not in said, said


@contextlib.contextmanager
def _read_only(folder: Path):
    """Nobody can write into a folder, the administrator neither where file attributes are known."""
    if os.geteuid() == 0:
        forbid, allow = ("chattr", "+i", folder), ("chattr", "-i", folder)
    else:
        forbid, allow = ("chmod", "555", folder), ("chmod", "755", folder)
    if not _done(*forbid):
        raise BibenchError("The administrator may write everywhere, and chattr does not forbid it here.")
    try:
        yield
    finally:
        _done(*allow)


def _done(*command: str | Path) -> bool:
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def main() -> None:
    """The whole campaign, with what it did on stdout."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory(prefix="bibench-chaos-") as folder:
        campaign = Campaign(Path(folder))
        print(f"{len(SPECS)} runs without harm: {campaign.duration_s:.1f} s", flush=True)
        for harm in (
            campaign.damaged_checkpoints,
            campaign.full_disk,
            campaign.small_disk,
            campaign.read_only,
            campaign.two_at_once,
            lambda: campaign.kills(kills),
        ):
            start_s = time.monotonic()
            outcome = harm()
            name = getattr(harm, "__name__", "").strip("<>").replace("lambda", f"{kills} kills")
            text = "left out: nothing can be mounted here" if outcome is False else "nothing lost, nothing wrong"
            print(f"{name.replace('_', ' ')}: {text} ({time.monotonic() - start_s:.0f} s)", flush=True)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    main()
