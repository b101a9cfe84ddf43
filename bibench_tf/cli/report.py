"""The command `bibench report`."""

from __future__ import annotations

import click

from bibench_tf.cli.options import QUIET, RESULTS
from bibench_tf.cli.tracks import shown
from bibench_tf.training.session import Session


@click.command()
@RESULTS
@QUIET
def report(results: str, quiet: bool) -> int:
    """Score a results folder again and write its report: Markdown, CSV, JSON and one HTML file.

    \b
    Example:
      bibench report --results small
    """
    from bibench_tf.benchmark import engine

    session = Session.at(results, quiet=quiet)
    return shown(engine.rescore(session), session)
