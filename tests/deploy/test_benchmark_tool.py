"""The command line and the output of lce_benchmark_model, and its download."""

from __future__ import annotations

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from bibench_tf.deploy.targets import Settings
from bibench_tf.deploy.targets.shell import benchmark_tool, program
from bibench_tf.deploy.targets.shell.benchmark_tool import UnreadableOutput
from bibench_tf.deploy.targets.shell.program import Programs
from bibench_tf.errors import BibenchError, InvalidOption

FILES = Path(__file__).parent / "device"
LOG = """INFO: STARTING!
INFO: Graph: [/data/local/tmp/m.tflite]
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=132 first=3678 curr=3790 min=3270 max=5473 avg=3751.66 std=334

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=261 first=3937 curr=3959 min=3190 max=6333 avg=3790.92 std=358

INFO: Inference timings in us: Init: 630, First inference: 3678, Warmup (avg): 3751.66, Inference (avg): 3790.92
INFO: Memory footprint delta from the start of the tool (MB): init=8.97656 overall=18.7227
"""


def with_statistics(line):
    return LOG.replace("count=261 first=3937 curr=3959 min=3190 max=6333 avg=3790.92 std=358", line)


@pytest.mark.parametrize("text", [LOG, LOG.replace("INFO: ", ""), LOG.replace("\n", "\r\n")])
def test_log_with_and_without_prefixes(text):
    log = benchmark_tool.parse(text, 50)
    assert log.round.count == 261
    assert (log.round.mean_ms, log.round.std_ms, log.round.min_ms, log.round.max_ms) == pytest.approx(
        (3.79092, 0.358, 3.19, 6.333)
    )
    assert log.round.p50_ms is None and log.memory_mib == 18.7227 and not log.stub


def test_seconds_are_printed_with_an_exponent():
    log = benchmark_tool.parse(
        with_statistics("count=50 first=2e+06 curr=2e+06 min=2e+06 max=2.5e+06 avg=2.23457e+06 std=9"), 50
    )
    assert (log.round.mean_ms, log.round.max_ms) == (2234.57, 2500)


@pytest.mark.parametrize(("line", "count"), [("count=1 curr=5", 1), ("count=2 curr=5(all same)", 2)])
def test_degenerate_statistics(line, count):
    log = benchmark_tool.parse(with_statistics(line), 1)
    assert (log.round.count, log.round.mean_ms, log.round.min_ms, log.round.max_ms, log.round.std_ms) == (
        count,
        0.005,
        0.005,
        0.005,
        0,
    )


@pytest.mark.parametrize(
    "line",
    [
        "count=60 first=1 curr=1 min=nan max=1 avg=1 std=0",
        "count=60 first=1 curr=1 min=1 max=2 avg=-1 std=0",
        "count=60 first=1 curr=1 min=1 max=2 avg=1e999 std=0",
        "count=60 first=1 curr=1 min=10 max=20 avg=99 std=0",
        "count=60 first=1 curr=1 min=1",
        "Aborted",
        "count=60 min=1.2.3 max=9 avg=5",
    ],
)
def test_unreadable_statistics(line):
    with pytest.raises(UnreadableOutput):
        benchmark_tool.parse(with_statistics(line), 50)


@pytest.mark.parametrize("text", ["", "INFO: STARTING!", LOG.split("INFO: Running benchmark for at least 50")[0]])
def test_no_measurement(text):
    with pytest.raises(UnreadableOutput, match="no measurement"):
        benchmark_tool.parse(text, 50)


@pytest.mark.parametrize("line", ["count=0", "count=49 first=1 curr=1 min=1 max=1 avg=1 std=0"])
def test_too_few_inferences(line):
    with pytest.raises(BibenchError, match="instead of at least 50") as caught:
        benchmark_tool.parse(with_statistics(line), 50)
    assert not isinstance(caught.value, UnreadableOutput), "would be tried again for nothing"


@pytest.mark.parametrize("prefix", ["WARN: ", "WARNING: ", ""])
def test_unknown_flag_is_an_error(prefix):
    with pytest.raises(BibenchError, match="does not know --max_secs=5 --x"):
        benchmark_tool.parse(f"{prefix}Unconsumed cmdline flags: --max_secs=5 --x\n{LOG}", 50)


def test_the_timings_of_a_profile_are_not_the_measurement():
    text = LOG + (FILES / "op_profile_table.txt").read_text()
    assert benchmark_tool.parse(text, 50).round.count == 261


