"""Devices with a shell: commands run through their connection, and the temporary folder of a measurement there."""

from __future__ import annotations

import abc
import contextlib
import logging
import re
import secrets
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bibench_tf.deploy.targets.shell import benchmark_tool
from bibench_tf.errors import BibenchError

# Time limits in seconds: of a short command, and of the copy of a file.
SHORT_S = 30.0
TRANSFER_S = 300.0
_LAST_RECOVERY_S = 10.0

_log = logging.getLogger(__name__)

Reply = subprocess.CompletedProcess[str]


class Lost(BibenchError):
    """The connection ended before the command did."""


class Killed(BibenchError):
    """The device's operating system killed the program."""


class Connection(abc.ABC):
    """A device with a shell. `target` is its name in records, `parent` where temporary folders may be made."""

    target: str
    parent: str

    @abc.abstractmethod
    def shell(self, line: str, timeout_s: float) -> Reply:
        """Run `line` in the device's shell. Raises subprocess.TimeoutExpired."""

    @abc.abstractmethod
    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device. Raises BibenchError."""

    @abc.abstractmethod
    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device. Raises BibenchError."""

    @abc.abstractmethod
    def explain(self, words: str) -> BibenchError | None:
        """The error for the client's message of a failed connection; None for a failure that may pass."""

    @abc.abstractmethod
    def reconnect(self) -> bool:
        """Connect anew; whether the device answers. Raises subprocess.TimeoutExpired."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the connection."""

    def recover(self, timeout_s: float) -> bool:
        """Whether the device answers again within that time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.reconnect():
                    return True
            time.sleep(0.2)
        return False

    def run(self, line: str, timeout_s: float = SHORT_S) -> Reply:
        """Run a line of shell; the exit code is 128 + N when signal N ended it. The caller quotes names and arguments.

        The exit code is printed by the device itself: adb's old protocol returns none, and ssh's 255 may be its own.
        Raises Lost when the code did not arrive.
        """
        mark = f"bibench-{secrets.token_hex(8)}"
        try:
            done = self.shell(f"({line}\n); printf '\\n%s:%d\\n' {mark} $?", timeout_s)
        except subprocess.TimeoutExpired:
            raise Lost(f"{self.target} did not answer within {timeout_s:g} s.") from None
        stdout = done.stdout.replace("\r\n", "\n")
        match = re.search(rf"\n{mark}:(\d+)\s*$", stdout)
        if match is None:
            words = done.stderr.strip() or stdout.strip()
            raise self.explain(words) or Lost(
                f"The connection to {self.target} broke off ({benchmark_tool.errors(words)})."
            )
        return Reply(line, int(match[1]), stdout[: match.start()], done.stderr)


def client(command: list[str], timeout_s: float) -> Reply:
    """Run a client (adb, ssh, scp) without a shell and without this process's stdin. Raises TimeoutExpired.

    A session of its own keeps Ctrl-C from it, so that the device can still be cleaned up through its connection.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        package = {"adb": "adb (Android SDK platform tools)", "ssh": "an OpenSSH client", "scp": "an OpenSSH client"}
        name = command[0]
        raise BibenchError(f"The program '{name}' is not installed: install {package.get(name, name)}.") from error


