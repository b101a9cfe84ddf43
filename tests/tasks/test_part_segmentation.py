from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bibench_tf import datasets, tasks
from bibench_tf.tasks.part_segmentation import CLASS_MIOU, INSTANCE_MIOU, POINT_ACCURACY

PARTS = ("mug/body", "mug/handle", "lamp/shade", "lamp/pole", "lamp/base")


def data():
    return datasets.ArrayDataset(
        name="things",
        title="Things",
        source="generated",
        licence="none",
        class_names=PARTS,
        train_examples=0,
        test_examples=0,
        fingerprint="0",
        task="part_segmentation",
        load=lambda: None,
        options={},
    )


def figures(*batches):
    evaluation = tasks.get("part_segmentation").evaluation(data())
    for labels, outputs in batches:
        evaluation.update(np.array(labels, np.int32), np.array(outputs, np.float32))
    return evaluation.metrics()


def sure(parts):
    """Logits that say `parts`."""
    return 9.0 * np.eye(len(PARTS))[np.array(parts)]


def test_two_mugs_and_a_lamp_by_hand():
    labels = [[0, 0, 0, 1], [0, 0, 0, 0], [2, 2, 3, 4]]
    predicted = [[0, 0, 1, 1], [0, 0, 0, 0], [2, 3, 3, 3]]
    found = figures((labels, sure(predicted)))
    # The first mug: body 2 of 3, handle 1 of 2. The second has no handle, and none is seen: 1. The lamp: shade 1 of 2,
    # pole 1 of 3, base 0 of 1.
    mug, whole, lamp = (2 / 3 + 1 / 2) / 2, 1.0, (1 / 2 + 1 / 3 + 0) / 3
    assert found[INSTANCE_MIOU] == pytest.approx((mug + whole + lamp) / 3)
    assert found[CLASS_MIOU] == pytest.approx(((mug + whole) / 2 + lamp) / 2)
    assert found[POINT_ACCURACY] == 9 / 12


def test_parts_of_other_categories_do_not_count():
    logits = np.full((1, 2, 5), 0.0)
    logits[..., 2] = 50.0  # the shade of a lamp, in a mug
    logits[0, 0, 0] = logits[0, 1, 1] = 1.0
    assert figures(([[0, 1]], logits))[INSTANCE_MIOU] == 1.0


def test_a_part_that_is_seen_but_not_there_counts_as_wrong():
    assert figures(([[0, 0]], sure([[0, 1]])))[INSTANCE_MIOU] == pytest.approx((1 / 2 + 0) / 2)


def test_batches_do_not_matter_and_the_formula_written_out_agrees():
    random = np.random.default_rng(0)
    owner = np.array([0, 0, 1, 1, 1])
    labels = np.stack([random.choice(np.nonzero(owner == shape % 2)[0], 30) for shape in range(7)])
    outputs = random.normal(size=(7, 30, 5))
    ious = {0: [], 1: []}
    right = loss = 0
    for truth, logits in zip(labels, outputs, strict=True):
        category = owner[truth[0]]
        own = [part for part in range(5) if owner[part] == category]
        guess = [max(own, key=lambda part: point[part]) for point in logits]
        shape = []
        for part in own:
            in_truth = {index for index in range(30) if truth[index] == part}
            in_guess = {index for index in range(30) if guess[index] == part}
            shape.append(len(in_truth & in_guess) / len(in_truth | in_guess) if in_truth | in_guess else 1)
        ious[category].append(sum(shape) / len(shape))
        right += sum(a == b for a, b in zip(truth, guess, strict=True))
        loss -= sum(
            np.log(np.exp(point[part]) / np.exp(point).sum()) for point, part in zip(logits, truth, strict=True)
        )
    found = figures((labels[:3], outputs[:3]), (labels[3:], outputs[3:]))
    assert found[INSTANCE_MIOU] == pytest.approx(np.mean(ious[0] + ious[1]))
    assert found[CLASS_MIOU] == pytest.approx((np.mean(ious[0]) + np.mean(ious[1])) / 2)
    assert found[POINT_ACCURACY] == pytest.approx(right / 210)
    assert found["loss"] == pytest.approx(loss / 210, rel=1e-5)


def test_predictions_are_parts_of_one_category():
    outputs = sure([[0, 1, 1, 2], [2, 3, 4, 0]])
    table = tasks.get("part_segmentation").predictions(data(), outputs)
    assert list(table["category"]) == ["mug", "lamp"]
    assert table["parts"][0] == "0 1 1 0" and table["parts"][1] == "2 3 4 2"


def test_the_loss_is_that_of_points():
    import tensorflow as tf

    labels = np.array([[0, 1, 4]])
    logits = np.random.default_rng(0).normal(size=(1, 3, 5)).astype(np.float32)
    probable = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    loss = tasks.get("part_segmentation").loss(data())(tf.constant(labels), tf.constant(logits))
    assert float(loss) == pytest.approx(-np.log(probable[0, [0, 1, 2], labels[0]]).mean(), rel=1e-5)


def test_the_task_needs_no_tensorflow():
    code = (
        "import sys; from bibench_tf import tasks; task = tasks.get('part_segmentation'); "
        "assert task.metric(None) == 'instance mIoU' and task.group == 'mlp'; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
