"""Constants of layers that neither shapes nor counts show: of normalizations, dropouts and learned activations."""

from __future__ import annotations

from collections import Counter

import pytest
import tensorflow as tf

from bibench_tf import zoo
from bibench_tf.zoo import parts

IMAGES = {"input_shape": (32, 32, 3), "num_classes": 10, "width": 0.125}
LARGER = {**IMAGES, "input_shape": (64, 64, 3)}
# A network of every family; those with several branches or bases are built with one algorithm's ordinary layers.
NETWORKS = {
    "abc_net": {**IMAGES, "algorithm": "bnn"},
    "binary_alexnet": LARGER,
    "binary_densenet28": IMAGES,
    "birealnet18": IMAGES,
    "bnext_t": {**LARGER, "input_shape": (48, 48, 3)},
    "dfsmn": {},
    "fsmn": {},
    "group_net18": {**IMAGES, "branches": 2, "algorithm": "bnn"},
    "meliusnet22": IMAGES,
    "mobilenet_v1": IMAGES,
    "pointnet": {"input_shape": (64, 3), "num_classes": 10, "width": 0.125},
    "quicknet_small": IMAGES,
    "reactnet_a": {**LARGER, "input_shape": (48, 48, 3)},
    "real_to_binary": IMAGES,
    "resnet18": IMAGES,
    "resnet20": IMAGES,
    "resnet_e18": IMAGES,
    "vgg_small": IMAGES,
    "wrpn": {**IMAGES, "depth": 18, "algorithm": "bnn"},
}


def constants(model):
    """(momentum, epsilon) of the batch normalizations, and how many have them."""
    layers = [layer for layer in model.submodules if isinstance(layer, tf.keras.layers.BatchNormalization)]
    return Counter((layer.momentum, layer.epsilon) for layer in layers)


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_normalization_has_the_constants_of_the_reference(name):
    """PyTorch's epsilon 1e-5 and momentum 0.1, which Keras calls 0.9; its own defaults are 1e-3 and 0.99."""
    assert set(constants(zoo.build(name, **NETWORKS[name]))) == {(0.9, 1e-5)}


def test_the_alexnets_of_larq_zoo_have_other_epsilons():
    """1e-4 behind the quantized layers; XNOR-Net has 1e-5 in its stem and 1e-3 before its head."""
    assert constants(zoo.build("dorefanet", **LARGER)) == {(0.9, 1e-4): 6}
    assert constants(zoo.build("xnornet", **LARGER)) == {(0.9, 1e-5): 1, (0.9, 1e-4): 6, (0.9, 1e-3): 1}


def test_bert_has_the_constants_of_its_paper():
    """Dropout 0.1 everywhere, and Google's epsilon 1e-12 in the layer normalizations."""
    model = zoo.build("bert_tiny2")
    rates = [layer.rate for layer in model.submodules if isinstance(layer, tf.keras.layers.Dropout)]
    norms = [layer.epsilon for layer in model.submodules if isinstance(layer, tf.keras.layers.LayerNormalization)]
    # Embeddings, head, and in both encoders the attention, its output and the output.
    assert rates == [0.1] * 8 and norms == [1e-12] * 5


def test_networks_for_images_have_no_dropout():
    assert not [layer for layer in zoo.build("resnet18", **IMAGES).layers if isinstance(layer, tf.keras.layers.Dropout)]


def test_prelu_starts_with_pytorchs_slope_for_each_channel():
    layer = parts.activation_layer("prelu", "activation")
    found = layer(tf.constant([[[[-4.0, 8.0]]]]))
    assert found.numpy().ravel().tolist() == [-1.0, 8.0] and layer.alpha.shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # SSD's, and mmdetection's for Faster R-CNN.
        ("ssd_lite", {"width": 0.25}, (100, 0.02, 0.45, (0.1, 0.1, 0.2, 0.2))),
        ("faster_rcnn_resnet18", {"width": 0.0625}, (100, 0.05, 0.5, (0.1, 0.1, 0.2, 0.2))),
    ],
)
def test_detectors_have_the_thresholds_of_their_papers(name, options, expected):
    layer = zoo.build(name, num_classes=3, **options).get_layer("detections")
    assert (layer.max_detections, layer.score_threshold, layer.iou_threshold, layer.deviations) == expected
