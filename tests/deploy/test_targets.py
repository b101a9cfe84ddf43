"""What all targets share: settings, measurements as JSON, and names of targets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re

import msgspec
import pytest

from bibench_tf.deploy import latencies, listings
from bibench_tf.deploy.targets import Device, Measurement, OperationTime, Round, Settings, open_target, record
from bibench_tf.deploy.targets.shell import connection
from bibench_tf.errors import BibenchError

DEVICE = Device("ssh:pi", "Raspberry Pi 4 Model B Rev 1.4", "raspberrypi4b", "arm64-v8a", 4, "Debian", False)


def measurement(*latencies_ms, device=DEVICE, medians=None, **fields):
    rounds = tuple(
        Round(mean, 0.1, mean - 0.5, mean + 0.5, 50, p50_ms=median)
        for mean, median in zip(latencies_ms, medians or [None] * len(latencies_ms), strict=True)
    )
    return Measurement(device, Settings(cores=(2, 3)), rounds, **fields)


def test_latency_is_the_median_of_the_rounds():
    assert measurement(5.0, 4.0, 90.0).latency_ms == 5.0
    assert measurement(5.0, 4.0, 90.0, medians=[3.0, 2.0, 7.0]).latency_ms == 3.0


def test_json_round_trip():
    one = measurement(5.0, 4.0, operations=(OperationTime("a", "LceBconv2d", 1.5),), notes=("n",), peak_memory_mib=3.5)
    for each in (one, Measurement(DEVICE, Settings(), one.rounds)):
        assert msgspec.convert(json.loads(json.dumps(dataclasses.asdict(each))), Measurement) == each


@pytest.mark.parametrize(
    "fields",
    [
        {"threads": 0},
        {"rounds": 0},
        {"minimum_runs": 0},
        {"minimum_s": -1},
        {"timeout_s": 0},
        {"cores": ()},
        {"cores": (-1,)},
    ],
)
def test_settings_that_make_no_sense(fields):
    with pytest.raises(BibenchError):
        Settings(**fields)


class Interrupted(connection.Connection):
    """A device that has made a folder when the command for it is interrupted."""

    target, parent = "fake", "/data"

    def __init__(self, lines):
        self.lines = lines

    def shell(self, line, timeout_s):
        self.lines.append(line)
        if "mkdir" in line:
            raise KeyboardInterrupt
        (mark,) = re.findall(r"bibench-[0-9a-f]{16}(?= \$\?)", line)
        return connection.Reply(line, 0, f"\n{mark}:0\n", "")

    def push(self, local, remote): ...

    def pull(self, remote, local): ...

    def explain(self, words): ...

    def reconnect(self):
        return True

    def close(self): ...


def test_a_folder_is_removed_that_was_made_when_a_signal_came():
    """Notices a folder that stays on a board, because its clean-up begins only once it is made."""
    lines = []
    with pytest.raises(KeyboardInterrupt), connection.temporary_folder(Interrupted(lines)):
        pytest.fail("the folder was not made")
    (path,) = re.findall(r"mkdir (/data/bibench-[0-9a-f]{16})", lines[0])
    assert f"rm -rf {path}" in lines[-1]


@pytest.mark.parametrize("name", ["phone", "", "adb:", "ssh", "ssh:", "hosts", "host:x", "ADB"])
def test_unknown_targets(name):
    with pytest.raises(BibenchError, match="There is no target|Unknown kind of target"), open_target(name):
        pass


def test_closed_also_after_an_error(monkeypatch):
    from bibench_tf.deploy.targets import ssh

    closed, close = [], ssh.Connection.close
    monkeypatch.setattr(ssh.Connection, "close", lambda self: (closed.append(self.target), close(self)))
    with pytest.raises(ZeroDivisionError), open_target("ssh:pi@board"):
        raise ZeroDivisionError
    assert closed == ["ssh:pi@board"]


def test_only_flatbuffers_are_measured(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"\0\0\0\0TFL3rest")
    (tmp_path / "b.tflite").write_bytes(b"PK\3\4 and so on")
    assert latencies.read_files([tmp_path / "a.tflite"]) == {str(tmp_path / "a.tflite"): b"\0\0\0\0TFL3rest"}
    with pytest.raises(BibenchError, match="b.tflite is not a .tflite file"):
        latencies.read_files([tmp_path / "b.tflite"])
    with pytest.raises(BibenchError, match="Cannot read .*nothere: No such file"):
        latencies.read_files([tmp_path / "nothere"])


EMULATED = Device("adb:emulator-5554", "sdk", None, "arm64-v8a", 4, "Android 14", True)


def test_figures_of_an_emulator_are_withheld():
    operations = (OperationTime("a", "LceBconv2d", 77.125),)
    measured = {"net": measurement(77.125, device=EMULATED, operations=operations)}
    text = listings.table(measured)
    assert "emulated: not a device latency" in text and "77.1" not in text
    (entry,) = listings.rows({"adb": measured}, full=True)
    assert entry["provenance"] == "emulated" and entry["latency_ms"] is None
    real = listings.table({"net": measurement(77.125)})
    assert "77.125" in real and "emulated" not in real and "Raspberry Pi 4B" in real


def test_notes_of_all_are_printed_once():
    text = listings.table({"a": measurement(1.0, notes=("warm", "own")), "b": measurement(2.0, notes=("warm",))})
    assert [line for line in text.splitlines() if line.startswith("note")] == ["note: warm", "note: a: own"]


def test_records_carry_the_provenance(tmp_path):
    from bibench_tf.results import records

    measured = {"../net one.tflite": measurement(5.0), "emu.tflite": measurement(6.0, device=EMULATED)}
    by_target = {
        "ssh:pi": {"../net one.tflite": measured["../net one.tflite"]},
        "adb": {"emu.tflite": measured["emu.tflite"]},
    }
    paths = record.store(tmp_path, by_target, {"../net one.tflite": b"abc", "emu.tflite": b"def"})
    assert [path.parent for path in paths] == [tmp_path / "devices/ssh-pi", tmp_path / "devices/adb-emulator-5554"]
    assert [records.read_envelope(path)["provenance"] for path in paths] == ["measured", "emulated"]
    stored = record.read(paths[0])
    assert stored.network == measured["../net one.tflite"]
    assert (stored.run_id, stored.target, stored.error, stored.emulated) == (None, "ssh:pi", None, False)
    assert stored.file_sha256 == hashlib.sha256(b"abc").hexdigest()
    assert records.read_envelope(paths[0])["environment"]["size_bytes"] == 3
