"""The output of commands: text, JSON and CSV, of which `-` stands for stdout in place of the text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bibench_tf import terminal
from bibench_tf.files import write_atomically

JSON = click.option("--json", "json_file", metavar="FILE|-", help="Write JSON to a file; - is stdout.")
CSV = click.option("--csv", "csv_file", metavar="FILE|-", help="Write CSV to a file; - is stdout.")


def show(
    text: Callable[[], str],
    data: Any,
    json_file: str | None,
    csv_file: str | None = None,
    rows: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Print a text, unless JSON or CSV go to stdout, and write `data` as JSON and `rows` as CSV where a file is named.

    Raises StorageError when a file cannot be written.
    """
    if json_file is not None:
        _write(json_file, json.dumps(data, indent=1))
    if csv_file is not None and rows is not None:
        stream, found = io.StringIO(), list(rows())
        writer = csv.DictWriter(stream, dict.fromkeys(name for row in found for name in row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        _write(csv_file, stream.getvalue().rstrip("\n"))
    if "-" not in (json_file, csv_file):
        terminal.output(text())


def _write(file: str, content: str) -> None:
    if file == "-":
        terminal.output(content)
    else:
        write_atomically(Path(file), lambda temporary: temporary.write_text(content + "\n", encoding="utf-8"))
