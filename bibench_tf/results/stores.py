"""A results folder at a URL, of any file system that fsspec knows, and its working copy on this machine's disk.

All other code works on the copy. This module transfers files: at the start the missing records are downloaded; a run
downloads the checkpoints and networks it starts from; after an epoch its checkpoint is uploaded, after a run its
network and then its result, and at the end the measurements and the report. A file is uploaded whole under its own
name, the only operation that all object stores make atomic. Object stores have no locks: Ray or shards divide the work
between machines.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import platformdirs

from bibench_tf.errors import InvalidOption, StorageError, shortened
from bibench_tf.results import checkpoints, index

# The URLs of the working copies that this process has opened. They stand in no file: a results folder of another person
# would choose where files are written to.
_urls: dict[Path, str] = {}
_TEMPORARY = ".tmp-"
_STARTED_S = time.time()
# Files of one request.
_AT_ONCE = 1000


def working_copy(url: str) -> Path:
    """The folder on this machine for the store at `url`, in the user's cache; it is created.

    Raises InvalidOption for a URL whose file system is unknown or cannot be opened, and StorageError if the cache
    cannot be written.
    """
    digest = hashlib.sha256(url.rstrip("/").encode(errors="surrogateescape")).hexdigest()
    folder = platformdirs.user_cache_path("bibench-tf") / digest[:16]
    _store(url, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError.of(folder, error) from error
    _urls[folder] = url
    return folder


def of(folder: Path) -> Remote | None:
    """The store that `folder` is the working copy of; None for a folder that is no working copy of this process."""
    url = _urls.get(folder)
    return None if url is None else _store(url, folder)


@cache
def _store(url: str, folder: Path) -> Remote:
    return Remote(url, folder)


class Remote:
    """The store at a URL, with its working copy. All names are relative to both.

    Every method raises StorageError when the store does not answer.
    """

    def __init__(self, url: str, folder: Path) -> None:
        import fsspec

        self.url, self.folder = url, folder
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except Exception as error:  # each file system raises exceptions of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InvalidOption(f"The results folder {url} cannot be used: {shortened(reason)}") from error

    def fetch_records(self) -> None:
        """Download the records that the working copy lacks or has in another size, without those of checkpoints."""
        self._fetch(
            {
                name: size
                for name, size in self._find("").items()
                if name.endswith(".json") and not any(part.startswith((".", "checkpoint-")) for part in name.split("/"))
            }
        )

    def fetch(self, name: str) -> None:
        """Download a file, if the store has it and the working copy does not."""
        if not (self.folder / name).exists():
            self._fetch(self._find(name))

    def fetch_checkpoints(self, run: str) -> None:
        """Download the checkpoints of a run's folder that the working copy lacks, each as a whole."""
        found = self._find(run)
        for name in sorted(_checkpoints_in(found)):
            target = self.folder / run / name
            if target.exists():
                continue
            beside = target.with_name(f"{_TEMPORARY}{name}")
            shutil.rmtree(beside, ignore_errors=True)
            for path in found:
                if PurePosixPath(path).parent.name == name:
                    self._get([(path, beside / PurePosixPath(path).name)])
            beside.rename(target)

    def upload_checkpoints(self, run: str) -> None:
        """Upload the newest checkpoint of a run's folder, and delete those that the working copy has deleted."""
        here = checkpoints.names(self.folder / run)
        for name in here[:1]:
            # The record last: a checkpoint without a record is incomplete.
            files = sorted((self.folder / run / name).iterdir(), key=lambda path: path.suffix == ".json")
            self.upload(path.relative_to(self.folder).as_posix() for path in files)
        self.drop_checkpoints(run, keep=here)

    def drop_checkpoints(self, run: str, keep: Iterable[str] = ()) -> None:
        """Delete all checkpoints of a run in the store but `keep`; the working copy does not change."""
        for name in _checkpoints_in(self._find(run)).difference(keep):
            with self._request(f"{run}/{name}"):
                self._files.rm(self._path(f"{run}/{name}"), recursive=True)

    def upload(self, names: Iterable[str]) -> None:
        """Upload files of the working copy, in this order."""
        for name in names:
            path = self._path(name)
            with self._request(name):
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(self.folder / name), path)

    def upload_changed(self) -> None:
        """Upload the files that the store lacks or has in another size, and those that this process has written.

        Temporary and hidden files, checkpoints and the index, which describes files of this machine, are left out.
        """
        there = self._find("")
        names = []
        for path in sorted(self.folder.rglob("*")):
            parts = path.relative_to(self.folder).parts
            if path.name == index.NAME or any(part.startswith((".", "checkpoint-")) for part in parts):
                continue
            name = "/".join(parts)
            if path.is_file() and (there.get(name) != path.stat().st_size or path.stat().st_mtime >= _STARTED_S):
                names.append(name)
        self.upload(names)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    def _find(self, name: str) -> dict[str, int]:
        """The sizes in bytes of the files under a name, or of the file of that name."""
        root = self._path("")
        self._files.invalidate_cache()
        try:
            with self._request(name or self.url):
                found = self._files.find(self._path(name), detail=True)
        except FileNotFoundError:
            return {}
        return {path[len(root) + 1 :]: details["size"] for path, details in found.items()}

    def _fetch(self, sizes: dict[str, int]) -> None:
        wanted = [(name, self.folder / name, size) for name, size in sizes.items()]
        self._get([(name, path) for name, path, size in wanted if not path.exists() or path.stat().st_size != size])

    def _get(self, wanted: Sequence[tuple[str, Path]]) -> None:
        """Download files, many in one request, which object stores answer in parallel."""
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            beside = [target.with_name(f"{_TEMPORARY}{target.name}") for _, target in part]
            for path in beside:
                path.parent.mkdir(parents=True, exist_ok=True)
            names = [self._path(name) for name, _ in part]
            with self._request(names[0]):
                self._files.get(names, [str(path) for path in beside])
            for path, (_, target) in zip(beside, part, strict=True):
                os.replace(path, target)

    @contextlib.contextmanager
    def _request(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            # Each file system raises exceptions of its own.
            reason = str(error).strip().partition("\n")[0]
            raise StorageError(
                f"Cannot read or write {name} in {self.url}: {type(error).__name__}: {reason}. Finished runs are kept; "
                "start the same command again when the store answers."
            ) from error


def _checkpoints_in(names: Iterable[str]) -> set[str]:
    return {PurePosixPath(name).parent.name for name in names if "/checkpoint-" in name}
