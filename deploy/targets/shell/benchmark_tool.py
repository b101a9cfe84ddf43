"""The command line and the output of lce_benchmark_model, Larq Compute Engine's program that times a flatbuffer.

It is TensorFlow Lite's benchmark tool with LCE's operations. The formats read here are those of TensorFlow 2.16 and
older formats without `INFO:` and with a `start` column.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bibench_tf.deploy.targets import OperationTime, Round, Settings
from bibench_tf.errors import BibenchError

_STATISTIC = re.compile(r"(\w+)=([-+]?[\d.]+(?:e[-+]?\d+)?|[-+]?(?:nan|inf))", re.IGNORECASE)
_PREFIX = re.compile(r"^(?:INFO|WARN|WARNING|ERROR|FATAL): ?")


class UnreadableOutput(BibenchError):
    """The tool ended well but its output is not what it should print."""


@dataclass(frozen=True)
class Log:
    """The output of the tool.

    Attributes:
        round: The timed inferences, without clock and temperature.
        memory_mib: The peak of the process when it reports one, else by how much the network raised it.
        stub: Whether the program says that it is a stub.
    """

    round: Round
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
        "max_secs": f"{settings.timeout_s:g}",
        "warmup_runs": 1,
        "warmup_min_secs": settings.warm_up_s,
    }
    if csv is not None:
        options |= {"enable_op_profiling": "true", "profiling_output_csv_file": csv}
    return [f"--{name}={value}" for name, value in options.items()]


def parse(output: str, minimum_runs: int) -> Log:
    """The timings in the output of a run that ended with exit code 0.

    Raises BibenchError when the tool did not know an option or made fewer than `minimum_runs` inferences, and
    UnreadableOutput when there is no measurement.
    """
    lines = [_PREFIX.sub("", line.strip()) for line in output.splitlines()]
    for line in lines:
        if line.startswith("Unconsumed cmdline flags"):
            flags = printable(line.partition(":")[2])
            raise BibenchError(
                f"This lce_benchmark_model does not know {flags}, so it measured something else: use a newer build."
            )
    statistics = [dict(_STATISTIC.findall(line)) for line in lines if line.startswith("count=")]
    if len(statistics) < 2:
        last_line = next(filter(None, reversed(lines)), None)
        words = f"; its last words: {printable(last_line)}" if last_line else "; it printed nothing."
        raise UnreadableOutput(
            f"lce_benchmark_model printed no measurement (a line 'count=...' after the warm-up's){words}"
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
    median_ms = _microseconds(last, "median") / 1e3 if "median" in last else None
    return Log(
        Round(mean / 1e3, spread / 1e3, low / 1e3, high / 1e3, count, median_ms),
        memory_mib=_memory(lines),
        stub=any(re.search(r"\bthis is a stub\b", line, re.IGNORECASE) for line in lines),
    )


def errors(output: str) -> str:
    """The tool's own words on what went wrong: its first lines marked ERROR or FATAL, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(ERROR|FATAL)\b", line) and "Benchmarking failed" not in line]
    chosen = marked[:2] or lines[-1:]
    return " ".join(printable(line) for line in chosen) or "it printed nothing"


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
        raise UnreadableOutput(f"The table of operations has the unknown columns {printable(', '.join(columns))}.")
    operations = []
    for row in rows:
        values = dict(zip(columns, (cell.strip() for cell in cells(row)), strict=False))
        try:
            name, mean = values["name"].replace("\t", ","), float(values["avg ms"])
        except (KeyError, ValueError):
            raise UnreadableOutput(f"A line of the table of operations cannot be read: {printable(row)}") from None
        if not math.isfinite(mean) or mean < 0:
            raise UnreadableOutput(f"An operation takes {mean} ms: {printable(row)}")
        node = re.fullmatch(r"\[(.*)\]:\d+", name)
        operations.append(OperationTime(name=node[1] if node else name, kind=values["node type"], mean_ms=mean))
    if not operations:
        raise UnreadableOutput("The table of operations is empty.")
    return tuple(operations)


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


def printable(text: str) -> str:
    """Text from elsewhere on one line: no control characters, at most 200 characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:200]
