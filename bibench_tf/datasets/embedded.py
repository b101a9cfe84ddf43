"""The data files that ship with the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bibench_tf.errors import BibenchError

FOLDER = Path(__file__).parent / "data"


def read(file: Path, sha256: str) -> bytes:
    """The content of a shipped file.

    Raises BibenchError when it is missing or is not, byte for byte, the one this version was released with.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BibenchError(f"Cannot read {file} ({error.strerror}): install bibench-tf again.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BibenchError(f"{file} is damaged or was changed (wrong SHA-256): install bibench-tf again.")
    return content
