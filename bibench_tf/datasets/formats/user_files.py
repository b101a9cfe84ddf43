"""Text lists in a user's folder, and splits for folders without lists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# The share of the examples, or of each class, that is the test split where no list names it.
TEST_SHARE = 0.2
Item = TypeVar("Item")


def lines(file: Path) -> list[str]:
    """The lines of a list without the space around them, and without empty lines; none where there is no file."""
    found = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    return [line.strip() for line in found if line.strip()]


def test_items(items: list[Item], name: Callable[[Item], str]) -> list[Item]:
    """The fifth of the items whose names have the smallest SHA-256, in its order."""
    ordered = sorted(items, key=lambda item: hashlib.sha256(name(item).encode()).hexdigest())
    return ordered[: round(TEST_SHARE * len(items))]
