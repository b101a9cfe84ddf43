"""The table of chips, how a device is matched to it, and the commands that measure and list devices."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bibench_tf.cli import main
from bibench_tf.deploy import devices
from bibench_tf.deploy.devices import Facts
from bibench_tf.deploy.targets import Settings, open_target, record
from bibench_tf.deploy.targets.shell import measuring
from bibench_tf.results import records

# The chips of BiBench's inference track and how many cores each has.
CORES = {
    "HiSilicon Kirin 970": 8,
    "HiSilicon Kirin 980": 8,
    "HiSilicon Kirin 985": 8,
    "HiSilicon Kirin 990": 8,
    "HiSilicon Kirin 9000E": 8,
    "Qualcomm Snapdragon 855+": 8,
    "Qualcomm Snapdragon 870": 8,
    "Qualcomm Snapdragon 888": 8,
    "MediaTek Dimensity 820": 8,
    "MediaTek Dimensity 900": 8,
    "Raspberry Pi 3B+": 4,
    "Raspberry Pi 4B": 4,
    "Apple M1": 8,
    "Apple M1 Max": 10,
}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_the_fourteen_chips():
    assert {chip.name: chip.cores for chip in devices.chips().values()} == CORES
    for key, chip in devices.chips().items():
        assert key.isalnum() and key == chip.key
        clocks = [cluster.ghz for cluster in chip.clusters if cluster.ghz]
        assert clocks == sorted(clocks, reverse=True) and all(1 < ghz < 4 for ghz in clocks)
        if chip.top_mhz:
            assert chip.top_mhz == pytest.approx(1e3 * clocks[0], rel=0.01)


@pytest.mark.parametrize("chip", devices.chips().values(), ids=lambda chip: chip.key)
def test_each_chip_is_recognised_by_each_of_its_names(chip):
    for name in chip.identifiers:
        facts = Facts("x", "arm64-v8a", "aarch64", "x", 8, (name.upper(),), chip.top_mhz)
        assert devices.recognise(facts) == chip
    for model in chip.models:
        assert devices.recognise(Facts(f"{model} Rev 1.4", "arm64-v8a", "aarch64", "x", 4)) == chip


@pytest.mark.parametrize(
    ("names", "top_mhz"),
    [
        (["SM8150"], 2841.6),  # Snapdragon 855
        (["SM8150"], None),
        (["kona"], 2841.6),  # 865
        (["kona"], 3091.2),  # 865+
        (["lahaina"], 2995.2),  # 888+
        (["mt6873"], 2000.0),  # Dimensity 800
        (["mt6877"], 2500.0),  # 920
        (["kirin9000"], 3130.0),
        (["kirin99"], None),
        (["kirin970", "kirin980"], None),
        ([], 2400.0),
        (["tensor"], 2800.0),
    ],
)
def test_chips_that_are_not_guessed(names, top_mhz):
    assert devices.recognise(Facts("x", "arm64-v8a", "aarch64", "x", 8, tuple(names), top_mhz)) is None


@pytest.mark.parametrize(
    "model", ["Raspberry Pi 3 Model B Rev 1.2", "Raspberry Pi 5 Model B Rev 1.0", "Raspberry Pi 400 Rev 1.0"]
)
def test_boards_that_only_resemble(model):
    assert devices.recognise(Facts(model, "arm64-v8a", "aarch64", "x", 4)) is None


PHONE = """ro.product.manufacturer=Xiaomi
ro.product.model=M2012K11AC
ro.product.cpu.abi=arm64-v8a
ro.build.version.release=12
ro.soc.model=SM8250
ro.board.platform=kona
ro.hardware=qcom
ro.kernel.qemu=
machine=aarch64
kernel=Linux 4.19.157
tree.model=
brand=
khz=1804800
khz=2419200
khz=3187200
cpuinfo=processor\t: 0
cpuinfo=Hardware\t: Qualcomm Technologies, Inc SM8250_AC
/sys/devices/system/cpu/cpu0
/sys/devices/system/cpu/cpu1
/sys/devices/system/cpu/cpu7
"""
BOARD = """ro.product.model=
machine=aarch64
kernel=Linux 6.1.21-v8+
tree.model=Raspberry Pi 4 Model B Rev 1.4
tree.compatible=raspberrypi,4-model-b
tree.compatible=brcm,bcm2711
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
cpuinfo=processor\t: 0
cpuinfo=processor\t: 1
cpuinfo=processor\t: 2
cpuinfo=processor\t: 3
cpuinfo=Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def test_facts_of_a_phone():
    device = measuring.device("adb:X", devices.parse(PHONE.replace("\n", "\r\n")))
    assert (device.model, device.chip, device.abi) == ("Xiaomi M2012K11AC", "snapdragon870", "arm64-v8a")
    assert (device.cores, device.system, device.emulated) == (3, "Android 12", False)


def test_facts_of_a_board():
    device = measuring.device("ssh:pi@pi", devices.parse(BOARD))
    assert (device.model, device.chip) == ("Raspberry Pi 4 Model B Rev 1.4", "raspberrypi4b")
    assert (device.abi, device.cores, device.emulated) == ("arm64-v8a", 4, False)
    assert device.system == "Debian GNU/Linux 12 (bookworm)"


def test_a_computer_is_known_by_its_processor():
    facts = devices.parse("machine=x86_64\ncpuinfo=processor\t: 0\ncpuinfo=model name\t: Some CPU @ 2 GHz\n")
    assert (facts.model, facts.abi, facts.cores, facts.emulation) == ("Some CPU @ 2 GHz", "x86_64", 1, "")


