"""An index of a store's results, so that 100,000 of them are known without reading each.

`runs/index.jsonl` has a line for each result: `[folder, status, bytes, modified_ns, seconds_per_step]`. It is a cache
and no source: a line counts as long as the file it speaks of has the size and time it says; lines that are lost or
garbled cost a look at the result itself. Lines are appended whole, so several processes may do it.
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
    """What the index says of one result; `seconds_per_step` is by the clock, None where no step was made."""

    folder: str
    status: str
    size_bytes: int
    modified_ns: int
    seconds_per_step: float | None = None

    def is_of(self, file: os.stat_result) -> bool:
        """Whether the result is still the file that this line was written for."""
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
        found = [_parsed(content) for content in contents]  # one by one, to lose only those that are garbled
    return {line[0]: Line(*line) for line in found if isinstance(line, list) and len(line) == 5}


def _parsed(content: str) -> list | None:
    try:
        return json.loads(content)
    except ValueError:
        return None


def append(runs: Path, line: Line) -> None:
    """Add a line. A disk that does not take it is no error: the index is then without it."""
    content = [line.folder, line.status, line.size_bytes, line.modified_ns, line.seconds_per_step]
    with contextlib.suppress(OSError), open(runs / NAME, "ab", buffering=0) as stream:
        # The line break comes first, so that a line that was cut off spoils no other.
        stream.write(b"\n" + json.dumps(content).encode() + b"\n")
