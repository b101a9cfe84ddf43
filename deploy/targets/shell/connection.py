"""Connections to devices with a shell, and commands run through them."""

from __future__ import annotations

import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bibench_tf.deploy.targets.shell import benchmark_tool
from bibench_tf.errors import BibenchError

# Time limits in seconds: of a short command, and of the copy of a file.
SHORT_S = 30.0
TRANSFER_S = 300.0


class Lost(BibenchError):
    """The connection ended before the command did."""


class Killed(BibenchError):
    """The device's operating system killed the program."""


@dataclass(frozen=True)
class Reply:
    """The output of a command on the device, and its exit code: 128 + N when signal N ended it."""

    code: int
    stdout: str
    stderr: str


class Connection(Protocol):
    """A device with a shell. `target` is its name in records, `parent` where temporary folders may be made."""

    target: str
    parent: str

    def shell(self, line: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run `line` in the device's shell. Raises subprocess.TimeoutExpired."""

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device. Raises BibenchError."""

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device. Raises BibenchError."""

    def explain(self, words: str) -> BibenchError | None:
        """The error for the client's message of a failed connection; None for a failure that may pass."""

    def recover(self, timeout_s: float) -> bool:
        """Whether the device answers again within that time."""

    def close(self) -> None:
        """End the connection."""


def client(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
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


def run(connection: Connection, line: str, timeout_s: float = SHORT_S) -> Reply:
    """Run a line of shell on the device. The caller quotes names and arguments.

    The exit code is printed by the device itself: adb's old protocol returns none, and ssh's 255 may be its own.
    Raises Lost when the code did not arrive.
    """
    mark = f"bibench-{secrets.token_hex(8)}"
    try:
        done = connection.shell(f"({line}\n); printf '\\n%s:%d\\n' {mark} $?", timeout_s)
    except subprocess.TimeoutExpired:
        raise Lost(f"{connection.target} did not answer within {timeout_s:g} s.") from None
    stdout = done.stdout.replace("\r\n", "\n")
    match = re.search(rf"\n{mark}:(\d+)\s*$", stdout)
    if match is None:
        words = done.stderr.strip() or stdout.strip()
        if (error := connection.explain(words)) is not None:
            raise error
        raise Lost(f"The connection to {connection.target} broke off ({benchmark_tool.errors(words)}).")
    return Reply(int(match[1]), stdout[: match.start()], done.stderr)
