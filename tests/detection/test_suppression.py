"""Detections: by hand, against loops over classes, for every batch size, and in Larq Compute Engine's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf.deploy import conversion, flatbuffer
from bibench_tf.detection import anchors as coding
from bibench_tf.detection import boxes
from bibench_tf.detection.suppression import Detections, named

CLASSES = 3
ANCHORS = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 40, 40], [30, 30, 60, 60]], np.float32)
IMAGES = np.zeros((1, 50, 48, 3), np.float32)


def logits_of(*rows):
    """Logits whose softmax is these probabilities, background last."""
    return np.log(np.array([rows], np.float32))


def detect(offsets, logits, anchors=ANCHORS, images=IMAGES, **options):
    """The outputs as arrays."""
    given = [tf.constant(value, tf.float32) for value in (offsets, logits, anchors, images)]
    return {name: value.numpy() for name, value in Detections(**options)(given).items()}


def random_head(random, batch, anchors, for_each_class=False):
    """Offsets and logits; and the anchors, in two rows of different sizes."""
    first = random.uniform(0, 40, (anchors, 2))
    around = np.concatenate([first, first + random.uniform(5, 30, (anchors, 2))], axis=1)
    shape = (batch, anchors, CLASSES, 4) if for_each_class else (batch, anchors, 4)
    offsets, logits = random.normal(size=shape), random.normal(size=(batch, anchors, CLASSES + 1)) * 2
    return [value.astype(np.float32) for value in (offsets, logits, around)]


def test_by_hand():
    """Two boxes of one class overlap (IoU 0.82): the worse goes. As another class it would stay, as another place."""
    logits = logits_of(
        (0.8, 0.1, 0.005, 0.095), (0.7, 0.005, 0.2, 0.095), (0.6, 0.01, 0.01, 0.38), (0.01, 0.01, 0.01, 0.97)
    )
    found = detect(np.zeros((1, 4, 4)), logits, max_detections=6)
    np.testing.assert_allclose(found["scores"], [[0.8, 0.6, 0.2, 0.1, 0, 0]], rtol=1e-5)
    assert found["classes"].tolist() == [[0, 0, 2, 1, -1, -1]]
    np.testing.assert_allclose(found["boxes"][0], [*ANCHORS[[0, 2, 1, 0]], [0] * 4, [0] * 4], atol=1e-4)
    assert [found[name].dtype for name in ("boxes", "scores", "classes")] == [np.float32, np.float32, np.int32]
    assert detect(np.zeros((1, 4, 4)), logits, max_detections=6, iou_threshold=0.9)["classes"][0, 1] == 0
    assert detect(np.zeros((1, 4, 4)), logits, max_detections=6, score_threshold=0.5)["scores"].astype(bool).sum() == 2
    assert detect(np.zeros((1, 4, 4)), logits, max_detections=2)["scores"].shape == (1, 2)
    # Of the two best candidates one is suppressed.
    assert detect(np.zeros((1, 4, 4)), logits, max_detections=6, candidates=2)["scores"].astype(bool).sum() == 1


@pytest.mark.parametrize(("shift", "kept"), [(3.0, 1), (3.7, 1), (3.9, 2)])
def test_a_detector_suppresses_from_an_iou_of_45_percent(shift, kept):
    """SSD's threshold, unless another is given: squares of side 10, `shift` apart, have the IoU (10 - s) / (10 + s)."""
    pair = np.array([[0, 0, 10, 10], [0, shift, 10, 10 + shift]], np.float32)
    logits = logits_of((0.8, 0.01, 0.01, 0.18), (0.7, 0.01, 0.01, 0.28))
    assert (detect(np.zeros((1, 2, 4)), logits, pair)["scores"] > 0.5).sum() == kept


def test_a_detector_gives_a_hundred_detections_of_scores_above_2_percent():
    """Of the thousand best candidates, unless other numbers are given."""
    count = 1100
    places = np.stack(np.divmod(np.arange(count), 40), axis=1) * 12.0
    apart = np.concatenate([places, places + 10], axis=1).astype(np.float32)
    image = np.zeros((1, 400, 500, 3), np.float32)

    def found(score, **options):
        logits = logits_of(*[(score, 1e-6, 1e-6, 1 - score)] * count)
        return int((detect(np.zeros((1, count, 4)), logits, apart, image, **options)["scores"] > 0).sum())

    assert (found(0.021), found(0.019)) == (100, 0)
    assert found(0.021, max_detections=1100) == 1000


def test_boxes_are_clipped_and_empty_ones_left_out():
    around = np.array([[-10, 30, 20, 70], [0, 0, 0, 0], [60, 60, 70, 70]], np.float32)
    found = detect(np.zeros((1, 3, 4)), logits_of(*[(0.4, 0.3, 0.2, 0.1)] * 3), around, max_detections=4)
    np.testing.assert_allclose(found["boxes"][0, :3], [[0, 30, 20, 48]] * 3, atol=1e-4)
    assert found["classes"].tolist() == [[0, 1, 2, -1]]


