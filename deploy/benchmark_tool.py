"""lce_benchmark_model, the program of Larq Compute Engine that times a flatbuffer on a device.

Its command line, what it prints, and where it comes from. It is TensorFlow Lite's benchmark tool with LCE's operations;
the formats read here are those of TensorFlow 2.16 and of older ones without `INFO:` and with a `start` column.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bibench_tf import files
from bibench_tf.deploy.target import OperationTime, Settings
from bibench_tf.errors import BibenchError

RELEASES = "https://github.com/larq/compute-engine/releases/download"
# The builds that LCE publishes, by the kind of target.
ASSETS = {"adb": "lce_benchmark_model_android_arm64", "ssh": "lce_benchmark_model_aarch64"}
# SHA-256 by (release, asset). LCE publishes no digests; an entry belongs here once two people have seen the same file.
PINNED: dict[tuple[str, str], str] = {}

_LARGEST_DOWNLOAD = 256 * 2**20
_MACHINES = {62: "x86_64", 183: "arm64-v8a", 40: "armeabi-v7a", 3: "x86", 243: "riscv64"}
_STATISTIC = re.compile(r"(\w+)=([-+]?[\d.]+(?:e[-+]?\d+)?|[-+]?(?:nan|inf))", re.IGNORECASE)
_PREFIX = re.compile(r"^(?:INFO|WARN|WARNING|ERROR|FATAL): ?")


class UnreadableOutput(BibenchError):
    """The tool ended well but its output is not what it should print."""


@dataclass(frozen=True)
class Log:
    """What the tool printed of its timed inferences, in milliseconds.

    Attributes:
        memory_mib: The peak of the process when it reports one, else by how much the network raised it.
        stub: Whether the program says that it is a stub.
    """

    count: int
    mean_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    p50_ms: float | None
    memory_mib: float | None
    stub: bool


def arguments(graph: str, settings: Settings, csv: str | None = None) -> list[str]:
    """The options for one round of the flatbuffer at `graph`; `csv` asks for the profile of operations in that file."""
    options = {
        "graph": graph,
        "num_threads": settings.threads,
        "num_runs": settings.minimum_runs,
        "min_secs": settings.minimum_s,
        # The tool stops early at this time; its own limit of 150 s would cut a slow network short.
        "max_secs": settings.timeout_s,
        "warmup_runs": 1,
        "warmup_min_secs": settings.warm_up_s,
    }
    if csv is not None:
        options |= {"enable_op_profiling": "true", "profiling_output_csv_file": csv}
    return [f"--{name}={value}" for name, value in options.items()]


def parse(output: str, minimum_runs: int) -> Log:
    """The figures in the output of a run that ended with exit code 0.

    Raises BibenchError when the tool did not know an option or made fewer than `minimum_runs` inferences, and
    UnreadableOutput when there is no measurement.
    """
    lines = [_PREFIX.sub("", line.strip()) for line in output.splitlines()]
    for line in lines:
        if line.startswith("Unconsumed cmdline flags"):
            flags = _printable(line.partition(":")[2])
            raise BibenchError(
                f"This lce_benchmark_model does not know {flags}, so it measured something else: use a newer build."
            )
    statistics = [dict(_STATISTIC.findall(line)) for line in lines if line.startswith("count=")]
    if len(statistics) < 2:
        raise UnreadableOutput(
            "lce_benchmark_model printed no measurement (a line 'count=...' after the warm-up's)" + _last(lines)
        )
    # The first line is the warm-up's.
    last = statistics[-1]
    count = int(float(last["count"]))
    if count < minimum_runs:
        raise BibenchError(
            f"lce_benchmark_model made {count} inferences instead of at least {minimum_runs}: it ran into its limit of "
            "time; raise --timeout or lower --runs."
        )
    if last.keys() == {"count", "curr"}:
        # One inference, or several of the same duration: "count=2 curr=5(all same)".
        last |= dict.fromkeys(("avg", "min", "max"), last["curr"]) | {"std": "0"}
    mean, low, high, spread = (_microseconds(last, key) for key in ("avg", "min", "max", "std"))
    # The mean is printed with six digits.
    if not (low * (1 - 1e-5) <= mean <= high * (1 + 1e-5)):
        raise UnreadableOutput(f"lce_benchmark_model printed a mean of {mean:g} us outside {low:g} to {high:g} us.")
    return Log(
        count=count,
        mean_ms=mean / 1e3,
        std_ms=spread / 1e3,
        min_ms=low / 1e3,
        max_ms=high / 1e3,
        p50_ms=_microseconds(last, "median") / 1e3 if "median" in last else None,
        memory_mib=_memory(lines),
        stub=any(re.search(r"\bthis is a stub\b", line, re.IGNORECASE) for line in lines),
    )


def errors(output: str) -> str:
    """The tool's own words on what went wrong: its first lines marked ERROR or FATAL, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(ERROR|FATAL)\b", line) and "Benchmarking failed" not in line]
    chosen = marked[:2] or lines[-1:]
    return " ".join(_printable(line) for line in chosen) or "it printed nothing"


