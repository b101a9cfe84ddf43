"""The errors that a user can cause and mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BibenchError(Exception):
    """A mistake or a situation the user can mend, told in one sentence.

    The command line prints the sentence to stderr and exits with code 2.
    """


class StorageError(BibenchError):
    """What cannot be written, because the disk is full or must not be written to. No run can go on, and none failed."""

    @classmethod
    def of(cls, path: object, error: BaseException) -> StorageError:
        """The error for a path; `error` is one of the system's or of TensorFlow's."""
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        return cls(
            f"Cannot write to {path}: {reason}. What was written before is kept; make room or give the right to write, "
            "and start the same command again."
        )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BibenchError:
    """The error for a name that is not in a registry: names the nearest and lists all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return BibenchError(f"Unknown {kind} '{name}'.{hint} Known: {', '.join(known)}.")
