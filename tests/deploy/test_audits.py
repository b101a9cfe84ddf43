"""The audit: which layer became which operation, why one stayed float, and whose the bytes are."""

from __future__ import annotations

import dataclasses
import json

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bibench_tf import algorithms, complexity, zoo
from bibench_tf.cli import deploy
from bibench_tf.deploy import audits, flatbuffer, listings
from bibench_tf.deploy.conversion import ConversionError, Converter
from bibench_tf.errors import BibenchError

layers = tf.keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
SAME = {"padding": "same", "pad_values": 1}


@pytest.fixture(scope="module")
def converter():
    with Converter() as converter:
        yield converter


@pytest.fixture
def audited(converter):
    def audited(*stack, shape=(8, 8, 32)):
        tf.keras.utils.set_random_seed(3)
        x = image = layers.Input(shape, name="image")
        for layer in stack:
            x = layer(x)
        model = tf.keras.Model(image, x)
        return audits.audit(converter.convert(model), model)

    return audited


class Made(lq.quantizers.Quantizer):
    """A quantizer made of one function."""

    precision = 1

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def sign(x):
    return lq.math.sign(x)


def with_input(function):
    return lq.layers.QuantConv2D(32, 3, **SAME, name="it", input_quantizer=Made(function), kernel_quantizer="ste_sign")


def with_kernel(function, **options):
    return lq.layers.QuantConv2D(
        32, 3, **{**SAME, **options}, name="it", input_quantizer="ste_sign", kernel_quantizer=Made(function)
    )


def one_dead_filter(kernel):
    scale = tf.reduce_mean(tf.abs(kernel), axis=[0, 1, 2], keepdims=True)
    return sign(kernel) * scale * tf.cast(tf.range(kernel.shape[-1]) > 0, tf.float32)


def scale_of_input_channels(kernel):
    return sign(kernel) * tf.reduce_mean(tf.abs(kernel), axis=[0, 1, 3], keepdims=True)


def two_bits(kernel):
    return tf.round(tf.clip_by_value(kernel * 8, -1, 1) * 3) / 3


# What is built, and the only reason it may be given.
FALLBACKS = {
    "tf_sign": lambda: with_input(tf.sign),
    "zero_one_input": lambda: with_input(lambda x: tf.sign(tf.nn.relu(x))),
    "rounded_input": lambda: with_input(lambda x: tf.round(tf.clip_by_value(x, 0, 1))),
    "unrecognised_sign": lambda: with_input(lambda x: 2 * tf.cast(x >= 0, tf.float32) - 1),
    "between_sign_and_product": lambda: with_input(lambda x: 0.5 * sign(x)),
    "input_not_binarized": lambda: lq.layers.QuantConv2D(32, 3, **SAME, name="it", kernel_quantizer="ste_sign"),
    "ternary_kernel": lambda: with_kernel(lambda w: tf.sign(tf.round(w * 12))),
    "kernel_of_several_bits": lambda: with_kernel(two_bits),
    "scale_of_input_channels": lambda: with_kernel(scale_of_input_channels),
    "dead_filters": lambda: with_kernel(one_dead_filter),
    "kernel_not_binarized": lambda: lq.layers.QuantConv2D(32, 3, **SAME, name="it", input_quantizer="ste_sign"),
    "padding_value": lambda: with_kernel(sign, pad_values=-1),
    "padding_amount": lambda: algorithms.get("bnn").conv2d(32, 3, strides=2, padding=1, name="it"),
    "group_width": lambda: lq.layers.QuantConv2D(32, 3, **SAME, groups=2, name="it", **SIGNS),
    "depthwise": lambda: lq.layers.QuantDepthwiseConv2D(
        3, **SAME, name="it", input_quantizer="ste_sign", depthwise_quantizer="ste_sign"
    ),
    "transposed": lambda: lq.layers.QuantConv2DTranspose(32, 3, name="it", **SIGNS),
}


