"""A Raspberry Pi or another ARM64 board, through OpenSSH's `ssh` and `scp`.

The user's configuration of ssh applies: names, keys, ports, jump hosts, known hosts. Its checks are not loosened, and
no password is asked for.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from bibench_tf.deploy.targets import Access, register
from bibench_tf.deploy.targets.shell import benchmark_tool, connection
from bibench_tf.deploy.targets.shell.connection import SHORT_S, TRANSFER_S, Reply, client
from bibench_tf.deploy.targets.shell.measuring import ShellTarget
from bibench_tf.errors import BibenchError, InvalidOption

_SAFE = (
    "BatchMode=yes ConnectTimeout=10 ServerAliveInterval=5 ServerAliveCountMax=3 ForwardAgent=no "
    "ClearAllForwardings=yes"
)

# The remedies by patterns of ssh's messages.
_REMEDIES = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "its host key is not the known one; find out why before going on",
    "Host key verification failed": "its host key is not known; connect once by hand: ssh {address}",
    r"Permission denied \(": "it does not accept your key; set one up with ssh-copy-id, no password is asked for",
    "Could not resolve hostname": "the name is not known; check it, or add it to your configuration of ssh",
    "Bad configuration|Can't open user config": "your configuration of ssh cannot be read",
    "Connection refused|Connection timed out|No route to host|Network is unreachable": "it does not answer",
}


@register("ssh", "ssh:[USER@]HOST", program="lce_benchmark_model_aarch64")
def open_ssh(address: str, access: Access) -> ShellTarget:
    """A Raspberry Pi or another ARM64 board, through OpenSSH's `ssh` and `scp`."""
    return ShellTarget(Connection(address, access.ssh_config), access.binary)


class Connection(connection.Connection):
    """The host `[USER@]HOST`; `config` is a configuration file to use in place of the user's."""

    # Not /tmp, which is in memory on many boards.
    parent = "/var/tmp"

    def __init__(self, address: str, config: Path | None = None) -> None:
        # ssh would take a name that starts with "-" for an option, and configurations pass names on to shells.
        if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_:][A-Za-z0-9_.:-]*", address):
            raise InvalidOption(f"'{address}' is not [USER@]HOST as ssh knows it.")
        self.target = f"ssh:{address}"
        self._address = address
        # The path of a Unix socket must be short; the path of a user's temporary folder may be long.
        self._sockets = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
        # One connection for all commands saves work on the board between the rounds.
        shared = f"ControlMaster=auto ControlPath={self._sockets}/%C ControlPersist=60"
        options = f"{_SAFE} {shared}".split()
        self._options = [*(["-F", str(config)] if config else []), *(f"-o{option}" for option in options)]

    def shell(self, line: str, timeout_s: float) -> Reply:
        """Run `line` in sh on the host, whatever the user's login shell is. Raises subprocess.TimeoutExpired."""
        return client(["ssh", "-T", *self._options, "--", self._address, f"sh -c {shlex.quote(line)}"], timeout_s)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the host. Raises BibenchError."""
        self._copy(str(local.resolve()), f"{self._scp_address()}:{remote}")

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the host. Raises BibenchError."""
        self._copy(f"{self._scp_address()}:{remote}", str(local.resolve()))

    def _copy(self, source: str, destination: str) -> None:
        done = client(["scp", "-q", *self._options, "--", source, destination], TRANSFER_S)
        if done.returncode:
            if (error := self.explain(done.stderr)) is not None:
                raise error
            raise BibenchError(f"scp could not copy a file ({self.target}): {benchmark_tool.errors(done.stderr)}")

    def _scp_address(self) -> str:
        user, at, host = self._address.rpartition("@")
        return f"{user}{at}[{host}]" if ":" in host else self._address

    def explain(self, words: str) -> BibenchError | None:
        """The error for ssh's message of a failed connection; None for a failure that may pass."""
        for pattern, remedy in _REMEDIES.items():
            if match := re.search(f".*({pattern}).*", words):
                remedy = remedy.format(address=self._address)
                return BibenchError(
                    f"ssh cannot connect to {self._address}: {remedy} ({benchmark_tool.errors(match[0])})."
                )
        return None

    def reconnect(self) -> bool:
        """Connect anew; whether the host answers. Raises subprocess.TimeoutExpired."""
        self._leave()
        return self.shell("true", 15).returncode == 0

    def _leave(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired, BibenchError):
            client(["ssh", *self._options, "-O", "exit", "--", self._address], SHORT_S)

    def close(self) -> None:
        """End the shared connection."""
        self._leave()
        shutil.rmtree(self._sockets, ignore_errors=True)
