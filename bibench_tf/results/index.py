"""An index of the results of a folder: the status of 100,000 runs without reading 100,000 files.

`runs/index.jsonl` has a line for each result: `[folder, status, bytes, modified_ns, seconds_per_step]`. The index is a
cache: a line is valid while the result file has the size and time in the line; a missing or corrupt line only means
that the result file is read instead. Each line is appended by one write, so that several processes can append.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

NAME = "index.jsonl"


@dataclass(frozen=True, slots=True)
class Line:
    """The entry of one result; `seconds_per_step` is wall-clock time, None if no step was made."""

    folder: str
    status: str
    size_bytes: int
    modified_ns: int
    seconds_per_step: float | None = None

    @classmethod
    def of(cls, folder: str, status: str, file: os.stat_result, seconds_per_step: float | None) -> Line:
        """The entry of the result in `file`."""
        return cls(folder, status, file.st_size, file.st_mtime_ns, seconds_per_step)

    def is_of(self, file: os.stat_result) -> bool:
        """Whether the result file has not changed since this line was written."""
        return (file.st_size, file.st_mtime_ns) == (self.size_bytes, self.modified_ns)


def read(runs: Path) -> dict[str, Line]:
    """The last line of each run folder in `runs`, by the folder's name."""
    try:
        text = (runs / NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    contents = [content for content in text.splitlines() if content]
    try:
        found = json.loads(f"[{','.join(contents)}]")
    except ValueError:
        found = [_parsed(content) for content in contents]  # one by one, so that corrupt lines alone are lost
    return {line[0]: Line(*line) for line in found if isinstance(line, list) and len(line) == 5}


def _parsed(content: str) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def append(runs: Path, line: Line) -> None:
    """Add a line. A write error is ignored, because the index is a cache."""
    content = [line.folder, line.status, line.size_bytes, line.modified_ns, line.seconds_per_step]
    with contextlib.suppress(OSError), open(runs / NAME, "ab", buffering=0) as stream:
        # The line break comes first, so that a truncated line does not corrupt the next one.
        stream.write(b"\n" + json.dumps(content).encode() + b"\n")
