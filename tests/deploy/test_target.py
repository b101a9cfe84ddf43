"""What all targets share: settings, measurements as JSON, and names of targets."""

from __future__ import annotations

import json

import pytest

from bibench_tf.deploy import report, target
from bibench_tf.deploy.target import Device, Measurement, OperationTime, Round, Settings
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
    assert Measurement.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    unpinned = Measurement(DEVICE, Settings(), one.rounds)
    assert Measurement.from_dict(json.loads(json.dumps(unpinned.to_dict()))) == unpinned


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


@pytest.mark.parametrize("name", ["phone", "", "adb:", "ssh", "ssh:", "hosts", "host:x", "ADB"])
def test_unknown_targets(name):
    with pytest.raises(BibenchError, match="There is no target"), target.open_target(name):
        pass


def test_closed_also_after_an_error(monkeypatch):
    from bibench_tf.deploy import ssh

    closed, close = [], ssh.Connection.close
    monkeypatch.setattr(ssh.Connection, "close", lambda self: (closed.append(self.target), close(self)))
    with pytest.raises(ZeroDivisionError), target.open_target("ssh:pi@board"):
        raise ZeroDivisionError
    assert closed == ["ssh:pi@board"]


def test_only_flatbuffers_are_measured(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"\0\0\0\0TFL3rest")
    (tmp_path / "b.tflite").write_bytes(b"PK\3\4 and so on")
    assert target.read_flatbuffers([tmp_path / "a.tflite"]) == {str(tmp_path / "a.tflite"): b"\0\0\0\0TFL3rest"}
    with pytest.raises(BibenchError, match="b.tflite is not a .tflite file"):
        target.read_flatbuffers([tmp_path / "b.tflite"])
    with pytest.raises(BibenchError, match="Cannot read .*nothere: No such file"):
        target.read_flatbuffers([tmp_path / "nothere"])


EMULATED = Device("adb:emulator-5554", "sdk", None, "arm64-v8a", 4, "Android 14", True)


def test_figures_of_an_emulator_are_withheld():
    operations = (OperationTime("a", "LceBconv2d", 77.125),)
    measured = {"net": measurement(77.125, device=EMULATED, operations=operations)}
    text = report.table(measured)
    assert "emulated: not a device figure" in text and "77.1" not in text
    (entry,) = report.to_json(measured).values()
    assert entry["provenance"] == "emulated" and entry["latency_ms"] is None
    real = report.table({"net": measurement(77.125)})
    assert "77.125" in real and "emulated" not in real and "Raspberry Pi 4B" in real


def test_notes_of_all_are_printed_once():
    text = report.table({"a": measurement(1.0, notes=("warm", "own")), "b": measurement(2.0, notes=("warm",))})
    assert [line for line in text.splitlines() if line.startswith("note")] == ["note: warm", "note: a: own"]


def test_records_carry_the_provenance(tmp_path):
    from bibench_tf.results import records

    measured = {"../net one.tflite": measurement(5.0), "emu.tflite": measurement(6.0, device=EMULATED)}
    paths = report.store(tmp_path, measured, {"../net one.tflite": b"abc", "emu.tflite": b"def"})
    assert [path.parent for path in paths] == [tmp_path / "devices/ssh-pi", tmp_path / "devices/adb-emulator-5554"]
    assert [records.read_envelope(path)["provenance"] for path in paths] == ["measured", "emulated"]
    assert records.read(paths[0], Measurement, Measurement.from_dict) == measured["../net one.tflite"]
    assert records.read_envelope(paths[0])["environment"]["size_bytes"] == 3