def test_a_silent_device():
    facts = devices.parse("")
    assert (facts.model, facts.abi, facts.cores) == ("unknown", "unknown", 1)


@pytest.mark.parametrize(
    ("target", "old", "new"),
    [
        ("adb:X", "machine=aarch64", "machine=x86_64"),
        ("adb:X", "ro.kernel.qemu=", "ro.kernel.qemu=1"),
        ("adb:X", "ro.kernel.qemu=", "ro.boot.qemu=1"),
        ("adb:X", "ro.hardware=qcom", "ro.hardware=ranchu"),
        ("adb:X", "cpuinfo=Hardware", "cpuinfo=model name : QEMU Virtual CPU version 2.5+\nx="),
        ("adb:X", "tree.model=", "tree.compatible=linux,dummy-virt"),
        ("adb:emulator-5554", "", ""),
    ],
)
def test_emulators(target, old, new):
    assert measuring.device(target, devices.parse(PHONE.replace(old, new))).emulated
    assert not measuring.device("adb:X", devices.parse(PHONE)).emulated


def test_names_from_a_device_stay_on_their_line():
    facts = devices.parse(PHONE.replace("M2012K11AC", "\x1b[31mred\x07" + "x" * 500))
    assert facts.model.isprintable() and len(facts.model) < 120


def test_chips_command(capsys):
    code, out, _ = run(capsys, "deploy", "devices", "--chips")
    assert code == 0 and all(name in out for name in CORES)
    code, out, _ = run(capsys, "deploy", "devices", "--chips", "--json", "-")
    chips = json.loads(out)
    assert len(chips) == 14 and chips["kirin9000e"]["clusters"][0] == {
        "cores": 1,
        "architecture": "Cortex-A77",
        "ghz": 3.13,
    }


def test_devices_command(phone, capsys):
    code, out, _ = run(capsys, "deploy", "devices")
    assert code == 0 and phone.serial in out and "unknown" in out and "adbd on loopback" in out
    code, out, _ = run(capsys, "deploy", "devices", "--json", "-", f"adb:{phone.serial}", "adb:nothere")
    (known, unknown) = json.loads(out)
    assert known["emulated"] is True and known["chip"] is None
    assert unknown["target"] == "adb:nothere" and "serial number" in unknown["error"]


def test_benchmark_command(phone, stub, flatbuffer, tmp_path, capsys):
    files = [tmp_path / "a.tflite", tmp_path / "$(b) ;.tflite"]
    for path in files:
        path.write_bytes(flatbuffer)
    command = ["deploy", "benchmark", *map(str, files), "--target", "adb", "--binary", str(stub())]
    command += ["--runs", "6", "--rounds", "2", "--seconds", "0", "--cores", "0", "--profile"]
    code, out, err = run(capsys, *command, "--results", str(tmp_path / "results"))
    assert code == 0
    assert out.count("emulated: not a device latency") == 2 and "3.79" not in out
    stored = sorted((tmp_path / "results").rglob("*.json"))
    assert len(stored) == 2 and all(str(path) in err for path in stored)
    assert {records.read_envelope(path)["provenance"] for path in stored} == {"emulated"}
    assert record.read(stored[0]).network.settings.minimum_runs == 6
    code, out, _ = run(capsys, *command, "--json", "-")
    entry = next(row for row in json.loads(out) if row["file"] == str(files[1]))
    assert entry["target"] == "adb"
    assert entry["provenance"] == "emulated" and entry["latency_ms"] is None and len(entry["rounds"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "fridge"], "Unknown kind of target 'fridge'"),
        (["--target", "ssh:-oProxyCommand=id"], "is not [USER@]HOST"),
        (["--target", "host", "--lce-release", "v0.16.0"], "such as adb or ssh"),
        (["--target", "ssh:pi", "--lce-release", "v0.16.0"], "No SHA-256 is known"),
        (["--cores", "a"], "Invalid value for '--cores'"),
        (["--cores", "-1"], "Invalid value for '--cores'"),
    ],
)
def test_mistakes_are_one_sentence(flatbuffer, tmp_path, capsys, arguments, message):
    (tmp_path / "a.tflite").write_bytes(flatbuffer)
    code, out, err = run(capsys, "deploy", "benchmark", str(tmp_path / "a.tflite"), *arguments)
    assert code == 2 and message in err and "Traceback" not in err and out == ""


def test_a_real_device():
    """For whoever has one: BIBENCH_DEVICE=adb:SERIAL (or ssh:HOST), BIBENCH_DEVICE_BINARY, BIBENCH_DEVICE_FILE."""
    target, binary, file = (os.environ.get(f"BIBENCH_DEVICE{name}") for name in ("", "_BINARY", "_FILE"))
    if not (target and binary and file):
        pytest.skip("BIBENCH_DEVICE, BIBENCH_DEVICE_BINARY and BIBENCH_DEVICE_FILE do not name a device")
    with open_target(target, binary=Path(binary)) as opened:
        (one,) = opened.measure({"a": Path(file).read_bytes()}, Settings(profile=True)).values()
    assert one.provenance == "measured" and one.device.abi == "arm64-v8a"
    assert all(r.count >= 50 and 0 < r.min_ms <= r.mean_ms <= r.max_ms for r in one.rounds)
    assert sum(operation.mean_ms for operation in one.operations) == pytest.approx(one.latency_ms, rel=0.3)
