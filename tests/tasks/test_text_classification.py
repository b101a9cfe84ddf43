from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

from bibench_tf import tasks
from bibench_tf.datasets.kinds import texts
from bibench_tf.tasks import text_classification as figures

TASK = tasks.get("text_classification")
CLASSES = (texts.ACCURACY, texts.F1, texts.ACCURACY_F1, texts.MATTHEWS)


def data(class_names=("no", "yes"), metrics=CLASSES):
    return types.SimpleNamespace(class_names=class_names, num_classes=len(class_names), metrics=metrics)


def evaluate(labels, answers, classes=2, batch=3):
    """The figures of a network that gives `answers`, batch by batch."""
    names = tuple("abcdef"[:classes])
    evaluation = TASK.evaluation(data(names, CLASSES if classes == 2 else (texts.ACCURACY, texts.MATTHEWS)))
    for start in range(0, len(labels), batch):
        outputs = np.eye(classes, dtype=np.float32)[np.array(answers[start : start + batch])]
        evaluation.update(np.array(labels[start : start + batch], np.int32), outputs)
    return evaluation.metrics()


def test_figures_of_a_case_worked_by_hand():
    # 4 of 6 right: TP 3, FP 1, FN 1, TN 1.
    found = evaluate([1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0])
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["F1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found["mean of accuracy and F1"] == pytest.approx((4 / 6 + 6 / 8) / 2)
    assert found["Matthews correlation"] == pytest.approx((3 * 1 - 1 * 1) / np.sqrt(4 * 4 * 2 * 2))
    # Logits are 1 for the answer and 0 for the other class.
    right, wrong = -np.log(np.e / (1 + np.e)), -np.log(1 / (1 + np.e))
    assert found["loss"] == pytest.approx((4 * right + 2 * wrong) / 6)


def test_matthews_is_the_correlation_of_two_classes():
    random = np.random.default_rng(0)
    for _ in range(20):
        labels, answers = random.integers(0, 2, (2, 50))
        found = evaluate(labels, answers)["Matthews correlation"]
        assert found == pytest.approx(np.corrcoef(labels, answers)[0, 1])


def test_matthews_of_three_classes_is_the_correlation_of_indicators():
    random = np.random.default_rng(0)
    labels, answers = random.integers(0, 3, (2, 80))
    left, right = np.eye(3)[labels], np.eye(3)[answers]

    def covariance(first, second):
        return ((first - first.mean(axis=0)) * (second - second.mean(axis=0))).sum()

    expected = covariance(left, right) / np.sqrt(covariance(left, left) * covariance(right, right))
    assert evaluate(labels, answers, classes=3)["Matthews correlation"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "answers", "accuracy", "f1", "matthews"),
    [
        ([0, 1, 1], [0, 1, 1], 1, 1, 1),
        ([0, 1, 1], [1, 0, 0], 0, 0, -1),
        ([0, 1, 1], [1, 1, 1], 2 / 3, 4 / 5, 0),  # undefined: the answers do not vary
        ([1, 1, 1], [0, 1, 1], 2 / 3, 4 / 5, 0),  # undefined: the labels do not vary
        ([0, 0, 0], [0, 0, 0], 1, 0, 0),  # undefined, F1 too: class 1 is nowhere
    ],
)
def test_figures_at_their_ends_and_where_they_are_undefined(labels, answers, accuracy, f1, matthews):
    found = evaluate(labels, answers)
    assert [found[name] for name in ("accuracy", "F1", "Matthews correlation")] == pytest.approx(
        [accuracy, f1, matthews]
    )


def test_matthews_of_a_large_test_split_does_not_overflow():
    confusion = np.array([[3_000_000_000, 1_000_000_000], [1_000_000_000, 3_000_000_000]])
    assert figures.matthews(confusion) == pytest.approx(0.5)


def test_figures_do_not_depend_on_the_batches():
    random = np.random.default_rng(1)
    labels, answers = random.integers(0, 2, (2, 40))
    assert evaluate(labels, answers, batch=40) == pytest.approx(evaluate(labels, answers, batch=7))


