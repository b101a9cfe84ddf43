from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bibench_tf import tasks
from bibench_tf.detection import annotations
from bibench_tf.errors import BibenchError
from bibench_tf.tasks.detection import MAP50

TASK = tasks.get("detection")
NAMES = ("cat", "dog", "cow")


def data(protocol="voc2012"):
    return SimpleNamespace(class_names=NAMES, protocol=protocol)


def labels(*images, scale=(1.0, 1.0), size=(600, 600)):
    """Labels of images, each a list of (box, class) or (box, class, ignored), boxes in the network's pixels."""
    rows = np.zeros((len(images), max(1, *map(len, images)), annotations.COLUMNS), np.float32)
    rows[..., annotations.CLASS] = annotations.PADDING
    rows[..., annotations.SCALE] = scale
    rows[..., annotations.IMAGE] = size
    for image, objects in enumerate(images):
        for index, (box, number, *ignored) in enumerate(objects):
            rows[image, index, annotations.BOX] = box
            rows[image, index, annotations.CLASS] = number
            rows[image, index, annotations.IGNORED] = bool(ignored and ignored[0])
            rows[image, index, annotations.AREA] = (box[2] - box[0]) * (box[3] - box[1]) / np.prod(scale)
    return rows


def outputs(*images, rows=5):
    """A detector's answers, each a list of (box, class, score), padded as detectors do."""
    boxes = np.zeros((len(images), rows, 4), np.float32)
    scores = np.zeros((len(images), rows), np.float32)
    classes = np.full((len(images), rows), -1, np.int32)
    for image, detections in enumerate(images):
        for index, (box, number, score) in enumerate(sorted(detections, key=lambda one: -one[2])):
            boxes[image, index], classes[image, index], scores[image, index] = box, number, score
    return {"boxes": boxes, "scores": scores, "classes": classes}


def figures(*batches, protocol="voc2012"):
    evaluation = TASK.evaluation(data(protocol))
    for batch in batches:
        evaluation.update(*batch)
    return evaluation.metrics()


BOX, ELSEWHERE = (10, 20, 30, 60), (100, 100, 120, 120)
# Cats: one found, one found after a wrong answer (area 1/2 + 1/2 * 2/3). Dogs: one difficult, one not found. No cows.
BATCHES = (
    (
        labels([(BOX, 0), (ELSEWHERE, 1, True)], [(BOX, 1)]),
        outputs([(BOX, 0, 0.9), (ELSEWHERE, 1, 0.8)], [(ELSEWHERE, 0, 0.7)]),
    ),
    (labels([(BOX, 0)], []), outputs([(BOX, 0, 0.6)], [])),
)


def test_figures_by_hand():
    assert figures(*BATCHES) == pytest.approx({MAP50: 5 / 12, "AP@0.5 cat": 5 / 6, "AP@0.5 dog": 0.0})
    # 11 points: recalls up to .5 give 1, the others 2/3.
    cat = (6 + 10 / 3) / 11
    assert figures(*BATCHES, protocol="voc2007") == pytest.approx(
        {MAP50: cat / 2, "AP@0.5 cat": cat, "AP@0.5 dog": 0.0}
    )


def test_cocos_figures():
    """Every right box is exact, so all thresholds agree; 51 of 101 recalls lie at 1/2 or below."""
    found = figures(*BATCHES, protocol="coco")
    cat = (51 + 50 * 2 / 3) / 101
    assert found["mAP"] == found["mAP@0.5"] == pytest.approx(cat / 2)
    assert found["mAP small"] == pytest.approx(cat / 2)  # of 20 x 40 pixels
    assert "mAP large" not in found


@pytest.mark.parametrize("protocol", ["voc2007", "voc2012", "coco"])
def test_batches_and_their_padding_do_not_matter(protocol):
    (first, answers), (second, others) = BATCHES
    padded = np.concatenate([second, labels([], []), labels([], [])], axis=1)
    together = (
        np.concatenate([first, padded[:, :2]]),
        {name: np.concatenate([answers[name], others[name]]) for name in answers},
    )
    assert figures(together, protocol=protocol) == figures(*BATCHES, protocol=protocol)
    # Images in another order, with the same answers.
    assert figures(*BATCHES[::-1], protocol=protocol) == pytest.approx(figures(*BATCHES, protocol=protocol))