def by_loops(offsets, logits, around, image, options):
    """Greedy suppression, one class after the other, in NumPy."""
    found = coding.decode(offsets, around if offsets.ndim == 2 else around[:, np.newaxis], coding.SSD_DEVIATIONS)
    found = boxes.clip(found, *image.shape[:2]).numpy()
    found = np.broadcast_to(found if offsets.ndim == 3 else found[:, np.newaxis], (len(around), CLASSES, 4))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = scores[:, :CLASSES]
    least = max(np.sort(scores, axis=None)[-options["candidates"]], options["score_threshold"])
    kept = []
    for kind in range(CLASSES):
        mine = []
        for row in np.argsort(-scores[:, kind]):
            if scores[row, kind] < least or np.prod(found[row, kind, 2:] - found[row, kind, :2]) == 0:
                continue
            overlaps = boxes.iou(
                found[row, kind][np.newaxis], np.array([box for _, _, box in mine], np.float32).reshape(-1, 4)
            )
            if not np.any(overlaps.numpy() > options["iou_threshold"]):
                mine.append((scores[row, kind], kind, found[row, kind]))
        kept += mine
    return sorted(kept, key=lambda one: -one[0])[: options["max_detections"]]


@pytest.mark.parametrize("for_each_class", [False, True])
def test_against_loops(for_each_class):
    """For every batch size the same; in one call of a graph in which the batch and the image are unknown."""
    options = {"max_detections": 30, "score_threshold": 0.1, "iou_threshold": 0.45, "candidates": 60}
    offsets, logits, around = random_head(np.random.default_rng(4), 3, 50, for_each_class)
    images = np.zeros((3, 50, 48, 3), np.float32)
    layer = Detections(**options)
    shapes = [(None, *offsets.shape[1:]), (None, None, CLASSES + 1), (None, 4), (None, None, None, 3)]
    run = tf.function(lambda *inputs: layer(inputs), input_signature=[tf.TensorSpec(shape) for shape in shapes])
    several = {name: value.numpy() for name, value in run(offsets, logits, around, images).items()}
    for image in range(3):
        expected = by_loops(offsets[image], logits[image], around, images[image], options)
        assert 10 < len(expected) <= 30
        count = len(expected)
        np.testing.assert_allclose(several["scores"][image, :count], [one[0] for one in expected], rtol=1e-5)
        np.testing.assert_array_equal(several["classes"][image, :count], [one[1] for one in expected])
        np.testing.assert_allclose(several["boxes"][image, :count], [one[2] for one in expected], atol=1e-3)
        assert (several["classes"][image, count:] == -1).all() and not several["scores"][image, count:].any()
        one = slice(image, image + 1)
        alone = layer([tf.constant(value) for value in (offsets[one], logits[one], around, images[one])])
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], several[name][image], atol=1e-4)


def detector(anchors=64, size=16):
    """A detector of one convolution: image, offsets, logits, anchors, detections."""
    image = tf.keras.Input((size, size, 3), name="image")
    features = tf.keras.layers.Conv2D(4 + CLASSES + 1, 3, 2, padding="same", name="head")(image)
    values = tf.keras.layers.Reshape((anchors, 4 + CLASSES + 1))(features)
    offsets = tf.keras.layers.Dense(4, name="offsets")(values)
    logits = tf.keras.layers.Dense(CLASSES + 1, name="class_logits")(values)
    around = coding.Anchors([2], [[(6, 5)]], name="anchors")([features])
    found = Detections(40, 0.3, 0.45, 100, name="detections")([offsets, logits, around, image])
    return tf.keras.Model(image, named(found), name="detector")


def test_outputs_in_larq_compute_engine_are_those_of_keras():
    tf.keras.utils.set_random_seed(3)
    model = detector()
    file = conversion.convert(model)
    operators = flatbuffer.operators(file)
    assert operators["TOPK_V2"] == 1
    assert operators["NON_MAX_SUPPRESSION_V4"] + operators["NON_MAX_SUPPRESSION_V5"] == 1
    assert not flatbuffer.unknown_operators(file)
    assert sorted(flatbuffer.output_order(file)) == ["boxes", "classes", "scores"]
    images = np.random.default_rng(5).normal(0, 3, (6, 16, 16, 3)).astype(np.float32)
    images[3] = 0  # in which no class is more probable than another
    expected = model.predict(images, verbose=0)
    assert (expected["classes"] >= 0).sum() > 30
    assert (expected["classes"][3] == -1).all()
    for runtime in ("lce", "tflite"):
        run = conversion.runner(file, model, runtime)
        names = conversion.order(model)[1]
        for image in range(len(images)):
            found = dict(zip(names, run([images[image : image + 1]]), strict=True))
            np.testing.assert_array_equal(found["classes"][0], expected["classes"][image])
            np.testing.assert_allclose(found["scores"][0], expected["scores"][image], atol=1e-5)
            np.testing.assert_allclose(found["boxes"][0], expected["boxes"][image], atol=1e-3)


def test_a_detector_is_saved_and_built_in_a_graph(tmp_path):
    model = detector()
    images = np.random.default_rng(5).normal(0, 3, (2, 16, 16, 3)).astype(np.float32)
    for file in ("model.keras", "model.h5", "saved_model"):
        model.save(tmp_path / file)
        loaded = tf.keras.models.load_model(tmp_path / file)
        for name, value in model.predict(images, verbose=0).items():
            np.testing.assert_array_equal(loaded.predict(images, verbose=0)[name], value)
    with tf.Graph().as_default():
        assert detector().output_shape == {"boxes": (None, 40, 4), "scores": (None, 40), "classes": (None, 40)}


def test_registered_names_carry_the_package():
    assert tf.keras.utils.get_registered_name(Detections) == "bibench_tf>Detections"
