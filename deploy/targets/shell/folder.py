"""The temporary folder of a measurement on a device: made, filled and removed."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bibench_tf.deploy.targets.shell import benchmark_tool
from bibench_tf.deploy.targets.shell.connection import Connection, Lost, run
from bibench_tf.errors import BibenchError

_LAST_RECOVERY_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """A folder of ours on a device."""

    connection: Connection
    path: str

    @property
    def program(self) -> str:
        """Where lce_benchmark_model lies."""
        return f"{self.path}/lce_benchmark_model"


@contextlib.contextmanager
def made(connection: Connection) -> Iterator[Folder]:
    """A new folder on the device; at the end its processes are stopped and the folder is removed."""
    folder = Folder(connection, f"{connection.parent}/bibench-{secrets.token_hex(8)}")
    # No -p: the folder has to be new.
    reply = run(connection, f"umask 077; mkdir {shlex.quote(folder.path)}")
    if reply.code:
        raise BibenchError(
            f"Cannot make a folder in {connection.parent} on {connection.target}: {benchmark_tool.errors(reply.stderr)}"
        )
    try:
        yield folder
    finally:
        code = 1
        with contextlib.suppress(BibenchError):
            try:
                code = remove(folder)
            except Lost:
                if connection.recover(_LAST_RECOVERY_S):
                    code = remove(folder)
        if code:
            _log.warning("The folder %s stays behind on %s.", folder.path, connection.target)


def remove(folder: Folder) -> int:
    """Stop the processes of the folder and delete it; the exit code of the deletion."""
    stop(folder)
    return run(folder.connection, f"rm -rf {shlex.quote(folder.path)}").code


def stop(folder: Folder) -> None:
    """Kill the processes on the device that have the folder in their command line."""
    # The path in two halves, so that the command line of this search does not contain it.
    half = len(folder.path) // 2
    line = (
        f"a={shlex.quote(folder.path[:half])}; b={shlex.quote(folder.path[half:])}; for p in /proc/[0-9]*; do "
        'case "$(tr "\\0" " " <$p/cmdline 2>/dev/null)" in *"$a$b"*) kill -9 ${p#/proc/} 2>/dev/null;; esac; done'
    )
    run(folder.connection, line)


def copy(folder: Folder, binary: Path, flatbuffers: Mapping[str, bytes]) -> dict[str, str]:
    """Copy all files under new names; the paths of the flatbuffers on the device, by name. Raises BibenchError."""
    needed = binary.stat().st_size + sum(len(content) for content in flatbuffers.values())
    free = free_bytes(folder)
    if free is not None and free < needed:
        raise _full(folder, f"{needed / 2**20:.1f} MiB are needed, {free / 2**20:.1f} MiB are free")
    graphs = {name: f"{folder.path}/{index}.tflite" for index, name in enumerate(flatbuffers)}
    _push(folder, binary.resolve(), folder.program)
    with tempfile.TemporaryDirectory(prefix="bibench-") as temporary:
        local = Path(temporary) / "network.tflite"
        for name, content in flatbuffers.items():
            local.write_bytes(content)
            _push(folder, local, graphs[name])
    files = [folder.program, *graphs.values()]
    sizes = "; ".join(f"wc -c <{shlex.quote(file)}" for file in files)
    reply = run(folder.connection, f"chmod 700 {shlex.quote(folder.program)} && {{ {sizes}; }}")
    if reply.code:
        raise BibenchError(
            f"{folder.connection.target} does not let its new files be used: {benchmark_tool.errors(reply.stderr)}"
        )
    expected = [binary.stat().st_size, *map(len, flatbuffers.values())]
    if [int(size) for size in reply.stdout.split()] != expected:
        raise BibenchError(f"The files did not arrive whole on {folder.connection.target}: try again.")
    return graphs


def _push(folder: Folder, local: Path, remote: str) -> None:
    try:
        folder.connection.push(local, remote)
    except subprocess.TimeoutExpired:
        raise Lost(f"{folder.connection.target} did not take the files in time.") from None
    except BibenchError as error:
        # The sftp protocol reports a full disk as "Failure".
        free = None if "No space left" in str(error) else free_bytes(folder)
        if "No space left" in str(error) or (free is not None and free < 2**16):
            raise _full(folder, f"{local.stat().st_size / 2**20:.1f} MiB did not fit") from error
        raise


def _full(folder: Folder, detail: str) -> BibenchError:
    return BibenchError(
        f"The disk of {folder.connection.target} is full ({folder.connection.parent}: {detail}): free some."
    )


def free_bytes(folder: Folder) -> int | None:
    """The free space of the folder's disk in bytes; None where `df` does not report it."""
    lines = run(folder.connection, f"df -Pk {shlex.quote(folder.path)}").stdout.split("\n")
    for line in reversed(lines):
        match = re.match(r"\S+\s+\d+\s+\d+\s+(\d+)\s", line)
        if match:
            return 1024 * int(match[1])
    return None
