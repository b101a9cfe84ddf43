"""Names with a meaning of their own: the baseline, a paper's binarization, BiBench's algorithms; and misspelt ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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