def scored(labels, outputs, batch=2):
    evaluation = TASK.evaluation(data((), (texts.SPEARMAN, texts.PEARSON)))
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        evaluation.update(np.array(labels[part], np.float32), np.array(outputs[part], np.float32)[:, np.newaxis])
    return evaluation.metrics()


def test_correlations_against_formulas_of_their_own():
    random = np.random.default_rng(0)
    labels = random.permutation(30) / 6
    outputs = np.exp(labels) + random.random(30)
    found = scored(labels, outputs)
    assert found["Pearson correlation"] == pytest.approx(np.corrcoef(labels, outputs)[0, 1], abs=1e-5)
    # Without equal values: 1 - 6 sum d^2 / (n (n^2 - 1)) with the differences d of the ranks.
    ranks = [np.argsort(np.argsort(values)) for values in (labels, outputs)]
    expected = 1 - 6 * ((ranks[0] - ranks[1]) ** 2).sum() / (30 * (30**2 - 1))
    assert found["Spearman correlation"] == pytest.approx(expected)
    assert found["loss"] == pytest.approx(np.mean((labels - outputs) ** 2), rel=1e-5)


def test_equal_scores_share_their_rank():
    # Ranks 1.5 1.5 3 and 1 2.5 2.5.
    expected = np.corrcoef([1.5, 1.5, 3], [1, 2.5, 2.5])[0, 1]
    assert scored([0, 0, 5], [1, 2, 2])["Spearman correlation"] == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("outputs", [[2, 2, 2], [1, np.nan, 2], [1, np.inf, 2]])
def test_what_does_not_vary_or_is_no_number_has_no_correlation(outputs):
    found = scored([0, 1, 5], outputs)
    assert found["Spearman correlation"] == found["Pearson correlation"] == 0


def test_the_main_figure_is_the_first_of_the_data_set():
    assert TASK.metric(data(metrics=(texts.MATTHEWS, texts.ACCURACY))) == "Matthews correlation"
    assert TASK.metric(data((), (texts.SPEARMAN, texts.PEARSON))) == "Spearman correlation"


def test_losses():
    import tensorflow as tf

    logits = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)
    labels = np.array([1, 1], np.int32)
    expected = np.mean([np.log(np.exp(row).sum()) - row[1] for row in logits])
    assert float(TASK.loss(data())(tf.constant(labels), tf.constant(logits))) == pytest.approx(expected)
    # Labels [B] and outputs [B, 1] must not become [B, B].
    loss = TASK.loss(data(()))(tf.constant([1.0, 5.0]), tf.constant([[2.0], [3.0]]))
    assert float(loss) == pytest.approx((1 + 4) / 2)


def test_distillation_losses():
    import tensorflow as tf

    teacher, outputs = tf.constant([[1.0, 2.0], [0.0, 0.0]]), tf.constant([[0.5, -1.0], [2.0, 0.0]])
    soft = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
    log = outputs.numpy() - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    assert float(TASK.distillation_loss(data(), teacher, outputs)) == pytest.approx(-(soft * log).mean(), rel=1e-5)
    numbers = TASK.distillation_loss(data(()), tf.constant([[1.0], [4.0]]), tf.constant([[3.0], [4.0]]))
    assert float(numbers) == pytest.approx((4 + 0) / 2)


def test_predictions():
    found = TASK.predictions(data(), np.array([[0.0, 1.0], [3.0, 0.0]], np.float32))
    assert found["label"].tolist() == [1, 0] and found["class"].tolist() == ["yes", "no"]
    assert found["probability"].tolist() == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-3))])
    assert TASK.predictions(data(()), np.array([[2.5], [0.0]])).to_dict("list") == {"score": [2.5, 0.0]}


def test_the_task_is_known_without_tensorflow():
    code = (
        "import sys; from bibench_tf import tasks; assert tasks.get('text_classification').group == 'transformer'; "
        "assert 'tensorflow' not in sys.modules and 'tokenizers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
