"""Files: written atomically, and the digests of contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bibench_tf.errors import NO_ROOM, StorageError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Run `write` on a temporary file beside `path`, then rename it into place.

    A symbolic link stays one, and the file that it names is written. The mode of an existing file is kept; that of a
    new one follows the umask. A device or a pipe gets the content as soon as it is complete. The temporary name keeps
    the suffix of `path`. Raises StorageError when it cannot be written.
    """
    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            _write_into(path, write)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{secrets.token_hex(8)}{target.suffix}")
        # Until its mode is set, nobody else reads what may replace a private file.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600))
        try:
            write(temporary)
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError.of(path, error) from error


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _write_into(path: Path, write: Callable[[Path], object]) -> None:
    """Run `write` on a file of the system's temporary folder, then copy it into a device or pipe."""
    with tempfile.TemporaryDirectory(prefix="bibench-") as folder:
        temporary = Path(folder) / f"content{path.suffix}"
        write(temporary)
        with open(temporary, "rb") as content, open(os.open(path, os.O_WRONLY), "wb") as stream:
            shutil.copyfileobj(content, stream)


@contextlib.contextmanager
def room_in(place: object) -> Iterator[None]:
    """Within the block a full or read-only disk is a StorageError for its file, or for `place` where that is unknown.

    All other errors are as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageError.of(error.filename or place, error) from error


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
