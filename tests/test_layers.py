"""Imports run one way, and every public function says its types."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("bibench_tf", "zoo", "tracks", "deploy")
# The look-ups by name: a registry imports the modules of these packages at its first look-up, so that the core finds
# what lies above it.
LOOK_UPS = {"bibench_tf/networks.py": "bibench_tf.zoo", "bibench_tf/benchmark/track.py": "bibench_tf.tracks"}


def test_imports_run_one_way_and_without_circles(tmp_path):
    """The contracts are in pyproject.toml; type checkers' imports do not count."""
    subprocess.run(["sh", "requirements/tree.sh", tmp_path], cwd=ROOT, check=True)
    command = [Path(sys.executable).parent / "lint-imports", ROOT / "pyproject.toml", "--no-cache"]
    # Without the editable installation's own finder, whose modules lie elsewhere.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "160"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_look_ups_by_name_are_the_known_ones():
    found = {}
    for path in (ROOT / "bibench_tf").rglob("*.py"):
        for line in path.read_text().splitlines():
            for above in ("zoo", "tracks", "deploy"):
                if f'"bibench_tf.{above}"' in line:
                    found[path.relative_to(ROOT).as_posix()] = f"bibench_tf.{above}"
    assert found == LOOK_UPS


def untyped(body: list[ast.stmt], in_class: bool = False) -> Iterator[ast.FunctionDef]:
    """The public functions and methods without a type of a parameter or of the result."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from untyped(node.body, True)
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        decorators = {getattr(each, "id", None) for each in node.decorator_list}
        own = 1 if in_class and "staticmethod" not in decorators else 0
        every = [*node.args.posonlyargs, *node.args.args][own:] + node.args.kwonlyargs
        every += filter(None, (node.args.vararg, node.args.kwarg))
        if node.returns is None or any(argument.annotation is None for argument in every):
            yield node


def test_every_public_function_has_types():
    lacking = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for top in TOPS
        for path in sorted((ROOT / top).rglob("*.py"))
        for node in untyped(ast.parse(path.read_text()).body)
    ]
    assert not lacking, "\n".join(lacking)