@pytest.mark.parametrize("key", FALLBACKS)
def test_each_fallback_of_a_convolution_is_explained(audited, key):
    result = audited(FALLBACKS[key]())
    (layer,) = result.fallbacks
    assert (layer.name, layer.binary, layer.macs_binary) == ("it", False, 0)
    assert [reason.key for reason in layer.reasons] == [key]
    assert "LceBconv2d" not in result.operations
    # Without the Keras model the graph alone says the same.
    assert "FLOAT, meant binary" in listings.audit_text(result)


def test_the_file_alone_gives_the_same_reasons(converter):
    image = layers.Input((8, 8, 32))
    x = with_kernel(lambda w: tf.sign(tf.round(w * 12)))(image)
    x = lq.layers.QuantDense(4, name="rows", **SIGNS)(layers.Flatten()(x))
    result = audits.audit(converter.convert(tf.keras.Model(image, x)))
    assert [[reason.key for reason in layer.reasons] for layer in result.fallbacks] == [["ternary_kernel"], ["dense"]]
    assert result.theory_bits is None


def test_layers_larq_compute_engine_has_no_binary_form_of(audited):
    dense = audited(layers.Flatten(), lq.layers.QuantDense(4, name="it", **SIGNS), shape=(4, 4, 8))
    assert [(row.name, [each.key for each in row.reasons]) for row in dense.fallbacks] == [("it", ["dense"])]
    sequence = audited(lq.layers.QuantConv1D(32, 3, name="it", **SIGNS), shape=(16, 32))
    assert [[each.key for each in row.reasons] for row in sequence.fallbacks] == [["conv1d"]]
    quantizers = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign", "pointwise_quantizer": "ste_sign"}
    separable = audited(lq.layers.QuantSeparableConv2D(16, 3, padding="same", name="it", **quantizers))
    (layer,) = separable.fallbacks
    assert layer.operations == ("DEPTHWISE_CONV_2D", "CONV_2D")
    assert {"depthwise", "input_not_binarized"} <= {reason.key for reason in layer.reasons}


def test_channels_first(converter):
    image = layers.Input((32, 8, 8))
    convolution = lq.layers.QuantConv2D(32, 3, name="it", data_format="channels_first", **SIGNS)
    # TensorFlow on a CPU traces but does not compute it, and the converter turns it round.
    model = tf.keras.Model(image, convolution(image))
    result = audits.audit(converter.convert(model), model)
    assert [[reason.key for reason in layer.reasons] for layer in result.fallbacks] == [["channels_first"]]


def test_products_of_activations(converter):
    queries, keys = layers.Input((6, 32), name="queries"), layers.Input((6, 32), name="keys")
    binary = [layers.Activation(lq.quantizers.SteSign())(side) for side in (queries, keys)]
    model = tf.keras.Model([queries, keys], layers.Dot(axes=2, name="scores")(binary))
    result = audits.audit(converter.convert(model), model)
    assert [[reason.key for reason in layer.reasons] for layer in result.fallbacks] == [["product_of_activations"]]
    assert result.macs == 6 * 6 * 32


def test_almost_binary_weights_are_not_accepted_silently(audited):
    rng = np.random.default_rng(0)
    wobble = rng.uniform(0.997, 1, (3, 3, 32, 32)).astype(np.float32)
    result = audited(with_kernel(lambda w: sign(w) * wobble))
    (layer,) = result.fallbacks
    # The converter took it for binary ...
    assert layer.binary and layer.operations == ("LceBconv2d",)
    # ... and the audit says what that did.
    assert [reason.key for reason in layer.reasons] == ["rounded_kernel"]
    assert "0.3 %" in layer.reasons[0].cause


def test_a_kernel_scaled_for_each_filter_is_exact(audited):
    result = audited(with_kernel(lambda w: sign(w) * tf.reduce_mean(tf.abs(w), axis=[0, 1, 2], keepdims=True)))
    assert result.fallbacks == ()
    assert result.binary_share == 1.0


