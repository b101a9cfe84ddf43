"""Names with a meaning of their own: the baseline, a paper's binarization, BiBench's eight algorithms."""

from __future__ import annotations

BASELINE = "full_precision"
# In place of an algorithm: the binarization of the network's own paper.
PAPER = "paper"
# The eight algorithms of BiBench, in its order.
BIBENCH = ("bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda")
