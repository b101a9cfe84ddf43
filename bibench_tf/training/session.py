"""Where and how a process runs trainings and measurements."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bibench_tf.errors import BibenchError

# How a training is spread over devices, see `bibench_tf.training.distribution`.
STRATEGIES = ("mirrored", "multiworker", "tpu")


@dataclass(frozen=True)
class Session:
    """Where and how this process runs a benchmark; nothing here changes what a result means.

    `targets` are the devices of the inference track, whose records are scored together with those of earlier sessions;
    `binaries` is the program lce_benchmark_model for the devices other than `host`: one for all, or one for each.
    `xla` compiles training steps with XLA, which rounds as another computer does; with `steps_per_execution` Keras
    makes that many steps before it returns to Python, except where the learning rate changes from step to step. A
    run's result names both, and the strategy, for its times depend on them.
    `strategy` spreads every training over devices (`bibench_tf.training.distribution`), which does not change what is
    learnt but for rounding. With `tensorboard` runs keep what TensorBoard shows in their folders.
    `retime_rounds` is how many interleaved rounds of training steps the training track times; 0 for none.
    `bert_checkpoint` is the folder of the checkpoint that text networks start from, `vocabulary` the file of word pieces; their
    contents are what a benchmark and its runs name.
    `executor` trains runs in this process and others of this machine (`local`), as many as it has times `cpus_per_run`
    cores or `gpus_per_run` graphics cards, or on the Ray cluster at `ray_address` (`ray`). None of `gpus_per_run` is
    one, where there is one. `shard` (i, n) trains the i-th of n parts of the runs. `has_neighbours` says that other
    runs are trained on this machine at the same time, which their times then depend on.
    `store` is the URL of which `results` is the working copy, None where `results` is all there is.
    """

    results: Path
    data_dir: Path | None = None
    download: bool = False
    quiet: bool = False
    targets: tuple[str, ...] = ("host",)
    binaries: tuple[Path, ...] = ()
    retime_rounds: int = 0
    xla: bool = False
    steps_per_execution: int = 1
    strategy: str | None = None
    tensorboard: bool = False
    bert_checkpoint: Path | None = None
    vocabulary: Path | None = None
    executor: Literal["local", "ray"] = "local"
    cpus_per_run: int = 4
    gpus_per_run: float | None = None
    ray_address: str | None = None
    shard: tuple[int, int] | None = None
    has_neighbours: bool = False
    store: str | None = None

    def __post_init__(self):
        if self.xla and self.strategy is not None:
            raise BibenchError(
                f"XLA compiles the steps of one device: leave out either --xla or --strategy {self.strategy}."
            )
        if self.executor == "ray" and self.strategy is not None:
            raise BibenchError(
                f"--executor ray gives every run one machine: leave it out, or --strategy {self.strategy}."
            )

    def to_dict(self) -> dict[str, Any]:
        """The session as JSON has it, with paths as texts."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Session:
        """The inverse of `to_dict`."""
        paths = {
            name: data[name] and Path(data[name]) for name in ("results", "data_dir", "bert_checkpoint", "vocabulary")
        }
        paths["binaries"] = tuple(Path(path) for path in data["binaries"])
        shard = data["shard"] and tuple(data["shard"])
        return cls(**{**data, **paths, "targets": tuple(data["targets"]), "shard": shard})