def test_a_group_that_only_some_kernels_run_is_warned_of(audited):
    result = audited(lq.layers.QuantConv2D(64, 3, **SAME, groups=2, name="it", **SIGNS), shape=(8, 8, 64))
    (layer,) = result.layers
    assert layer.binary and not layer.fell_back
    assert "2 groups" in layer.warnings[0]
    # The package's own layer is split into one operation for each group.
    split = audited(algorithms.get("bnn").conv2d(64, 3, groups=2, name="it"), shape=(8, 8, 64))
    assert split.layers[0].operations == ("LceBconv2d", "LceBconv2d")
    assert split.layers[0].warnings == ()
    assert split.macs == result.macs == 8 * 8 * 9 * 32 * 64


@pytest.mark.slow
def test_a_kernel_too_large_to_be_computed_ahead(converter, tmp_path):
    """As it happens to a SavedModel, whose quantizers are operations; those of a Keras model are computed before."""
    image = layers.Input((1, 1, 9216))
    convolution = lq.layers.QuantConv2D(
        4096, 1, name="it", input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign"
    )
    model = tf.keras.Model(image, convolution(image))
    model.save(tmp_path / "saved", save_format="tf")
    result = audits.audit(converter.convert(tmp_path / "saved"), model)
    (layer,) = result.fallbacks
    assert [reason.key for reason in layer.reasons] == ["kernel_at_run_time"]
    assert "144 MiB" in layer.reasons[0].cause


def test_every_layer_of_a_network_is_found(converter):
    tf.keras.utils.set_random_seed(3)
    model = zoo.build("resnet20", algorithm="xnor", input_shape=(16, 16, 3), num_classes=10, width=0.5)
    result = audits.audit(converter.convert(model), model)
    cost = complexity.count(model)
    expected = {layer.name: layer for layer in cost.layers if layer.macs}
    assert {layer.name for layer in result.layers} == set(expected) and len(result.layers) == len(expected)
    for layer in result.layers:
        assert (layer.macs, layer.binary) == (expected[layer.name].macs, expected[layer.name].binary), layer.name
        assert layer.theory_bits == expected[layer.name].bits
    assert result.macs_binary == cost.macs_binary
    assert result.theory_bits == cost.bits
    assert result.fallbacks == ()


def test_equal_and_shared_layers_get_their_own_operations(converter):
    image = layers.Input((8, 8, 32), name="image")
    shared = lq.layers.QuantConv2D(32, 1, name="shared", kernel_initializer="ones", **SIGNS)
    x = shared(layers.BatchNormalization()(shared(image)))
    for name in ("one", "other"):
        equal = lq.layers.QuantConv2D(32, 1, name=name, kernel_initializer="ones", **SIGNS)
        x = equal(layers.BatchNormalization(beta_initializer="ones")(x))
    model = tf.keras.Model(image, x)
    result = audits.audit(converter.convert(model), model)
    assert {layer.name: len(layer.operations) for layer in result.layers} == {"shared": 2, "one": 1, "other": 1}


def one_filter(kernels):
    """One filter is the same, the others have nothing in common."""
    kernels[1, ..., 0] = kernels[0, ..., 0]


def all_but_a_little(kernels):
    """Every filter has one other sign, and is five percent of noise away."""
    kernels[1] = kernels[0] * (1 + 0.05 * kernels[1])
    kernels[1, 0, 0, 0] *= -1


@pytest.mark.parametrize("agree", [one_filter, all_but_a_little])
@pytest.mark.parametrize("kernel_quantizer", ["ste_sign", None])
def test_a_kernel_that_agrees_in_part_is_not_the_same(converter, kernel_quantizer, agree):
    """All filters must agree: the file has the second of two layers that are alike, under another name."""
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": kernel_quantizer}
    kernels = np.random.default_rng(0).normal(size=(2, 3, 3, 32, 32)).astype(np.float32)
    agree(kernels)

    def network(*names):
        x = image = layers.Input((8, 8, 32))
        for name in names:
            x = lq.layers.QuantConv2D(32, 3, **SAME, **quantizers, name=name)(x)
        return tf.keras.Model(image, x)

    alone, both = network("alone"), network("first", "second")
    for model, name, kernel in ((alone, "alone", 1), (both, "first", 0), (both, "second", 1)):
        model.get_layer(name).kernel.assign(kernels[kernel])
    result = audits.audit(converter.convert(alone), both)
    assert {layer.name: len(layer.operations) for layer in result.layers} == {"first": 0, "second": 1}


