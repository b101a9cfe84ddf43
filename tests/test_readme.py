"""The examples of README.md and of the guides run as written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def bibench(line, folder):
    command, *arguments = shlex.split(line)
    assert command == "bibench"
    return subprocess.run(
        [sys.executable, "-m", "bibench_tf", *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_python_examples_of_the_readme(tmp_path):
    *examples, algorithm = blocks("README.md", "python")
    (tmp_path / "example.py").write_text("\n".join(examples))
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "18 binary convolutions" in done.stdout
    assert (tmp_path / "model.tflite").stat().st_size < 200_000
    assert "algorithms.register" in algorithm


@pytest.mark.slow
def test_commands_of_the_readme(tmp_path):
    lines = "".join(blocks("README.md", "console")).splitlines()
    (tmp_path / "swish.py").write_text(blocks("README.md", "python")[-1])
    output = {}
    for line in lines:
        done = bibench(line.removeprefix("$ "), tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        words = line.split()[2:]
        output[words[1] if words[0] == "deploy" else words[0]] = done.stdout
    assert "fashion_mini" in output["ls"]
    assert "2 of 2 runs completed" in output["status"]
    assert "BNN+" in output["task"]
    assert "18 layers are binary" in output["convert"] and "0 fell back" in output["audit"]
    assert "resnet20.tflite" in output["benchmark"] and "kirin970" in output["devices"]
    assert (tmp_path / "small" / "report" / "report.html").exists()


def test_the_guide_to_algorithms(tmp_path):
    (tmp_path / "guide.py").write_text("\n".join(blocks("docs/adding_an_algorithm.md", "python")))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    check = "import guide, tensorflow as tf; print(guide.layer(tf.ones((2, 5, 5, 3)), training=True).shape)"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment
    )
    assert "(2, 5, 5, 16)" in done.stdout, done.stderr


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
