"""The files that a working copy and its store have in common: a note of the last time that both were equal.

`.synchronised.jsonl` in the working copy has a line for each time: `[name, version, bytes, modified_ns]`, the version
of the store's file and the size and time of the copy. The last line of a name counts. By it a change on either side is
seen without reading the file. A missing or corrupt line only means that the contents are compared instead. Lines are
appended by one write, so that several processes can append.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NAME = ".synchronised.jsonl"


@dataclass(frozen=True, slots=True)
class Note:
    """A file when it was last equal on both sides: its version in the store, and size and time of the copy.

    Size and time are None for a file that the working copy did not have; the note then holds its version alone.
    """

    name: str
    version: str
    size_bytes: int | None
    modified_ns: int | None

    @classmethod
    def of(cls, name: str, version: str, copy: os.stat_result | None) -> Note:
        """The note of a file whose copy is `copy`."""
        return cls(name, version, copy and copy.st_size, copy and copy.st_mtime_ns)

    def is_of(self, copy: os.stat_result | None) -> bool:
        """Whether the copy has not changed since this note was made."""
        return self == Note.of(self.name, self.version, copy)


class Notes:
    """The notes of a working copy, those of other processes included."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self._path = folder / NAME
        self._read_bytes = 0
        self._notes: dict[str, Note] = {}

    def get(self, name: str) -> Note | None:
        """The last note of a file, as of the last `refresh`."""
        return self._notes.get(name)

    def refresh(self) -> None:
        """Read what was appended since the last time."""
        try:
            with open(self._path, "rb") as stream:
                stream.seek(self._read_bytes)
                # A line without its end is still being written.
                content = stream.read().rpartition(b"\n")[0]
        except OSError:
            return
        self._read_bytes += len(content)
        for line in content.splitlines():
            with contextlib.suppress(ValueError, TypeError):
                note = Note(*json.loads(line))
                self._notes[note.name] = note

    def add(self, notes: Iterable[Note]) -> None:
        """Append notes. A write error is ignored: the contents are compared where a note is missing."""
        lines = []
        for note in notes:
            self._notes[note.name] = note
            lines.append(json.dumps([note.name, note.version, note.size_bytes, note.modified_ns]))
        if not lines:
            return
        with contextlib.suppress(OSError), open(self._path, "ab", buffering=0) as stream:
            # The line break comes first, so that a truncated line does not corrupt the next one.
            stream.write("\n".join(["", *lines, ""]).encode())
