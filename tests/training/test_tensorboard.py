"""The logs of TensorBoard: the figures of every epoch, and nothing about the machine."""

from __future__ import annotations

import re

import pytest
from event_files import scalars

from bibench_tf.recipes import Recipe, learning_rate
from bibench_tf.training.tensorboard import EpochLogs

RECIPE = Recipe("tiny", epochs=3, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
ROWS = [{"epoch": epoch, "train_loss": 1 / epoch, "accuracy": 0.1 * epoch, "energy_j": None} for epoch in (1, 2, 3)]


def test_every_epoch_has_its_figures_also_after_a_resume(tmp_path):
    logs = EpochLogs(tmp_path / "logs", RECIPE, ROWS[:1])
    logs.write(ROWS[1])
    EpochLogs(tmp_path / "logs", RECIPE, ROWS[:2]).write(ROWS[2])
    found = scalars(tmp_path / "logs")
    assert set(found) == {"learning_rate", "train/loss", "test/accuracy"}
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3]
    assert [value for _, value in found["train/loss"]] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [value for _, value in found["learning_rate"]] == pytest.approx([learning_rate(RECIPE, e) for e in range(3)])


def test_the_name_of_the_file_has_no_host_name(tmp_path):
    """TensorFlow's own writer puts it there."""
    EpochLogs(tmp_path, RECIPE, ROWS)
    (file,) = tmp_path.iterdir()
    assert re.fullmatch(r"events\.out\.tfevents\.\d+", file.name)
