"""An Android phone, through the `adb` of the Android SDK."""

from __future__ import annotations

import contextlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bibench_tf.deploy.targets import Access, register
from bibench_tf.deploy.targets.shell import benchmark_tool, connection
from bibench_tf.deploy.targets.shell.connection import SHORT_S, TRANSFER_S, Reply, client
from bibench_tf.deploy.targets.shell.measuring import ShellTarget
from bibench_tf.errors import BibenchError

_REMEDIES = {
    "unauthorized": "unlock it and allow USB debugging from here",
    "authorizing": "unlock it and allow USB debugging from here",
    "offline": "reconnect it, or run 'adb reconnect offline'",
    **dict.fromkeys(("bootloader", "recovery", "sideload"), "start Android on it"),
}


@dataclass(frozen=True)
class Attached:
    """A line of `adb devices`: the serial number and the state, `device` when it can be used."""

    serial: str
    state: str


def attached() -> list[Attached]:
    """The devices that adb knows, in any state. Raises BibenchError when adb is missing or does not work."""
    try:
        done = client(["adb", "devices"], SHORT_S)
    except subprocess.TimeoutExpired:
        raise BibenchError("adb does not answer: try 'adb kill-server'.") from None
    if done.returncode:
        raise BibenchError(f"adb does not work: {benchmark_tool.errors(done.stderr or done.stdout)}")
    # Before the list, adb may report that it starts its server.
    lines = done.stdout.replace("\r", "").partition("List of devices attached\n")[2].splitlines()
    return [Attached(*line.split("\t", 1)) for line in lines if "\t" in line]


def _names() -> list[str]:
    return [f"adb:{device.serial}" for device in attached()]


@register("adb", "adb", "adb:SERIAL", program="lce_benchmark_model_android_arm64", attached=_names)
def open_adb(address: str, access: Access) -> ShellTarget:
    """An Android phone, through the `adb` of the Android SDK."""
    return ShellTarget(connect(address or None), access.binary)


def connect(serial: str | None) -> Connection:
    """The device with this serial number, or the only device; an unknown HOST:PORT is connected first.

    Raises BibenchError, with a remedy, for no device, several devices to choose from, and a device that cannot be used.
    """
    found = attached()
    if serial is None:
        usable = [device for device in found if device.state == "device"]
        if len(usable) > 1:
            listed = ", ".join(device.serial for device in usable)
            raise BibenchError(
                f"{len(usable)} Android devices are attached ({listed}): choose one with adb:SERIAL, such as "
                f"adb:{usable[0].serial}."
            )
        if not found:
            raise BibenchError(
                "No Android device is attached: connect one by USB, allow USB debugging on it, and see 'adb devices'."
            )
        chosen = (usable or found)[0]
        _check_state(chosen)
        return Connection(chosen.serial)
    if known := [device for device in found if device.serial == serial]:
        _check_state(known[0])
        return Connection(serial)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*:\d+|\[[0-9A-Fa-f:]+\]:\d+", serial):
        # adb's exit code is 0 also when the connection is refused.
        answer = client(["adb", "connect", serial], SHORT_S)
        words = (answer.stdout + answer.stderr).strip()
        if not words.startswith(("connected to", "already connected to")):
            raise BibenchError(f"adb cannot connect to {serial}: {benchmark_tool.errors(words)}")
        for device in attached():
            if device.serial == serial:
                _check_state(device)
        return Connection(serial, ours=True)
    listed = ", ".join(device.serial for device in found) or "none"
    raise BibenchError(f"No Android device has the serial number '{serial}'. Attached: {listed}.")


def _check_state(device: Attached) -> None:
    if device.state == "device":
        return
    if device.state.startswith("no permissions"):
        raise BibenchError(
            f"This user may not open the USB device of {device.serial}: install udev rules for it (Debian: the package "
            "android-sdk-platform-tools-common, group plugdev) and reconnect it."
        )
    raise _unusable(device)


def _unusable(device: Attached) -> BibenchError:
    remedy = _REMEDIES.get(device.state, "see 'adb devices'")
    return BibenchError(f"The Android device {device.serial} is '{device.state}': {remedy}.")


class Connection(connection.Connection):
    """A device that adb lists; `ours` when this program connected it and so disconnects it."""

    parent = "/data/local/tmp"

    def __init__(self, serial: str, *, ours: bool = False) -> None:
        self.serial, self.target, self._ours = serial, f"adb:{serial}", ours

    def _adb(self, *arguments: str, timeout_s: float) -> Reply:
        return client(["adb", "-s", self.serial, *arguments], timeout_s)

    def shell(self, line: str, timeout_s: float) -> Reply:
        """Run `line` in the device's shell. Raises subprocess.TimeoutExpired."""
        return self._adb("shell", line, timeout_s=timeout_s)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device. Raises BibenchError."""
        self._transfer("push", str(local), remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device. Raises BibenchError."""
        self._transfer("pull", remote, str(local))

    def _transfer(self, verb: str, source: str, destination: str) -> None:
        done = self._adb(verb, source, destination, timeout_s=TRANSFER_S)
        if done.returncode:
            words = done.stdout + done.stderr
            # A line about the amount copied follows the error.
            error = re.search(r"^adb: error: .*", words, re.MULTILINE)
            reason = benchmark_tool.errors(error[0] if error else words)
            raise BibenchError(f"adb could not {verb} a file ({self.target}): {reason}")

    def explain(self, words: str) -> BibenchError | None:
        """The error for a device that is attached but cannot be used; None when it may come back."""
        return _unusable(Attached(self.serial, "unauthorized")) if "unauthorized" in words else None

    def reconnect(self) -> bool:
        """Connect a network device anew; whether the device answers. Raises subprocess.TimeoutExpired."""
        if re.search(r":\d+$", self.serial) and self._state() != "device":
            # A broken network connection stays listed, and `connect` alone then does nothing.
            client(["adb", "disconnect", self.serial], SHORT_S)
            client(["adb", "connect", self.serial], SHORT_S)
        return self._state() == "device" and self._adb("shell", "true", timeout_s=5).returncode == 0

    def _state(self) -> str:
        return self._adb("get-state", timeout_s=SHORT_S).stdout.strip()

    def close(self) -> None:
        """Disconnect a device that this program connected."""
        if self._ours:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client(["adb", "disconnect", self.serial], SHORT_S)
