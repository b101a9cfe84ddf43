"""Files: written atomically, and the digests of contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bibench_tf.errors import StorageError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Run `write` on a temporary file beside `path`, then rename it into place.

    The temporary name keeps the suffix of `path`. Raises StorageError when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise StorageError.of(path.parent, error) from error
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError.of(path.parent, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`, as 64 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_arrays(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 over type, shape and bytes of `arrays`, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_files(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of `files` in the given order, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            _update(digest, stream)
    return digest.hexdigest()


def fingerprint_stream(stream: BinaryIO) -> str:
    """SHA-256 over the rest of a stream, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    _update(digest, stream)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, stream: BinaryIO) -> None:
    while block := stream.read(1 << 20):
        digest.update(block)


def fingerprint_description(description: Mapping[str, Any]) -> str:
    """SHA-256 over a description in plain JSON values, for data too large to read whole."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
