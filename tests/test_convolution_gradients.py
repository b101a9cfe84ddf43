"""Gradients of strided 1x1 convolutions with few channels, with which oneDNN ends the process or computes nonsense.

Run as a script with the name of a check, this file does that check.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, datasets, tasks, zoo

# Kernel, strides, image (H, W, C), further arguments, and whether oneDNN may leave its memory: the measured region.
SHAPES = {
    "2 of 2": ((1, 1, 8, 8), (2, 2), (64, 64, 8), {}, True),
    "3 and 2": ((1, 1, 8, 8), (3, 2), (66, 64, 8), {}, True),
    "height alone": ((1, 1, 8, 8), (2, 1), (64, 63, 8), {}, True),
    "width alone": ((1, 1, 8, 8), (1, 2), (1, 64, 8), {}, True),
    "valid": ((1, 1, 8, 8), (2, 2), (64, 64, 8), {"padding": "VALID"}, True),
    "1 channel": ((1, 1, 1, 8), (2, 2), (64, 64, 1), {}, True),
    "15 channels": ((1, 1, 15, 128), (2, 2), (64, 64, 15), {}, True),
    "unknown sizes": ((1, 1, 8, 8), (2, 2), (None, None, 8), {}, True),
    "16 channels": ((1, 1, 16, 8), (2, 2), (64, 64, 16), {}, False),
    "no stride": ((1, 1, 8, 8), (1, 1), (64, 64, 8), {}, False),
    "odd height": ((1, 1, 8, 8), (2, 2), (63, 64, 8), {}, False),
    "odd width": ((1, 1, 8, 8), (2, 2), (64, 63, 8), {}, False),
    "kernel 3x3": ((3, 3, 8, 8), (2, 2), (64, 64, 8), {}, False),
    "kernel 1x3": ((1, 3, 8, 8), (2, 2), (64, 64, 8), {}, False),
    "groups": ((1, 1, 8, 8), (2, 2), (64, 64, 16), {}, False),
    "channels first": ((1, 1, 8, 8), (2, 2), (8, 64, 64), {"data_format": "NCHW"}, False),
    "explicit padding": ((1, 1, 8, 8), (2, 2), (64, 64, 8), {"padding": 4 * [[0, 0]]}, False),
}


def kernel_gradient(function, *shapes):
    """The strides of the gradient to the kernel in the graph of a function, and whether pixels are picked for it."""
    graph = tf.function(function).get_concrete_function(*(tf.TensorSpec(shape) for shape in shapes)).graph
    nodes = {node.op: node for node in graph.as_graph_def().node}
    return list(nodes["Conv2DBackpropFilter"].attr["strides"].list.i), "AvgPool" in nodes


@pytest.mark.parametrize("case", SHAPES)
def test_the_shapes_with_another_gradient_are_those_of_the_fault(case):
    """Fails when a shape of the fault keeps TensorFlow's gradient, or when any other shape gets another one."""
    kernel, strides, image, options, is_unsafe = SHAPES[case]
    first = options.get("data_format") == "NCHW"
    full = [1, 1, *strides] if first else [1, *strides, 1]

    def gradient(x, w):
        y = tf.nn.conv2d(x, w, full, **{"padding": "SAME", **options})
        return tf.gradients(y, [x, w])

    found = kernel_gradient(gradient, (16, *image), kernel)
    assert found == (([1, 1, 1, 1], True) if is_unsafe else (full, False))


@pytest.mark.parametrize(("channels", "size", "is_unsafe"), [(8, 64, True), (16, 64, False), (8, 63, False)])
def test_the_transposed_convolution_has_the_same_region(channels, size, is_unsafe):
    """Fails when Conv2DTranspose is left out: its large image is the one that is copied."""

    def gradient(x, w):
        y = tf.nn.conv2d_transpose(x, w, [16, size, size, channels], 2)
        return tf.gradients(y, [x, w])

    found = kernel_gradient(gradient, (16, 32, 32, 24), (1, 1, channels, 24))
    assert found == (([1, 1, 1, 1], True) if is_unsafe else ([1, 2, 2, 1], False))


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(2, 2), (1, 3)])
def test_gradients_equal_those_of_tensorflows_operations(strides, padding, jit):
    """In float64, which oneDNN does not compute. Fails for other pixels, a missing stride or exchanged gradients."""
    random = np.random.default_rng(0)
    image, kernel = random.normal(size=(2, 12, 6, 5)), random.normal(size=(1, 1, 5, 7))
    height, width = 12 // strides[0], 6 // strides[1]
    outputs = random.normal(size=(2, height, width, 7))
    full = [1, *strides, 1]
    plain = {"strides": full, "padding": padding}

    @tf.function(jit_compile=jit)
    def convolution(x, w, seed):
        return tf.gradients(tf.nn.conv2d(x, w, full, padding), [x, w], seed)

    wanted = (
        tf.raw_ops.Conv2DBackpropInput(input_sizes=image.shape, filter=kernel, out_backprop=outputs, **plain),
        tf.raw_ops.Conv2DBackpropFilter(input=image, filter_sizes=kernel.shape, out_backprop=outputs, **plain),
    )
    for found, right in zip(convolution(image, kernel, outputs), wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)

    @tf.function(jit_compile=jit)
    def transposed(y, w, seed):
        return tf.gradients(tf.nn.conv2d_transpose(y, w, image.shape, full, padding), [y, w], seed)

    wanted = (
        tf.nn.conv2d(image, kernel, full, padding),
        tf.raw_ops.Conv2DBackpropFilter(input=image, filter_sizes=kernel.shape, out_backprop=outputs, **plain),
    )
    for found, right in zip(transposed(outputs, kernel, image), wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)