def parse_profile(text: str) -> tuple[OperationTime, ...]:
    """The operations, in the order they run, of a profile: the CSV file or the tables the tool prints.

    Columns are found by their headers. The initialisation, the inside of delegates and further subgraphs are left
    out. Raises UnreadableOutput.
    """
    # One file or log holds the profile of the initialisation first.
    _, title, regular = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs")
    graph = re.split(r"Delegate internal|Subgraph \(index", regular if title else text)[0]
    blocks = re.findall(r"^.*=+ Run Order =+\s*\n((?:.*\S.*\n?)*)", graph, re.MULTILINE)
    if not blocks:
        raise UnreadableOutput("lce_benchmark_model wrote no table 'Run Order' of its operations.")
    header, *rows = blocks[-1].splitlines()
    # A table starts its lines with a tab; the CSV writes a tab for a comma inside a name.
    table = "[" in header and "\t" in header
    cells = (lambda line: line.lstrip().split("\t")) if table else (lambda line: line.split(", "))
    columns = [cell.strip().strip("[]").replace("_", " ").lower() for cell in cells(header)]
    if not {"node type", "avg ms", "name"} <= set(columns):
        raise UnreadableOutput(f"The table of operations has the unknown columns {_printable(', '.join(columns))}.")
    operations = []
    for row in rows:
        values = dict(zip(columns, (cell.strip() for cell in cells(row)), strict=False))
        try:
            name, mean = values["name"].replace("\t", ","), float(values["avg ms"])
        except (KeyError, ValueError):
            raise UnreadableOutput(f"A line of the table of operations cannot be read: {_printable(row)}") from None
        if not math.isfinite(mean) or mean < 0:
            raise UnreadableOutput(f"An operation takes {mean} ms: {_printable(row)}")
        node = re.fullmatch(r"\[(.*)\]:\d+", name)
        operations.append(OperationTime(name=node[1] if node else name, kind=values["node type"], mean_ms=mean))
    if not operations:
        raise UnreadableOutput("The table of operations is empty.")
    return tuple(operations)


def check_binary(binary: Path | None, abi: str) -> None:
    """Refuse a program that cannot run on a device of this ABI, before anything is copied.

    A script (`#!`) is let through: it says nothing about the program it starts.
    """
    if binary is None:
        raise BibenchError(
            "Measuring on a device needs lce_benchmark_model for it: --binary PATH, or --download RELEASE --sha256 HEX."
        )
    try:
        with open(binary, "rb") as stream:
            head = stream.read(20)
    except OSError as error:
        raise BibenchError(f"Cannot read the program {binary}: {error.strerror}.") from error
    if head.startswith(b"#!"):
        return
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        raise BibenchError(f"{binary} is not a Linux or Android program (no ELF header): is it lce_benchmark_model?")
    code = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    built = _MACHINES.get(code, f"ELF machine {code}")
    if built != abi:
        raise BibenchError(f"{binary} is built for {built}, the device runs {abi}: take the build for {abi}.")


def download(
    release: str, asset: str, sha256: str | None = None, *, cache: Path | None = None, releases: str = RELEASES
) -> Path:
    """A file of a release of LCE, from the cache or the network, with the digest it must have.

    `sha256` (hexadecimal) may be left out for a file whose digest stands in `PINNED`. Raises BibenchError when no
    digest is known, when it differs, and when a redirection leaves https.
    """
    if not re.fullmatch(r"v?\d+(\.\d+)+[A-Za-z0-9.-]*", release):
        raise BibenchError(f"'{release}' is not the name of a release of LCE, such as v0.16.0.")
    expected = sha256 or PINNED.get((release, asset))
    if expected is None:
        raise BibenchError(
            f"No SHA-256 is known for {asset} of LCE {release}: give it with --sha256, or download the file yourself "
            "and use --binary."
        )
    expected = expected.lower()
    if not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise BibenchError("A SHA-256 has 64 hexadecimal digits.")
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bibench-tf"
    path = cache / expected / asset
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected:
        return path
    content = _fetch(f"{releases}/{release}/{asset}")
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BibenchError(f"{asset} of LCE {release} has the SHA-256 {found}, not {expected}: it was not kept.")
    files.write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def for_target(target: str, binary: Path | None, release: str, sha256: str | None) -> Path:
    """The download that a target of this name needs. Raises BibenchError where none is needed."""
    asset = ASSETS.get(target.partition(":")[0])
    if asset is None or binary is not None:
        raise BibenchError("--download is for the targets adb and ssh, in place of --binary.")
    return download(release, asset, sha256)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to where a download may start."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    # Loopback never leaves the computer: a mirror of one's own, and the tests.
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        raise BibenchError(f"The download leads to {_printable(url)}, which is not https: nothing was fetched.")


def _fetch(url: str) -> bytes:
    _check_url(url)
    try:
        with urllib.request.build_opener(_SafeRedirects).open(url, timeout=60) as reply:
            content = reply.read(_LARGEST_DOWNLOAD + 1)
    except urllib.error.HTTPError as error:
        raise BibenchError(f"{url} cannot be downloaded: the server says {error.code} {error.reason}.") from error
    except OSError as error:
        raise BibenchError(f"{url} cannot be downloaded: {getattr(error, 'reason', error)}.") from error
    if len(content) > _LARGEST_DOWNLOAD:
        raise BibenchError(f"{url} is larger than {_LARGEST_DOWNLOAD >> 20} MiB: this is not lce_benchmark_model.")
    return content


def _microseconds(statistics: dict[str, str], key: str) -> float:
    try:
        value = float(statistics.get(key, "nan"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UnreadableOutput(f"lce_benchmark_model printed no usable '{key}' among its timings.")
    return value


def _memory(lines: list[str]) -> float | None:
    """Memory in MiB; the tool divides kibibytes by 1024 and calls it MB."""
    for pattern in (
        r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.e+]+)",
        r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\):.*\boverall=([\d.e+]+)",
    ):
        for line in lines:
            if match := re.match(pattern, line):
                return float(match[1])
    return None


def _last(lines: list[str]) -> str:
    line = next((line for line in reversed(lines) if line), None)
    return f"; its last words: {_printable(line)}" if line else "; it printed nothing."


def _printable(text: str) -> str:
    """Text from elsewhere on one line: no control characters, at most 200 characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:200]
