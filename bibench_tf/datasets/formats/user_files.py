"""Text lists in a user's folder, splits for folders without lists, and checks of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from bibench_tf.errors import BibenchError

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


def check_classes(
    folder: Path, kind: str, class_names: Sequence[str], trained: Iterable[str], has_test: bool, test_list: str
) -> None:
    """Raise BibenchError unless there are two classes, all of them `trained`, and a test split.

    `kind` is the word for the examples, and `test_list` the file that can name test examples, for messages.
    """
    if len(class_names) < 2:
        raise BibenchError(f"All {kind} in {folder} are of one class, '{class_names[0]}': at least two are needed.")
    untrained = sorted({*class_names} - {*trained})
    if untrained:
        raise BibenchError(f"There are no training {kind} of {', '.join(untrained)} in {folder}.")
    if not has_test:
        raise BibenchError(f"No {kind} in {folder} are in the test split: name some in {test_list}.")
