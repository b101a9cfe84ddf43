"""The checkpoints of a run, by their folders `checkpoint-<epochs completed>`; what is in them is `training`'s."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")


def name_of(epochs_completed: int) -> str:
    """The folder of the checkpoint after so many epochs."""
    return f"checkpoint-{epochs_completed}"


def names(folder: Path) -> list[str]:
    """The checkpoints in a run's folder, the newest first."""
    try:
        found = [match for match in map(_NAME.fullmatch, os.listdir(folder)) if match]
    except FileNotFoundError:
        return []
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]), reverse=True)]


def epochs_completed(folder: Path) -> int:
    """The epochs of the newest checkpoint in a run's folder, 0 without one."""
    newest = names(folder)[:1]
    return int(newest[0].partition("-")[2]) if newest else 0


def keep(folder: Path, count: int) -> None:
    """Delete all but the newest checkpoints."""
    for name in names(folder)[count:]:
        shutil.rmtree(folder / name, ignore_errors=True)
