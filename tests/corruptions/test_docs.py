"""The examples of docs/corruptions.md run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

DOCUMENT = Path(__file__).parents[2] / "docs" / "corruptions.md"


def test_the_python_examples(tmp_path):
    examples = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text("\n".join(examples))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "] True" in done.stdout
    with (
        Image.open(tmp_path / "corruptions.png") as made,
        Image.open(DOCUMENT.parent / "images/corruptions.png") as shown,
    ):
        made, shown = (np.asarray(picture.convert("RGB"), float) for picture in (made, shown))
    # Fonts and palettes differ between versions of Pillow.
    assert made.shape == shown.shape and np.abs(made - shown).mean() < 5


def test_the_commands(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).save(tmp_path / "photos" / "m.png")
    (block,) = re.findall(r"^```console\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        done = subprocess.run(
            [sys.executable, "-m", "bibench_tf", *line.split()[2:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "corrupted" / "jpeg_compression" / "5" / "m.png").exists()
    assert (tmp_path / "corrupted-fashion" / "fog.npy").exists()
