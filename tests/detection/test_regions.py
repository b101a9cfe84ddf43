"""Regions: proposals against loops, what is taken for training, and RoIAlign against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.detection import anchors as coding
from bibench_tf.detection import annotations, boxes, matching
from bibench_tf.detection.regions import TARGET_BOX, TARGET_CLASS, ByImage, Proposals, RegionAlign, SampleRegions

HEIGHT, WIDTH = 96, 128


def random_heads(random, batch, height=6, width=8):
    """Offsets, logits, anchors and images."""
    around = coding.grid_anchors(height, width, 16, coding.rpn_sizes(16, (1, 2))).numpy()
    offsets = random.normal(0, 0.5, (batch, len(around), 4)).astype(np.float32)
    logits = random.normal(size=(batch, len(around))).astype(np.float32)
    return offsets, logits, around, np.zeros((batch, height * 16, width * 16, 3), np.float32)


def proposed(offsets, logits, around, proposals, candidates, iou_threshold, smallest):
    """The proposals of one image, one after the other."""
    found = boxes.clip(coding.decode(offsets, around, coding.PROPOSAL_DEVIATIONS), HEIGHT, WIDTH).numpy()
    kept = np.zeros((0, 4), np.float32)
    for row in np.argsort(-logits)[:candidates]:
        box = found[row]
        if (box[2:] - box[:2]).min() > smallest and not np.any(boxes.iou(box[np.newaxis], kept) > iou_threshold):
            kept = np.concatenate([kept, [box]])
    return kept[:proposals]


@pytest.mark.parametrize("training", [False, True])
def test_proposals_against_loops(training):
    layer = Proposals(20, 100, 60, 250, iou_threshold=0.5, smallest=12.0)
    heads = random_heads(np.random.default_rng(8), 3)
    unknown = [(None, None, 4), (None, None), (None, 4), (None, None, None, 3)]
    run = tf.function(
        lambda *inputs: layer(inputs, training=training), input_signature=[tf.TensorSpec(shape) for shape in unknown]
    )
    found = run(*heads).numpy()
    proposals, candidates = (60, 250) if training else (20, 100)
    assert found.shape == (3, proposals, 4)
    for image in range(3):
        expected = proposed(heads[0][image], heads[1][image], heads[2], proposals, candidates, 0.5, 12.0)
        assert len(expected) > 10
        np.testing.assert_allclose(found[image, : len(expected)], expected, atol=1e-3)
        assert not found[image, len(expected) :].any()
    assert Proposals.from_config(layer.get_config()).get_config() == layer.get_config()


def test_fewer_anchors_than_proposals():
    heads = [
        value[:, :7] if value.ndim < 4 and len(value) == 2 else value
        for value in random_heads(np.random.default_rng(1), 2)
    ]
    heads[2] = heads[2][:7]
    found = Proposals(30, 100)([tf.constant(value) for value in heads]).numpy()
    assert found.shape == (2, 30, 4) and not found[:, 7:].any()
    assert (found.any(axis=-1).sum(axis=1) > 0).all()


def truth_of(*objects, rows):
    truth = np.zeros((rows, annotations.COLUMNS), np.float32)
    truth[:, annotations.CLASS] = annotations.PADDING
    for row, values in zip(truth, objects, strict=False):
        row[: len(values)] = values
    return truth


def test_regions_for_training_by_hand():
    """Of 12: at most 3 positive. The objects are among them; those to ignore, padding and empty rows are not."""
    tf.keras.utils.set_random_seed(1)
    objects = (0, 0, 20, 20, 2), (40, 40, 60, 80, 0), (70, 0, 90, 20, 1, 1)
    truths = np.stack([truth_of(*objects, rows=4), truth_of(rows=4)])
    proposals = np.zeros((2, 40, 4), np.float32)
    proposals[:, 0] = 0, 0, 18, 20  # IoU 0.9 with the first
    proposals[:, 1] = 0, 0, 8, 20  # 0.4
    proposals[:, 2] = 40, 44, 60, 80  # 0.9 with the second
    proposals[:, 3] = 70, 0, 90, 20  # the one to ignore
    layer = SampleRegions(total=12)
    run = tf.function(
        lambda *inputs: layer(inputs), input_signature=[tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None, 11))]
    )
    regions, targets = (value.numpy() for value in run(proposals, truths))
    assert regions.shape == (2, 12, 4) and targets.shape == (2, 12, 5)
    first, second = targets[..., TARGET_CLASS].tolist()
    assert len([kind for kind in first if kind >= 0]) == 3
    assert first[3:5] == [matching.NEGATIVE] * 2 and first[5:] == [matching.NEITHER] * 7
    for region, target in zip(regions[0], targets[0], strict=True):
        if target[TARGET_CLASS] >= 0:
            expected = objects[0] if target[TARGET_CLASS] == 2 else objects[1]
            np.testing.assert_array_equal(target[TARGET_BOX], expected[:4])
            assert boxes.iou(region[np.newaxis], target[np.newaxis, TARGET_BOX]) > 0.8
        if target[TARGET_CLASS] == matching.NEGATIVE:
            assert region.tolist() in proposals[0, [1, 3]].tolist()
    assert second == [matching.NEGATIVE] * 4 + [matching.NEITHER] * 8
    # All four positives come up, the objects themselves too.
    seen = {tuple(region) for _ in range(40) for region in run(proposals, truths)[0][0, :3].numpy()}
    assert seen == {(0, 0, 20, 20), (40, 40, 60, 80), (0, 0, 18, 20), (40, 44, 60, 80)}


def aligned(features, region, size, stride, sampling):
    """RoIAlign of one region, point by point."""
    height, width, channels = features.shape

    def between(y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        down, across = y - top, x - left
        upper = (1 - across) * features[top, left] + across * features[top, right]
        lower = (1 - across) * features[bottom, left] + across * features[bottom, right]
        return (1 - down) * upper + down * lower

    y0, x0, y1, x1 = np.asarray(region, np.float64) / stride
    steps = (np.arange(size * sampling) + 0.5) / (size * sampling)
    points = [[between(y0 + (y1 - y0) * i - 0.5, x0 + (x1 - x0) * j - 0.5) for j in steps] for i in steps]
    return np.array(points).reshape(size, sampling, size, sampling, channels).mean(axis=(1, 3))


@pytest.mark.parametrize(("size", "sampling"), [(3, 2), (14, 2), (2, 1), (1, 1)])
def test_alignment_against_numpy(size, sampling):
    random = np.random.default_rng(9)
    features = random.normal(size=(2, 6, 8, 3)).astype(np.float32)
    regions = np.sort(random.uniform(0, 96, (2, 6, 2, 2)), axis=2).reshape(2, 6, 4).astype(np.float32)
    regions[:, 0] = 0, 0, HEIGHT, WIDTH
    regions[:, 1] = 0, 0, 3, 5  # within half a feature of the corner
    regions[:, 2] = HEIGHT - 2, WIDTH - 30, HEIGHT, WIDTH
    regions[:, 3] = 0  # a row without a proposal
    found = RegionAlign(size, 16, sampling)([features, regions]).numpy()
    assert found.shape == (12, size, size, 3)
    for image in range(2):
        for row in range(6):
            expected = aligned(features[image], regions[image, row], size, 16, sampling)
            np.testing.assert_allclose(found[image * 6 + row], expected, atol=1e-4)


def test_alignment_of_a_slope_gives_the_places():
    """Features that are the position of their cell's centre: each cell of a region gets the position of its own."""
    y, x = np.meshgrid((np.arange(6) + 0.5) * 16, (np.arange(8) + 0.5) * 16, indexing="ij")
    features = np.stack([y, x], axis=-1)[np.newaxis].astype(np.float32)
    found = RegionAlign(4)([features, np.array([[[10, 20, 50, 100]]], np.float32)]).numpy()[0]
    np.testing.assert_allclose(found[:, 0, 0], [15, 25, 35, 45], rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 1], [30, 50, 70, 90], rtol=1e-5)


