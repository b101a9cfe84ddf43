"""The command of a track, made from what the track says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bibench_tf import terminal
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import Track
from bibench_tf.cli.options import benchmark_options
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    from bibench_tf.benchmark.engine import Outcome


def command_of(track: Track) -> click.Command:
    """The command that runs one track."""

    @benchmark_options(track.takes, [track])
    def command(benchmark: Benchmark, session: Session) -> int:
        return run_tracks(benchmark, session, [track.name])

    examples = "".join(f"\n  {example}" for example in track.examples)
    return click.command(track.name, help=f"{track.help}\n\n\b\nExamples:{examples}")(command)


def run_tracks(benchmark: Benchmark, session: Session, tracks: list[str] | None) -> int:
    """Run tracks, all that fit the data where none are named, print the scores, and return the exit code."""
    from bibench_tf.benchmark import engine

    return shown(engine.run(benchmark, session, tracks), session)


def shown(outcome: Outcome, session: Session) -> int:
    """Print the scores of a benchmark and the path of its report; the exit code is 1 where a part is missing."""
    from bibench_tf import report

    if outcome.report is not None and not session.quiet:
        terminal.output(report.to_text([*outcome.scores.values()]))
        terminal.output(f"\nReport: {outcome.report}")
    if outcome.report is not None and outcome.failures:
        terminal.message(f"bibench: {outcome.failures} parts are missing or failed; the report names them.")
    return 1 if outcome.failures else 0
