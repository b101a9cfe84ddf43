"""Changes the code on purpose, one place at a time, and runs the tests that should notice.

    python tests/mutants/campaign.py [--only PATTERN] [--jobs N] [--report FILE]      `make mutants`

`mutants.toml` is the table of the changes. Each is made in a copy of the tracked files. A mutant is caught if one of
its tests fails, and survives if all pass: then a test is missing.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import msgspec
import psutil

from bibench_tf import files
from bibench_tf.errors import BibenchError

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("mutants.toml")
FAST = "not slow and not pairs and not cluster"
CAUGHT, HUNG, SURVIVED = "caught", "caught by the time limit", "survived"


@dataclass(frozen=True)
class Mutant:
    """A change: the text `old`, which `file` has exactly once, becomes `new`, with the effect `harm`.

    `tests` are the files, or tests as `file::name`, of which one must fail.
    """

    harm: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The outcome for a mutant: `CAUGHT`, `HUNG` or `SURVIVED`, and the first test that failed."""

    mutant: Mutant
    verdict: str
    noticed_by: str
    duration_s: float


def table(path: Path = TABLE) -> list[Mutant]:
    """The mutants of the table, in its order."""
    by_file = msgspec.toml.decode(path.read_bytes(), type=dict[str, list[dict[str, Any]]])
    return msgspec.convert([{"file": file, **change} for file, of in by_file.items() for change in of], list[Mutant])


def mutated(mutant: Mutant, root: Path) -> str:
    """The changed text of the mutant's file below `root`. Raises BibenchError where `old` does not stand there once."""
    text = (root / mutant.file).read_text(encoding="utf-8")
    if (count := text.count(mutant.old)) != 1:
        raise BibenchError(
            f"The mutant '{mutant.harm}' does not apply: {mutant.file} has the text {mutant.old!r} {count} times, not "
            f"once. Bring {TABLE.name} up to date."
        )
    return text.replace(mutant.old, mutant.new)


