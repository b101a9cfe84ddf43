"""Export for daBNN: the same numbers as Keras, in the order daBNN computes them, and nothing it does not take."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bibench_tf import algorithms, complexity, datasets, zoo
from bibench_tf.cli.deploy import deploy
from bibench_tf.deploy.exports import dabnn
from bibench_tf.deploy.exports.dabnn.reader import NotExpressible
from bibench_tf.errors import BibenchError
from bibench_tf.zoo.resnets import resnet

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
layers = tf.keras.layers

EXPORTED = ("bnn", "dorefa", "bireal", "reactnet", "recu", "fda")


@pytest.fixture(scope="module")
def images():
    """100 real images (28, 28, 1)."""
    return next(iter(datasets.get("fashion_mini").test_batches(100)))[0].numpy()


def shake(model, seed=3):
    """Give every weight that starts at a special value one that would show a mistake."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            layer.gamma.assign(rng.choice([-1.0, 1.0], size) * rng.uniform(0.5, 1.5, size))
            layer.beta.assign(rng.normal(0, 0.5, size))
            layer.moving_mean.assign(rng.normal(0, 0.5, size))
            layer.moving_variance.assign(rng.uniform(0.5, 2, size))
        for weight in layer.weights:
            name = weight.name.split("/")[-1].split(":")[0]
            if name == "output_scale":
                weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1.0, 1.0], weight.shape))
            elif name in ("bias", "input_shift"):
                weight.assign(rng.normal(0, 0.3, weight.shape))
            elif name == "alpha":
                weight.assign(rng.uniform(-0.5, 0.5, weight.shape))
    return model


def small(algorithm="bireal", **options):
    """Two stages of one block, one of which changes size: six binary convolutions."""
    tf.keras.utils.set_random_seed(5)
    options = {"padding": "minus_one", "input_shape": (28, 28, 1), "num_classes": 10, **options}
    return shake(resnet("small", (1, 2), (16, 24), algorithm=algorithm, **options))


def assert_same(model, exported, images):
    # Where a value lies within rounding of zero one sign may differ, and with it one image.
    expected, given = model.predict(images, verbose=0), dabnn.predict(exported, images)
    gaps = np.abs(expected - given).reshape(len(images), -1).max(axis=1) / np.ptp(expected)
    assert np.median(gaps) < 1e-5
    assert np.mean(gaps < 1e-3) >= 0.93


@pytest.mark.parametrize(("name", "shortcut"), [*((name, "conv") for name in EXPORTED), ("reactnet", "block")])
def test_algorithms_give_what_keras_gives(images, name, shortcut):
    model = small(name, shortcut=shortcut)
    exported = dabnn.export(model)
    onnx.checker.check_model(exported, full_check=True)
    assert dabnn.binary_convolutions(exported) == 6
    assert_same(model, exported, images)


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("resnet20", {"shortcut": "conv", "activation": "prelu"}),
        ("vgg_small", {"width": 0.25}),
        ("resnet18", {"stem": "imagenet", "input_shape": (64, 64, 1), "width": 0.25}),
    ],
)
def test_networks_of_the_zoo(images, network, options):
    tf.keras.utils.set_random_seed(5)
    options = {"input_shape": (28, 28, 1), "num_classes": 10, "padding": "minus_one", **options}
    model = shake(zoo.build(network, algorithm="bireal", **options))
    if options["input_shape"] == (64, 64, 1):
        images = np.pad(np.repeat(np.repeat(images[:30], 2, 1), 2, 2), ((0, 0), (4, 4), (4, 4), (0, 0)))
    exported = dabnn.export(model)
    operators = {node.op_type for node in exported.graph.node}
    assert operators <= {"Sign", "Pad", "Conv", "BatchNormalization", "Add", "PRelu", "Relu", "MaxPool"} | {
        "GlobalAveragePool",
        "Reshape",
        "Gemm",
        "AveragePool",
    }
    assert_same(model, exported, images)


