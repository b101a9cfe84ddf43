"""The checkpoint folders of a run, `checkpoint-<epochs completed>`; `training.loop` writes their contents."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")


def name_of(epochs_completed: int) -> str:
    """Folder name of the checkpoint after `epochs_completed` epochs."""
    return f"checkpoint-{epochs_completed}"


def epochs_of(name: str) -> int:
    """The number of completed epochs in the name of a checkpoint."""
    return int(name.partition("-")[2])


def names(folder: Path) -> list[str]:
    """The names of the checkpoints in a run's folder, the newest first."""
    try:
        found = [match for match in map(_NAME.fullmatch, os.listdir(folder)) if match]
    except FileNotFoundError:
        return []
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]), reverse=True)]


def epochs_completed(folder: Path) -> int:
    """The number of epochs of the newest checkpoint in a run's folder; 0 without a checkpoint."""
    newest = names(folder)[:1]
    return epochs_of(newest[0]) if newest else 0


def keep(folder: Path, count: int) -> None:
    """Delete all checkpoints but the newest `count`."""
    for name in names(folder)[count:]:
        shutil.rmtree(folder / name, ignore_errors=True)