@pytest.mark.parametrize("protocol", ["voc2007", "voc2012", "coco"])
def test_figures_are_taken_in_pixels_of_the_original_image(protocol):
    """An image of 400 x 100 pixels squeezed to half its height and stretched to three times its width.

    In the network's pixels the object is of 5 x 300, so medium; in its own of 10 x 100: small. IoU does not depend on
    the axes' scales, the area does.
    """
    truth = labels([((0, 0, 5, 300), 0)], scale=(0.5, 3.0))
    found = figures((truth, outputs([((0, 0, 5, 300), 0, 0.9)])), protocol=protocol)
    assert found[TASK.metric(data(protocol))] == pytest.approx(1.0)
    if protocol == "coco":
        assert found["mAP small"] == pytest.approx(1.0) and "mAP medium" not in found
    # A scale that is wrong on one side only would not have the boxes meet: each image has its own.
    two = np.concatenate([truth, labels([((0, 0, 40, 40), 0)], scale=(2.0, 2.0))])
    answers = outputs([((0, 0, 5, 300), 0, 0.9)], [((0, 0, 40, 40), 0, 0.8)])
    assert figures((two, answers), protocol=protocol)[TASK.metric(data(protocol))] == pytest.approx(1.0)


def test_what_of_a_box_lies_in_the_padding_does_not_count():
    """An image of 50 x 80 pixels in a batch of 100 x 100."""
    truth = labels([((10, 20, 50, 80), 0)], size=(50, 80))
    assert figures((truth, outputs([((10, 20, 100, 100), 0, 0.9)])))[MAP50] == 1.0
    truth = labels([((10, 20, 50, 80), 0)], size=(100, 100))
    assert figures((truth, outputs([((10, 20, 100, 100), 0, 0.9)])))[MAP50] == 0.0


def test_boxes_of_the_original_image():
    from bibench_tf.detection.average_precision import found_in, truth_of

    truth = labels([(BOX, 2)], [], scale=(0.5, 2.0))
    answers = outputs([], [(BOX, 1, 0.5)])
    objects, detections = truth_of(truth, first_image=7), found_in(truth, answers, first_image=7)
    assert objects.boxes.tolist() == detections.boxes.tolist() == [[20.0, 10.0, 60.0, 30.0]]
    assert objects.images.tolist() == [7] and detections.images.tolist() == [8]
    assert objects.classes.tolist() == [2] and detections.classes.tolist() == [1]
    assert objects.areas.tolist() == [800.0] and detections.scores.tolist() == [0.5]


@pytest.mark.parametrize("protocol", ["voc2007", "voc2012", "coco"])
def test_a_split_without_objects_has_no_main_figure(protocol):
    found = figures((labels([], []), outputs([(BOX, 0, 0.9)], [])), protocol=protocol)
    assert list(found) == [TASK.metric(data(protocol))] and np.isnan(found[TASK.metric(data(protocol))])


def test_nothing_found():
    assert figures((labels([(BOX, 0)]), outputs([]))) == {MAP50: 0.0, "AP@0.5 cat": 0.0}


def test_the_main_figure_is_that_of_the_protocol():
    assert [TASK.metric(data(protocol)) for protocol in ("voc2007", "voc2012", "coco")] == [MAP50, MAP50, "mAP"]


def test_predictions_are_a_row_for_each_detection():
    answers = outputs([(BOX, 0, 0.25), (ELSEWHERE, 2, 0.75)], [], [(BOX, 1, 0.5)])
    table = TASK.predictions(data(), answers)
    assert list(table.columns) == ["image", "class", "score", "y0", "x0", "y1", "x1"]
    assert table.to_numpy().tolist() == [
        [0, "cow", 0.75, 100, 100, 120, 120],
        [0, "cat", 0.25, 10, 20, 30, 60],
        [2, "dog", 0.5, 10, 20, 30, 60],
    ]
    nothing = TASK.predictions(data(), outputs([], []))
    assert len(nothing) == 0 and list(nothing.columns) == list(table.columns)


