"""The data files inside the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bibench_tf.errors import BibenchError, MissingData

FOLDER = Path(__file__).parents[1] / "data"


def read(file: Path, sha256: str) -> bytes:
    """The content of a file of the package.

    Raises MissingData when it cannot be read, and BibenchError when its SHA-256 differs.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MissingData(f"Cannot read {file} ({error.strerror}): install bibench-tf again.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BibenchError(f"{file} is damaged or was changed (wrong SHA-256): install bibench-tf again.")
    return content
