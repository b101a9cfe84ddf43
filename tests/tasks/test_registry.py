"""The registry of the tasks, and that each task says what the rest of the package asks of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bibench_tf import datasets, networks, recipes, tasks
from bibench_tf.errors import InvalidOption, UnknownName

DOCUMENT = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.mark.parametrize("key", tasks.names())
def test_a_task_is_described_completely(key):
    task = tasks.get(key)
    assert task.key == key and task.group in ("cnn", "mlp", "transformer")
    data = datasets.get(task.default_data)
    assert data.task == key and data.test_examples > 0
    assert recipes.resolve("quick", key, task.default_data, task.network).name in recipes.names()
    assert networks.task_of(task.network) == key
    assert task.is_of_images == isinstance(data, datasets.ImageDataset)
    assert task.takes_vocabulary == ("vocabulary_size" in data.network_options)
    assert not task.class_metric or not task.metric(data).startswith(task.class_metric)
    if not task.has_pictures:
        with pytest.raises(InvalidOption, match="no pictures"):
            task.draw_labels(None, None, data)


def test_an_unknown_task():
    with pytest.raises(UnknownName, match="Did you mean 'detection'"):
        tasks.get("detecting")


def test_a_file_outside_the_package_adds_a_task_without_tensorflow(tmp_path):
    (example,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
        if "tasks.register" in text
    )
    (tmp_path / "sounds.py").write_text(example)
    code = (
        "import sys; from bibench_tf import tasks; assert 'sound_classification' in tasks.names(); "
        "assert 'tensorflow' not in sys.modules"
    )
    environment = {**os.environ, "BIBENCH_PLUGINS": str(tmp_path / "sounds.py")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
