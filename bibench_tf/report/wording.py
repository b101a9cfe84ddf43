"""Sentences of all forms of the report."""

from __future__ import annotations

HOW_TO_READ = (
    "Every score compares binarized networks with their full-precision counterpart, in percent: 100 is full "
    "precision, more is better, and the best binarized network of a track is in bold. Scores of different "
    "tracks measure different things: do not add them up."
)
SOURCE = (
    "The overall metrics follow BiBench (Qin et al., ICML 2023, arXiv 2301.11233) as recalled; the formulas "
    "are not verified word for word. The CSV and JSON files of `bibench report` hold all numbers unrounded; "
    "full precision scores 1 in them."
)
