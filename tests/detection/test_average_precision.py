"""VOC's average precision on cases worked by hand, against pycocotools, and what must not change it."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from bibench_tf.detection.average_precision import Found, Truth, area, average_precisions, eleven_point

# A box (y0, x0, y1, x1) of 100 px; SHIFTED has an IoU of 5 / 15 with it, NEAR of 9 / 11.
BOX = (0, 0, 10, 10)
NEAR = (0, 1, 10, 11)
SHIFTED = (0, 5, 10, 15)
# Far from all of them.
ELSEWHERE = (50, 50, 60, 60)


def truth(*rows):
    """Objects as (image, box, class) or (image, box, class, ignored)."""
    rows = [(*row, False)[:4] for row in rows]
    boxes = np.array([box for _, box, _, _ in rows], float).reshape(-1, 4)
    return Truth(
        np.array([image for image, *_ in rows], int),
        boxes,
        np.array([number for _, _, number, _ in rows], int),
        np.array([ignored for *_, ignored in rows], bool),
        np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
    )


def found(*rows):
    """Detections as (image, box, class, score)."""
    return Found(
        np.array([image for image, *_ in rows], int),
        np.array([box for _, box, _, _ in rows], float).reshape(-1, 4),
        np.array([number for _, _, number, _ in rows], int),
        np.array([score for *_, score in rows], float),
    )


def both(objects, detections, classes=1, **options):
    """The 11-point averages and the areas."""
    return [average_precisions(objects, detections, classes, form, **options).tolist() for form in (eleven_point, area)]


def many(count, **changes):
    """`count` objects of class 0, each the only one of its image."""
    return [(image, changes.get("box", BOX), 0) for image in range(count)]


# By hand


def test_right_wrong_right_right_of_four():
    """Score     .9     .8     .7     .6      (4 objects, one is never found)
    right        1      1      2      3
    precision    1      1/2    2/3    3/4
    recall       1/4    1/4    1/2    3/4

    The highest precision at recall r or more: 1 up to 1/4, 3/4 up to 3/4, then 0.
    11 points: recalls 0, .1, .2 give 1; .3 ... .7 give 3/4; .8, .9, 1 give 0.   (3 + 5 * 3/4) / 11 = 6.75 / 11
    Area: 1/4 * 1 + 1/2 * 3/4 = 0.625
    """
    detections = found((0, BOX, 0, 0.9), (1, ELSEWHERE, 0, 0.8), (1, BOX, 0, 0.7), (2, BOX, 0, 0.6))
    points, under = both(truth(*many(4)), detections)
    assert points == [pytest.approx(6.75 / 11)]
    assert under == [pytest.approx(0.625)]


def test_a_second_detection_of_an_object_is_wrong():
    """Score     .9     .8 (again)  .7        (2 objects)
    right        1      1           2
    precision    1      1/2         2/3
    recall       1/2    1/2         1

    11 points: 0 ... .5 give 1, .6 ... 1 give 2/3.   (6 + 5 * 2/3) / 11
    Area: 1/2 * 1 + 1/2 * 2/3 = 5/6
    """
    detections = found((0, BOX, 0, 0.9), (0, NEAR, 0, 0.8), (1, BOX, 0, 0.7))
    points, under = both(truth(*many(2)), detections)
    assert points == [pytest.approx((6 + 10 / 3) / 11)]
    assert under == [pytest.approx(5 / 6)]


def test_the_best_of_two_detections_is_the_one_of_the_higher_score_not_of_the_higher_iou():
    """The loose one comes first and is right, the exact one is the duplicate: precision 1 at recall 1."""
    loose_first = found((0, NEAR, 0, 0.9), (0, BOX, 0, 0.8))
    assert both(truth((0, BOX, 0)), loose_first) == [[1.0], [1.0]]


def test_a_detection_belongs_to_the_nearest_object_alone():
    """Two objects, A = BOX and B = NEAR, overlap by 9/11. Both detections lie exactly on A: the second does not
    fall to B, though B is free and near enough. Right 1, 1; precision 1, 1/2; recall 1/2, 1/2.

    11 points: 0 ... .5 give 1: 6/11. Area: 1/2.
    """
    detections = found((0, BOX, 0, 0.9), (0, BOX, 0, 0.8))
    points, under = both(truth((0, BOX, 0), (0, NEAR, 0)), detections)
    assert points == [pytest.approx(6 / 11)] and under == [0.5]


def test_the_threshold_is_met_by_an_iou_of_exactly_that_much():
    """(0, 0, 10, 10) and (0, 0, 10, 5) share 50 of 100 px."""
    half = found((0, (0, 0, 10, 5), 0, 0.9))
    assert both(truth((0, BOX, 0)), half) == [[1.0], [1.0]]
    assert both(truth((0, BOX, 0)), half, iou_threshold=0.51) == [[0.0], [0.0]]
    assert both(truth((0, BOX, 0)), found((0, SHIFTED, 0, 0.9))) == [[0.0], [0.0]]


def test_heights_and_widths_are_not_mixed_up():
    """An upright box of 20 x 10 px and a lying one of 10 x 20 share 100 of 300 px. Moved down by 4 px, the upright one
    shares 160 of 240 px with what it was; moved to the right by 4 px, 120 of 280.
    """
    assert both(truth((0, (0, 0, 20, 10), 0)), found((0, (0, 0, 10, 20), 0, 0.9)))[1] == [0.0]
    assert both(truth((0, (5, 40, 25, 50), 0)), found((0, (9, 40, 29, 50), 0, 0.9)))[1] == [1.0]
    assert both(truth((0, (5, 40, 25, 50), 0)), found((0, (5, 44, 25, 54), 0, 0.9)))[1] == [0.0]


def test_recall_of_three_tenths_is_three_tenths():
    """3 of 10 objects are found and nothing else: recalls 0, .1, .2 and .3 give 1, so 4/11. The area is .3."""
    detections = found(*[(image, BOX, 0, 0.9 - image / 10) for image in range(3)])
    points, under = both(truth(*many(10)), detections)
    assert points == [pytest.approx(4 / 11)] and under == [pytest.approx(0.3)]


@pytest.mark.parametrize("found_of_ten", range(11))
def test_all_tenths(found_of_ten):
    detections = found(*[(image, BOX, 0, 0.9 - image / 100) for image in range(found_of_ten)])
    points, under = both(truth(*many(10)), detections)
    assert points == [pytest.approx((found_of_ten + 1) / 11 if found_of_ten else 0)]
    assert under == [pytest.approx(found_of_ten / 10)]


# Difficult objects


def test_a_difficult_object_is_neither_asked_for_nor_wrong_to_find():
    """Score     .9 (difficult)   .8 (difficult again)   .7     .6 (nothing there)   .5     (2 objects that count)
    right        0                0                      1      1                    2
    counted      0                0                      1      2                    3
    precision    -                -                      1      1/2                  2/3

    As without the first two: 11 points (6 + 5 * 2/3) / 11, area 1/2 + 1/2 * 2/3 = 5/6.
    """
    objects = truth((0, BOX, 0, True), (0, ELSEWHERE, 0), (1, BOX, 0))
    detections = found(
        (0, BOX, 0, 0.9), (0, NEAR, 0, 0.8), (0, ELSEWHERE, 0, 0.7), (1, ELSEWHERE, 0, 0.6), (1, BOX, 0, 0.5)
    )
    points, under = both(objects, detections)
    assert points == [pytest.approx((6 + 10 / 3) / 11)] and under == [pytest.approx(5 / 6)]


def test_a_difficult_object_of_another_class_excuses_nothing():
    objects = truth((0, BOX, 1, True), (0, ELSEWHERE, 0))
    detections = found((0, BOX, 0, 0.9), (0, ELSEWHERE, 0, 0.8))
    assert both(objects, detections, classes=2)[1][0] == 0.5


def test_a_class_of_difficult_objects_alone_has_no_value():
    objects = truth((0, BOX, 0), (0, ELSEWHERE, 1, True))
    for values in both(objects, found((0, BOX, 0, 0.9), (0, ELSEWHERE, 1, 0.8)), classes=2):
        assert values[0] == 1.0 and np.isnan(values[1])


# What is missing


def test_no_detections():
    assert both(truth(*many(3)), found()) == [[0.0], [0.0]]


def test_a_class_without_objects_has_no_value_and_harms_no_other():
    detections = found((0, BOX, 0, 0.9), (0, BOX, 1, 0.95))
    for values in both(truth((0, BOX, 0)), detections, classes=3):
        assert values[0] == 1.0 and np.isnan(values[1]) and np.isnan(values[2])


def test_no_objects_at_all():
    for values in both(truth(), found((0, BOX, 0, 0.9)), classes=2):
        assert np.isnan(values).all()


def test_a_detection_in_an_image_without_objects_is_wrong():
    assert both(truth((0, BOX, 0)), found((1, BOX, 0, 0.9), (0, BOX, 0, 0.8)))[1] == [0.5]


def test_the_class_has_to_be_right():
    """The object of class 1 lies exactly there; of class 0 there is one near enough."""
    objects = truth((0, BOX, 1), (0, NEAR, 0))
    assert both(objects, found((0, BOX, 0, 0.9)), classes=2)[1] == [1.0, 0.0]


# Order


def test_equal_scores_are_one_point():
    """Two detections of score .9, one right and one wrong, then a right one of .8. (2 objects)
    right 1, 2; precision 1/2, 2/3; recall 1/2, 1. The highest precision is 2/3 everywhere.
    """
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        rows = [(0, BOX, 0, 0.9), (0, ELSEWHERE, 0, 0.9), (1, BOX, 0, 0.8)]
        points, under = both(truth(*many(2)), found(*[rows[index] for index in order]))
        assert points == [pytest.approx(2 / 3)] and under == [pytest.approx(2 / 3)]


def some(seed, images=12, classes=3, levels=None):
    """Random objects that do not overlap, on a grid, with detections near them and elsewhere."""
    random = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(images):
        for cell in range(9):
            corner = np.array([cell // 3, cell % 3, cell // 3, cell % 3]) * 50.0
            box = corner + (5, 5, *(5 + random.uniform(10, 35, size=2)))
            number = int(random.integers(classes))
            if random.random() < 0.6:
                objects.append((image, box, number, bool(random.random() < 0.15)))
            for _ in range(random.poisson(0.8)):
                label = number if random.random() < 0.8 else int(random.integers(classes))
                score = random.random() if levels is None else random.integers(levels) / levels
                detections.append((image, box + random.normal(0, 2.5, size=4), label, score))
    return objects, detections


def test_the_order_of_images_objects_and_detections_does_not_matter():
    for seed, levels in ((0, None), (1, 4), (2, 1)):
        objects, detections = some(seed, levels=levels)
        expected = both(truth(*objects), found(*detections), classes=3)
        random = np.random.default_rng(seed)
        numbers = random.permutation(100)[:12]
        objects = [(numbers[image], *rest) for image, *rest in random.permutation(np.array(objects, object))]
        detections = [(numbers[image], *rest) for image, *rest in random.permutation(np.array(detections, object))]
        assert both(truth(*objects), found(*detections), classes=3) == expected
        assert all(0 < value < 1 for values in expected for value in values)


# pycocotools


def precision_of_coco(objects, detections, classes, recalls):
    """COCOeval's precision at IoU 0.5 of each class, averaged over these recalls; it reads answers as from files."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(boxes, further):
        for number, (image, (y0, x0, y1, x1), label, value) in enumerate(boxes, start=1):
            width, height = float(x1 - x0), float(y1 - y0)
            yield {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": [float(x0), float(y0), width, height],
                "area": width * height,
                "iscrowd": 0,
                further: value,
            }

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(100)],
            "categories": [{"id": number} for number in range(classes)],
            "annotations": list(rows([(*row[:3], 0) for row in objects], "ignore")),
        }
        coco.createIndex()
        answers = coco.loadRes([{**row, "segmentation": []} for row in rows(detections, "score")])
        evaluation = COCOeval(coco, answers, "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.recThrs = np.asarray(recalls)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][0, :, :, 0, -1].mean(axis=0)


@pytest.mark.parametrize("seed", range(8))
def test_areas_are_cocos_within_its_interpolation(seed):
    """COCO's mean of the falling curve p at the recalls 0, 1/n ... 1 lies no further than 1/n from its area."""
    objects, detections = some(seed)
    objects = [row[:3] for row in objects]
    areas = average_precisions(truth(*objects), found(*detections), 3, area)
    for steps in (100, 10_000):
        coco = precision_of_coco(objects, detections, 3, np.linspace(0, 1, steps + 1))
        np.testing.assert_allclose(areas, coco, atol=1 / steps)
    assert np.all((areas > 0.05) & (areas < 0.95))


@pytest.mark.parametrize("seed", range(8))
def test_eleven_points_are_cocos_at_those_recalls(seed):
    """The recalls are a little lower than the tenths, so that 3 of 10 is not less than 3 * 0.1."""
    objects, detections = some(seed)
    objects = [row[:3] for row in objects]
    ours = average_precisions(truth(*objects), found(*detections), 3, eleven_point)
    np.testing.assert_allclose(ours, precision_of_coco(objects, detections, 3, np.arange(11) / 10 - 1e-9), atol=1e-12)


@pytest.mark.parametrize(("wrong", "right"), [(0, 8), (1, 4), (3, 8), (8, 5), (4, 0)])
def test_equal_to_coco_where_the_highest_precision_is_the_same_everywhere(wrong, right):
    """First the wrong ones, then all objects: the highest precision is that of the end, right / (wrong + right)."""
    objects = [(image, BOX, 0) for image in range(max(right, 1))]
    scores = np.linspace(0.9, 0.1, wrong + right)
    rows = [(0, ELSEWHERE, 0)] * wrong + [(image, BOX, 0) for image in range(right)]
    detections = [(*row, score) for row, score in zip(rows, scores, strict=True)]
    expected = right / (wrong + right)
    assert both(truth(*objects), found(*detections)) == [[pytest.approx(expected)], [pytest.approx(expected)]]
    np.testing.assert_allclose(precision_of_coco(objects, detections, 1, np.linspace(0, 1, 101)), [expected])
