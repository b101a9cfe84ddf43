"""The six tracks of the benchmark, one module each: plan, measure, score."""

from __future__ import annotations

import importlib
from types import ModuleType

from bibench_tf.errors import UnknownName

NAMES = ("task", "architecture", "robustness", "training", "complexity", "inference")


def load(name: str) -> ModuleType:
    """The module of a track: NAME, TITLE, plan(benchmark), measure(benchmark, session), score(benchmark, store)."""
    if name not in NAMES:
        raise UnknownName("track", name, NAMES)
    return importlib.import_module(f"bibench_tf.tracks.{name}")
