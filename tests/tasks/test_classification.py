"""Accuracies of logits, with ties and without numbers: what an answer is, and how classes are ranked."""

from __future__ import annotations

import types

import numpy as np
import pandas as pd
import pytest

from bibench_tf import tasks
from bibench_tf.datasets.kinds import texts
from bibench_tf.tasks.classification import answers

NAN = float("nan")


def evaluate(labels, logits, task="image_classification", **of_data):
    logits = np.array(logits, np.float32)
    data = types.SimpleNamespace(num_classes=logits.shape[1], class_names=("some",) * logits.shape[1], **of_data)
    evaluation = tasks.get(task).evaluation(data)
    for label, row in zip(labels, logits, strict=True):  # in batches of one
        evaluation.update(np.array([label], np.int32), row[np.newaxis])
    return evaluation.metrics()


def accuracies(labels, logits):
    found = evaluate(labels, logits)
    return found["top-1 accuracy"], found["top-5 accuracy"]


def test_top_1_and_top_5_by_hand():
    """Ranks 1, 2, 5, 6 and 7 of seven classes: one of five is the first, three of five are among the first five."""
    logits = [9, 8, 7, 6, 5, 4, 3]
    assert accuracies([0, 1, 4, 5, 6], [logits] * 5) == (1 / 5, 3 / 5)


def test_the_loss_is_the_mean_cross_entropy():
    logits = np.log([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.25, 0.15, 0.15, 0.15, 0.15, 0.15]])
    found = evaluate([0, 0], logits)
    assert found["loss"] == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert set(found) == {"loss", "top-1 accuracy", "top-5 accuracy"}


def test_five_classes_have_no_top_5():
    assert set(evaluate([0], [[0, 1, 2, 3, 4]])) == {"loss", "top-1 accuracy"}


@pytest.mark.parametrize("classes", [6, 10])
def test_equal_classes_are_ranked_by_their_number(classes):
    """Constant logits are one answer, right for one class of all, and right for five of all in the top 5."""
    assert accuracies(range(classes), np.zeros((classes, classes))) == (1 / classes, 5 / classes)
    # The label is one of three for the last two places in the top 5: the first two of the three have them.
    logits = [9, 8, 7, 1, 1, 1, 0]
    assert accuracies([3, 4, 5], [logits] * 3) == (0, 2 / 3)


def test_ties_rank_classes_as_a_stable_sort_does():
    random = np.random.default_rng(0)
    logits, labels = random.integers(0, 4, (400, 9)), random.integers(0, 9, 400)
    order = np.argsort(-logits, axis=1, kind="stable")
    expected = [np.mean((order[:, :count] == labels[:, np.newaxis]).any(axis=1)) for count in (1, 5)]
    assert accuracies(labels, logits) == pytest.approx(tuple(expected))
    assert (answers(logits.astype(np.float32)) == order[:, 0]).all()


@pytest.mark.parametrize("of_label", [NAN, 5.0])
@pytest.mark.parametrize("of_others", [NAN, 0.0])
def test_logits_that_are_not_numbers_are_wrong(of_label, of_others):
    """An example with a NaN is right nowhere, also where the label or the first class has the NaN."""
    logits = np.full((7, 7), of_others)
    np.fill_diagonal(logits, of_label)
    expected = (1, 1) if np.isfinite([of_label, of_others]).all() else (0, 0)
    assert accuracies(range(7), logits) == expected


def test_texts_without_an_answer_are_wrong_in_every_metric():
    """Two right of four, one without an answer: accuracy 2 / 4, F1 2 / (2 + 0 + 2)."""
    names = (texts.ACCURACY, texts.F1, texts.MATTHEWS)
    logits = [[0, 1], [1, 0], [1, 0], [NAN, 0]]
    found = evaluate([1, 0, 1, 1], logits, "text_classification", metrics=names)
    assert (found[texts.ACCURACY], found[texts.F1]) == (0.5, 0.5)
    # s = 4, c = 2; labels 1, 3; answers 2, 1 and one of none.
    assert found[texts.MATTHEWS] == pytest.approx((2 * 4 - (1 * 2 + 3 * 1)) / np.sqrt((16 - 10) * (16 - 6)))
    only_nan = evaluate([0, 1], [[NAN, NAN]] * 2, "text_classification", metrics=names)
    assert [only_nan[name] for name in names] == [0, 0, 0]


def test_points_without_an_answer_are_of_no_part():
    """Two points of two parts; one has no answer: IoU 1 and 0. A NaN in a part of another category does no harm."""
    logits = np.array([[[5, 0, NAN], [NAN, 0, NAN]]], np.float32)
    data = types.SimpleNamespace(class_names=("mug/body", "mug/handle", "lamp/shade"))
    evaluation = tasks.get("part_segmentation").evaluation(data)
    evaluation.update(np.array([[0, 1]], np.int32), logits)
    found = evaluation.metrics()
    assert (found["point accuracy"], found["instance mIoU"]) == (0.5, 0.5)
    evaluation = tasks.get("part_segmentation").evaluation(data)
    evaluation.update(np.array([[1, 0]], np.int32), logits)
    assert evaluation.metrics()["point accuracy"] == 0


def test_a_prediction_of_logits_without_numbers_names_no_class():
    data = types.SimpleNamespace(class_names=("cat", "dog"))
    table = tasks.get("image_classification").predictions(data, np.array([[0, 1], [NAN, 0]], np.float32))
    assert list(table["label"]) == [1, -1]
    assert table["class"][0] == "dog" and pd.isna(table["class"][1])
    assert table["probability"][0] == pytest.approx(np.e / (1 + np.e)) and np.isnan(table["probability"][1])