def as_dabnn_runs(exported, image):
    """The output for one image (H, W, C), computed as daBNN does: in the order of the file, some operations in place.

    Binary convolutions take a bit for x > 0 and none otherwise, and pad with no bits.
    """
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}
    memory = {exported.graph.input[0].name: [image.transpose(2, 0, 1)[np.newaxis]]}  # tensors may share a place
    pads = {}
    for node in exported.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Pad":  # becomes a part of the convolution
            pads[node.output[0]] = (node.input[0], attributes["pads"])
            continue
        names = list(node.input)
        kernel = constants.get(names[1]) if node.op_type == "Conv" else None
        binary = kernel is not None and (np.abs(kernel) == 1).all()
        padding = [0] * 8
        if binary and names[0] in pads:
            names[0], padding = pads[names[0]]
        values = [constants[name] if name in constants else memory[name][0] for name in names]
        if binary:
            bits = np.where(values[0] > 0, np.float32(1), np.float32(-1))
            values[0] = np.pad(bits, list(zip(padding[:4], padding[4:], strict=True)), constant_values=-1)
        feed = {f"i{index}": value for index, value in enumerate(values)}
        step = onnx.NodeProto()
        step.CopyFrom(node)
        del step.input[:]
        step.input.extend(feed)
        kinds = {np.dtype("float32"): onnx.TensorProto.FLOAT, np.dtype("int64"): onnx.TensorProto.INT64}
        inputs = [onnx.helper.make_tensor_value_info(n, kinds[v.dtype], v.shape) for n, v in feed.items()]
        outputs = [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)]
        graph = onnx.helper.make_graph([step], "step", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 9)], ir_version=3)
        result = ort.InferenceSession(model.SerializeToString()).run(None, feed)[0]
        if node.op_type in ("BatchNormalization", "Relu", "PRelu", "Add"):
            memory[names[0]][0] = result
            memory[node.output[0]] = memory[names[0]]
        else:
            memory[node.output[0]] = [result]
    return memory[exported.graph.output[0].name][0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bireal", {"shortcut": "conv"}),
        ("reactnet", {"shortcut": "conv"}),  # its shift and the shortcut want the same memory
        ("bireal", {}),  # hard_tanh, which only the shortcut reads
        ("dorefa", {"activation": "relu", "shortcut": "conv"}),  # zeros everywhere, whose sign is +1
    ],
)
def test_in_place_and_with_bits_it_is_still_the_same(images, name, options):
    model = small(name, **options)
    exported = dabnn.export(model, "aggressive")
    assert "Sign" not in {node.op_type for node in exported.graph.node}
    expected = model.predict(images[:6], verbose=0)
    given = np.concatenate([as_dabnn_runs(exported, image) for image in images[:6]])
    assert np.mean(np.abs(expected - given).max(axis=1) / np.ptp(expected) < 1e-4) >= 0.8


def test_a_sign_of_zero_is_plus_one(images):
    model = small("bnn", activation="relu")
    inputs = tf.keras.Model(model.inputs, model.get_layer("stem_activation").output).predict(images, verbose=0)
    assert np.mean(inputs == 0) > 0.2
    assert_same(model, dabnn.export(model), images)


def binary_net(**options):
    tf.keras.utils.set_random_seed(5)
    image = layers.Input((28, 28, 1), name="image")
    x = layers.BatchNormalization(name="bn1")(layers.Conv2D(8, 7, strides=2, padding="same", name="float")(image))
    x = layers.BatchNormalization(name="bn2")(algorithms.get("bireal").conv2d(12, name="binary", **options)(x))
    x = layers.ReLU(name="relu")(x)
    x = layers.Dense(10, activation="softmax", name="head")(layers.GlobalMaxPooling2D(name="pool")(x))
    return shake(tf.keras.Model(image, x))


