"""Names with a meaning of their own: the baseline, a paper's binarization, BiBench's algorithms; and misspelt ones.

And the names of data sets. A user asks for NAME or NAME:FOLDER. Benchmarks, runs and all other records name the data
themselves: `NAME#FINGERPRINT` or `NAME:LAST#FINGERPRINT`, where LAST is the last name of the path, for the reader only.
Data sets inside the package have no fingerprint in their names.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterable
from functools import lru_cache

from bibench_tf.errors import InvalidOption

BASELINE = "full_precision"
# In place of an algorithm: the binarization of the network's own paper.
PAPER = "paper"
# The eight algorithms of BiBench, in its order.
BIBENCH = ("bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda")


def refuse_misspelt(owner: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise InvalidOption where `owner` declares a name that is nearly one of `known`, which would have no effect.

    Names with a leading underscore are free.
    """
    known = set(known)
    for name in names:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near and name not in known and not name.startswith("_"):
            raise InvalidOption(
                f"{owner} declares '{name}', which has no effect: did you mean '{near[0]}'? If not, begin it with '_'."
            )


# The digits of a fingerprint in a name: as many as those of a run's id.
_DIGITS = 12
_NAMED = re.compile(rf"(?P<kind>[^:#]*)(?P<last>:.*)?#(?P<fingerprint>[0-9a-f]{{{_DIGITS}}})", re.DOTALL)


def own_data(kind: str, path: str | os.PathLike[str]) -> str:
    """`KIND:LAST` for the user's data at a path, without the rest of the path; control characters are replaced."""
    last = os.path.basename(os.path.abspath(os.path.expanduser(path))) or "/"
    return f"{kind}:{''.join(letter if letter.isprintable() else '?' for letter in last)}"


def data_name(asked: str, fingerprint: str) -> str:
    """The name in records of the data set that a user asks for as NAME or NAME:FOLDER."""
    kind, colon, path = asked.partition(":")
    return f"{own_data(kind, path) if colon else kind}#{data_digits(fingerprint)}"


def data_digits(fingerprint: str) -> str:
    """The digits of a fingerprint that are in names: its first ones, or those of its digest if it is no digest."""
    digest = re.match(rf"[0-9a-f]{{{_DIGITS}}}", fingerprint)
    return digest[0] if digest else hashlib.sha256(fingerprint.encode()).hexdigest()[:_DIGITS]


def data_kind(name: str) -> str:
    """The name of a data set in the registry."""
    return re.split("[:#]", name, maxsplit=1)[0]


def data_label(name: str) -> str:
    """The name of a data set without its fingerprint, for titles and tables."""
    return name.rpartition("#")[0] if _NAMED.fullmatch(name) else name


def data_fingerprint(name: str) -> str | None:
    """The digits of the fingerprint in a name; None where it has none."""
    found = _NAMED.fullmatch(name)
    return found["fingerprint"] if found else None


@lru_cache(maxsize=1024)
def data_identity(name: str) -> str:
    """What decides whether two names mean the same data: `NAME#FINGERPRINT`, wherever and under which name they lie."""
    found = _NAMED.fullmatch(name)
    return f"{found['kind']}#{found['fingerprint']}" if found else name