def test_second_derivatives_are_right():
    """Of |dL/dw|^2 / 2 for L = |conv(x, w)|^2 / 2, by hand: fails where a gradient of the gradient is lost."""
    random = np.random.default_rng(1)
    image, kernel = tf.constant(random.normal(size=(2, 4, 6, 3))), tf.constant(random.normal(size=(1, 1, 3, 2)))
    with tf.GradientTape() as outer:
        outer.watch([image, kernel])
        with tf.GradientTape() as inner:
            inner.watch(kernel)
            loss = tf.reduce_sum(tf.nn.conv2d(image, kernel, 2, "SAME") ** 2) / 2
        norm = tf.reduce_sum(inner.gradient(loss, kernel) ** 2) / 2
    # With rows X of pixels and W the kernel, dL/dw = X'X W = G; then d/dw = X'X G and d/dx = X (W G' + G W').
    x, w = image.numpy()[:, ::2, ::2].reshape(-1, 3), kernel.numpy()[0, 0]
    gradient = x.T @ x @ w
    to_image = np.zeros(image.shape)
    to_image[:, ::2, ::2] = (x @ (w @ gradient.T + gradient @ w.T)).reshape(2, 2, 3, 3)
    found = outer.gradient(norm, [image, kernel])
    np.testing.assert_allclose(found[0], to_image, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found[1][0, 0], x.T @ x @ gradient, rtol=1e-10)


def check_kernel_gradient(name, layer, shape, transposed=False):
    """The gradient of sum(layer(x) * seed) to the kernel is the product of the pixels in use with the seeds."""
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=shape), tf.float32)
    seed = tf.constant(random.normal(size=layer(x).shape), tf.float32)

    def gradient():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x, training=True) * seed)
        return tape.gradient(total, layer.kernel)

    image, small = (seed, x) if transposed else (x, seed)
    pixels = image[:, ::2] if len(shape) == 3 else image[:, ::2, ::2]
    if isinstance(layer, algorithms.get("bnn").layers["conv2d"]):
        pixels = tf.where(pixels >= 0, 1.0, -1.0)
    rows, seeds = (np.reshape(array, (-1, array.shape[-1])).astype(float) for array in (pixels, small))
    right = rows.T @ seeds
    for call in (gradient, tf.function(gradient)):
        for _ in range(3):
            error = np.abs(np.reshape(call(), right.shape) - right).max() / np.abs(right).max()
            assert error < 1e-4, (name, shape, error)


def check_layers():
    """All layers made of these operations, on shapes that end the process without the other gradient."""
    layers = tf.keras.layers
    for batch, size in ((1, 32), (2, 56), (16, 64)):
        for channels in (1, 4, 8, 15):
            image = (batch, size, size, channels)
            check_kernel_gradient("Conv2D", layers.Conv2D(16, 1, 2), image)
            check_kernel_gradient("Conv1D", layers.Conv1D(16, 1, 2), (batch, size * size, channels))
            check_kernel_gradient("full precision", algorithms.get("full_precision").conv2d(16, 1, 2), image)
            check_kernel_gradient("signs", algorithms.get("bnn").conv2d(16, 1, 2), image)
            small = (batch, size // 2, size // 2, 16)
            check_kernel_gradient("transposed", layers.Conv2DTranspose(channels, 1, 2), small, transposed=True)


def check_detector():
    """Two steps of the detector whose training ended with a segmentation fault."""
    data = datasets.get("canvas_mini").for_network("ssd_lite")
    model = zoo.build("ssd_lite", width=0.25, **data.network_options)
    network = tf.keras.Model(*tasks.get("detection").training_graph(model))
    network.compile("adam", lambda _, losses: tf.reduce_mean(losses))
    batches = tasks.get("detection").training_batches(data.test_batches(16).take(1))
    losses = network.fit(batches, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0], losses


@pytest.mark.parametrize("check", [check_layers, check_detector])
def test_nothing_ends_the_process_and_gradients_are_right(check):
    """In a process of its own, which oneDNN ends, or lets wait for ever, where a shape of the fault is left to it."""
    done = subprocess.run([sys.executable, __file__, check.__name__], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