def test_padding_with_plus_one_is_turned_into_minus_one(images):
    model = binary_net(kernel_size=3, padding=1, pad_value=1, use_bias=True)
    exported = dabnn.export(model)
    assert_same(model, exported, images)
    minus = binary_net(kernel_size=3, padding=1, pad_value=-1, use_bias=True)
    minus.set_weights(model.get_weights())
    assert_same(minus, dabnn.export(minus), images)
    # and the two are not the same network
    assert dabnn.difference(minus, exported, images) > 1e-3


def test_outputs_that_are_not_numbers_are_more_than_rounding(images, tmp_path):
    """Notices NaN, which is not larger than any limit."""
    model = binary_net(kernel_size=3, padding=1, pad_value=-1)
    exported = dabnn.export(model)
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel, np.full_like(bias, np.nan)])
    assert dabnn.difference(model, exported, images) == np.inf
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    assert "more than rounding" in dabnn.summary(exported, np.inf, path, "strict")


def test_one_by_one_convolutions_need_the_aggressive_level(images):
    model = binary_net(kernel_size=1)
    with pytest.raises(NotExpressible, match="'binary': without padding .*--level aggressive"):
        dabnn.export(model)
    exported = dabnn.export(model, "aggressive")
    assert dabnn.check_rules(exported) == []
    assert_same(model, exported, images)


def test_kernels_are_bits_and_batch_norm_follows():
    exported = dabnn.export(small("recu"))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}
    nodes = list(exported.graph.node)
    written = {node.output[0]: node for node in nodes}
    binary = [node for node in nodes if node.op_type == "Conv" and node.input[1] not in constants]
    assert len(binary) == 6
    for node in binary:
        sign = written[node.input[1]]
        assert sign.op_type == "Sign" and set(np.unique(constants[sign.input[0]])) == {-1.0, 1.0}
        pad = written[node.input[0]]
        assert pad.op_type == "Pad" and written[pad.input[0]].op_type == "Sign"
        after = [other for other in nodes if node.output[0] in other.input]
        assert [other.op_type for other in after] == ["BatchNormalization"]


# What is refused


def test_zero_padding_is_refused_by_name_with_the_remedy():
    with pytest.raises(NotExpressible, match="pads with 0.*padding='minus_one'") as caught:
        dabnn.export(small(padding="same"))
    assert set(caught.value.reasons) == {
        f"stage{i}_block{j}_conv{k}" for i, j in ((1, 1), (2, 1), (2, 2)) for k in (1, 2)
    }


def test_what_dabnn_cannot_express_is_refused_by_name():
    refused = {
        "factor computed from its input": small("xnor", padding="same"),
        "groups": binary_net(kernel_size=3, padding=1, pad_value=-1, groups=2),
        "dilation": binary_net(kernel_size=3, padding=1, pad_value=-1, dilation_rate=2),
        "on both sides": binary_net(kernel_size=3, strides=2, padding="same", pad_value=-1),
    }
    for reason, model in refused.items():
        with pytest.raises(NotExpressible, match=reason) as caught:
            dabnn.export(model)
        names = {layer.name for layer in model.layers if hasattr(layer, "kernel_quantizer")}
        assert set(caught.value.reasons) <= names


def test_learned_rows_and_columns_of_xnorpp_are_refused(images):
    model = small("xnorpp")
    assert_same(model, dabnn.export(model), images)  # they all start at 1
    layer = model.get_layer("stage2_block1_conv2")
    layer.width_scale.assign(np.linspace(0.5, 1.5, 14))
    with pytest.raises(NotExpressible, match="'stage2_block1_conv2': it scales output rows"):
        dabnn.export(model)


