"""The errors that a user can cause and correct, and that a program can catch."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

# A longer name or path is cut in messages.
_SHOWN = 100
# A name with less in common is no suggestion: it has nothing to do with what the user meant.
_NEAR = 0.65
# The ways out, by the number of the system's error.
_REMEDIES = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "name a file or folder that is there",
    errno.EACCES: "grant permission, or name another file or folder",
    errno.EPERM: "grant permission, or name another file or folder",
    errno.ELOOP: "name a path without a circle of links",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "free some memory",
}
# The numbers of the system's errors for a full disk, a file above a limit, and a read-only disk.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM})


def shortened(text: object) -> str:
    """A name or path for a message: the middle of a very long one is left out."""
    text = str(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 4 :]}"


class BibenchError(Exception):
    """A user-correctable error, described in one sentence.

    The command line prints the sentence to stderr and exits with code 2.
    """


class UnknownName(BibenchError, LookupError):
    """A name that is in no registry; the message gives the nearest name and all names."""

    def __init__(self, kind: str, name: str, known: Iterable[str], note: str = "") -> None:
        """`kind` is the word for the thing, such as `network`, `known` all names, `note` a last sentence."""
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"Unknown {kind} '{shortened(name)}'.{hint} Known: {', '.join(known)}.{note and f' {note}'}")


class InvalidOption(BibenchError, ValueError):
    """An option, or a combination of options, that cannot be used."""


class MissingData(BibenchError, FileNotFoundError):
    """Data that are not there; the message says how to get them."""

    def __str__(self) -> str:
        """The sentence alone."""
        return str(self.args[0])


class StorageError(BibenchError):
    """The disk is full or read-only. Stops the session; no run is marked failed."""

    @classmethod
    def of(cls, path: object, error: BaseException) -> StorageError:
        """The error for a path; `error` is one of the system's or of TensorFlow's."""
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        # TensorFlow names the operation and the file around the reason.
        reason = re.sub(r"^(\{\{.*?\}\} )?(/.*; )?|( \[Op:\w+\])$", "", reason)
        number = getattr(error, "errno", None)
        remedy = "free some space or grant write permission"
        if number is not None and number not in NO_ROOM | _NO_PERMISSION:
            remedy = "name another file or folder"
        return cls(
            f"Cannot write to {path}: {reason}. Files written before are kept; {remedy}, and start the same command "
            "again."
        )


def of_system(error: OSError) -> BibenchError:
    """The sentence for an error of the system that no code expects: the path, the reason, and the way out."""
    path = shortened(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else "a file or stdout"
    if error.errno in NO_ROOM:
        return StorageError.of(path, error)
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "name another file or folder")
    return BibenchError(f"Cannot use {path}: {reason}: {remedy}.")
