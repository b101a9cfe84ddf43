"""The Python examples of docs/complexity.md and docs/deploy.md run as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("name", ["complexity.md", "deploy.md"])
def test_example(name):
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, name, "exec"), names)
    if name == "complexity.md":
        assert names["cost"].macs_binary > names["cost"].macs_float
    else:
        assert names["logits"].shape == (1, 10)
        assert names["times"]["binary"].latency_ms > 0
