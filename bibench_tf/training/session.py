"""Where and how a process runs trainings and measurements."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from tqdm import tqdm

from bibench_tf import terminal
from bibench_tf.errors import InvalidOption
from bibench_tf.options import Count, NotNegative, check_fields
from bibench_tf.results import stores

T = TypeVar("T")

# How a training is spread over devices, see `bibench_tf.training.distribution`.
Strategy = Literal["mirrored", "multiworker", "tpu"]
STRATEGIES = get_args(Strategy)


@dataclass(frozen=True)
class Session:
    """Where and how this process runs a benchmark; no option changes the meaning of a result.

    `xla` compiles training steps with XLA, which changes rounding, as a different machine would. With
    `steps_per_execution` N Keras makes N steps before it returns to Python, except where the learning rate changes from
    step to step. `strategy` spreads every training over devices (`bibench_tf.training.distribution`), which changes
    rounding only. A result records these three options, because its times depend on them. With `tensorboard` each run
    keeps logs for TensorBoard in its folder.
    `bert_checkpoint` is the folder of the checkpoint that text networks start from, `vocabulary` the file of their word
    pieces; benchmarks and runs name the digests of the contents.
    `places` has, for each data set of the benchmark that is not a part of the package, its identity
    (`names.data_identity`) and what the user named, NAME or NAME:FOLDER; benchmarks and runs name the data alone.
    `executor` trains runs in this process and others of this machine (`local`), or on the Ray cluster at `ray_address`
    (`ray`). A run gets `cpus_per_run` CPU cores, or `gpus_per_run` GPUs; the machine trains as many runs in parallel as
    its cores or GPUs allow. `gpus_per_run=None`: one GPU per run if the machine has any. `shard` (i, n) trains the i-th
    of n parts of the runs. `has_neighbours` is true if this machine trains other runs at the same time, which affects
    the times of the runs.
    `store` is the URL of which `results` is the working copy; None if `results` is no working copy.
    """

    results: Path
    data_dir: Path | None = None
    download: bool = False
    quiet: bool = False
    xla: bool = False
    steps_per_execution: Count = 1
    strategy: Strategy | None = None
    tensorboard: bool = False
    bert_checkpoint: Path | None = None
    vocabulary: Path | None = None
    places: tuple[tuple[str, str], ...] = ()
    executor: Literal["local", "ray"] = "local"
    cpus_per_run: Count = 4
    gpus_per_run: NotNegative | None = None
    ray_address: str | None = None
    shard: tuple[Count, Count] | None = None
    has_neighbours: bool = False
    store: str | None = None

    def __post_init__(self) -> None:
        """Raises InvalidOption for values of another type or range, and for options that exclude each other."""
        check_fields(self)
        if self.shard is not None and self.shard[0] > self.shard[1]:
            raise InvalidOption(f"There is no part {self.shard[0]} of {self.shard[1]}: name one by its number from 1.")
        for chosen, option, effect in (
            (self.xla, "--xla", "compiles the steps of one device"),
            (self.executor == "ray", "--executor ray", "gives every run one machine"),
        ):
            if chosen and self.strategy is not None:
                raise InvalidOption(f"{option} {effect}: leave out either {option} or --strategy {self.strategy}.")

    @classmethod
    def at(cls, results: str | Path, **fields: Any) -> Session:
        """The session of a results folder, or of the working copy of a store's URL, whose records are fetched."""
        url = str(results) if "://" in str(results) else None
        session = cls(Path(results) if url is None else stores.working_copy(url), store=url, **fields)
        if url is not None:
            stores.of(session.results).fetch_records()
        return session

    def progress(self, items: Collection[T], description: str, unit: str) -> Iterable[T]:
        """The items with a bar on stderr, if there are any."""
        return tqdm(items, terminal.one_line(description), unit=unit, disable=self.quiet or not items, file=sys.stderr)

    def progress_bar(self, total: int, unit: str) -> tqdm:
        """A bar on stderr with an estimate of the time left; in a file or pipe it prints a line every half minute."""
        interval_s = 0.2 if sys.stderr.isatty() else 30
        return tqdm(
            total=total,
            unit=unit,
            disable=self.quiet,
            file=sys.stderr,
            mininterval=interval_s,
            maxinterval=max(10, interval_s),
            dynamic_ncols=True,
            smoothing=0.05,
        )
