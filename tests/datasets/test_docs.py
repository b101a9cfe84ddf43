"""The examples of docs/data.md are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

from bibench_tf import datasets

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_examples_run(monkeypatch):
    datasets.names()
    monkeypatch.setattr(datasets.DATASETS, "_entries", dict(datasets.DATASETS._entries))
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) > 4
    for example in examples:
        exec(compile(example, str(DOCUMENT), "exec"), {"__name__": "docs.data"})
    stripes = datasets.get("stripes")
    images, labels = next(iter(stripes.train_batches(100, seed=0, epoch=0, augment=False)))
    vertical = images.numpy().std(axis=1).mean(axis=(1, 2)) < images.numpy().std(axis=2).mean(axis=(1, 2))
    assert list(vertical) == [label == 0 for label in labels.numpy()]
