"""A results folder at a URL, of any file system that fsspec knows, and its working copy on this machine's disk.

All other code works on the copy. This module transfers files: at the start the missing and changed records are
downloaded; a run downloads the checkpoints and networks it starts from; after an epoch its checkpoint is uploaded,
after a run its network and then its result, and at the end the measurements and the report. A file is uploaded whole
under its own name, the only operation that all object stores make atomic. Object stores have no locks: Ray or shards
divide the work between machines.

A file that has changed in the store is known by its version there (a checksum of the store, or a time), one that has
changed here by its size and time (`synchronised`). A file that has changed on both sides is never overwritten without a
sentence on stderr, and the records here are kept beside those of the store.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from bibench_tf import terminal
from bibench_tf.errors import InvalidOption, StorageError, shortened
from bibench_tf.files import fingerprint_files, fingerprint_stream
from bibench_tf.results import checkpoints, index
from bibench_tf.results.synchronised import Note, Notes

# The URLs of the working copies that this process has opened. They stand in no file: a results folder of another person
# would choose where files are written to.
_urls: dict[Path, str] = {}
_TEMPORARY = ".tmp-"
_OWN = ".own-"
# Files of one request.
_AT_ONCE = 1000
# What file systems say of the version of a file, under names of their own.
_CHECKSUMS = ("ETag", "etag", "md5Hash", "md5", "checksum")
_TIMES = ("mtime", "LastModified", "last_modified", "modificationTime", "modify", "updated", "modified", "created")


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


@dataclass(frozen=True)
class _File:
    """A file of a store: its name in the store, its path there, and what the file system says of it."""

    name: str
    path: str
    details: Mapping[str, Any]


class Remote:
    """The store at a URL, with its working copy. All names are relative to both.

    Every method raises StorageError when the store does not answer.
    """

    def __init__(self, url: str, folder: Path) -> None:
        import fsspec

        self.url, self.folder = url, folder
        self._notes = Notes(folder)
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except Exception as error:  # each file system raises exceptions of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InvalidOption(f"The results folder {url} cannot be used: {shortened(reason)}") from error

    def fetch_records(self) -> None:
        """Download the records that the working copy lacks or has in another version.

        Checkpoints and the report are left out. A record that has changed here too is kept beside that of the store,
        and named on stderr.
        """
        found = self._find("")
        self._fetch(file for name, file in found.items() if _is_record(name))
        # What this machine will make of these records may replace what was made of older ones.
        made = [file for name, file in found.items() if not (_is_record(name) or _is_hidden(name) or _is_network(name))]
        self._notes.add(note for file in made if (note := self._note_of_version(file)) is not None)

    def fetch(self, name: str) -> None:
        """Download a file, if the store has it and the working copy has not, or has another version of it."""
        self._fetch(self._find(name).values())

    def fetch_checkpoints(self, run: str) -> None:
        """Download the checkpoints of a run's folder that the working copy lacks or has otherwise, each as a whole."""
        found = self._find(run)
        for name in sorted(_checkpoints_in(found)):
            files = [file for path, file in found.items() if PurePosixPath(path).parent.name == name]
            target = self.folder / run / name
            if target.exists() and not self._is_another(files, target):
                continue
            beside = target.with_name(f"{_TEMPORARY}{name}")
            shutil.rmtree(beside, ignore_errors=True)
            self._get([(file.path, beside / PurePosixPath(file.name).name) for file in files])
            shutil.rmtree(target, ignore_errors=True)
            beside.rename(target)

    def upload_checkpoints(self, run: str) -> None:
        """Upload the newest checkpoint of a run's folder, and delete the older ones that the copy has deleted."""
        here = checkpoints.names(self.folder / run)
        for name in here[:1]:
            # The record last: a checkpoint without a record is incomplete.
            files = sorted((self.folder / run / name).iterdir(), key=lambda path: path.suffix == ".json")
            for path in files:
                self._put(path.relative_to(self.folder).as_posix())
        self.drop_checkpoints(run, keep=here)

    def drop_checkpoints(self, run: str, keep: Sequence[str] = ()) -> None:
        """Delete the checkpoints of a run in the store but `keep`; the working copy does not change.

        Those of more epochs than `keep` has are another machine's, and stay too.
        """
        for name in _checkpoints_in(self._find(run)).difference(keep):
            if keep and checkpoints.epochs_of(name) > max(map(checkpoints.epochs_of, keep)):
                continue
            with self._request(f"{run}/{name}"):
                self._files.rm(self._path(f"{run}/{name}"), recursive=True)

    def upload(self, names: Iterable[str]) -> None:
        """Upload files that this machine has just written, in this order.

        A file of another machine that is replaced, and that this machine had not seen, is named on stderr.
        """
        self._notes.refresh()
        for name in names:
            there, note = self._find(name).get(name), self._notes.get(name)
            if there is not None and not self._is_noted(there, note) and not self._has_contents(there, name):
                terminal.message(f"{name} in {self.url} is of another machine; that of this machine replaces it.")
            self._upload(name)

    def upload_changed(self) -> None:
        """Upload the files that the store lacks, and those that have changed here since they were equal on both sides.

        A file that has changed in the store as well is left as it is there, and named on stderr. Temporary and hidden
        files, checkpoints and the index, which describes files of this machine, are left out.
        """
        found = self._find("")
        self._notes.refresh()
        left: list[str] = []
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.name == index.NAME or _is_hidden(name) or not path.is_file():
                continue
            there, note = found.get(name), self._notes.get(name)
            if there is None:
                self._upload(name)
            elif note is not None and note.is_of(path.stat()):
                continue
            elif self._is_noted(there, note):
                self._upload(name)
            elif self._has_contents(there, name):
                self._notes.add([Note.of(name, self._version(there, path), path.stat())])
            else:
                left.append(name)
        if left:
            terminal.message(
                f"{_few(left)} in {self.url} changed meanwhile: the files there are kept, and those of this machine "
                f"stay in {self.folder} alone."
            )

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    def _find(self, name: str) -> dict[str, _File]:
        """The files under a name, or the file of that name, by their names."""
        root = self._path("")
        self._files.invalidate_cache()
        with self._request(name or self.url):
            try:
                found = self._files.find(self._path(name), detail=True)
            except FileNotFoundError:
                return {}
        files = [_File(path[len(root) + 1 :], path, details) for path, details in found.items()]
        return {file.name: file for file in files}

    def _version(self, file: _File, copy: Path | None = None) -> str:
        """The version of a file in the store: what its file system says of it, or else the digest of its content.

        The content is read from `copy`, if there is a file of that content here.
        """
        said = next((f"{key} {file.details[key]}" for key in (*_CHECKSUMS, *_TIMES) if file.details.get(key)), None)
        if said is None:
            said = self._digest(file) if copy is None else fingerprint_files([copy])
        return f"{file.details['size']} bytes, {said}"

    def _digest(self, file: _File) -> str:
        with self._request(file.name), self._files.open(file.path, "rb") as stream:
            return fingerprint_stream(stream)

    def _is_noted(self, file: _File, note: Note | None) -> bool:
        """Whether the file in the store is the one of the note."""
        return note is not None and note.version == self._version(file)

    def _has_contents(self, file: _File, name: str) -> bool:
        """Whether a file of the store has the contents of the copy `name`."""
        path = self.folder / name
        if path.stat().st_size != file.details["size"]:
            return False
        return fingerprint_files([path]) == self._digest(file)

    def _note_of_version(self, file: _File) -> Note | None:
        """The note that this machine knows the present version of a file, without having it; None where it is noted."""
        note, version = self._notes.get(file.name), self._version(file)
        if note is None:
            return Note.of(file.name, version, _stat(self.folder / file.name))
        return None if note.version == version else Note(file.name, version, note.size_bytes, note.modified_ns)

    def _fetch(self, files: Iterable[_File]) -> None:
        self._notes.refresh()
        wanted = []
        for file in files:
            if _stat(self.folder / file.name) is None or not self._is_noted(file, self._notes.get(file.name)):
                wanted.append(file)
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            beside = [self._temporary(file) for file in part]
            self._get(list(zip((file.path for file in part), beside, strict=True)))
            self._notes.add(self._take(file, path) for file, path in zip(part, beside, strict=True))

    def _temporary(self, file: _File) -> Path:
        target = self.folder / file.name
        return target.with_name(f"{_TEMPORARY}{target.name}")

    def _take(self, file: _File, downloaded: Path) -> Note:
        """Put a downloaded file in its place, and the changed file of this machine beside it."""
        target, note = self.folder / file.name, self._notes.get(file.name)
        here = _stat(target)
        if here is not None and filecmp.cmp(target, downloaded, shallow=False):
            downloaded.unlink()
            return Note.of(file.name, self._version(file, target), here)
        if here is not None and (note is None or not note.is_of(here)):
            own = target.replace(target.with_name(f"{_OWN}{target.name}"))
            terminal.message(
                f"{file.name} has changed both here and in {self.url}: the one there is used, and that of this machine "
                f"is kept as {own}."
            )
        os.replace(downloaded, target)
        return Note.of(file.name, self._version(file, target), _stat(target))

    def _is_another(self, files: Sequence[_File], target: Path) -> bool:
        """Whether the files of a checkpoint in the store are complete, and are not those in `target`."""
        records = [file for file in files if file.name.endswith(".json")]
        here = {path.name: path.stat().st_size for path in target.iterdir()}
        there = {PurePosixPath(file.name).name: file.details["size"] for file in files}
        if not records:
            return False  # half uploaded
        return here != there or not all(self._has_contents(file, file.name) for file in records)

    def _get(self, wanted: Sequence[tuple[str, Path]]) -> None:
        """Download files by their paths in one request, which object stores answer in parallel."""
        for _, path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._request(wanted[0][0]):
            self._files.get([path for path, _ in wanted], [str(path) for _, path in wanted])

    def _put(self, name: str) -> None:
        path = self._path(name)
        with self._request(name):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(self.folder / name), path)

    def _upload(self, name: str) -> None:
        """Upload a file, and note that it is equal on both sides."""
        path = self.folder / name
        here = path.stat()
        self._put(name)
        there = self._find(name).get(name)
        if there is not None and there.details["size"] == here.st_size:
            self._notes.add([Note.of(name, self._version(there, path), here)])

    @contextlib.contextmanager
    def _request(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Each file system raises exceptions of its own.
            reason = str(error).strip().partition("\n")[0]
            raise StorageError(
                f"Cannot read or write {name} in {self.url}: {type(error).__name__}: {reason}. Finished runs are kept; "
                "start the same command again when the store answers."
            ) from error


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_hidden(name: str) -> bool:
    """Whether a file stays on its side: a temporary or hidden file, or one of a checkpoint."""
    return any(part.startswith((".", "checkpoint-")) for part in name.split("/"))


def _is_record(name: str) -> bool:
    """Whether a file is a record. The report is made from records, and is not read by any command."""
    return name.endswith(".json") and not _is_hidden(name) and not name.startswith("report/")


def _is_network(name: str) -> bool:
    return name.endswith(".keras")


def _few(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more files" if len(names) > 1 else names[0]


def _checkpoints_in(names: Iterable[str]) -> set[str]:
    return {PurePosixPath(name).parent.name for name in names if "/checkpoint-" in name}
