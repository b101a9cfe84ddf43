"""Conversion: what becomes binary, whether it computes the same, and what happens when it fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.deploy import conversion, flatbuffer, interpreters
from bibench_tf.deploy.conversion import ConversionError, Converter
from bibench_tf.errors import BibenchError
from bibench_tf.names import BIBENCH

layers = tf.keras.layers
RNG = np.random.default_rng(7)
IMAGES = RNG.normal(size=(40, 12, 10, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def converter():
    with Converter() as converter:
        yield converter


def shake(model):
    """Give every weight that starts at a special value one that would show a mistake."""
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            signs = rng.choice([-1.0, 1.0], size)
            layer.gamma.assign(signs * rng.uniform(0.5, 1.5, size))
            layer.beta.assign(rng.normal(0, 0.5, size))
            layer.moving_mean.assign(rng.normal(0, 0.5, size))
            layer.moving_variance.assign(rng.uniform(0.5, 2, size))
        for weight in layer.weights:
            name = weight.name.split("/")[-1].split(":")[0]
            if name.endswith("_scale"):
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            elif name in ("bias", "input_shift"):
                weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def network(algorithm):
    tf.keras.utils.set_random_seed(11)
    image = layers.Input((12, 10, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(image))
    x = layers.BatchNormalization()(algorithm.conv2d(32, 3)(x))
    x = layers.BatchNormalization()(algorithm.conv2d(48, 3, strides=2, use_bias=True)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return shake(tf.keras.Model(image, layers.Dense(5, name="head")(x)))


def assert_same(expected, given):
    # A value that rounding moves across zero flips a sign, and with it one image: the median image decides.
    difference = np.abs(expected - given).reshape(len(given), -1).max(axis=1) / np.ptp(expected)
    assert np.median(difference) < 1e-5
    assert np.mean(difference < 1e-3) >= 0.9


@pytest.mark.parametrize("name", BIBENCH)
def test_every_binary_layer_runs_on_bits(converter, name):
    model = network(algorithms.get(name))
    content = converter.convert(model)
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 2
    assert flatbuffer.operators(content)["CONV_2D"] == 1
    assert_same(model.predict(IMAGES, verbose=0), interpreters.predict(content, IMAGES))


@pytest.mark.parametrize("name", ["bnn", "xnor", "xnorpp", "reactnet", "recu"])
def test_sequences_and_rows_run_on_bits(converter, name):
    algorithm = algorithms.get(name)
    tf.keras.utils.set_random_seed(11)
    sequence = layers.Input((20, 32))
    x = layers.BatchNormalization()(algorithm.conv1d(32, 3)(sequence))
    x = layers.BatchNormalization()(algorithm.dense(8)(x))
    model = shake(tf.keras.Model(sequence, x))
    content = converter.convert(model)
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 2
    inputs = RNG.normal(size=(30, 20, 32)).astype(np.float32)
    assert_same(model.predict(inputs, verbose=0), interpreters.predict(content, inputs))


def test_several_inputs_are_given_by_name_and_integers_stay_integers(converter):
    """The file takes inputs of one shape in an order of its own; swapped ones would give other numbers."""
    left, right = layers.Input((6, 3), name="left"), layers.Input((6, 3), name="right")
    words = layers.Input((6,), dtype="int32", name="words")
    x = layers.Concatenate()([left, right, layers.Embedding(9, 4)(words)])
    model = tf.keras.Model({"left": left, "right": right, "words": words}, layers.Dense(2)(layers.Dense(8, "relu")(x)))
    content = converter.convert(model)
    order = flatbuffer.input_order(content)
    assert dict(zip(order, interpreters.load(content).input_types, strict=True)) == {
        "left": "float32",
        "right": "float32",
        "words": "int32",
    }
    inputs = {name: RNG.normal(size=(20, 6, 3)).astype(np.float32) for name in ("left", "right")}
    inputs["words"] = RNG.integers(0, 9, (20, 6)).astype(np.int32)
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(interpreters.predict(content, inputs), expected, atol=1e-5)
    swapped = {**inputs, "left": inputs["right"], "right": inputs["left"]}
    assert np.abs(interpreters.predict(content, swapped) - expected).max() > 1e-2
    with pytest.raises(BibenchError, match="takes the inputs .*left.*, not left"):
        interpreters.predict(content, {"left": inputs["left"]})
    with pytest.raises(BibenchError, match="3 inputs, not one"):
        interpreters.predict(content, inputs["left"])


def test_full_precision_is_converted_without_a_change(converter):
    model = network(algorithms.get("full_precision"))
    content = converter.convert(model, "tflite")
    assert flatbuffer.operators(content)["CONV_2D"] == 3
    given = interpreters.predict(content, IMAGES, "tflite")
    np.testing.assert_allclose(given, model.predict(IMAGES, verbose=0), rtol=1e-4, atol=1e-4)


def test_inputs_and_outputs_are_found_by_name_and_run_in_keras_order(converter):
    first, second = layers.Input((4,), name="zz"), layers.Input((4,), name="aa")
    outputs = [
        layers.Subtract(name="late")([first, second]),
        layers.Multiply(name="early")([first, second]),
    ]
    model = tf.keras.Model([first, second], outputs)
    content = converter.convert(model)
    # All four have one shape, so that nothing but the names can tell them apart; and the order is another one.
    assert conversion.order(model) == (["zz", "aa"], ["late", "early"])
    assert flatbuffer.input_order(content) == ["aa", "zz"]
    values = [np.float32([[1, 2, 3, 4]]), np.float32([[5, 7, 9, 11]])]
    given = interpreters.load(content, "lce").run([values[1], values[0]])
    by_name = dict(zip(flatbuffer.output_order(content), given, strict=True))
    np.testing.assert_array_equal(by_name["late"], values[0] - values[1])
    np.testing.assert_array_equal(by_name["early"], values[0] * values[1])
    for expected, result in zip(model(values), conversion.runner(content, model)(values), strict=True):
        np.testing.assert_array_equal(result, expected)


class Subclassed(tf.keras.Model):
    def __init__(self, control=None):
        super().__init__(name="subclassed")
        quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        self.convolution = lq.layers.QuantConv2D(8, 3, **quantizers)
        self.head = layers.Dense(3)
        self.control = control

    def call(self, inputs, training=False):
        image, row = inputs
        if self.control is not None:
            self.control(image)
        return {"z": self.head(row), "a": tf.reduce_mean(self.convolution(image), axis=[1, 2])}


def test_a_subclassed_model_that_was_called(converter):
    model = Subclassed()
    with pytest.raises(ConversionError, match="'subclassed' .* has not been called, .* call it once on an example"):
        converter.convert(model)
    example = [RNG.normal(size=(2, 8, 8, 32)).astype(np.float32), RNG.normal(size=(2, 5)).astype(np.float32)]
    model(example)
    content = converter.convert(model)
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 1
    assert conversion.order(model)[1] == ["a", "z"]
    sample = [array[:1] for array in example]
    given = conversion.runner(content, model)(sample)
    for name, array in zip(("a", "z"), given, strict=True):
        np.testing.assert_allclose(array, model(sample)[name], rtol=1e-5, atol=1e-5)


def test_a_subclassed_model_that_cannot_be_traced(converter):
    model = Subclassed(control=lambda image: image.numpy())
    model([np.ones((2, 8, 8, 32), np.float32), np.ones((2, 5), np.float32)])
    with pytest.raises(ConversionError, match="'subclassed' cannot be traced"):
        converter.convert(model)


def test_a_saved_model_without_keras_layers(converter, tmp_path):
    model = network(algorithms.get("bnn"))
    model.export(tmp_path / "plain")
    content = converter.convert(tmp_path / "plain")
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 2
    assert_same(model.predict(IMAGES, verbose=0), interpreters.predict(content, IMAGES))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layer", [layers.Conv2D(4, 3, strides=2), layers.DepthwiseConv2D(3, strides=2)])
def test_a_padding_the_converter_misreads(converter, tmp_path, layer, nested):
    image = layers.Input((8, 8, 4), name="image")
    model = tf.keras.Model(image, layer(layers.ZeroPadding2D(1)(image)))
    if nested:
        model.export(tmp_path / "plain")
    with pytest.raises(ConversionError, match=r"ZeroPadding2D\(\(\(1, 0\), \(1, 0\)\)\) gives the same numbers"):
        converter.convert(tmp_path / "plain" if nested else model)
    # What it advises does give the same, and TensorFlow Lite reads it rightly.
    advised = tf.keras.Model(image, layer(layers.ZeroPadding2D(((1, 0), (1, 0)))(image)))
    pixels = RNG.normal(size=(3, 8, 8, 4)).astype(np.float32)
    expected = model.predict(pixels, verbose=0)
    np.testing.assert_array_equal(advised.predict(pixels, verbose=0), expected)
    np.testing.assert_allclose(interpreters.predict(converter.convert(advised), pixels), expected, atol=1e-5)
    np.testing.assert_allclose(
        interpreters.predict(converter.convert(model, "tflite"), pixels, "tflite"), expected, atol=1e-5
    )


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", [1, 2])
def test_integer_padding_of_binary_layers(converter, size, strides, padding):
    image = layers.Input((size, size, 32), name="image")
    layer = algorithms.get("xnor").conv2d(8, 3, strides=strides, padding=padding)
    model = tf.keras.Model(image, layer(image))
    pixels = RNG.normal(size=(3, size, size, 32)).astype(np.float32)
    content = converter.convert(model)
    np.testing.assert_allclose(interpreters.predict(content, pixels), model(pixels), atol=1e-4)
    # An odd size, or a stride of 1, needs just the padding of `same`, which runs on bits.
    as_same = padding == 1 and (strides == 1 or size == 9)
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == as_same


def test_an_algorithm_only_this_process_knows(converter):
    class SignOfTwice(lq.quantizers.Quantizer):
        precision = 1

        def call(self, inputs):
            return lq.math.sign(2.0 * inputs)

    @dataclass(frozen=True)
    class Mine(algorithms.Algorithm):
        key: ClassVar[str] = "mine"

        def input_quantizer(self):
            return SignOfTwice()

        def kernel_quantizer(self):
            return SignOfTwice()

    model = network(Mine())
    content = converter.convert(model)
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 2
    assert_same(model.predict(IMAGES, verbose=0), interpreters.predict(content, IMAGES))


def unsupported():
    image = layers.Input((4, 4), name="image")
    return tf.keras.Model(image, layers.Lambda(tf.linalg.inv, name="inverse")(image))


def test_a_failure_is_told_and_the_next_model_is_converted(converter):
    with pytest.raises(ConversionError, match="^The conversion failed: .* no operation for MatrixInverse"):
        converter.convert(unsupported())
    assert converter.convert(tf.keras.Sequential([layers.Input((3,)), layers.Dense(2, name="head")]))


class Children:
    """Starts these programs in place of the worker, then the worker itself."""

    def __init__(self, monkeypatch, *programs):
        self.programs, self.popen, self.started = list(programs), subprocess.Popen, []
        monkeypatch.setattr(subprocess, "Popen", self)

    def __call__(self, command, **options):
        assert command[0] == sys.executable
        if self.programs:
            command = [*command[:2], self.programs.pop(0), *command[3:]]
        self.started.append(self.popen(command, **options))
        return self.started[-1]


READ = "import json, os, signal, sys, time; from multiprocessing.connection import Connection as C;"
READ += "pipe = C(json.loads(sys.argv[1])['pipe']); pipe.recv_bytes();"


def dense():
    return tf.keras.Sequential([layers.Input((3,)), layers.Dense(2, name="head")])


def test_a_crash_loses_one_model_only(monkeypatch):
    children = Children(monkeypatch, READ + "os.kill(os.getpid(), signal.SIGSEGV)")
    with Converter() as converter:
        with pytest.raises(ConversionError, match=r"crashed \(SIGSEGV\)"):
            converter.convert(dense())
        assert converter.convert(dense())
    assert len(children.started) == 2
    assert all(child.poll() is not None for child in children.started)


def test_a_dead_worker_tells_why(monkeypatch):
    Children(monkeypatch, *["raise SystemExit('no such library')"] * 2)
    with pytest.raises(ConversionError, match="code 1: no such library"), Converter() as converter:
        converter.convert(dense())


def test_a_conversion_that_takes_too_long_is_stopped(monkeypatch):
    children = Children(monkeypatch, READ + "time.sleep(600)")
    with pytest.raises(ConversionError, match="stopped after 0.3 s"):
        conversion.convert(dense(), timeout_s=0.3)
    assert children.started[0].poll() is not None


def test_a_file_the_interpreter_refuses_is_not_converted(converter):
    # The converter fuses a factor of rank 3 into the binary convolution and writes a bad file.
    image = layers.Input((8, 8, 32))
    quantized = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    x = lq.layers.QuantConv2D(32, 3, padding="same", pad_values=1, **quantized)(image)
    factor = tf.constant(RNG.uniform(0.5, 1.5, (8, 8, 1)).astype(np.float32))
    with pytest.raises(ConversionError, match="^The conversion failed"):
        converter.convert(tf.keras.Model(image, layers.Lambda(lambda v: v * factor, name="scale")(x)))


def test_models_that_cannot_be_exported(converter):
    pixel = layers.Input((None, None, 3), name="image")
    with pytest.raises(ConversionError, match="'image' has the unknown size"):
        converter.convert(tf.keras.Model(pixel, layers.Conv2D(2, 3)(pixel)))
    words = layers.Input((5,), dtype="int64", name="words")
    with pytest.raises(ConversionError, match="'words' is int64"):
        converter.convert(tf.keras.Model(words, layers.Embedding(9, 4)(words)))
    row = layers.Input((6,))
    halves = layers.Lambda(lambda v: tf.split(v, 2, axis=-1), name="halves")(row)
    with pytest.raises(ConversionError, match="Two outputs come from one layer"):
        converter.convert(tf.keras.Model(row, halves))
    mixed = layers.Input((6,))
    half = layers.Dense(2, dtype="mixed_float16", name="half")(mixed)
    with pytest.raises(ConversionError, match="'half' computes in float16"):
        converter.convert(tf.keras.Model(mixed, half))


def large_layer(algorithm, input_shape=(6, 6, 256), filters=4096):
    tf.keras.utils.set_random_seed(5)
    image = layers.Input(input_shape, name="image")
    kernel_size = input_shape[:2]
    return tf.keras.Model(image, algorithm.conv2d(filters, kernel_size, padding="valid", name="large")(image))


def test_binarized_values_of_large_kernels_are_exported(converter, monkeypatch):
    """The limit is lowered, so that every kernel is large."""
    monkeypatch.setattr(conversion, "_COMPUTED_AHEAD_BYTES", 0)
    model = network(algorithms.get("recu"))
    quantizers = [layer.kernel.quantizer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    with conversion._large_kernels_binarized(model) as kernels:
        assert [len(np.unique(np.abs(kernel.numpy()))) for kernel in kernels] == [1, 1]
    file = converter.convert(model)
    assert flatbuffer.operators(file)["LceBconv2d"] == 2
    output = conversion.runner(file, model)([IMAGES[:1]])[0]
    np.testing.assert_allclose(output, model(IMAGES[:1]), rtol=1e-4, atol=1e-4)
    after = [layer.kernel.quantizer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert all(one is other for one, other in zip(quantizers, after, strict=True))


def test_a_failure_leaves_large_kernels_as_they_were(monkeypatch):
    monkeypatch.setattr(conversion, "_COMPUTED_AHEAD_BYTES", 0)
    model = large_layer(algorithms.get("dorefa"), (2, 2, 3), 4)
    quantizer = model.get_layer("large").kernel.quantizer
    with pytest.raises(RuntimeError), conversion._large_kernels_binarized(model):
        raise RuntimeError
    assert model.get_layer("large").kernel.quantizer is quantizer


@pytest.mark.slow
def test_the_largest_kernel_of_xnornet_becomes_binary(converter):
    """6 x 6 x 256 x 4096 floats are 144 MiB; TensorFlow computes their scales ahead of time up to 128."""
    model = large_layer(algorithms.get("xnor", input_scale="spatial"))
    file = converter.convert(model)
    assert flatbuffer.operators(file)["LceBconv2d"] == 1
    assert len(file) < 4.6 * 2**20


@pytest.mark.parametrize(
    ("size", "dilation", "refused"), [((3, 3), 1, False), ((2, 8), 1, True), ((5, 5), 2, False), ((8, 4), 2, True)]
)
def test_an_input_smaller_than_the_kernel_spans_is_refused(converter, size, dilation, refused):
    """Larq Compute Engine computes such a layer wrong; what is not refused is the same to the last bit."""
    image = tf.keras.Input((*size, 32))
    model = tf.keras.Model(image, algorithms.get("bnn").conv2d(16, 3, dilation_rate=dilation)(image))
    if refused:
        with pytest.raises(ConversionError, match=f"pads an input of {size[0]} x {size[1]} with zeros.*larger images"):
            converter.convert(model)
        return
    images = np.random.default_rng(0).normal(size=(4, *size, 32)).astype(np.float32)
    np.testing.assert_array_equal(
        interpreters.predict(converter.convert(model), images), model.predict(images, verbose=0)
    )
