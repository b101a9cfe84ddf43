"""Sentences that every form of the report shares."""

from __future__ import annotations

HOW_TO_READ = (
    "Every score compares binarized networks with their full-precision counterpart, in percent: 100 is full "
    "precision, more is better, and bold is the best of the binarized networks in that track. Scores of "
    "different tracks measure different things and are not to be added up."
)
SOURCE = (
    "The overall metrics follow BiBench (Qin et al., ICML 2023, arXiv 2301.11233) as recalled; the formulas "
    "are not verified word for word. The CSV and JSON files beside this report hold all numbers unrounded, "
    "full precision scoring 1."
)
