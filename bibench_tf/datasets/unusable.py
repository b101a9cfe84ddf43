"""What in a user's data is not as it should be, told in one line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

# So many are named.
_NAMED = 5


def warn(entries: Sequence[str], reason: str) -> None:
    """Say that these `entries` are left out for that `reason`, as `tell` does."""
    tell(entries, f"{reason} and are left out")


def tell(entries: Sequence[str], what: str) -> None:
    """Print how many `entries` there are, `what` they are, and the first by name; nothing where there are none.

    The same message is printed once, however often the data are asked for.
    """
    if entries:
        more = f", and {len(entries) - _NAMED} more" if len(entries) > _NAMED else ""
        _print(f"{len(entries)} {what}: {', '.join(entries[:_NAMED])}{more}.")


@cache
def _print(message: str) -> None:
    print(message, file=sys.stderr)