def test_a_layer_that_is_binary_in_one_of_its_calls_is_not_binary(converter):
    """All operations of a layer must run on bits: a shared layer has signs before it once, and floats once."""
    image = layers.Input((8, 8, 32))
    shared = lq.layers.QuantConv2D(32, 3, **SAME, name="shared", kernel_quantizer="ste_sign")
    x = shared(layers.Activation(sign)(image))
    model = tf.keras.Model(image, shared(layers.BatchNormalization()(x)))
    result = audits.audit(converter.convert(model), model)
    (layer,) = result.layers
    assert sorted(layer.operations) == ["CONV_2D", "LceBconv2d"]
    assert (layer.binary, layer.fell_back) == (False, True)
    assert (layer.macs_binary, layer.macs) == (8 * 8 * 9 * 32 * 32, 2 * 8 * 8 * 9 * 32 * 32)


def test_the_bytes_add_up(converter):
    model = zoo.build("resnet20", algorithm="bireal", input_shape=(16, 16, 3), num_classes=10, width=0.5)
    content = converter.convert(model)
    result = audits.audit(content, model)
    assert sum(part.size_bytes for part in result.parts) == len(content) == result.file_bytes
    sizes = {part.name: part.size_bytes for part in result.parts}
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "input_quantizer")]
    assert sizes["binary kernels"] == sum(int(tf.size(kernel)) for kernel in kernels) / 8
    # 8, 16 and 32 channels, of which each filter stores 32 at every position.
    padded = sum(kernel.shape[0] * kernel.shape[1] * kernel.shape[3] * (32 - kernel.shape[2]) / 8 for kernel in kernels)
    assert sizes["channel padding"] == padded
    assert sum(part.size_bytes for part in result.difference) == len(content) - result.theory_bits / 8


def test_the_bytes_of_a_shared_kernel_are_counted_once(converter):
    """Two operations of one layer have one kernel of 32 x 32 floats, and one bias, in the file."""
    image = layers.Input((8, 8, 32), name="image")
    shared = layers.Conv2D(32, 1, name="shared", use_bias=False)
    model = tf.keras.Model(image, shared(layers.ReLU()(shared(image))))
    result = audits.audit(converter.convert(model), model)
    (layer,) = result.layers
    assert (layer.operations, layer.file_bytes) == (("CONV_2D", "CONV_2D"), 4 * 32 * 32 + 4 * 32)


def test_layers_of_the_users_own_do_not_break_it(converter):
    class Doubled(layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight("matrix", shape=(3, 3, shape[-1], 16))

        def call(self, inputs):
            return tf.nn.conv2d(lq.math.sign(inputs), lq.math.sign(self.matrix), 1, "SAME") * 2

    image = layers.Input((8, 8, 32))
    x = layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(Doubled(name="own")(image)))
    model = tf.keras.Model(image, x)
    result = audits.audit(converter.convert(model), model)
    own = result.layers[0]
    assert (own.name, own.kind, own.binary, own.theory_bits) == ("own", "Doubled", True, None)
    assert own.macs == 8 * 8 * 9 * 32 * 16
    assert "own" in result.uncounted


