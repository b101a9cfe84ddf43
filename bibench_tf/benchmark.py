"""What is asked of a benchmark: which tasks, networks, algorithms and recipe; and how the session runs."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bibench_tf.errors import BibenchError

BASELINE = "full_precision"
# In place of an algorithm: whatever the network's own paper does.
PAPER = "paper"
# How a training is spread over devices, see `bibench_tf.distribution`.
STRATEGIES = ("mirrored", "multiworker", "tpu")
ALGORITHMS = ("bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda")


def parse_network(network: str) -> tuple[str, float]:
    """`resnet20@0.5` as name and width multiplier; without @ the width is 1. Raises BibenchError for a bad width."""
    name, at, width = network.partition("@")
    try:
        return name, float(width) if at else 1.0
    except ValueError:
        raise BibenchError(f"'{network}' is not a network; write NAME or NAME@WIDTH, such as resnet20@0.5.") from None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, as the user asked for it; it decides the plan of every track.

    `tasks` are data sets, of any kinds; tracks with one of them take the first, the robustness track the first of
    images. `architecture` are the networks of the task, robustness, training, complexity and inference tracks, at most
    one for each kind of task (`tracks.base.network_for`): a task whose network is not named takes its default; a text
    is taken for one network. `architectures` are those of the architecture track. `algorithms` leaves out the baseline,
    which is always run. Networks may carry a width multiplier: `resnet20@0.5`. `epochs` overrides the recipe's.
    `seeds` is how many seeds the task, architecture and training tracks train: `seed`, `seed` + 1, ...; the others take
    the networks of the first. `grid` names the settings of the training track, or grids of them.
    `precision` is that of every training. `corrupted_images` is how many test images are corrupted, None for all.
    `corrupted` says where corrupted images come from: `made` here, `tfds` (the published set that TensorFlow Datasets
    prepares) or the path of the authors' folder of arrays; `severities` is the table that made ones follow.
    `init` and `vocabulary` are the digests (`runs.files_digest`) of the checkpoint that text networks start from and of
    the word pieces that texts are cut by, where they are the user's.
    """

    tasks: tuple[str, ...] = ("fashion_mini",)
    architecture: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("resnet20@0.5", "vgg_small@0.125")
    algorithms: tuple[str, ...] = ALGORITHMS
    recipe: str = "quick"
    epochs: int | None = None
    seed: int = 0
    seeds: int = 1
    corruptions: tuple[str, ...] = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "pixelate")
    corrupted_images: int | None = 400
    corrupted: str = "made"
    severities: str = "cifar10"
    grid: tuple[str, ...] = ("quick",)
    precision: str = "float32"
    init: str | None = None
    vocabulary: str | None = None

    def __post_init__(self):
        # Benchmarks of earlier versions have one network.
        if isinstance(self.architecture, str):
            object.__setattr__(self, "architecture", (self.architecture,))

    @property
    def all_algorithms(self) -> tuple[str, ...]:
        """The baseline, then the algorithms."""
        return (BASELINE, *self.algorithms)

    @property
    def by_seed(self) -> tuple[Benchmark, ...]:
        """The same benchmark with one seed, for each of its seeds."""
        return tuple(dataclasses.replace(self, seed=self.seed + index, seeds=1) for index in range(self.seeds))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Benchmark:
        """The inverse of `dataclasses.asdict`, with lists from JSON as tuples."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


@dataclass(frozen=True)
class Session:
    """Where and how this process runs a benchmark; nothing here changes what a result means.

    `targets` are the devices of the inference track, whose records are scored together with those of earlier sessions;
    `binaries` is the program lce_benchmark_model for the devices other than `host`: one for all, or one for each.
    `xla` compiles training steps with XLA, which rounds as another computer does; with `steps_per_execution` Keras
    makes that many steps before it returns to Python, except where the learning rate changes from step to step. A
    run's result names both, and the strategy, for its times depend on them.
    `strategy` spreads every training over devices (`bibench_tf.distribution`), which does not change what is learnt
    but for rounding. With `tensorboard` runs keep what TensorBoard shows in their folders.
    `retime_rounds` is how many interleaved rounds of training steps the training track times; 0 for none.
    `init` is the folder of the checkpoint that text networks start from, `vocabulary` the file of word pieces; their
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
    init: Path | None = None
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
        paths = {name: data[name] and Path(data[name]) for name in ("results", "data_dir", "init", "vocabulary")}
        paths["binaries"] = tuple(Path(path) for path in data["binaries"])
        shard = data["shard"] and tuple(data["shard"])
        return cls(**{**data, **paths, "targets": tuple(data["targets"]), "shard": shard})
