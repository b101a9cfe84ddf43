"""The public API: lazy, documented by examples that run, and the same benchmark as on the command line."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys

import pytest

import bibench_tf as bb
from bibench_tf import api
from bibench_tf.errors import BibenchError, InvalidOption, MissingData, UnknownName

PROGRAM = """
import json
import bibench_tf as bb
scores = bb.run_benchmark(data=["fashion_mini"], network="vgg_small@0.0625", algorithms=["bnn"], epochs=1,
                          tracks=["task", "complexity"], results="program")
print(json.dumps({name: dict(score.scores) for name, score in scores.items()}))
"""


def test_nothing_is_imported_before_it_is_used():
    code = "import sys, bibench_tf as bb; print(*bb.__all__); assert not {'tensorflow', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == bb.__all__ and set(bb.__all__) <= set(dir(bb))
    with pytest.raises(AttributeError, match="run_benchmarks"):
        bb.run_benchmarks  # noqa: B018


@pytest.mark.slow
def test_the_examples_of_the_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(api)
    assert found.attempted >= 8 and not found.failed


@pytest.mark.slow
def test_a_program_of_five_lines_gives_the_scores_of_the_command_line_bit_for_bit(tmp_path):
    options = ["--data", "fashion_mini", "--network", "vgg_small@0.0625", "--algorithm", "bnn"]
    options += ["--epochs", "1", "--results", "command", "-q"]
    for track in ("task", "complexity"):
        subprocess.run([sys.executable, "-m", "bibench_tf", track, *options], cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    for track in ("task", "complexity"):
        stored = json.loads((tmp_path / "command" / "report" / f"{track}.json").read_text())["scores"]
        assert found[track] == stored


def test_errors_can_be_caught_by_their_kind(tmp_path):
    with pytest.raises(LookupError, match="Did you mean 'task'") as unknown:
        bb.run_benchmark(tracks=["tasks"], results=tmp_path)
    assert isinstance(unknown.value, UnknownName)
    with pytest.raises(ValueError, match="no option 'image'") as invalid:
        bb.run_benchmark(options={"robustness": {"image": 3}}, results=tmp_path)
    assert isinstance(invalid.value, InvalidOption)
    with pytest.raises(FileNotFoundError) as missing:
        bb.run_benchmark(data="cifar10", session={"data_dir": tmp_path}, results=tmp_path)
    assert isinstance(missing.value, MissingData) and "cifar10" in str(missing.value)
    assert all(issubclass(kind, BibenchError) for kind in (UnknownName, InvalidOption, MissingData))
    assert not list(tmp_path.iterdir())
