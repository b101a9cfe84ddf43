"""The command `bibench run`."""

from __future__ import annotations

import dataclasses

import click

from bibench_tf.benchmark import track
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.cli.options import benchmark_options
from bibench_tf.cli.tracks import run_tracks
from bibench_tf.training.session import Session

_TAKES = [field.name for field in dataclasses.fields(Benchmark)]
_TAKES = [name for name in _TAKES if name not in ("bert_checkpoint", "vocabulary", "options")]


@click.command()
@benchmark_options(_TAKES, [track.TRACKS.get(name) for name in track.names()])
def run(benchmark: Benchmark, session: Session) -> int:
    """Run the whole benchmark, all tracks, and write the report.

    Without options: BiBench's eight algorithms and full precision, with small networks on the small data sets inside
    the package: images, spoken words, point clouds, parts of them, and sentences; about twenty minutes on two cores.
    Interrupt it at any time; the same command goes on where it stopped. A track that does not fit the data, such as
    robustness without images, is left out.

    \b
    Examples:
      bibench run
      bibench run --data cifar10 --data-dir ~/tensorflow_datasets --network resnet20 --recipe cifar10_short
      bibench run --algorithm bnn,mine --plugin mine.py --results results/mine
      bibench run --strategy mirrored --tensorboard
    """
    return run_tracks(benchmark, session, None)