def test_memory():
    peak = "INFO: Overall peak memory footprint (MB) via periodic monitoring: 33.25\n"
    assert benchmark_tool.parse(LOG + peak, 50).memory_mib == 33.25
    old = LOG.replace("Memory footprint delta from the start of the tool (MB)", "Peak memory footprint (MB)")
    assert benchmark_tool.parse(old, 50).memory_mib == 18.7227
    assert benchmark_tool.parse("\n".join(LOG.splitlines()[:-1]), 50).memory_mib is None


def test_a_stub_is_seen():
    assert benchmark_tool.parse("INFO: this is a stub\n" + LOG, 50).stub


def test_arguments():
    settings = Settings(threads=4, minimum_runs=9, minimum_s=0.25, warm_up_s=0.75, timeout_s=33)
    assert benchmark_tool.arguments("/a b", settings) == [
        "--graph=/a b", "--num_threads=4", "--num_runs=9", "--min_secs=0.25", "--max_secs=33", "--warmup_runs=1",
        "--warmup_min_secs=0.75",
    ]  # fmt: skip
    assert benchmark_tool.arguments("m", settings, "p.csv")[-2:] == [
        "--enable_op_profiling=true", "--profiling_output_csv_file=p.csv",
    ]  # fmt: skip


OPERATIONS = [
    ("CONV_2D", "model/conv1"),
    ("LceQuantize", "model/quant1"),
    ("LceBconv2d", "model/bconv1"),
    ("LceBconv2d", "model/bconv2a, model/b"),
    ("SOFTMAX", "StatefulPartitionedCall:0"),
]


def operations(text):
    found = benchmark_tool.parse_profile(text)
    return [(operation.kind, operation.name) for operation in found], [operation.mean_ms for operation in found]


def test_profile_as_csv_and_as_table():
    names, times = operations((FILES / "op_profile.csv").read_text())
    assert names == OPERATIONS and times == [2.1245, 0.11098, 0.90294, 1.9, 0]
    names, times = operations((FILES / "op_profile_table.txt").read_text())
    assert names == OPERATIONS and times == [2.124, 0.111, 0.903, 1.9, 0]


def test_older_profiles_have_a_start_column():
    csv = (FILES / "op_profile.csv").read_text()
    old = csv.replace("node type, first,", "node type, start, first,")
    old = "\n".join(
        line.replace(", ", ", 123, ", 1) if "[" in line or "State" in line else line for line in old.split("\n")
    )
    names, times = operations(old)
    assert names == OPERATIONS and times == [2.1245, 0.11098, 0.90294, 1.9, 0]
    table = (
        "INFO: ============================== Run Order ==============================\n"
        "\t   [node type]\t  [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]\n"
        "\t         LceQuantize\t    2.124\t    0.110\t    0.111\t  2.203%\t 44.369%\t     0.000\t        1\t[a, b]:1\n"
        "\n============================== Top by Computation Time ==============================\n"
    )
    assert operations(table) == ([("LceQuantize", "a, b")], [0.111])


def test_initialisation_delegates_and_subgraphs_are_left_out():
    csv = (FILES / "op_profile.csv").read_text()
    other = csv.replace("CONV_2D", "ModifyGraphWithDelegate").replace("LceBconv2d", "Delegate/Convolution")
    text = (
        f"Profiling Info for Benchmark Initialization:\n{other}\n"
        f"Operator-wise Profiling Info for Regular Benchmark Runs:\nPrimary graph profile:\n{csv}\n"
        f"Subgraph (index: 1) profile:\n{other}\nDelegate internal:\n{other}\n"
    )
    assert operations(text)[0] == OPERATIONS
    assert operations(f"{csv}\nDelegate internal:\n{other}")[0] == OPERATIONS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Run Order", "Jog Order", "no table 'Run Order'"),
        ("avg_ms", "mean", "unknown columns"),
        ("2.1245", "abc", "cannot be read: CONV_2D"),
        ("2.1245", "nan", "takes nan ms"),
        ("CONV_2D, 2.1, 2.1245, 42.166%, 42.166%, 0, 1, [model/conv1]:0", "CONV_2D, 2.1", "cannot be read"),
    ],
)
def test_unreadable_profiles(old, new, message):
    with pytest.raises(UnreadableOutput, match=message):
        benchmark_tool.parse_profile((FILES / "op_profile.csv").read_text().replace(old, new))


