"""The ssh target against a real sshd: what it measures, what it says, and that names stay names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bibench_tf.deploy.targets import Settings, ssh
from bibench_tf.deploy.targets.shell import measuring
from bibench_tf.deploy.targets.shell.connection import Folder
from bibench_tf.errors import BibenchError

QUICK = Settings(minimum_runs=5, minimum_s=0.1, rounds=1, timeout_s=5)


@pytest.fixture(scope="module")
def shared_connection(started_board):
    """One login for the tests that do not look at logins."""
    connection = ssh.Connection("board", started_board.write_config(name="shared_config"))
    yield connection
    connection.close()


@pytest.fixture
def connection(board, shared_connection):
    return shared_connection


def measure(connection, binary, flatbuffers, settings=QUICK):
    return measuring.ShellTarget(connection, binary, pause_s=0.05).measure(flatbuffers, settings)


def test_measurement_with_the_stub(connection, stub, flatbuffer):
    settings = Settings(threads=1, minimum_runs=7, rounds=2, cores=(0,), profile=True)
    measured = measure(connection, stub(), {"a": flatbuffer, "b": flatbuffer}, settings)
    for one in measured.values():
        assert [r.count for r in one.rounds] == [7, 7]
        assert one.latency_ms == pytest.approx(3.79092)
        assert len(one.operations) == 5
        assert one.device.target == "ssh:board" and one.device.abi == "x86_64"
        # The computer is real, the program is not.
        assert one.provenance == "emulated"


def test_connections_are_shared_and_ended(board, stub, flatbuffer):
    connection = ssh.Connection("board", board.config)
    measure(connection, stub(), {"a": flatbuffer})
    log = (board.folder / "log").read_text()
    sockets = connection._sockets
    assert list(sockets.iterdir())
    connection.close()
    assert not sockets.exists()
    before = log.count("Accepted publickey")
    again = ssh.Connection("board", board.config)
    measure(again, stub(), {"a": flatbuffer})
    again.close()
    assert (board.folder / "log").read_text().count("Accepted publickey") == before + 1


def test_exit_codes_of_the_program_are_not_those_of_ssh(connection):
    assert connection.run("sh -c 'kill -9 $$'").returncode == 137
    assert connection.run("exit 255").returncode == 255
    reply = connection.run("echo out; echo err >&2; exit 7")
    assert (reply.returncode, reply.stdout, reply.stderr.strip()) == (7, "out\n", "err")


ONCE = "if [ ! -e $folder/once ]; then echo >$folder/once; {fault}; fi"
# Ends the server's process for this connection, as a network that fails.
VANISH = (
    "p=$$; while [ $p -gt 1 ]; do set -- $(cat /proc/$p/stat); "
    "case \"$(tr '\\0' ' ' </proc/$p/cmdline)\" in *listener*) ;; sshd:*) kill -9 $p ;; esac; p=$4; done; sleep 5"
)


@pytest.mark.parametrize(
    ("fault", "note"), [("kill -KILL $$", "SIGKILL"), (VANISH, "broke off"), ("exit 0", "no measurement")]
)
def test_failures_that_pass_are_tried_once_more(connection, stub, flatbuffer, fault, note):
    measured = measure(connection, stub(ONCE.replace("{fault}", fault)), {"a": flatbuffer})["a"]
    assert any(note in text and "measured again" in text for text in measured.notes), measured.notes


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unknown=' --max_secs=5'", "does not know --max_secs=5"),
        ("echo 'ERROR: Failed to allocate tensors!' >&2; exit 1", "exit code 1: ERROR: Failed to allocate"),
        ("while :; do sleep 0.1; done", "took more than 1 s"),
        ("kill -SEGV $$", r"crashed on ssh:board \(SIGSEGV\)"),
        (VANISH, "connection to ssh:board broke off"),
    ],
)
def test_failures_that_stay(connection, stub, flatbuffer, fault, message):
    with pytest.raises(BibenchError, match=message):
        measure(connection, stub(fault), {"a": flatbuffer}, Settings(minimum_runs=5, rounds=1, timeout_s=1))


def test_program_for_another_processor(connection, arm64_program, flatbuffer):
    with pytest.raises(BibenchError, match="built for arm64-v8a, the device runs x86_64"):
        measure(connection, arm64_program, {"a": flatbuffer})


def test_full_disk(connection, stub, flatbuffer, monkeypatch):
    monkeypatch.setattr(Folder, "free_bytes", lambda job: 1000)
    with pytest.raises(BibenchError, match="disk of ssh:board is full"):
        measure(connection, stub(), {"a": flatbuffer})


def test_failed_copy_is_the_disk_only_where_it_is_full(connection, stub, flatbuffer, monkeypatch):
    def fail(self, source, destination):
        raise BibenchError("scp: write remote: Failure")

    monkeypatch.setattr(ssh.Connection, "_copy", fail)
    with pytest.raises(BibenchError, match="write remote: Failure"):
        measure(connection, stub(), {"a": flatbuffer})
    answers = iter([10**9, 100])
    monkeypatch.setattr(Folder, "free_bytes", lambda job: next(answers))
    with pytest.raises(BibenchError, match="is full"):
        measure(connection, stub(), {"a": flatbuffer})


def test_copy_that_arrives_cut_is_refused(connection, stub, flatbuffer, monkeypatch):
    whole = ssh.Connection.push

    def cut(self, local, remote_path):
        short = local.with_suffix(".cut")
        short.write_bytes(local.read_bytes()[:-1])
        whole(self, short, remote_path)

    monkeypatch.setattr(ssh.Connection, "push", cut)
    with pytest.raises(BibenchError, match="did not arrive whole"):
        measure(connection, stub(), {"a": flatbuffer})


@pytest.mark.parametrize(
    ("lines", "known", "message"),
    [
        ([], "nobody", "its host key is not known; connect once by hand: ssh board"),
        ([], "wrong", "its host key is not the known one"),
        (["IdentityFile /nonexistent", "PreferredAuthentications password"], "known", "does not accept your key"),
        (["Port 1"], "known", "cannot connect to board: .*refused"),
        (["HostName nowhere.invalid"], "known", "name is not known"),
        (["NoSuchOption x"], "known", "Bad configuration option"),
    ],
)
def test_connection_that_is_refused(board, stub, flatbuffer, lines, known, message):
    connection = ssh.Connection("board", board.write_config(*lines, known=known))
    try:
        with pytest.raises(BibenchError, match=message):
            measure(connection, stub(), {"a": flatbuffer})
    finally:
        connection.close()


def test_host_keys_are_never_trusted_without_being_known(board):
    connection = ssh.Connection("board", board.write_config(known="nobody"))
    with pytest.raises(BibenchError):
        connection.run("true")
    connection.close()
    assert (board.folder / "nobody").read_text() == ""
    assert not any("StrictHostKeyChecking" in option for option in connection._options)


@pytest.mark.parametrize(
    "address",
    [
        "-oProxyCommand=touch x",
        "-F/etc/passwd",
        "user@-oX",
        "a b",
        "$(touch x)",
        "`id`",
        "h;id",
        "h|id",
        "h\nid",
        "",
        "u@",
    ],
)
def test_names_that_are_not_hosts(address):
    with pytest.raises(BibenchError, match="is not .USER@.HOST"):
        ssh.Connection(address)


NASTY = ["$(touch pwned)", "a b;touch pwned", "-rf", "`touch pwned`", "'\"\\", "host:file", "ä\nö"]


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_of_files(connection, stub, flatbuffer, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    seen = tmp_path / "seen"
    stub(f"echo \"$*\" >>'{seen}'").rename(tmp_path / name)
    measured = measure(connection, Path(name), {name: flatbuffer})
    assert list(measured) == [name]
    assert not list(tmp_path.rglob("pwned")) and not (Path.home() / "pwned").exists()
    # What the device gets are names of our own.
    (call,) = seen.read_text().splitlines()
    assert call.startswith("--graph=/var/tmp/bibench-") and "/0.tflite " in call


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_leave_nothing(board, stub, tmp_path, flatbuffer, number, code):
    """Notices a signal that ends the command at once: folders and programs on the board, and /tmp here, would stay."""
    (tmp_path / "temporary").mkdir()
    sockets = set(Path("/tmp").glob("bb-*"))
    (tmp_path / "a.tflite").write_bytes(flatbuffer)
    command = [sys.executable, "-m", "bibench_tf", "deploy", "benchmark", str(tmp_path / "a.tflite")]
    command += ["--target", "ssh:board", "--ssh-config", str(board.config)]
    before = set(board.folders())
    process = subprocess.Popen(
        [*command, "--binary", str(stub("while :; do sleep 0.1; done"))],
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal, where Ctrl-C reaches the whole group.
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )
    try:
        end = time.monotonic() + 20
        running = set()
        while not running and time.monotonic() < end:
            running = {path for path in set(board.folders()) - before if os.path.exists(f"{path}/0.tflite")}
            time.sleep(0.05)
        (folder,) = running
        time.sleep(0.5)
        os.killpg(process.pid, number)
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == code
    assert not os.path.exists(folder)
    assert not list((tmp_path / "temporary").iterdir()) and set(Path("/tmp").glob("bb-*")) <= sockets
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(folder.encode() in command for command in commands)


def test_ssh_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    connection = ssh.Connection("board")
    with pytest.raises(BibenchError, match="'ssh' is not installed: install an OpenSSH client"):
        connection.run("true")
    connection.close()
    assert not connection._sockets.exists()
