"""The adb target against a real adbd: what it measures, and what it says when something goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bibench_tf.deploy.targets import Settings, adb, open_target
from bibench_tf.deploy.targets.shell import measuring
from bibench_tf.deploy.targets.shell.connection import Folder, Lost
from bibench_tf.errors import BibenchError

QUICK = Settings(minimum_runs=5, minimum_s=0.1, rounds=1, timeout_s=5)
ENDLESS = "while :; do sleep 0.1; done"
ALL_CLOCKS = "/sys/devices/system/cpu/cpu*/cpufreq"


def measure(phone, binary, flatbuffers, settings=QUICK, pause_s=0.05, parent=None):
    connection = adb.connect(phone.serial)
    if parent:
        connection.parent = parent
    target = measuring.ShellTarget(connection, binary, pause_s=pause_s)
    try:
        return target.measure(flatbuffers, settings)
    finally:
        target.close()


def test_measurement_with_the_stub(phone, stub, flatbuffer):
    log = "printf '%s\\n' \"$*\" >>/data/fault.calls"
    settings = Settings(threads=2, minimum_runs=7, minimum_s=0.25, rounds=2, cores=(0, 1), profile=True, timeout_s=9)
    measured = measure(phone, stub(log), {"a": flatbuffer, "b c.tflite": flatbuffer}, settings)
    assert list(measured) == ["a", "b c.tflite"]
    for one in measured.values():
        assert [r.count for r in one.rounds] == [7, 7]
        assert one.latency_ms == pytest.approx(3.79092)
        assert one.rounds[0].clock_mhz_before == one.rounds[0].clock_mhz_after == 2400
        assert one.rounds[0].temperature_c_after == 41
        assert one.peak_memory_mib == pytest.approx(18.7227)
        assert [operation.kind for operation in one.operations][:2] == ["CONV_2D", "LceQuantize"]
        assert one.provenance == "emulated"
        assert any("stub" in note for note in one.notes)
        assert any("arm64-v8a on x86_64" in note for note in one.notes)
    calls = phone.sh("cat /data/fault.calls").splitlines()
    graphs = [next(flag for flag in call.split() if flag.startswith("--graph")).rpartition("/")[2] for call in calls]
    # Two rounds in turns, the second in reverse, then the profiles.
    assert graphs == ["0.tflite", "1.tflite", "1.tflite", "0.tflite", "0.tflite", "1.tflite"]
    assert all("--num_threads=2 --num_runs=7 --min_secs=0.25" in call for call in calls)
    assert ["enable_op_profiling" in call for call in calls] == [False] * 4 + [True] * 2


def test_affinity_reaches_the_program(phone, stub, flatbuffer):
    binary = stub("taskset -p $$ >/data/fault.mask")
    measure(phone, binary, {"a": flatbuffer}, Settings(minimum_runs=5, rounds=1, cores=(1,)))
    assert phone.sh("cat /data/fault.mask").strip().endswith(": 2")


@pytest.mark.parametrize("cores", [(0, 999), (999,)])
def test_cores_the_phone_does_not_have(phone, stub, flatbuffer, cores):
    with pytest.raises(BibenchError, match="has the cores 0 to"):
        measure(phone, stub(), {"a": flatbuffer}, Settings(rounds=1, cores=cores))


def test_arm64_program_runs(phone, arm64_program, flatbuffer, missing):
    phone.adb("-s", phone.serial, "push", str(arm64_program), "/data/fault.program")
    done = phone.adb("-s", phone.serial, "shell", "chmod 755 /data/fault.program; /data/fault.program")
    if "Benchmarking failed" not in done.stderr:
        missing(f"this kernel does not run ARM64 programs in a user namespace: {done.stdout}{done.stderr}")
    measured = measure(phone, arm64_program, {"a": flatbuffer})["a"]
    # Times of a second and more are printed with an exponent.
    assert measured.rounds[0].mean_ms == pytest.approx(2500)
    assert measured.rounds[0].min_ms == pytest.approx(2234.57)
    assert measured.provenance == "emulated"


def test_program_for_another_processor_is_refused_before_it_is_copied(phone, flatbuffer, monkeypatch):
    pushed = []
    monkeypatch.setattr(adb.Connection, "push", lambda *arguments: pushed.append(arguments))
    with pytest.raises(BibenchError, match="built for x86_64, the device runs arm64-v8a"):
        measure(phone, Path("/bin/true"), {"a": flatbuffer})
    assert pushed == []


def test_processor_found_wrong_by_the_device(phone, arm64_program, tmp_path, flatbuffer):
    broken = bytearray(arm64_program.read_bytes())
    # A 64-bit ARM header around a program that claims the class of 32 bits.
    broken[4] = 1
    path = tmp_path / "broken"
    path.write_bytes(broken)
    with pytest.raises(BibenchError, match="cannot execute this lce_benchmark_model"):
        measure(phone, path, {"a": flatbuffer})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unknown=' --max_secs=5'", "does not know --max_secs=5"),
        (
            "echo 'ERROR: Failed to allocate tensors!' >&2; echo 'ERROR: Benchmarking failed.' >&2; exit 1",
            "allocate tens",
        ),
        ("kill -ABRT $$", r"crashed on .* \(SIGABRT\)"),
        ("kill -ILL $$", "SIGILL.*lacks an instruction"),
        ("echo \"x: /lib/libm.so.6: version 'GLIBC_2.35' not found\" >&2; exit 1", "libraries on .*GLIBC_2.35"),
        ("exec /nonexistent", "does not find lce_benchmark_model or its loader"),
        ("num_runs=3", "made 3 inferences instead of at least 5"),
        (ENDLESS, "took more than 1 s"),
        (f"trap '' TERM; {ENDLESS}", "took more than 1 s"),
    ],
)
def test_failures_that_stay(phone, stub, flatbuffer, fault, message):
    calls = "echo call >>/data/fault.calls; "
    settings = Settings(minimum_runs=5, rounds=1, timeout_s=1)
    with pytest.raises(BibenchError, match=message):
        measure(phone, stub(calls + fault), {"a": flatbuffer}, settings)
    assert phone.sh("cat /data/fault.calls").split() == ["call"], "tried again for nothing"
    assert "lce_benchmark_model" not in phone.processes()


# Ends adbd, which phone.sh starts anew.
VANISH = (
    "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline)\" in "
    "*ld-linux*/platform-tools/adbd*) kill -9 ${p#/proc/} ;; esac; done"
)
ONCE = "if [ ! -e /data/fault.once ]; then echo >/data/fault.once; {fault}; fi"


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        ("kill -KILL $$", "SIGKILL"),
        ("echo nonsense; exit 0", "no measurement"),
        ("echo 'count=1 curr=3'; echo 'count=9 avg=nan min=1 max=2'; exit 0", "no usable 'avg'"),
        (VANISH, "broke off"),
    ],
)
def test_failures_that_pass_are_tried_once_more(phone, stub, flatbuffer, fault, note):
    measured = measure(phone, stub(ONCE.replace("{fault}", fault)), {"a": flatbuffer})["a"]
    assert len(measured.rounds) == 1
    assert any(note in text and "measured again" in text for text in measured.notes), measured.notes


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("kill -KILL $$", "SIGKILL"),
        ("echo nonsense; exit 0", "no measurement .*nonsense"),
        (VANISH, "broke off"),
    ],
)
def test_the_second_failure_counts(phone, stub, flatbuffer, fault, message):
    with pytest.raises(BibenchError, match=message):
        measure(phone, stub("echo call >>/data/fault.calls; " + fault), {"a": flatbuffer})
    phone.connect()
    assert phone.sh("cat /data/fault.calls").split() == ["call", "call"]


def test_phone_that_stays_away(phone, stub, flatbuffer, monkeypatch, caplog):
    def gone(folder):
        raise Lost("gone")

    monkeypatch.setattr(measuring, "RECOVERY_S", 1.0)
    monkeypatch.setattr(adb.Connection, "recover", lambda self, timeout_s: False)
    monkeypatch.setattr(Folder, "remove", gone)
    with pytest.raises(BibenchError, match="broke off.*did not come back within 1 s"):
        measure(phone, stub(VANISH), {"a": flatbuffer})
    phone.connect()
    # Then the folder cannot be removed, and that is said.
    (folder,) = phone.folders()
    assert f"The folder {folder} stays behind on adb:{phone.serial}" in caplog.text
    phone.sh(f"rm -rf {folder}")


def test_recovery_ends(phone):
    connection = adb.connect(phone.serial)
    assert connection.recover(5)
    connection.serial = "127.0.0.1:15999"
    assert not connection.recover(0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (f"for f in {ALL_CLOCKS}; do echo 1500000 >$f/scaling_cur_freq; done", "the clock fell from 2400 to 1500 MHz"),
        (f"for f in {ALL_CLOCKS}; do echo 1800000 >$f/scaling_max_freq; done", "the limit of the clock fell"),
        ("echo 58000 >/sys/class/thermal/thermal_zone0/temp", "the temperature rose from 41 to 58"),
    ],
)
def test_throttled_round_is_measured_again(phone, stub, flatbuffer, change, words):
    measured = measure(phone, stub(ONCE.replace("{fault}", change)), {"a": flatbuffer})["a"]
    notes = [note for note in measured.notes if note.startswith("round 1")]
    assert len(notes) == 1
    assert words in notes[0] and "measured again after 0.05 s" in notes[0]


def test_throttled_twice_is_said_with_the_figures(phone, stub, flatbuffer):
    step = "t=$(cat /sys/class/thermal/thermal_zone0/temp); echo $((t+12000)) >/sys/class/thermal/thermal_zone0/temp"
    measured = measure(phone, stub(step), {"a": flatbuffer})["a"]
    assert any("throttled again (the temperature rose from 53 to 65" in note for note in measured.notes), measured.notes
    assert measured.rounds[0].temperature_c_after == 65


def test_phone_without_readable_clock(phone, stub, flatbuffer):
    phone.sh(f"rm {ALL_CLOCKS}/scaling_cur_freq")
    measured = measure(phone, stub(), {"a": flatbuffer})["a"]
    assert measured.rounds[0].clock_mhz_before is None
    assert any("clock cannot be read" in note for note in measured.notes)


def test_full_disk_is_seen_before_and_while_copying(phone, stub, flatbuffer, monkeypatch):
    large = flatbuffer + bytes(2**20)
    with pytest.raises(BibenchError, match=r"disk of adb:127.0.0.1:\d+ is full .*1.0 MiB are needed, 0.2 MiB are free"):
        measure(phone, stub(), {"a": large}, parent="/data/small")
    # As where `df` is missing, so that only the copying can find it out.
    monkeypatch.setattr(Folder, "free_bytes", lambda job: None)
    with pytest.raises(BibenchError, match="is full .*did not fit"):
        measure(phone, stub(), {"a": large}, parent="/data/small")


def test_folder_that_does_not_permit_programs(phone, stub, flatbuffer):
    with pytest.raises(BibenchError, match="does not permit to run programs in /data/noexec.*noexec"):
        measure(phone, stub(), {"a": flatbuffer}, parent="/data/noexec")


def test_folder_that_cannot_be_made(phone, stub, flatbuffer):
    with pytest.raises(BibenchError, match="Cannot make a folder in /proc"):
        measure(phone, stub(), {"a": flatbuffer}, parent="/proc")


@pytest.mark.parametrize("fault", ["", ENDLESS, "exit 3"])
def test_phone_without_timeout(phone, stub, flatbuffer, fault):
    phone.sh("printf '#!/bin/sh\\nexit 127\\n' >/system/bin/timeout; chmod 755 /system/bin/timeout")
    settings = Settings(minimum_runs=5, rounds=1, timeout_s=1)
    try:
        if not fault:
            assert measure(phone, stub(), {"a": flatbuffer}, settings)["a"].rounds[0].count == 5
        else:
            with pytest.raises(BibenchError, match="took more than 1 s" if fault == ENDLESS else "exit code 3"):
                measure(phone, stub(fault), {"a": flatbuffer}, settings)
        assert "lce_benchmark_model" not in phone.processes()
    finally:
        phone.sh("rm /system/bin/timeout")


def test_profile_on_stdout_where_the_program_writes_no_file(phone, stub, flatbuffer):
    settings = Settings(minimum_runs=5, rounds=1, profile=True)
    measured = measure(phone, stub("csv=''"), {"a": flatbuffer}, settings)["a"]
    assert [operation.kind for operation in measured.operations].count("LceBconv2d") == 2


def test_interrupt_leaves_nothing_on_the_phone(phone, stub, tmp_path, flatbuffer):
    (tmp_path / "a.tflite").write_bytes(flatbuffer)
    script = (
        "import sys\nfrom pathlib import Path\nfrom bibench_tf.deploy.targets import Settings, open_target\n"
        "with open_target(sys.argv[1], binary=Path(sys.argv[2])) as target:\n"
        "    target.measure({'a': Path(sys.argv[3]).read_bytes()}, Settings(rounds=1))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, f"adb:{phone.serial}", str(stub(ENDLESS)), str(tmp_path / "a.tflite")],
        env=os.environ | phone.environment,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal, where Ctrl-C reaches the whole group.
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 20
        while "lce_benchmark_model" not in phone.processes() and time.monotonic() < end:
            time.sleep(0.05)
        assert phone.folders()
        os.killpg(process.pid, signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]
    finally:
        process.kill()
    assert phone.folders() == []
    assert "lce_benchmark_model" not in phone.processes()


def test_stdin_is_left_alone(phone):
    script = (
        "import sys\nfrom bibench_tf.deploy.targets import adb\n"
        "adb.connect(sys.argv[1]).run('cat')\nprint(sys.stdin.read())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, phone.serial],
        env=os.environ | phone.environment,
        input="kept",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "kept\n", done


def test_the_only_phone_is_taken(phone, stub, flatbuffer):
    with open_target("adb", binary=stub()) as target:
        device = target.describe()
    assert (device.target, device.abi, device.emulated) == (f"adb:{phone.serial}", "arm64-v8a", True)
    assert device.model == "adbd on loopback" and device.chip is None and device.system == "Android 0"
    assert device.cores == os.cpu_count()


def test_network_address_is_connected_and_left_again(phone):
    phone.adb("disconnect", phone.serial)
    connection = adb.connect(phone.serial)
    assert connection.run("echo hello").stdout.strip() == "hello"
    connection.close()
    assert phone.serial not in phone.adb("devices").stdout


def test_refused_connection_whose_exit_code_is_0(phone):
    assert phone.adb("connect", "127.0.0.1:15999").returncode == 0
    with pytest.raises(BibenchError, match="adb cannot connect to 127.0.0.1:15999"):
        adb.connect("127.0.0.1:15999")


@pytest.mark.parametrize("serial", ["nothere", "-s x", "$(touch /data/fault.x):1", "a;b:5"])
def test_unknown_serial(phone, serial):
    with pytest.raises(BibenchError, match="No Android device has the serial number"):
        adb.connect(serial)


def listing(*lines):
    text = "* daemon started successfully\nList of devices attached\n" + "".join(f"{line}\n" for line in lines) + "\n"
    return lambda command, timeout_s: subprocess.CompletedProcess(command, 0, text, "")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "No Android device is attached"),
        (["A1\tunauthorized"], "A1 is 'unauthorized': unlock it and allow USB debugging"),
        (["A1\toffline"], "A1 is 'offline': reconnect it"),
        (["A1\trecovery"], "A1 is 'recovery': start Android"),
        (["A1\tno permissions (user in plugdev group); see [x]"], "may not open the USB device of A1: install udev"),
        (["A1\tdevice", "B2\tdevice"], r"2 Android devices are attached \(A1, B2\): choose one with adb:SERIAL"),
    ],
)
def test_choice_of_the_device(monkeypatch, lines, message):
    monkeypatch.setattr(adb, "client", listing(*lines))
    with pytest.raises(BibenchError, match=message):
        adb.connect(None)


def test_the_usable_one_of_two_is_taken(monkeypatch):
    monkeypatch.setattr(adb, "client", listing("A1\tunauthorized", "B2\tdevice"))
    assert adb.connect(None).serial == "B2"


def test_adb_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BibenchError, match="The program 'adb' is not installed"):
        adb.connect(None)


def test_program_is_missing(phone, flatbuffer, tmp_path):
    with pytest.raises(BibenchError, match="needs lce_benchmark_model"):
        measure(phone, None, {"a": flatbuffer})
    with pytest.raises(BibenchError, match="Cannot read the program .*nothere: No such file"):
        measure(phone, tmp_path / "nothere", {"a": flatbuffer})


def test_phone_with_the_old_shell_protocol(phone, stub, flatbuffer, monkeypatch):
    """Very old phones: adb returns 0 whatever the command did, and both streams arrive as one."""

    def old(self, line, timeout_s):
        return self._adb("shell", "-x", line, timeout_s=timeout_s)

    monkeypatch.setattr(adb.Connection, "shell", old)
    connection = adb.connect(phone.serial)
    assert connection.shell("exit 7", 5).returncode == 0
    assert connection.run("echo out; exit 7").returncode == 7
    assert connection.run("sh -c 'kill -9 $$'").returncode == 137
    assert measure(phone, stub("echo oh >&2"), {"a": flatbuffer})["a"].rounds[0].count == 5
    with pytest.raises(BibenchError, match="exit code 1: ERROR: Failed to allocate tensors!"):
        measure(phone, stub("echo 'ERROR: Failed to allocate tensors!' >&2; exit 1"), {"a": flatbuffer})
