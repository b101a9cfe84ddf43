"""A phone and a board without hardware: a real adbd and a real sshd on loopback, and stand-ins for what they run.

Where the packages are missing the tests skip with the reason; with BIBENCH_REQUIRE_DEVICE_TESTS=1 they fail.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

FILES = Path(__file__).parent / "device"
# Inside 5555..5585 the adb server would also list the device as emulator-NNNN.
PORT = 15555


def missing(reason):
    if os.environ.get("BIBENCH_REQUIRE_DEVICE_TESTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def need(*commands):
    for command in commands:
        if shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            missing(f"the program '{command}' is not installed")


@pytest.fixture(name="missing", scope="session")
def missing_fixture():
    """For a test that finds out itself what is missing."""
    return missing


class Phone:
    """The phone as a test sees it beside the code under test."""

    def __init__(self, folder):
        self.serial = f"127.0.0.1:{PORT}"
        self.environment = {"ADB_SERVER_SOCKET": f"localfilesystem:{folder / 's'}"}

    def adb(self, *arguments):
        return subprocess.run(
            ["adb", *arguments],
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def connect(self):
        """Until the phone answers; the exit code of `adb connect` is 0 also when it is refused."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            self.adb("connect", self.serial)
            if self.adb("-s", self.serial, "shell", "echo up").stdout == "up\n":
                return
            self.adb("disconnect", self.serial)
            time.sleep(0.05)
        raise TimeoutError("the phone does not answer")

    def sh(self, line):
        done = self.adb("-s", self.serial, "shell", line)
        assert done.returncode == 0, done
        return done.stdout

    def processes(self):
        """The command lines of what runs on the phone."""
        return self.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true")

    def folders(self):
        return self.sh("ls -d /data/*/bibench-* /data/local/tmp/bibench-* 2>/dev/null; true").split()

    def reset(self):
        clock = "echo 2400000 | tee /sys/devices/system/cpu/cpu*/cpufreq/*_freq >/dev/null; "
        self.sh(clock + "echo 41000 >/sys/class/thermal/thermal_zone0/temp; rm -f /data/fault*")


@pytest.fixture(scope="session")
def started_phone():
    need("adb", "unshare", "python3")
    prefix = Path(os.environ.get("BIBENCH_ADBD_PREFIX") or Path.home() / ".cache/bibench-adbd")
    if not (prefix / "usr/lib/android-sdk/platform-tools/adbd").exists():
        missing("adbd is not unpacked: run tests/deploy/device/get_adbd.sh ~/.cache/bibench-adbd")
    # A short path: that of a Unix socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bb-"))
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            ["unshare", "-r", "-n", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
            + ["bash", str(FILES / "phone.sh"), str(prefix), str(folder / "s"), str(PORT)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    phone = Phone(folder)
    try:
        end = time.monotonic() + 20
        while not (folder / "s").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if process.poll() is not None:
            missing(f"the phone cannot start here: {(folder / 'log').read_text().strip()}")
        phone.connect()
        yield phone
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def phone(started_phone, monkeypatch):
    """The phone, which the adb of the code under test finds too."""
    for name, value in started_phone.environment.items():
        monkeypatch.setenv(name, value)
    started_phone.connect()
    started_phone.reset()
    yield started_phone
    started_phone.connect()
    assert started_phone.folders() == []


class Board:
    """A host that ssh finds as `board` through `config`."""

    def __init__(self, folder, port):
        self.folder, self.port, self.config = folder, port, folder / "ssh_config"

    def write_config(self, *lines, known="known", name="ssh_config"):
        text = (
            f"Host board\n HostName 127.0.0.1\n Port {self.port}\n User {getpass.getuser()}\n"
            f" IdentityFile {self.folder / 'id'}\n IdentitiesOnly yes\n UserKnownHostsFile {self.folder / known}\n"
            " GlobalKnownHostsFile /dev/null\n"
        )
        path = self.folder / name
        path.write_text("".join(f" {line}\n" for line in lines) + text)
        return path

    def folders(self):
        return [str(path) for path in Path("/var/tmp").glob("bibench-*")]


@pytest.fixture(scope="session")
def started_board(tmp_path_factory):
    need("ssh", "scp", "sshd", "ssh-keygen")
    folder = tmp_path_factory.mktemp("board")
    for name in ("host", "id", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "id.pub",
        "PidFile": "none",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "wrong").write_text(f"[127.0.0.1]:{port} {(folder / 'other.pub').read_text()}")
    (folder / "nobody").touch()
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    missing(f"sshd cannot start here: {(folder / 'log').read_text().strip()}")
                time.sleep(0.02)
        yield Board(folder, port)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def board(started_board):
    started_board.write_config()
    before = set(started_board.folders())
    yield started_board
    assert set(started_board.folders()) == before


@pytest.fixture
def stub(tmp_path):
    """Makes the stand-in for lce_benchmark_model; `fault` is shell that it runs before it prints anything."""

    def make(fault="", name="lce_benchmark_model"):
        text = (FILES / "stub.sh").read_text().replace("#FAULT#", fault)
        path = tmp_path / name
        path.write_text(text.replace("#PROFILE#\n", (FILES / "op_profile.csv").read_text()))
        return path

    return make


@pytest.fixture(scope="session")
def arm64_program(tmp_path_factory):
    """The stand-in as an ARM64 program."""
    need("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
    path = tmp_path_factory.mktemp("arm64") / "lce_benchmark_model"
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-O1", "-o", str(path), str(FILES / "stub.c")], check=True)
    return path


@pytest.fixture(scope="session")
def flatbuffer():
    """Bytes with the mark of a TensorFlow Lite file; the stand-ins only look whether there is a file."""
    return b"\x1c\0\0\0TFL3" + bytes(1000)
