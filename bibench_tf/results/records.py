"""Typed, versioned records on disk: written atomically, checked when read.

A record is one JSON file: `kind`, `schema`, `created`, `provenance`, `environment`, `data` (the fields of a
dataclass) and `sha256`, the digest of the other entries. A file that is truncated, edited or of other types is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from bibench_tf import terminal
from bibench_tf.errors import BibenchError
from bibench_tf.files import digest, write_atomically

SCHEMA = 1
Provenance = Literal["measured", "emulated", "published"]
T = TypeVar("T")


class RecordError(BibenchError):
    """A record that cannot be trusted: truncated, edited by hand, of another kind or with other fields."""


class NewerRecordError(BibenchError):
    """A record of a newer version. Not a RecordError, so that no code replaces it as a damaged one."""


def write(
    path: Path,
    record: Any,
    *,
    environment: dict[str, Any] | None = None,
    provenance: Provenance = "measured",
) -> None:
    """Store the dataclass instance `record`; its class name is the kind. Raises StorageError."""
    content = {
        "kind": type(record).__name__,
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": provenance,
        "environment": environment or {},
        "data": unstructure(record),
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


def set_aside(path: Path, error: RecordError, consequence: str) -> None:
    """Rename a damaged record, and state the error, the consequence and the new name on stderr."""
    aside = path.with_name(f"{path.name}.damaged")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        path.replace(aside)
    terminal.message(f"bibench: {error} {consequence}; the file is kept as {aside.name}.")


def read_or_set_aside(path: Path, read: Callable[[Path], T], consequence: str = "It is measured again") -> T | None:
    """The record that `read` finds in `path`; None where there is none, or a damaged one, which is set aside."""
    if not path.exists():
        return None
    try:
        return read(path)
    except RecordError as error:
        set_aside(path, error, consequence)
        return None


def check_version(path: Path, version: int) -> None:
    """Raise NewerRecordError where the field `version` of a record is higher than `version`, RecordError as `read`."""
    found = read_envelope(path)["data"].get("version")
    if isinstance(found, int) and found > version:
        raise NewerRecordError(
            f"{path} has version {found}, newer than the {version} this version reads: update bibench-tf."
        )


def read(path: Path, cls: type[T]) -> T:
    """The record in `path` as an instance of the dataclass `cls`.

    Raises RecordError as `read_envelope` does, and for data that are not those of a `cls`.
    """
    content = read_envelope(path)
    if content["kind"] != cls.__name__:
        raise RecordError(f"{path} holds a {content['kind']}, not a {cls.__name__}.")
    return structure(content["data"], cls, path)


def structure(data: Any, cls: type[T], source: object = "This") -> T:
    """The inverse of `unstructure`: an instance of the dataclass `cls`, whose fields may be dataclasses themselves.

    All fields are checked against their annotations. Lists become tuples, whole numbers floats and texts paths where
    the annotation says so; no other type is converted. Raises RecordError for a wrong type or value, and for a missing
    or unknown field; the message names the field and `source`, the origin of the data.
    """
    try:
        record = msgspec.convert(data, cls, dec_hook=lambda kind, value: kind(value))
    except (BibenchError, ValueError) as error:
        raise RecordError(f"{source} does not fit {cls.__name__}: {str(error).rstrip('.')}.") from error
    # msgspec takes data without the fields that have a default, and with fields that the class has not.
    if different := set(_fields(data)) ^ set(_fields(unstructure(record))):
        raise RecordError(f"{source} does not fit {cls.__name__}: field {min(different)} is missing or unknown.")
    return record


def unstructure(record: Any) -> dict[str, Any]:
    """The fields of a dataclass instance as plain JSON values: tuples become lists, paths texts."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=os.fspath))


def _fields(data: Any, path: str = "$") -> Iterator[str]:
    """The paths of all entries in a tree of JSON values."""
    for name, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield f"{path}.{name}"
        yield from _fields(value, f"{path}.{name}")
