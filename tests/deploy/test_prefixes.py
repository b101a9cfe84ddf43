"""Prefixes of flatbuffers: what they hold, that they run, and that nothing in them is dropped."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.deploy import conversion, flatbuffer, interpreters, prefixes

layers = tf.keras.layers


@pytest.fixture(scope="module")
def files():
    """One network with a shortcut, so that a prefix has more than one tensor to hand on, for both interpreters."""
    tf.keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(image)
    y = algorithms.get("bnn").conv2d(32, 3)(x)
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    model = tf.keras.Model(image, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)))
    with conversion.Converter() as converter:
        return {"lce": converter.convert(model, "lce"), "tflite": converter.convert(model, "tflite")}


@pytest.mark.parametrize("runtime", ["lce", "tflite"])
def test_every_prefix_runs_and_tells_the_shapes_of_what_is_read_later(files, runtime):
    content = files[runtime]
    graph = flatbuffer.graph(content)
    operators = graph.operations
    for count in range(len(operators) + 1):
        prefix = prefixes.cut(content, count)
        kinds = [each.kind for each in flatbuffer.graph(prefix).operations]
        assert kinds[:count] == [each.kind for each in operators[:count]]
        assert set(kinds[count:]) == {"SHAPE"}
        computed = {index for each in graph.operations[:count] for index in each.outputs} or set(graph.inputs)
        later = {index for each in graph.operations[count:] for index in each.inputs} | set(graph.outputs)
        expected = sorted(graph.tensors[index].shape for index in computed & later)
        given = interpreters.load(prefix).run([np.zeros((1, 8, 8, 3), np.float32)])
        assert sorted(tuple(shape) for shape in given) == expected


def test_the_shortcut_is_alive_in_the_middle(files):
    operators = flatbuffer.graph(files["lce"]).operations
    binary = [each.kind for each in operators].index(flatbuffer.BINARY_CONVOLUTION)
    # Before the binary convolution both its bits and the shortcut wait to be read.
    assert len(interpreters.load(prefixes.cut(files["lce"], binary)).run([np.zeros((1, 8, 8, 3), np.float32)])) == 2


def test_weights_of_later_operations_are_left_out(files):
    content = files["tflite"]
    sizes = [len(prefixes.cut(content, count)) for count in range(len(flatbuffer.graph(content).operations) + 1)]
    kernel_bytes = 3 * 3 * 32 * 32 * 4
    assert sizes[0] + kernel_bytes < sizes[-1]
    assert sizes[-1] == pytest.approx(len(content), rel=0.1)