def test_a_subclassed_model(converter):
    class Net(tf.keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.convolution = lq.layers.QuantConv2D(8, 3, name="inside", **SIGNS)
            self.head = lq.layers.QuantDense(3, name="rows", **SIGNS)

        def call(self, inputs):
            return self.head(tf.reshape(self.convolution(inputs), [-1, 6 * 6 * 8]))

    model = Net()
    model(np.zeros((1, 8, 8, 32), np.float32))
    result = audits.audit(converter.convert(model), model)
    assert {layer.name: layer.binary for layer in result.layers} == {"inside": True, "rows": False}


def test_a_factor_the_interpreter_refuses_has_a_remedy(converter):
    image = layers.Input((8, 8, 32))
    x = lq.layers.QuantConv2D(32, 3, **SAME, **SIGNS)(image)
    factor = tf.constant(np.linspace(0.5, 1.5, 64, dtype=np.float32).reshape(8, 8, 1))
    with pytest.raises(
        ConversionError,
        match=r"shape \(8, 8, 32\) follows .* fuse one of shape \(32,\); give it that shape, or put tf.maximum",
    ):
        converter.convert(tf.keras.Model(image, layers.Lambda(lambda v: v * factor)(x)))


def test_files_that_are_none(converter):
    with pytest.raises(BibenchError, match="not a TensorFlow Lite file"):
        audits.audit(b"hello, world")
    row = layers.Input((3,))
    content = converter.convert(tf.keras.Model(row, layers.Dense(2, name="head")(row)))
    with pytest.raises(BibenchError, match="damaged"):
        audits.audit(content[:60])


def test_a_file_of_integers(tmp_path):
    tf.keras.utils.set_random_seed(3)
    image = layers.Input((8, 8, 3))
    model = tf.keras.Model(image, layers.Dense(4)(layers.Flatten()(layers.Conv2D(8, 3)(image))))
    made = tf.lite.TFLiteConverter.from_keras_model(model)
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    made.representative_dataset = lambda: ([np.ones((1, 8, 8, 3), np.float32)] for _ in range(2))
    result = audits.audit(made.convert())
    assert (result.macs, result.macs_binary, result.fallbacks) == (36 * 9 * 3 * 8 + 36 * 8 * 4, 0, ())


@pytest.fixture(scope="module")
def files(tmp_path_factory, converter):
    folder = tmp_path_factory.mktemp("models")
    for name, quantizers in (("good", SIGNS), ("bad", {**SIGNS, "pad_values": -1})):
        image = layers.Input((8, 8, 32), name="image")
        model = tf.keras.Model(image, lq.layers.QuantConv2D(32, 3, padding="same", name="it", **quantizers)(image))
        model.save(folder / f"{name}.keras")
        (folder / f"{name}.tflite").write_bytes(converter.convert(model))
    return folder


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("bad", 1)])
def test_require_binary_decides_the_exit_code(files, name, code):
    command = [str(files / f"{name}.tflite"), "--require-binary"]
    assert CliRunner().invoke(deploy.audit, command).exit_code == code
    assert CliRunner().invoke(deploy.audit, command[:1]).exit_code == 0


def test_the_json_is_what_the_documentation_says(files):
    outcome = CliRunner().invoke(deploy.audit, [str(files / "bad.keras"), "--json", "-"])
    data = json.loads(outcome.stdout)
    assert (data["kind"], data["version"], data["fallbacks"]) == ("deploy_audit", audits.VERSION, ["it"])
    assert data["macs"] == 8 * 8 * 9 * 32 * 32 and data["binary_share"] == 0
    assert set(data["layers"][0]) == {field.name for field in dataclasses.fields(audits.LayerAudit)}
    assert data["layers"][0]["reasons"][0]["key"] == "padding_value"


def test_the_convert_command(files, tmp_path):
    output = tmp_path / "out.tflite"
    outcome = CliRunner().invoke(deploy.convert, [str(files / "bad.keras"), "-o", str(output)])
    assert outcome.exit_code == 0, outcome.output
    assert f"{output.stat().st_size:,} bytes" in outcome.stdout
    assert "1 layers were meant to be binary" in outcome.stdout and "bibench deploy audit" in outcome.stdout
    assert flatbuffer.operators(output.read_bytes())["CONV_2D"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.tflite"]


def test_a_graph_without_keras_layers_is_converted(converter, files, tmp_path):
    tf.keras.models.load_model(files / "good.keras").export(tmp_path / "plain")
    outcome = CliRunner().invoke(deploy.audit, [str(tmp_path / "plain"), "--require-binary"])
    assert outcome.exit_code == 0, outcome.output
    assert "LceBconv2d" in outcome.stdout
