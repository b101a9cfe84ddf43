"""What in a user's data could not be used, told in one line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

# Of unusable files, so many are named.
_NAMED = 5


def warn(entries: Sequence[str], reason: str) -> None:
    """Print how many `entries` there are, `reason`, and the first of them by name; nothing where there are none.

    The same message is printed once, however often the data are asked for.
    """
    if entries:
        more = f", and {len(entries) - _NAMED} more" if len(entries) > _NAMED else ""
        _print(f"{len(entries)} {reason} and are left out: {', '.join(entries[:_NAMED])}{more}.")


@cache
def _print(message: str) -> None:
    print(message, file=sys.stderr)
