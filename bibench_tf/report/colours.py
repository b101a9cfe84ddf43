"""One colour per algorithm, the same in every table, chart and report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bibench_tf.names import BASELINE, BIBENCH

#: The baseline takes the colour of the text, so that it is black on white and white on black.
TEXT = "currentColor"
# Middle tones, which read on a light and on a dark page.
_BUILT_IN = ("#3b7dd8", "#e07b39", "#2a9d6f", "#c94f7c", "#8a63d2", "#c99a12", "#169fb5", "#a0623a")
_ADDED = ("#7a8b2f", "#d64545", "#6b7c93", "#b565c9", "#4fae4a", "#d98880")
_OTHER = ("#4a74a8", "#a9bccf", "#c2a266", "#7d8890", "#7fa88b", "#a98aa5")


def assign(algorithms: Iterable[str]) -> dict[str, str]:
    """A CSS colour by key of algorithm: fixed for the built-in ones, in the order given for others."""
    colours = {BASELINE: TEXT, **dict(zip(BIBENCH, _BUILT_IN, strict=True))}
    added = [key for key in dict.fromkeys(algorithms) if key not in colours]
    return colours | _cycle(added, _ADDED)


def series(names: Iterable[str]) -> dict[str, str]:
    """A CSS colour for each of `names`, which are no algorithms."""
    return _cycle(names, _OTHER)


def _cycle(names: Iterable[str], palette: Sequence[str]) -> dict[str, str]:
    return {name: palette[index % len(palette)] for index, name in enumerate(names)}