class Folder:
    """A new folder on a device, with the files of a measurement."""

    def __init__(self, connection: Connection) -> None:
        """Choose its path; `make` makes it."""
        self.connection, self.path = connection, f"{connection.parent}/bibench-{secrets.token_hex(8)}"
        self.program = f"{self.path}/lce_benchmark_model"

    def make(self) -> None:
        """Make the folder on the device. Raises BibenchError where it cannot be made."""
        # No -p: the folder has to be new.
        reply = self.connection.run(f"umask 077; mkdir {shlex.quote(self.path)}")
        if reply.returncode:
            raise BibenchError(
                f"Cannot make a folder in {self.connection.parent} on {self.connection.target}: "
                f"{benchmark_tool.errors(reply.stderr)}"
            )

    def remove(self) -> int:
        """Stop the processes of the folder and delete it; the exit code of the deletion."""
        self.stop()
        return self.connection.run(f"rm -rf {shlex.quote(self.path)}").returncode

    def stop(self) -> None:
        """Kill the processes on the device that have the folder in their command line."""
        # The path in two halves, so that the command line of this search does not contain it.
        half = len(self.path) // 2
        line = (
            f"a={shlex.quote(self.path[:half])}; b={shlex.quote(self.path[half:])}; for p in /proc/[0-9]*; do "
            'case "$(tr "\\0" " " <$p/cmdline 2>/dev/null)" in *"$a$b"*) kill -9 ${p#/proc/} 2>/dev/null;; esac; done'
        )
        self.connection.run(line)

    def copy(self, binary: Path, flatbuffers: Mapping[str, bytes]) -> dict[str, str]:
        """Copy all files under new names; the paths of the flatbuffers on the device, by name. Raises BibenchError."""
        needed = binary.stat().st_size + sum(len(content) for content in flatbuffers.values())
        free = self.free_bytes()
        if free is not None and free < needed:
            raise self._full(f"{needed / 2**20:.1f} MiB are needed, {free / 2**20:.1f} MiB are free")
        graphs = {name: f"{self.path}/{index}.tflite" for index, name in enumerate(flatbuffers)}
        self._push(binary.resolve(), self.program)
        with tempfile.TemporaryDirectory(prefix="bibench-") as temporary:
            local = Path(temporary) / "network.tflite"
            for name, content in flatbuffers.items():
                local.write_bytes(content)
                self._push(local, graphs[name])
        files = [self.program, *graphs.values()]
        sizes = "; ".join(f"wc -c <{shlex.quote(file)}" for file in files)
        reply = self.connection.run(f"chmod 700 {shlex.quote(self.program)} && {{ {sizes}; }}")
        if reply.returncode:
            raise BibenchError(
                f"{self.connection.target} does not let its new files be used: {benchmark_tool.errors(reply.stderr)}"
            )
        expected = [binary.stat().st_size, *map(len, flatbuffers.values())]
        if [int(size) for size in reply.stdout.split()] != expected:
            raise BibenchError(f"The files did not arrive whole on {self.connection.target}: try again.")
        return graphs

    def _push(self, local: Path, remote: str) -> None:
        try:
            self.connection.push(local, remote)
        except subprocess.TimeoutExpired:
            raise Lost(f"{self.connection.target} did not take the files in time.") from None
        except BibenchError as error:
            # The sftp protocol reports a full disk as "Failure".
            free = None if "No space left" in str(error) else self.free_bytes()
            if "No space left" in str(error) or (free is not None and free < 2**16):
                raise self._full(f"{local.stat().st_size / 2**20:.1f} MiB did not fit") from error
            raise

    def _full(self, detail: str) -> BibenchError:
        return BibenchError(
            f"The disk of {self.connection.target} is full ({self.connection.parent}: {detail}): free some."
        )

    def free_bytes(self) -> int | None:
        """The free space of the folder's disk in bytes; None where `df` does not report it."""
        lines = self.connection.run(f"df -Pk {shlex.quote(self.path)}").stdout.split("\n")
        for line in reversed(lines):
            match = re.match(r"\S+\s+\d+\s+\d+\s+(\d+)\s", line)
            if match:
                return 1024 * int(match[1])
        return None


@contextlib.contextmanager
def temporary_folder(connection: Connection) -> Iterator[Folder]:
    """A new folder on the device; at the end its processes are stopped and the folder is removed."""
    folder = Folder(connection)
    try:
        folder.make()  # within the block: a signal may arrive while the device makes it
        yield folder
    finally:
        code = 1
        with contextlib.suppress(BibenchError):
            try:
                code = folder.remove()
            except Lost:
                if connection.recover(_LAST_RECOVERY_S):
                    code = folder.remove()
        if code:
            _log.warning("The folder %s stays behind on %s.", folder.path, connection.target)
