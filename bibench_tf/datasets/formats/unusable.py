"""One-line messages on stderr about unusable entries in the user's data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from bibench_tf import terminal

# The number of entries that a message names.
_NAMED = 5


def warn(entries: Sequence[str], reason: str) -> None:
    """Print that `entries` are left out and the `reason`, in the form of `note`."""
    note(entries, f"{reason} and are left out")


def note(entries: Sequence[str], description: str) -> None:
    """Print the number of `entries`, a `description` of them, and the first by name; nothing without entries.

    The same message is printed only once per process.
    """
    if entries:
        more = f", and {len(entries) - _NAMED} more" if len(entries) > _NAMED else ""
        _print(f"{len(entries)} {description}: {', '.join(entries[:_NAMED])}{more}.")


@cache
def _print(message: str) -> None:
    terminal.message(terminal.one_line(message))