def elf(machine, order=1):
    return (
        b"\x7fELF\x02" + bytes([order]) + bytes(12) + machine.to_bytes(2, "little" if order == 1 else "big") + bytes(40)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (elf(183), None),
        (b"#!/bin/sh\n", None),
        (elf(62), "is built for x86_64, the device runs arm64-v8a"),
        (elf(40), "is built for armeabi-v7a"),
        (elf(8), "is built for ELF machine 8"),
        (elf(183, order=2), None),
        (b"\xcf\xfa\xed\xfe" + bytes(60), "is not a Linux or Android program"),
        (b"", "is not a Linux or Android program"),
        (b"\x7fELF", "is not a Linux or Android program"),
    ],
)
def test_processor_of_the_program(tmp_path, content, message):
    path = tmp_path / "tool"
    path.write_bytes(content)
    if message is None:
        program.check(path, "arm64-v8a")
    else:
        with pytest.raises(BibenchError, match=message):
            program.check(path, "arm64-v8a")


CONTENT = b"\x7fELF the program"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def releases():
    """A server of releases on loopback and what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            moved = {"v0.2.0": "http://example.invalid/x", "v0.3.0": "file:///etc/passwd", "v0.4.0": "/v0.1.0/tool"}
            release = self.path.split("/")[1]
            if release in moved:
                self.send_response(302)
                self.send_header("Location", moved[release])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif release == "v0.1.0":
                self.send_response(200)
                self.send_header("Content-Length", str(len(CONTENT)))
                self.end_headers()
                self.wfile.write(CONTENT)
            else:
                self.send_error(404)

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_download_once(releases, tmp_path):
    url, asked = releases
    path = program.download("v0.1.0", "tool", SHA256.upper(), cache=tmp_path, releases=url)
    assert path.read_bytes() == CONTENT and path.name == "tool"
    assert program.download("v0.1.0", "tool", SHA256, cache=tmp_path, releases=url) == path
    assert asked == ["/v0.1.0/tool"]
    # A cached file that was damaged is fetched anew.
    path.write_bytes(b"damaged")
    assert program.download("v0.1.0", "tool", SHA256, cache=tmp_path, releases=url).read_bytes() == CONTENT


def test_redirection_that_stays(releases, tmp_path):
    assert program.download("v0.4.0", "tool", SHA256, cache=tmp_path, releases=releases[0]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("release", "sha256", "message"),
    [
        ("v0.1.0", "0" * 64, f"expected sha256:0000.* but got {SHA256}"),
        ("v0.1.0", "abc", "64 hexadecimal digits"),
        ("v0.2.0", SHA256, "leads to http://example.invalid/x, which is not https"),
        ("v0.3.0", SHA256, "leads to file:///etc/passwd, which is not https"),
        ("v0.9.0", SHA256, "404"),
        ("../../x", SHA256, "is not the name of a release"),
        ("v0.1.0/../v0.1.0", SHA256, "is not the name of a release"),
    ],
)
def test_download_refused(releases, tmp_path, release, sha256, message):
    with pytest.raises(BibenchError, match=message):
        program.download(release, "tool", sha256, cache=tmp_path, releases=releases[0])
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_download_without_a_server(tmp_path):
    with pytest.raises(BibenchError, match="cannot be downloaded"):
        program.download("v0.1.0", "tool", SHA256, cache=tmp_path, releases="http://127.0.0.1:9")


def test_which_file_of_a_release(monkeypatch):
    monkeypatch.setattr(program, "download", lambda release, asset, sha256: Path(asset))
    loaded = Programs((), "v1.0", "0" * 64).by_target(["host", "adb", "adb:X", "ssh:pi@b"])
    android, board = Path("lce_benchmark_model_android_arm64"), Path("lce_benchmark_model_aarch64")
    assert loaded == {"host": None, "adb": android, "adb:X": android, "ssh:pi@b": board}
    for targets, binaries in ((["host"], ()), (["adb"], (Path("x"),))):
        with pytest.raises(InvalidOption, match="in place of --binary"):
            Programs(binaries, "v1.0", "0" * 64).by_target(targets)
    with pytest.raises(InvalidOption, match="No SHA-256 is known for lce_benchmark_model_aarch64 of LCE v1.0"):
        Programs((), "v1.0").by_target(["ssh:pi"])


def test_one_program_for_all_devices_or_one_for_each():
    targets, (a, b) = ["host", "adb:X", "ssh:pi"], (Path("a"), Path("b"))
    assert Programs((a,)).by_target(targets) == {"host": None, "adb:X": a, "ssh:pi": a}
    assert Programs((a, b)).by_target(targets) == {"host": None, "adb:X": a, "ssh:pi": b}
    assert Programs().by_target(targets) == dict.fromkeys(targets)
    with pytest.raises(InvalidOption, match="2 programs for 1 devices"):
        Programs((a, b)).by_target(["host", "adb"])
