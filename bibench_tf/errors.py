"""The errors that a user can cause and mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BibenchError(Exception):
    """A mistake or a situation the user can mend, told in one sentence.

    The command line prints the sentence to stderr and exits with code 2.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BibenchError:
    """The error for a name that is not in a registry: names the nearest and lists all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return BibenchError(f"Unknown {kind} '{name}'.{hint} Known: {', '.join(known)}.")
