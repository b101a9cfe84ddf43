"""The command `bibench status`."""

from __future__ import annotations

import click

from bibench_tf import terminal
from bibench_tf.cli.options import RESULTS
from bibench_tf.errors import BibenchError
from bibench_tf.training.session import Session

# More runs than this are listed only where they are neither completed nor waiting.
_LISTED = 100


@click.command()
@RESULTS
def status(results: str) -> int:
    """Show the completed, running, failed and remaining runs of a results folder, and the time left.

    Of more than a hundred runs, those that are completed or wait are only counted.

    \b
    Example:
      bibench status --results small
    """
    from bibench_tf.results import status as states

    folder = Session.at(results).results
    planned = states.read_plan(folder)
    if planned is None:
        raise BibenchError(f"{folder} holds no benchmark: there is no {states.FILE} in it.")
    found = states.of(planned, folder)
    for state, run in found.runs:
        if len(found.runs) <= _LISTED or state not in ("completed", "waiting"):
            terminal.output(f"{state:<10} {terminal.one_line(run.text)}")
    terminal.output(found.sentence)
    return 0