def test_other_layers_are_refused_by_name():
    image = layers.Input((8, 8, 3), name="image")
    with pytest.raises(NotExpressible, match="'gate': it has no operation for Multiply"):
        x = layers.Conv2D(4, 1, name="conv")(image)
        dabnn.export(tf.keras.Model(image, layers.Multiply(name="gate")([x, x])))
    with pytest.raises(NotExpressible, match="'swish': it has no activation 'swish'"):
        dabnn.export(tf.keras.Model(image, layers.Activation("swish", name="swish")(image)))
    with pytest.raises(NotExpressible, match="'pool': its pooling pads"):
        dabnn.export(tf.keras.Model(image, layers.MaxPooling2D(3, 2, padding="same", name="pool")(image)))
    with pytest.raises(BibenchError, match="needs a graph of layers"):
        dabnn.export(tf.keras.Sequential([layers.Conv2D(2, 1)]))
    row = layers.Input((8,))
    with pytest.raises(BibenchError, match="images of a fixed size"):
        dabnn.export(tf.keras.Model(row, layers.Dense(2)(row)))


def test_without_the_packages_one_sentence_says_what_to_install(monkeypatch):
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(BibenchError, match=rf"package {package}: pip install 'bibench-tf\[dabnn\]'"):
                dabnn.require_packages()


# The checker of rules


def node_of(model, kind, number=0):
    return [node for node in model.graph.node if node.op_type == kind][number]


def attribute(node, name, value):
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def binary_kernel(model):
    return next(t for t in model.graph.initializer if t.name == "stage1_block1_conv1/kernel")


def break_kernel(model):
    tensor = binary_kernel(model)
    value = onnx.numpy_helper.to_array(tensor).copy()
    value.flat[0] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def swap_batch_norm_for_relu(model):
    conv = next(node for node in model.graph.node if node.op_type == "Conv" and "block" in node.name)
    norm = next(node for node in model.graph.node if conv.output[0] in node.input)
    relu = onnx.helper.make_node("Relu", [conv.output[0]], ["odd"], name="odd")
    norm.input[0] = "odd"
    model.graph.node.insert(list(model.graph.node).index(norm), relu)


def overwrite(model):
    """Let a Relu, which is in place, run on a tensor before others have read it."""
    nodes = list(model.graph.node)
    signs = next(index for index, node in enumerate(nodes) if node.op_type == "Sign")
    relu = onnx.helper.make_node("Relu", [nodes[signs].input[0]], ["unused"], name="unused")
    model.graph.node.insert(signs, relu)


def insert(kind, **attributes):
    def change(model):
        gemm = node_of(model, "Reshape")
        node = onnx.helper.make_node(kind, [gemm.input[0]], ["odd"], name="odd", **attributes)
        gemm.input[0] = "odd"
        model.graph.node.insert(list(model.graph.node).index(gemm), node)

    return change


VIOLATIONS = {
    "opset": (lambda m: setattr(m.opset_import[0], "version", 13), "opset 13"),
    "open batch": (
        lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].CopyFrom(onnx.TensorShapeProto.Dimension()),
        "four fixed sizes",
    ),
    "kernel": (break_kernel, "not of"),
    "pad value": (lambda m: attribute(node_of(m, "Pad"), "value", 0.0), "constant -1"),
    "pad sides": (lambda m: attribute(node_of(m, "Pad"), "pads", [0, 0, 0, 0, 0, 0, 1, 1]), "both sides"),
    "pad channels": (lambda m: attribute(node_of(m, "Pad"), "pads", [0, 1, 1, 1, 0, 1, 1, 1]), "height and width"),
    "zero padding": (lambda m: attribute(node_of(m, "Conv", 1), "pads", [1, 1, 1, 1]), "pads with 0"),
    "group": (lambda m: attribute(node_of(m, "Conv"), "group", 2), "has groups"),
    "dilation": (lambda m: attribute(node_of(m, "Conv"), "dilations", [2, 2]), "is dilated"),
    "auto_pad": (lambda m: attribute(node_of(m, "Conv"), "auto_pad", "SAME_UPPER"), "uses auto_pad"),
    "float pads": (lambda m: attribute(node_of(m, "Conv"), "pads", [0, 0, 1, 1]), "same on both sides"),
    "no batch norm": (swap_batch_norm_for_relu, "directly, and only, by a BatchNormalization"),
    "epsilon": (lambda m: attribute(node_of(m, "BatchNormalization"), "epsilon", 1e-3), "epsilon"),
    "Gemm": (lambda m: attribute(node_of(m, "Gemm"), "alpha", 2.0), "Gemm 'head'"),
    "operator": (insert("Sigmoid"), "Sigmoid"),
    "Dropout": (insert("Dropout"), "Dropout"),
    "count_include_pad": (
        insert("AveragePool", kernel_shape=[1, 1], count_include_pad=1),
        "count_include_pad",
    ),
    "MaxPool": (insert("MaxPool", kernel_shape=[1, 1]), "2x2 or 3x3"),
    "in place": (overwrite, "has overwritten it"),
}


