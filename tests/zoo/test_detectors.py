"""The detectors with every algorithm: sizes, training graph, gradients, files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import datasets, tasks, zoo
from bibench_tf.complexity.counting import count, without_memory
from bibench_tf.deploy import flatbuffer
from bibench_tf.deploy.conversion import runner
from bibench_tf.detection import training_graph
from bibench_tf.detection.annotations import BOX, COLUMNS
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE, BIBENCH

KEYS = (BASELINE, *BIBENCH)
QUICK = (BASELINE, "xnorpp", "fda")
# Small forms, and how many layers are binary.
SMALL = {
    "faster_rcnn_resnet18": ({"input_shape": (None, None, 3), "width": 0.125, "proposals": 50}, 12),
    "ssd300_vgg16": ({"width": 0.0625}, 12),
    "ssd_lite": ({"input_shape": (96, 96, 3), "width": 0.25}, 8),
}


def small(name, key, **options):
    tf.keras.utils.set_random_seed(5)
    return zoo.build(name, key, **{"num_classes": 10, **SMALL[name][0], **options})


def trainable(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


@pytest.fixture(scope="module")
def batch():
    """Images of canvas_mini with their objects, and one more for each level of a detector, by network."""

    def of(name, images=4):
        side = {"ssd300_vgg16": 300, "ssd_lite": 96}.get(name, 128)
        pictures, truth = next(iter(datasets.get("canvas_mini").test_batches(images).as_numpy_iterator()))
        further = np.zeros((images, 6, COLUMNS), np.float32)
        for row, share in enumerate((0.1, 0.2, 0.37, 0.54, 0.71, 0.88)):
            further[:, row, BOX] = (0, 0, *(2 * [pictures.shape[1] * share]))
        truth = np.concatenate([truth, further], axis=1)
        truth[..., BOX] *= side / pictures.shape[1]
        return tf.image.resize(pictures, (side, side)).numpy(), truth

    return of


def test_parameters_of_ssd300_are_those_of_the_paper():
    """VGG-16, two wide layers, four pairs, six times two heads, and a scale for 512 channels, by hand."""
    with without_memory():
        model = zoo.ssd300_vgg16(batch_norm=False)
        assert trainable(model) == 26_285_486
        assert model.get_layer("anchors").output.shape == (8732, 4)
        assert {name: shape[1:] for name, shape in model.output_shape.items()} == {
            "boxes": (200, 4),
            "scores": (200,),
            "classes": (200,),
        }


@pytest.mark.parametrize(
    ("name", "key"),
    [
        pytest.param(name, key, marks=() if key in QUICK or name == "ssd_lite" else pytest.mark.pairs)
        for name, keys in (("faster_rcnn_resnet18", KEYS), ("ssd300_vgg16", KEYS), ("ssd_lite", (BASELINE, "bnn")))
        for key in keys
    ],
)
def test_it_learns_and_is_saved(name, key, batch, take_steps, assert_saved, binary_layers):
    images, truth = batch(name, 4 if name == "ssd_lite" else 2)
    model = small(name, key)
    binary = binary_layers(model)
    assert len(binary) == (0 if key == BASELINE else SMALL[name][1])
    assert not any(word in layer.name for layer in binary for word in ("level", "rpn", "region", "stem", "stage6"))
    inputs, outputs = training_graph.training_outputs(model)
    trained = tf.keras.Model(inputs, outputs)
    loss = tasks.get("detection").loss(None)
    losses, largest = take_steps(trained, {"image": images, "truth": truth}, truth, steps=6, rate=2e-3, loss_of=loss)
    assert min(losses[-2:]) < 0.9 * losses[0], losses
    assert {weight.name for weight in model.trainable_weights} == set(largest)
    assert all(size > 0 for size in largest.values()), {name for name, size in largest.items() if not size}
    assert_saved(model, images)


@pytest.mark.parametrize("key", ["full_precision", "bnn", "xnorpp", "reactnet"])
@pytest.mark.parametrize("name", ["ssd_lite", pytest.param("ssd300_vgg16", marks=pytest.mark.pairs)])
def test_the_whole_of_a_single_shot_detector_is_converted(name, key, batch, converter, after_a_training):
    """Down to the suppression of what overlaps; outputs are known by their names, as the order changes."""
    images, _ = batch(name, 8)
    model = after_a_training(small(name, key))
    for layer in model.layers:
        if "_classes" in layer.name and layer.weights:
            layer.kernel.assign(layer.kernel * 0.05)  # scores that are all 1 have no order
    content = converter.convert(model)
    assert flatbuffer.operators(content)["LceBconv2d"] == (0 if key == BASELINE else SMALL[name][1])
    run = runner(content, model)
    shares = []
    for image in images:
        expected = {name: value.numpy()[0] for name, value in model(image[np.newaxis]).items()}
        given = dict(zip(model.output_names, (value[0] for value in run([image[np.newaxis]])), strict=True))
        assert np.count_nonzero(expected["scores"]) > 3
        # Scores of an untrained network are so near each other that rounding changes the order of some.
        alike = (
            (expected["classes"][:, np.newaxis] == given["classes"])
            & np.isclose(expected["scores"][:, np.newaxis], given["scores"], rtol=1e-4)
            & (np.abs(expected["boxes"][:, np.newaxis] - given["boxes"]).max(-1) < 1e-2)
        )
        shares.append(np.mean(alike.any(axis=1)))
    # Rounding also turns the signs of numbers near zero, in some images, and much follows from one sign.
    assert (min if key == BASELINE else max)(shares) > 0.95, shares


def test_the_backbone_of_faster_rcnn_is_converted(converter, batch, after_a_training):
    images, _ = batch("faster_rcnn_resnet18", 1)
    model = after_a_training(small("faster_rcnn_resnet18", "bnn", input_shape=(128, 128, 3)))
    backbone = tf.keras.Model(model.input, model.get_layer("features").output)
    content = converter.convert(backbone)
    assert flatbuffer.operators(content)["LceBconv2d"] == 12
    expected = backbone(images).numpy()
    (given,) = runner(content, backbone)([images])
    np.testing.assert_allclose(given, expected, atol=1e-3 * np.abs(expected).max())


def test_what_is_computed_for_a_region_counts_for_every_region():
    """Four points of four features in each of 14 x 14 cells; 1x1 and 3x3 convolutions on 7 x 7; 11 classes."""
    with without_memory():
        cost = count(small("faster_rcnn_resnet18", "bnn", input_shape=(128, 128, 3)))
    macs = {layer.name: layer.macs for layer in cost.layers}
    assert macs["region_align"] == 50 * 4 * 4 * 14 * 14 * 32
    assert macs["region_head/stage4_block2_conv1"] == 50 * 7 * 7 * 9 * 64 * 64
    assert macs["region_class_logits"] == 50 * 64 * 11
    assert macs["rpn_conv"] == 8 * 8 * 9 * 32 * 32


def test_options_are_checked():
    with pytest.raises(BibenchError, match="300 x 300"):
        zoo.ssd300_vgg16(input_shape=(320, 320, 3))
    with pytest.raises(BibenchError, match="at least one class"):
        zoo.ssd_lite(num_classes=0)
    with pytest.raises(BibenchError, match="64 x 64"):
        zoo.faster_rcnn_resnet18(input_shape=(32, 64, 3))
