"""The checkpoint folders of a run: which is the newest, and which are kept."""

from __future__ import annotations

from bibench_tf.results import checkpoints


def test_checkpoints_are_ordered_by_their_epochs(tmp_path):
    """By numbers, not by letters, for which checkpoint-9 is newer than checkpoint-10."""
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-9", "checkpoint-100", ".tmp-x", "checkpoint-", "model"):
        (tmp_path / name).mkdir()
    assert checkpoints.names(tmp_path) == ["checkpoint-100", "checkpoint-10", "checkpoint-9", "checkpoint-2"]
    assert checkpoints.epochs_completed(tmp_path) == 100
    assert checkpoints.name_of(100) == "checkpoint-100"
    checkpoints.keep(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("checkpoint-100", "checkpoint-10", ".tmp-x", "checkpoint-", "model")
    }


def test_a_run_without_checkpoints_has_no_epochs(tmp_path):
    assert checkpoints.names(tmp_path / "absent") == [] and checkpoints.epochs_completed(tmp_path / "absent") == 0
    assert checkpoints.epochs_completed(tmp_path) == 0