@pytest.fixture(scope="module")
def good():
    exported = dabnn.export(small("bireal", shortcut="conv"))
    assert dabnn.check_rules(exported) == []
    return exported


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_found(good, name):
    broken = onnx.ModelProto()
    broken.CopyFrom(good)
    change, message = VIOLATIONS[name]
    change(broken)
    assert any(message in text for text in dabnn.check_rules(broken)), dabnn.check_rules(broken)


def test_the_order_of_the_file_matters(good):
    moved = onnx.ModelProto()
    moved.CopyFrom(good)
    nodes = list(moved.graph.node)
    # The convolution of a shortcut, put off until the sum that overwrites its input has run.
    late = next(node for node in nodes if node.output[0] == "stage2_block1_1_shortcut_conv")
    block = next(node for node in nodes if node.output[0].startswith("stage2_block1_1_add"))
    assert nodes.index(late) < nodes.index(block)
    overwritten = onnx.helper.make_node("Relu", [late.input[0]], ["early"], name="early")
    moved.graph.node.insert(nodes.index(late), overwritten)
    assert any("stage2_block1_1_shortcut_conv' reads" in text for text in dabnn.check_rules(moved))


# The option of the zoo, and the command


def test_minus_one_pads_with_minus_one():
    ours = zoo.resnet18("bireal", (32, 32, 3), 10, padding="minus_one", width=0.125)
    usual = zoo.resnet18("bireal", (32, 32, 3), 10, width=0.125)
    assert [layer.output_shape for layer in ours.layers] == [layer.output_shape for layer in usual.layers]
    binary = [layer for layer in ours.layers if hasattr(layer, "kernel_quantizer")]
    assert len(binary) == 16
    layer = binary[0]
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 8)).astype(np.float32)
    signs = np.pad(np.where(image >= 0, 1, -1).astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    kernel = layer.kernel_quantizer(tf.convert_to_tensor(layer.kernel))
    expected = tf.nn.conv2d(signs, kernel, layer.strides, "VALID")
    np.testing.assert_allclose(tf.function(layer)(image), expected, atol=1e-4)
    # The stem for large images pads otherwise and comes to the same size.
    pair = [zoo.vgg_small("bnn", (96, 96, 3), width=0.125, padding=padding) for padding in ("same", "minus_one")]
    assert pair[0].get_layer("stem_pool").output_shape == pair[1].get_layer("stem_pool").output_shape
    assert complexity.count(pair[0]).bits == complexity.count(pair[1]).bits
    with pytest.raises(BibenchError, match="for binary networks"):
        zoo.resnet18("full_precision", (32, 32, 3), 10, padding="minus_one")


def test_command(tmp_path):
    output = tmp_path / "net.onnx"
    arguments = ["export-dabnn", "zoo:resnet20@0.5", "--input-shape", "32x32x3", "--classes", "10"]
    result = CliRunner().invoke(deploy, [*arguments, "--algorithm", "bnn", "-o", str(output)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "18 binary convolutions" in result.output and "onnx2bnn" in result.output
    assert "once asked for 64" in result.output
    assert dabnn.check_rules(onnx.load(output)) == []
    with pytest.raises(NotExpressible, match="factor computed from its input"):
        CliRunner().invoke(
            deploy, [*arguments, "--algorithm", "xnor", "-o", str(tmp_path / "x.onnx")], catch_exceptions=False
        )
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