def test_differences_are_those_of_the_same_detection_wherever_it_stands():
    expected = outputs([(BOX, 0, 0.9), (ELSEWHERE, 1, 0.8)], [(BOX, 1, 0.6)], [])
    moved = tuple(np.add(BOX, (0, 1.2, 0, 0)))
    swapped = outputs([(moved, 0, 0.7999), (ELSEWHERE, 1, 0.8001)], [(BOX, 0, 0.6)], [(BOX, 0, 0.3)])
    # The largest coordinate is 120; the score of the first differs by a tenth, the class in the second image, and the
    # third image has a detection that was not expected: it counts as much as one that is missing.
    assert TASK.differences(expected, swapped) == pytest.approx([0.1001, 1.0, 1.0], abs=1e-4)
    # Of three and four detections one each has an equal one.
    assert TASK.agreement(expected, swapped) == TASK.agreement(swapped, expected) == pytest.approx(2 / 7)
    moved = outputs([(moved, 0, 0.9), (ELSEWHERE, 1, 0.8)], [(BOX, 1, 0.6)], [])
    assert TASK.differences(expected, moved) == pytest.approx([0.01, 0, 0], abs=1e-4)
    assert TASK.agreement(expected, expected) == 1.0
    assert TASK.differences(expected, outputs([], [], [])) == pytest.approx([1, 1, 0])
    assert TASK.agreement(outputs([]), outputs([])) is None


def test_detectors_that_find_nothing_cannot_be_compared():
    """Notices that a file is taken for right because there was nothing to compare."""
    assert np.isinf(TASK.differences(outputs([], []), outputs([], []))).all()
    assert TASK.differences(outputs([], []), outputs([(BOX, 0, 0.9)], [])).tolist() == [1, 0]


@pytest.mark.parametrize("name", ["boxes", "scores"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_detections_that_are_not_numbers_equal_none(name, bad):
    """Notices NaN that a comparison lets pass, in either of the forms."""
    right, wrong = outputs([(BOX, 0, 0.9), (ELSEWHERE, 0, 0.8)]), outputs([(BOX, 0, 0.9), (ELSEWHERE, 0, 0.8)])
    wrong[name][0, 1] = bad
    for pair in ((right, wrong), (wrong, right), (wrong, wrong)):
        assert np.isinf(TASK.differences(*pair)).all()
        assert TASK.agreement(*pair) < 1


def test_the_loss_is_the_mean_of_what_the_training_graph_gives():
    import tensorflow as tf

    losses = tf.constant([1.0, 2.0, 6.0])
    assert float(TASK.loss(data())(tf.zeros((3, 2, annotations.COLUMNS)), losses)) == 3.0


def test_keras_trains_by_that_loss():
    """A graph of two inputs whose output is |w * image - truth| of each image: w goes to where it is 0."""
    import tensorflow as tf

    image, truth = tf.keras.Input((1,), name="image"), tf.keras.Input((1, annotations.COLUMNS), name="truth")
    weighted = tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="w")(image)
    wanted = tf.keras.layers.Reshape((annotations.COLUMNS,))(truth)
    square = tf.keras.layers.Dot(1)([tf.keras.layers.Subtract()([weighted, wanted])] * 2)
    trainer = tf.keras.Model({"image": image, "truth": truth}, tf.keras.layers.Reshape(())(square))
    assert trainer.output_shape == (None,)
    trainer.compile(tf.keras.optimizers.SGD(0.02), TASK.loss(data()))
    images, labels = np.ones((8, 1), np.float32), np.full((8, 1, annotations.COLUMNS), 3.0, np.float32)
    batches = tf.data.Dataset.from_tensors(({"image": images, "truth": labels}, labels)).repeat(30)
    fitted = trainer.fit(batches, verbose=0)
    assert fitted.history["loss"][0] < 81.0
    assert float(trainer.get_layer("w").kernel[0, 0]) == pytest.approx(3.0, abs=1e-3)


def test_a_detector_has_no_teacher():
    with pytest.raises(BibenchError, match="take a recipe that does not distil"):
        TASK.distillation_loss(data(), None, None)


def test_the_task_needs_no_tensorflow():
    code = (
        "import sys; from bibench_tf import tasks; task = tasks.get('detection'); "
        "assert (task.group, task.network) == ('cnn', 'ssd_lite'); "
        "assert not {'tensorflow', 'pycocotools'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = Path(__file__).parents[2] / "docs" / "detection.md"
    examples = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    names = {}
    for example in examples:
        exec(compile(example, str(document), "exec"), names)
    assert (tmp_path / "street.png").stat().st_size > 1000
