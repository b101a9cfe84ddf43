"""The form of detection data, and that boxes follow their images."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.datasets import Annotated, DetectionDataset, DetectionSplits, View
from bibench_tf.datasets.kinds import detection
from bibench_tf.datasets.pipelines import detection as detection_pipelines
from bibench_tf.detection import annotations
from bibench_tf.errors import BibenchError

# The views of a detector for images of any size and of one for a fixed size, as the builders of the zoo name them.
VIEWS = {
    "any_size": {
        "voc": View((600, 1000), keep_ratio=True, divisor=32, augmentation="flip"),
        "coco": View((800, 1333), keep_ratio=True, divisor=32, augmentation="flip"),
    },
    "fixed_size": {"voc": View((300, 300)), "coco": View((300, 300))},
    "any_view": None,
}
# Red, green, blue and yellow.
COLOURS = np.array([(240, 0, 0), (0, 240, 0), (0, 0, 240), (240, 240, 0)], np.uint8)


def painted(seed, height=96, width=128):
    """A black image with up to four boxes, each in the colour of its class, and their rows."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    rows = []
    for number in range(4):
        y0, x0 = number // 2 * height // 2 + random.integers(2, 8), number % 2 * width // 2 + random.integers(2, 12)
        y1, x1 = y0 + random.integers(20, height // 2 - 10), x0 + random.integers(20, width // 2 - 14)
        image[y0:y1, x0:x1] = COLOURS[number]
        rows.append((y0, x0, y1, x1, number, number == 3, (y1 - y0) * (x1 - x0)))
    return image, np.array(rows, np.float32)


def made(images, objects, view, **changes):
    split = Annotated(images, tuple(objects))
    description = {
        "name": "mine",
        "title": "Mine",
        "source": "drawn",
        "licence": "none",
        "class_names": ("a", "b", "c", "d"),
        "train_examples": len(objects),
        "test_examples": len(objects),
        "fingerprint": "0",
        "load": lambda: DetectionSplits(split, split),
        "view": view,
        "protocol": "voc2012",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return DetectionDataset(**{**description, **changes})


@pytest.fixture(scope="module")
def data():
    images, objects = zip(*map(painted, range(12)), strict=True)
    return made(np.stack(images), objects, View((100, 150), augmentation="flip"))


def batches(dataset, batch_size=4, epoch=0, **options):
    return [
        (images.numpy(), truth.numpy())
        for images, truth in dataset.train_batches(batch_size, seed=1, epoch=epoch, **options)
    ]


def found(image, number):
    """The box around the pixels of a class's colour, up to half a pixel at each edge."""
    inside = ((image > 120) == (COLOURS[number] > 120)).all(-1)
    down, across = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return np.array([down[0], across[0], down[-1] + 1, across[-1] + 1], float)


def real(truth):
    return truth[truth[:, annotations.CLASS] >= 0]


def check_boxes(images, truth, tolerance):
    count = 0
    for image, rows in zip(images, truth, strict=True):
        for row in real(rows):
            if min(row[2] - row[0], row[3] - row[1]) > 8:
                number = int(row[annotations.CLASS])
                np.testing.assert_allclose(found(image, number), row[annotations.BOX], atol=tolerance)
                count += 1
    return count


@pytest.mark.parametrize(
    "view",
    [
        View((100, 150), augmentation="flip"),
        View((60, 60), augmentation="flip"),
        View((150, 300), keep_ratio=True, divisor=32, augmentation="flip"),
    ],
)
def test_painted_boxes_are_found_where_the_labels_say(data, view):
    count = sum(check_boxes(*batch, 1.6) for batch in batches(dataclasses.replace(data, view=view)))
    assert count == 48


def test_half_of_the_images_are_flipped(data):
    plain = {rows[0, annotations.AREA]: rows[0, 1] for _, truth in batches(data, augment=False) for rows in truth}
    flipped = [
        abs(rows[0, 1] - plain[rows[0, annotations.AREA]]) > 0.01
        for epoch in range(4)
        for _, truth in batches(data, epoch=epoch)
        for rows in truth
    ]
    assert 0.2 < np.mean(flipped) < 0.8


def geometries(view, count=60):
    """The geometry of many draws for one image, with its rows."""
    image, rows = painted(0)
    for number in range(count):
        key = tf.constant([7, number], tf.int64)
        yield image, rows, detection_pipelines.place(96.0, 128.0, tf.constant(rows), view, key)


def test_expansion_and_crops_move_the_boxes_with_the_image():
    count = outside = inside = 0
    for image, rows, geometry in geometries(View((160, 160)), 40):
        seen = detection_pipelines.cut(tf.constant(image), geometry, (0.0, 0.0, 0.0)).numpy()
        boxes = detection_pipelines.moved(tf.constant(rows[:, :4]), geometry).numpy()
        y0, x0, y1, x1 = geometry.window.numpy()
        outside += y0 < 0 or x0 < 0 or y1 > 96 or x1 > 128
        inside += y0 > 0 or x0 > 0 or y1 < 96 or x1 < 128
        scale = 160 / min(y1 - y0, x1 - x0)
        for box, row in zip(boxes, rows, strict=True):
            clipped = np.clip(box, 0, 160)
            if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) > 8:
                np.testing.assert_allclose(found(seen, int(row[4])), clipped, atol=1.1 + scale / 2)
                count += 1
    assert count > 80 and outside > 5 and inside > 5


def test_moving_boxes_has_an_inverse():
    for _, rows, geometry in geometries(View((150, 210)), 20):
        moved = detection_pipelines.moved(tf.constant(rows[:, :4]), geometry).numpy().astype(float)
        window, size = geometry.window.numpy().astype(float), geometry.size.numpy()
        if geometry.flip.numpy():
            moved[:, [1, 3]] = size[1] - moved[:, [3, 1]]
        step = (window[2:] - window[:2]) / size
        np.testing.assert_allclose(moved * np.tile(step, 2) + np.tile(window[:2], 2), rows[:, :4], atol=1e-3)


def test_crops_obey_their_rules():
    whole = 0
    for number in range(80):
        _, rows = painted(1)
        key = tf.constant([3, number], tf.int64)
        window = tf.constant([0.0, 0.0, 96.0, 128.0])
        y0, x0, y1, x1 = detection_pipelines.cropped(window, tf.constant(rows), key).numpy()
        if (y0, x0, y1, x1) == (0, 0, 96, 128):
            whole += 1
            continue
        assert y0 >= 0 and x0 >= 0 and y1 <= 96 and x1 <= 128
        assert y1 - y0 > 0.3 * 96 - 1e-3 and x1 - x0 > 0.3 * 128 - 1e-3 and 0.5 <= (y1 - y0) / (x1 - x0) <= 2
        counted = rows[rows[:, annotations.IGNORED] == 0]
        centres = (counted[:, :2] + counted[:, 2:4]) / 2
        assert ((centres > (y0, x0)) & (centres < (y1, x1))).all(1).any()
    # One seventh by the draw itself, and the draws that nothing fits.
    assert 5 < whole < 50


def test_crops_keep_the_least_overlap_with_objects_that_count(monkeypatch):
    monkeypatch.setattr(detection_pipelines, "LEAST_OVERLAPS", (0.4,))
    rows = tf.constant([[10, 10, 80, 90, 0, 0, 1], [90, 120, 95, 127, 1, 1, 1]], tf.float32)
    crops = 0
    for number in range(30):
        window = tf.constant([0.0, 0.0, 96.0, 128.0])
        y0, x0, y1, x1 = detection_pipelines.cropped(window, rows, tf.constant([9, number], tf.int64)).numpy()
        shared = (min(y1, 80) - max(y0, 10)) * (min(x1, 90) - max(x0, 10))
        assert shared / ((y1 - y0) * (x1 - x0) + 70 * 80 - shared) >= 0.4 - 1e-5
        crops += (y0, x0, y1, x1) != (0, 0, 96, 128)
    # The ignored object, which no such crop overlaps by that much, forbids none.
    assert crops == 30


def test_expansion_is_up_to_fourfold_and_holds_the_image():
    window = tf.constant([0.0, 0.0, 50.0, 80.0])
    ratios = []
    for number in range(100):
        y0, x0, y1, x1 = detection_pipelines.expanded(window, tf.constant([5, number], tf.int64)).numpy()
        assert y0 <= 0 and x0 <= 0 and y1 >= 49.99 and x1 >= 79.99
        np.testing.assert_allclose((y1 - y0) / 50, (x1 - x0) / 80, rtol=1e-4)
        ratios.append((y1 - y0) / 50)
    assert max(ratios) <= 4.001 and max(ratios) > 3 and 0.3 < np.mean(np.array(ratios) == 1) < 0.7


def test_what_lies_outside_has_the_colour_of_the_mean():
    geometry = detection_pipelines.Geometry(
        tf.constant([-96.0, -128.0, 96.0, 128.0]), tf.constant([96, 128]), tf.constant(False)
    )
    seen = detection_pipelines.cut(
        tf.fill([96, 128, 3], tf.constant(200, tf.uint8)), geometry, (10.0, 20.0, 30.0)
    ).numpy()
    np.testing.assert_allclose(seen[:46, :62], np.broadcast_to([10, 20, 30], (46, 62, 3)))
    np.testing.assert_allclose(seen[50:, 66:], 200)


def test_resizing_is_bilinear_between_centres():
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    for size in ((33, 17), (20, 31), (64, 64)):
        geometry = detection_pipelines.Geometry(
            tf.constant([0.0, 0.0, 20.0, 31.0]), tf.constant(size), tf.constant(False)
        )
        seen = detection_pipelines.cut(tf.constant(image), geometry, (1.0, 2.0, 3.0))
        np.testing.assert_allclose(seen, tf.image.resize(image, size), atol=2e-2)


def test_photometric_distortion_loses_nothing_and_leaves_some_images_alone():
    image = np.random.default_rng(0).uniform(120, 250, (8, 8, 3)).astype(np.float32)
    keys = [tf.constant([0, number], tf.int64) for number in range(80)]
    changed = [detection_pipelines.distorted(tf.constant(image), key).numpy() for key in keys]
    for one in changed:
        assert np.isfinite(one).all() and one.max() < (250 + 32) * 1.5 + 1
        # Brightest and darkest pixels still differ from others.
        assert len(np.unique(one.round(3))) > 180
    same = np.mean([np.allclose(one, image, atol=0.01) for one in changed])
    assert same < 0.2 and np.std([one.mean() for one in changed]) > 10


def test_ssd_training_batches_are_sound(data):
    seen = dataclasses.replace(data, view=View((128, 128)))
    objects = 0
    for images, truth in batches(seen):
        assert images.shape == (4, 128, 128, 3) and images.dtype == np.float32 and truth.dtype == np.float32
        rows = real(truth.reshape(-1, annotations.COLUMNS))
        objects += len(rows)
        assert (rows[:, :4] >= 0).all() and (rows[:, :4] <= 128).all() and (rows[:, 2:4] - rows[:, :2] >= 1).all()
        assert (truth[..., annotations.SCALE] > 0).all()
    assert 12 < objects < 48  # crops lose some


@pytest.mark.parametrize("view", [View((64, 64)), View((60, 100), keep_ratio=True, divisor=16, augmentation="flip")])
def test_an_epoch_depends_on_seed_and_epoch_alone(data, view):
    data = dataclasses.replace(data, view=view)
    first = batches(data)
    tf.random.set_seed(5)
    for one, other in zip(first, batches(data), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert not np.array_equal(first[0][0], batches(data, epoch=1)[0][0])
    by_two = np.concatenate([images for images, _ in batches(data, batch_size=2)])
    np.testing.assert_array_equal(by_two, np.concatenate([images for images, _ in first]))


@pytest.mark.parametrize(
    "size, wanted",
    [((375, 500), (600, 800)), ((500, 375), (800, 600)), ((200, 500), (400, 1000)), ((600, 1000), (600, 1000))],
)
def test_the_rule_of_faster_rcnn(size, wanted):
    window = tf.constant([0.0, 0.0, *map(float, size)])
    assert tuple(detection_pipelines.resized(window, VIEWS["any_size"]["voc"]).numpy()) == wanted


def test_padding_of_images_and_rows(tmp_path):
    """Two images of different form and one without objects: zeros below and right, class -1, scale everywhere."""
    png = [
        tf.io.encode_png(tf.fill([*size, 3], tf.constant(255, tf.uint8))).numpy()
        for size in ((20, 40), (40, 20), (30, 30))
    ]
    rows = [np.array([[2, 4, 10, 20, 1, 0, 128], [0, 0, 20, 40, 2, 1, 800]], np.float32), np.zeros((0, 7), np.float32)]
    objects = [rows[0], rows[1], rows[0][:1]]

    files = tuple(tmp_path / f"{number}.png" for number in range(3))
    for file, content in zip(files, png, strict=True):
        file.write_bytes(content)
    view = View((40, 100), keep_ratio=True, divisor=32, augmentation="flip")
    data = made(files, objects, view)
    assert data.network_options == {"input_shape": (None, None, 3), "num_classes": 4}
    ((images, truth),) = list(data.test_batches(3))
    images, truth = images.numpy(), truth.numpy()
    ((_, alone),) = list(data.test_batches(1).skip(1).take(1))
    # 40 x 80, 80 x 40 and 40 x 40, to multiples of 32 and then to the largest.
    assert images.shape == (3, 96, 96, 3)
    for image, (height, width) in zip(images, ((40, 80), (80, 40), (40, 40)), strict=True):
        np.testing.assert_allclose(image[:height, :width], 255, atol=1e-3)
        assert not image[height:].any() and not image[:, width:].any()
    assert truth.shape == (3, 2, 11) and alone.shape == (1, 1, 11)
    np.testing.assert_allclose(truth[0, 0], [4, 8, 20, 40, 1, 0, 128, 2, 2, 40, 80])
    np.testing.assert_allclose(truth[0, 1], [0, 0, 40, 80, 2, 1, 800, 2, 2, 40, 80])
    np.testing.assert_allclose(truth[1, 0], [0, 0, 0, 0, -1, 0, 0, 2, 2, 80, 40])
    np.testing.assert_allclose(truth[2, 1], [0, 0, 0, 0, -1, 0, 0, 4 / 3, 4 / 3, 40, 40], rtol=1e-6)
    np.testing.assert_allclose(alone[0, 0], [0, 0, 0, 0, -1, 0, 0, 2, 2, 80, 40])


def test_images_are_normalised(data):
    normal = dataclasses.replace(data, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0))
    raw, seen = (next(iter(one.test_batches(2)))[0].numpy() for one in (data, normal))
    np.testing.assert_allclose(seen * (2, 4, 5) + (10, 20, 30), raw, atol=1e-2)


def test_augmentation_without_objects(data):
    empty = made(data.splits.train.images, [np.zeros((0, 7), np.float32)] * 12, View((64, 64)))
    for images, truth in batches(empty):
        assert np.isfinite(images).all() and (truth[..., annotations.CLASS] == -1).all() and truth.shape == (4, 1, 11)


def test_mistakes_are_named(data):
    with pytest.raises(BibenchError, match="augmentation"):
        View((3, 3), augmentation="ssdd")
    with pytest.raises(BibenchError, match="sizes"):
        View((1000, 600), keep_ratio=True)
    with pytest.raises(BibenchError, match="protocol"):
        dataclasses.replace(data, protocol="voc")
    with pytest.raises(BibenchError, match="11 training images"):
        _ = dataclasses.replace(data, train_examples=11).splits
    with pytest.raises(BibenchError, match="larger than"):
        data.train_batches(13, seed=0, epoch=0)


@pytest.mark.parametrize("protocol, family", [("voc2007", "voc"), ("voc2012", "voc"), ("coco", "coco")])
def test_the_view_is_the_networks_unless_any_size_will_do_and_the_data_have_their_own(
    data, monkeypatch, protocol, family
):
    networks = {name: SimpleNamespace(input_options=views) for name, views in VIEWS.items()}
    monkeypatch.setattr(detection, "NETWORKS", networks)
    usual = dataclasses.replace(data, view=detection.USUAL, protocol=protocol)
    for name, views in VIEWS.items():
        assert usual.for_network(name).view == (views[family] if views else detection.USUAL)
    assert usual.for_network("any_size").network_options == {"input_shape": (None, None, 3), "num_classes": 4}
    own = dataclasses.replace(usual, view=View((128, 128), augmentation="flip"))
    assert own.for_network("fixed_size").view == View((300, 300))
    for name in ("any_size", "any_view", "of_the_user"):
        assert own.for_network(name).view == own.view