def tracked(root: Path) -> list[str]:
    """The files that Git tracks, without those that are deleted."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (root / name).exists()]


class Copy:
    """A copy of files in which mutants are made, one at a time.

    It has the layout of the installed package, so that its own code is imported and not that of the environment.
    """

    def __init__(self, root: Path, folder: Path, names: Iterable[str]) -> None:
        """Copy the files called `names` from `root` to the new `folder`."""
        self.folder = folder
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
        for room in ("zoo", "deploy", "tracks"):
            if (folder / room).is_dir():
                (folder / "bibench_tf" / room).symlink_to(folder / room)

    def outcome(self, mutant: Mutant, limit_s: float) -> Outcome:
        """Make the change, run its tests for at most `limit_s` seconds, and take the change back."""
        path = self.folder / mutant.file
        before, after = path.read_bytes(), mutated(mutant, self.folder)
        path.write_text(after, encoding="utf-8")
        start_s = time.monotonic()
        try:
            code, output = self.test(mutant.tests, limit_s)
        finally:
            path.write_bytes(before)
        verdict = HUNG if code is None else CAUGHT if code else SURVIVED
        failed = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", output, re.MULTILINE)
        noticed_by = failed[0] if failed and verdict == CAUGHT else ""
        return Outcome(mutant, verdict, noticed_by, time.monotonic() - start_s)

    def test(self, tests: Sequence[str], limit_s: float | None = None) -> tuple[int | None, str]:
        """Run tests until the first failure: pytest's exit code, None where the time was over, and its output."""
        # No file of compiled code, which could be that of the mutant before.
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        program = Path(sys.executable).with_name("pytest")  # not `python -m pytest`, which adds the working folder
        process = subprocess.Popen(
            [program, "-x", "-q", "-p", "no:cacheprovider", "-m", FAST, *tests],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            for one in (*psutil.Process(process.pid).children(recursive=True), process):
                one.kill()
            process.communicate()
            return None, ""
        return process.returncode, output


def campaign(
    mutants: Sequence[Mutant], root: Path, names: Sequence[str], jobs: int, limit_s: float
) -> Iterable[Outcome]:
    """The outcomes of mutants, in order, `jobs` at a time.

    Raises BibenchError for a mutant that does not apply, and where a test fails without a change.
    """
    for mutant in mutants:
        mutated(mutant, root)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(jobs):
            copies.put(Copy(root, Path(folder) / str(number), names))
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, output = copies.queue[0].test(tests)
        if code:
            raise BibenchError(f"Tests fail without any change, so that they cannot notice one:\n{output}")

        def judge(mutant: Mutant) -> Outcome:
            copy = copies.get()
            try:
                return copy.outcome(mutant, limit_s)
            finally:
                copies.put(copy)

        try:
            yield from pool.map(judge, mutants)
        finally:
            pool.shutdown(cancel_futures=True)


def report(outcomes: Sequence[Outcome], commit: str, jobs: int, duration_s: float) -> str:
    """The page with the result, Markdown."""
    count = Counter(outcome.verdict for outcome in outcomes)
    rows = []
    for outcome in outcomes:
        noticed = f"`{outcome.noticed_by}`" if outcome.noticed_by else f"**{outcome.verdict}**"
        rows.append(f"| `{outcome.mutant.file}` | {outcome.mutant.harm.replace('|', '&#124;')} | {noticed} |")
    return _PAGE.format(
        result=f"{date.today()}, commit {commit}: {count[CAUGHT] + count[HUNG]} of {len(outcomes)} mutants were caught",
        hung=count[HUNG],
        survived=count[SURVIVED],
        duration=f"{duration_s / 60:.0f} minutes, {jobs} at a time",
        rows="\n".join(rows),
    )


_PAGE = """# Mutants

A test that passes whatever the code does is of no use. `make mutants` changes the code on purpose, one place at a time,
in a copy of the files, and runs the tests that should notice. `tests/mutants/mutants.toml` is the table of the changes;
a fast test checks that each of them applies to the code as it is. The campaign is not a part of the continuous
integration. `MUTANTS_ARGS` are its arguments: `--only '*recu*'` takes the mutants whose file or change matches a
pattern, `--jobs 2` runs two at a time, `--report docs/mutants.md` writes this page.

Last result: {result} ({hung} by the time limit), {survived} survived ({duration}).

| file | change | the first test that failed |
|---|---|---|
{rows}
"""


def commit_of(root: Path) -> str:
    """The commit of the files, and whether they differ from it."""
    run = functools.partial(subprocess.run, cwd=root, check=True, capture_output=True, text=True)
    changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout
    return run(["git", "rev-parse", "--short", "HEAD"]).stdout.strip() + " with changes" * bool(changed)


@click.command()
@click.option("--only", default="*", help="Only mutants whose file or harm matches this pattern of the shell.")
@click.option("--jobs", default=1, type=click.IntRange(1), help="Mutants that are tested at the same time.")
@click.option("--time-limit", "limit_s", default=600.0, help="Seconds for the tests of a mutant.")
@click.option(
    "--report", "path", default="build/mutants.md", type=click.Path(path_type=Path), help="File of the result."
)
def main(only: str, jobs: int, limit_s: float, path: Path) -> None:
    """Run the campaign; exit code 1 with survivors, 2 for a mutant that does not apply."""
    chosen = [mutant for mutant in table() if any(fnmatch.fnmatch(text, only) for text in (mutant.file, mutant.harm))]
    outcomes: list[Outcome] = []
    commit, start_s = commit_of(ROOT), time.monotonic()
    try:
        for outcome in campaign(chosen, ROOT, tracked(ROOT), jobs, limit_s):
            outcomes.append(outcome)
            click.echo(
                f"{len(outcomes)}/{len(chosen)} {outcome.verdict} ({outcome.duration_s:.0f} s): {outcome.mutant.harm}"
            )
    except BibenchError as error:
        click.echo(error, err=True)
        sys.exit(2)
    text = report(outcomes, commit, jobs, time.monotonic() - start_s)
    files.write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    survivors = [outcome.mutant.harm for outcome in outcomes if outcome.verdict == SURVIVED]
    click.echo(f"{len(survivors)} of {len(outcomes)} survived; the table is in {path}.")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
