"""COCO's metrics: the arrays give what COCO's files give, sizes and crowds by hand, and silence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bibench_tf.detection import coco
from bibench_tf.detection.average_precision import Found, Truth

BOX = (0.0, 0.0, 10.0, 10.0)


def truth(*rows):
    """Objects as (image, box, class, ignored, area)."""
    images, boxes, classes, ignored, areas = zip(*rows, strict=True) if rows else [()] * 5
    return Truth(
        np.array(images, int),
        np.array(boxes, float).reshape(-1, 4),
        np.array(classes, int),
        np.array(ignored, bool),
        np.array(areas, float),
    )


def found(*rows):
    """Detections as (image, box, class, score)."""
    images, boxes, classes, scores = zip(*rows, strict=True) if rows else [()] * 4
    return Found(
        np.array(images, int), np.array(boxes, float).reshape(-1, 4), np.array(classes, int), np.array(scores, float)
    )


def square(side, at=0.0):
    return (at, at, at + side, at + side)


def some(seed, images=10, classes=3):
    """Random objects of all sizes, a few of them crowds, and detections near them and elsewhere."""
    random = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(images):
        for _ in range(random.integers(0, 6)):
            corner, size = random.uniform(0, 300, 2), np.exp(random.uniform(2.5, 5.5, 2))
            box, number = np.concatenate([corner, corner + size]), int(random.integers(classes))
            objects.append((image, box, number, random.random() < 0.2, 0.8 * size.prod()))
            for _ in range(random.poisson(1.2)):
                moved = box + random.normal(0, 0.04, 4) * np.tile(size, 2)
                detections.append((image, moved, int((number + (random.random() < 0.2)) % classes), random.random()))
    return objects, detections


@pytest.mark.parametrize("seed", range(3))
def test_arrays_give_what_cocos_files_give(tmp_path, seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects, detections = some(seed)

    def bbox(y0, x0, y1, x1):
        return [x0, y0, x1 - x0, y1 - y0]

    annotations = [
        {"id": 7 + n, "image_id": i, "category_id": c, "bbox": bbox(*box), "area": area, "iscrowd": int(crowd)}
        for n, (i, box, c, crowd, area) in enumerate(objects)
    ]
    (tmp_path / "instances.json").write_text(
        json.dumps(
            {
                "images": [{"id": number, "width": 640, "height": 640} for number in range(10)],
                "categories": [{"id": number, "name": str(number)} for number in range(3)],
                "annotations": annotations,
            }
        )
    )
    answers = [{"image_id": i, "category_id": c, "bbox": bbox(*box), "score": s} for i, box, c, s in detections]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    ground = COCO(str(tmp_path / "instances.json"))
    official = COCOeval(ground, ground.loadRes(str(tmp_path / "answers.json")), "bbox")
    official.evaluate()
    official.accumulate()
    official.summarize()

    metrics = coco.metrics(truth(*objects), found(*detections))
    assert [*metrics.values()] == pytest.approx(official.stats.tolist(), abs=1e-12)
    assert len(metrics) == 12 and all(0 < value < 1 for value in metrics.values())


def test_names_are_those_of_the_numbers():
    """One object of 10 x 10 px, found with an IoU of 6/10: right at .50, .55 and .60 of ten thresholds."""
    metrics = coco.metrics(truth((0, BOX, 0, False, 100.0)), found((0, (0, 0, 10, 6), 0, 0.9)))
    assert metrics == pytest.approx(
        {
            "mAP": 0.3,
            "mAP@0.5": 1.0,
            "mAP@0.75": 0.0,
            "mAP small": 0.3,
            "AR 1 detection": 0.3,
            "AR 10 detections": 0.3,
            "AR 100 detections": 0.3,
            "AR small": 0.3,
        }
    )


def test_sizes_are_those_of_the_area_given_not_of_the_box():
    """A box of 100 x 100 px with a mask of 50 px is small; boxes of 50 x 50 and of 100 x 100 are medium and large.

    Of these the medium one is not found, and the small one only with the IoU 1/2.
    """
    objects = truth(
        (0, square(100), 0, False, 50.0),
        (1, square(50), 0, False, 2500.0),
        (2, square(100), 0, False, 10_000.0),
    )
    metrics = coco.metrics(objects, found((0, (0, 0, 100, 50), 0, 0.8), (2, square(100), 0, 0.9)))
    assert metrics["mAP small"] == pytest.approx(0.1)
    assert metrics["mAP medium"] == 0.0
    assert metrics["mAP large"] == pytest.approx(1.0)
    assert metrics["AR small"] == pytest.approx(0.1)


def test_many_detections_in_a_crowd_count_for_nothing():
    """A crowd of 100 x 100 px takes three detections that lie in it; at higher scores than that of the one object."""
    objects = truth((0, square(100), 0, True, 5000.0), (0, square(10, at=200), 0, False, 100.0))
    inside = [(0, square(20, at=at), 0, 0.9) for at in (0, 30, 60)]
    right = (0, square(10, at=200), 0, 0.5)
    assert coco.metrics(objects, found(*inside, right))["mAP"] == pytest.approx(1.0)
    # The same three where no crowd is: precision 1/4.
    assert coco.metrics(truth(*[(0, square(10, at=200), 0, False, 100.0)]), found(*inside, right))[
        "mAP"
    ] == pytest.approx(0.25)


def test_a_first_detection_is_a_match_like_any_other():
    """COCOeval takes an annotation of number 0 for none."""
    assert coco.metrics(truth((0, BOX, 0, False, 100.0)), found((0, BOX, 0, 0.9)))["mAP"] == pytest.approx(1.0)


def test_classes_without_objects_do_not_count():
    metrics = coco.metrics(truth((0, BOX, 4, False, 100.0)), found((0, BOX, 4, 0.9), (0, BOX, 1, 0.95)))
    assert metrics["mAP"] == pytest.approx(1.0)


def test_no_detections_are_nothing_found():
    metrics = coco.metrics(truth((0, BOX, 0, False, 100.0)), found())
    assert metrics["mAP"] == 0.0 and metrics["AR 100 detections"] == 0.0


def test_without_objects_there_are_no_metrics():
    assert coco.metrics(truth(), found((0, BOX, 0, 0.9))) == {}
    assert coco.metrics(truth(), found()) == {}
    assert coco.metrics(truth((0, BOX, 0, True, 100.0)), found()) == {}


def test_the_order_of_images_does_not_matter():
    objects, detections = some(5)
    numbers = np.random.default_rng(5).permutation(50)[:10]
    moved = coco.metrics(
        truth(*[(numbers[image], *rest) for image, *rest in objects[::-1]]),
        found(*[(numbers[image], *rest) for image, *rest in detections[::-1]]),
    )
    assert moved == pytest.approx(coco.metrics(truth(*objects), found(*detections)), abs=1e-12)


def test_nothing_is_printed(capsys):
    coco.metrics(truth((0, BOX, 0, False, 100.0)), found((0, BOX, 0, 0.9)))
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