def test_gradients_go_to_the_features_alone():
    features = tf.random.normal((2, 6, 8, 3))
    regions = tf.constant(np.array([[[10, 20, 50, 100]], [[0, 0, 90, 20]]], np.float32))
    with tf.GradientTape() as tape:
        tape.watch([features, regions])
        total = tf.reduce_sum(RegionAlign(7)([features, regions]))
    of_features, of_regions = tape.gradient(total, [features, regions])
    assert of_regions is None
    # Each of the 49 cells is a weighted mean.
    np.testing.assert_allclose(tf.reduce_sum(of_features, axis=[1, 2]), np.full((2, 3), 49), rtol=1e-5)


def test_values_come_back_to_their_images():
    values = np.arange(2 * 3 * 8, dtype=np.float32).reshape(6, 8)
    found = ByImage((2, 4))([values, np.zeros((2, 3, 4), np.float32)]).numpy()
    np.testing.assert_array_equal(found, values.reshape(2, 3, 2, 4))


def two_stages():
    """A small model of all layers, for images of any size."""
    image = tf.keras.Input((None, None, 3), name="image")
    features = tf.keras.layers.Conv2D(4, 16, 16, padding="same", name="features")(image)
    around = coding.Anchors([16], [[(20, 30)]], name="anchors")([features])
    offsets = tf.keras.layers.Reshape((-1, 4))(tf.keras.layers.Conv2D(4, 1, name="rpn")(features))
    logits = tf.keras.layers.Reshape((-1,))(tf.keras.layers.Conv2D(1, 1)(features))
    regions = Proposals(5, 20, name="proposals")([offsets, logits, around, image])
    cut = RegionAlign(3, name="region_align")([features, regions])
    values = tf.keras.layers.Dense(12)(tf.keras.layers.GlobalAveragePooling2D()(cut))
    return tf.keras.Model(image, [regions, ByImage((3, 4), name="offsets")([values, regions])])


def test_layers_are_saved_and_built_in_a_graph(tmp_path):
    with tf.Graph().as_default():
        assert two_stages().output_shape == [(None, 5, 4), (None, 5, 3, 4)]
    model = two_stages()
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    for shape in ((2, 64, 96, 3), (1, 96, 32, 3)):
        images = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        for found, expected in zip(loaded(images), model(images), strict=True):
            np.testing.assert_array_equal(found, expected)
    layer = SampleRegions(64, 0.5)
    assert SampleRegions.from_config(layer.get_config()).get_config() == layer.get_config()
