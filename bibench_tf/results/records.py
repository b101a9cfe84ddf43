"""Typed, versioned records on disk: written atomically, checked when read.

A record is one JSON file: `kind`, `schema`, `created`, `provenance`, `environment`, `data` (the fields of a
dataclass) and `sha256`, the digest of all the rest. A truncated or edited file is refused by its path.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeVar

from bibench_tf.errors import BibenchError
from bibench_tf.files import digest, write_atomically

SCHEMA = 1
Provenance = Literal["measured", "emulated", "published"]
T = TypeVar("T")


class RecordError(BibenchError):
    """A record that cannot be trusted: truncated, edited by hand or of another kind."""


class NewerRecordError(BibenchError):
    """A record of a newer version. Not a RecordError: nothing may take it for damaged and replace it."""


def write(
    path: Path,
    record: Any,
    *,
    environment: dict[str, Any] | None = None,
    provenance: Provenance = "measured",
) -> None:
    """Store the dataclass instance `record`; its class name is the kind."""
    content = {
        "kind": type(record).__name__,
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": provenance,
        "environment": environment or {},
        # Through JSON and back, so that what is signed is what a reader sees (tuples become lists).
        "data": json.loads(json.dumps(dataclasses.asdict(record))),
    }
    content["sha256"] = digest(content)
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_envelope(path: Path) -> dict[str, Any]:
    """The whole checked content of a record file, envelope included.

    Raises RecordError for a file that is unreadable, truncated or edited by hand, and NewerRecordError for one from a
    newer version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, signature = content["schema"], content.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is not a readable record ({type(error).__name__}); it is not scored.") from error
    if not isinstance(schema, int) or schema > SCHEMA:
        raise NewerRecordError(
            f"{path} has schema {schema}, newer than the {SCHEMA} this version reads: update bibench-tf."
        )
    if digest(content) != signature:
        raise RecordError(f"{path} was changed after it was written (checksum mismatch); it is not scored.")
    return content


def read(path: Path, cls: type[T], build: Callable[[dict[str, Any]], T] | None = None) -> T:
    """The record in `path` as an instance of `cls`; `build` makes it from the data where fields are nested."""
    content = read_envelope(path)
    if content["kind"] != cls.__name__:
        raise RecordError(f"{path} holds a {content['kind']}, not a {cls.__name__}.")
    try:
        return (build or (lambda data: cls(**data)))(content["data"])
    except (TypeError, KeyError, ValueError) as error:
        raise RecordError(f"{path} does not fit {cls.__name__}: {error}.") from error
