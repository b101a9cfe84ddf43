"""The contents of files: their digest, and whether they have changed since.

Contents are read only where the size, a time or the inode of a file has changed since they were last read: digests are
kept in the user's cache, one small file for each list of files. Two writes within the resolution of a file system's
clock leave the same times, so a digest is kept only if all files were older than that when they were read. The time of
the last change of the inode is compared too, because programs can set the time of the last change of the content.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import platformdirs

from bibench_tf import terminal
from bibench_tf.errors import BibenchError, MissingData, StorageError
from bibench_tf.files import digest, fingerprint_files, write_atomically

# The coarsest clock of a file system, that of FAT.
_CLOCK_NS = 2_000_000_000
# From here on a user waits long enough to be told why.
_LARGE_BYTES = 2e9

# By the digest of the paths: the digest of sizes, times and inodes, and the digest of the contents.
_known: dict[str, tuple[str, str]] = {}


class Contents:
    """The contents that files had when this object was made. `files` are in the order in which they are read."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Nothing is read yet. Raises MissingData for a file that is not there."""
        self.files = tuple(files)
        self._looks = _looks(self.files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file, as 64 hexadecimal digits.

        Raises MissingData for a file that cannot be read, and BibenchError if one has changed since this object was
        made.
        """
        found = digest_of(self.files)
        if _looks(self.files) != self._looks:
            raise BibenchError(f"The files in {self.files[0].parent} change while they are read: start again later.")
        return found

    @property
    def are_unchanged(self) -> bool:
        """Whether the files still have these contents; they are read where their sizes, times or inodes differ."""
        try:
            return self.digest == digest_of(self.files)
        except BibenchError:
            return False


def digest_of(files: Sequence[Path]) -> str:
    """`Contents.digest` of the files as they are now. Raises MissingData for a file that cannot be read."""
    key = digest([os.path.abspath(file) for file in files])
    looks = _looks(files)
    for known in (_known.get, _read):
        if (found := known(key)) is not None and found[0] == looks:
            _known[key] = found
            return found[1]
    contents, is_final = _hashed(files)
    if is_final:
        _known[key] = (looks, contents)
        _write(key, looks, contents)
    return contents


def _looks(files: Sequence[Path]) -> str:
    """The digest of all that changes with a file's contents and is known without reading them."""
    with _readable(files):
        found = map(os.stat, files)
        return digest([[file.st_size, file.st_mtime_ns, file.st_ctime_ns, file.st_ino] for file in found])


def _hashed(files: Sequence[Path]) -> tuple[str, bool]:
    """The digest of the contents, and whether every later change of a file will show in its times."""
    digests, is_final = [], True
    with _readable(files):
        size_bytes = sum(os.stat(file).st_size for file in files)
        if size_bytes > _LARGE_BYTES:
            terminal.message(
                f"bibench: the {size_bytes / 1e9:.0f} GB of data in {files[0].parent} are read for their fingerprint, "
                "once until they change."
            )
        for file in files:
            begun_ns, found = time.time_ns(), os.stat(file)
            is_final &= max(found.st_mtime_ns, found.st_ctime_ns) < begun_ns - _CLOCK_NS
            digests.append(fingerprint_files([file]))
    return digest(digests), is_final


@contextlib.contextmanager
def _readable(files: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MissingData(f"Cannot read {error.filename or files[0].parent} ({error.strerror}).") from error


def _folder() -> Path:
    return platformdirs.user_cache_path("bibench-tf") / "contents"


def _read(key: str) -> tuple[str, str] | None:
    """What the cache has for a list of files; None where it has nothing, or something damaged."""
    try:
        looks, contents, check = json.loads((_folder() / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return (looks, contents) if check == digest([key, looks, contents]) else None


def _write(key: str, looks: str, contents: str) -> None:
    """Keep a digest; without a cache that can be written the contents are read again by the next process."""
    text = json.dumps([looks, contents, digest([key, looks, contents])])
    with contextlib.suppress(OSError, StorageError):
        _folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(_folder() / f"{key}.json", lambda path: path.write_text(text, encoding="utf-8"))
