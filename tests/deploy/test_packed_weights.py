"""Weights as packed bits: exact round trips, the documented layout, and faults told in a sentence."""

from __future__ import annotations

import errno
import json
import math
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bibench_tf import algorithms, complexity, datasets, zoo
from bibench_tf.cli.deploy import deploy
from bibench_tf.deploy.exports import packed_weights as weights
from bibench_tf.errors import BibenchError
from bibench_tf.names import BIBENCH

layers = tf.keras.layers


@pytest.fixture(scope="module")
def images():
    """100 real images (28, 28, 1)."""
    return next(iter(datasets.get("fashion_mini").test_batches(100)))[0].numpy()


def network(algorithm, seed, **options):
    """A network with images, sequences and rows, and random values for every weight."""
    tf.keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    algorithm = algorithms.get(algorithm, **options)
    image = layers.Input((28, 28, 1), name="image")
    x = layers.BatchNormalization(name="bn1")(layers.Conv2D(23, 3, strides=2, name="stem")(image))
    x = layers.BatchNormalization(name="bn2")(algorithm.conv2d(33, 3, strides=2, use_bias=True, name="conv")(x))
    x = layers.Reshape((49, 33), name="sequence")(x)
    x = layers.BatchNormalization(name="bn3")(algorithm.conv1d(40, 3, strides=2, name="conv1d")(x))
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    x = layers.BatchNormalization(name="bn4")(algorithm.dense(21, name="dense")(x))
    model = tf.keras.Model(image, layers.Dense(10, name="head")(x), name="small")
    for weight in model.weights:
        name = weight.name.split("/")[-1]
        if weight.shape.rank == 1:
            low = 0.5 if "variance" in name or "scale" in name else -0.5
            weight.assign(rng.uniform(low, 1.5, weight.shape))
    return model


def kernels(model):
    return {layer.name: layer for layer in model.layers if hasattr(layer, "kernel_quantizer")}


@pytest.mark.parametrize("name", [*BIBENCH, "dorefa by layer"])
def test_the_restored_network_computes_the_same_bits(tmp_path, images, name):
    options = {"weight_scale": "layer"} if " " in name else {}
    name = name.split(" ")[0]
    original = network(name, 1, **options)
    for layer in kernels(original).values():  # dead filters, and nearly dead ones
        kernel = layer.kernel.numpy()
        kernel[..., 0] = 0
        kernel[..., 1] *= 1e-9
        layer.kernel.assign(kernel)
    expected = original.predict(images, verbose=0)
    weights.save(original, tmp_path / "net.npz")
    copy = network(name, 2, **options)
    assert not np.allclose(copy.predict(images, verbose=0), expected)
    weights.restore(copy, tmp_path / "net.npz")
    np.testing.assert_array_equal(copy.predict(images, verbose=0), expected)
    # What is restored is a state of its own: saved again, it is the same file content.
    weights.save(copy, tmp_path / "again.npz")
    first, second = weights.load(tmp_path / "net.npz"), weights.load(tmp_path / "again.npz")
    for layer, kernel in first.kernels.items():
        np.testing.assert_array_equal(kernel.values, second.kernels[layer].values)
        np.testing.assert_array_equal(kernel.scale, second.kernels[layer].scale)


def test_a_network_of_the_zoo_through_a_model_file(tmp_path, images):
    tf.keras.utils.set_random_seed(1)
    original = zoo.resnet20("reactnet", (28, 28, 1), 10, width=0.5)
    weights.save(original, tmp_path / "net.npz")
    tf.keras.utils.set_random_seed(2)
    copy = zoo.resnet20("reactnet", (28, 28, 1), 10, width=0.5)
    weights.restore(copy, tmp_path / "net.npz")
    copy.save(tmp_path / "copy.keras")
    loaded = tf.keras.models.load_model(tmp_path / "copy.keras")
    expected = original.predict(images, verbose=0)
    np.testing.assert_array_equal(copy.predict(images, verbose=0), expected)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)


def test_the_layout_is_the_documented_one(tmp_path):
    """Read with NumPy and arithmetic alone."""
    model = network("dorefa", 1)
    weights.save(model, tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as file:
        content = dict(file)
    header = json.loads(bytes(content["bibench_tf"]))
    assert header["version"] == 1 and header["network"] == "small"
    layer = model.get_layer("conv")
    height, width, inputs, outputs = header["kernels"]["conv"]
    assert (height, width, inputs, outputs) == (3, 3, 23, 33)
    packed, kernel = content["conv/kernel.bits"], layer.kernel.numpy()
    assert packed.dtype == np.uint8 and packed.shape == (math.ceil(3 * 3 * 23 * 33 / 8),)
    rng = np.random.default_rng(0)
    for o, y, x, i in zip(*(rng.integers(0, size, 200) for size in (33, 3, 3, 23)), strict=True):
        place = ((o * 3 + y) * 3 + x) * 23 + i
        bit = (packed[place // 8] >> (7 - place % 8)) & 1
        assert bit == (kernel[y, x, i, o] >= 0)
    scale = np.abs(kernel).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(content["conv/kernel.scale"], scale, rtol=1e-6)
    np.testing.assert_array_equal(content["bn2/moving_mean"], model.get_layer("bn2").moving_mean)
    np.testing.assert_array_equal(content["head/kernel"], model.get_layer("head").kernel)
    read = weights.load(tmp_path / "net.npz").kernels["conv"]
    np.testing.assert_array_equal(read.values, layer.kernel_quantizer(tf.convert_to_tensor(layer.kernel)))


def test_the_last_byte_ends_in_zeros(tmp_path):
    model = network("bnn", 1)
    weights.save(model, tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as file:
        count = math.prod(model.get_layer("conv").kernel.shape)
        assert count % 8 and not np.unpackbits(file["conv/kernel.bits"])[count:].any()
        assert "conv/kernel.scale" not in file.files  # BNN has no scales


@pytest.mark.parametrize("name", ["bnn", "fda"])
def test_the_file_is_as_small_as_it_should_be(tmp_path, name):
    model = zoo.resnet18(name, (32, 32, 3), 10)
    stored = weights.save(model, tmp_path / "net.npz")
    size, theory = (tmp_path / "net.npz").stat().st_size, complexity.count(model).bits / 8
    channels = sum(layer.gamma.shape[0] for layer in model.layers if hasattr(layer, "moving_mean"))
    scales = sum(kernel.scale.size for kernel in stored.kernels.values())
    # Larq counts a normalization as two numbers per channel; four are stored, and a scale.
    floats = 4 * 2 * channels + 4 * scales
    count = 2 * len(stored.kernels) + len(stored.arrays)
    assert theory < size < theory + floats + 450 * (count + 1)
    assert size < 1.08 * theory
    assert size < sum(weight.numpy().nbytes for weight in model.weights) / 15
    # Noise modules and schedules are for training.
    assert not any("noise" in key or "schedule" in key for key in stored.arrays)


# Faults


@pytest.fixture
def saved(tmp_path):
    weights.save(network("bireal", 1), tmp_path / "net.npz")
    return tmp_path / "net.npz"


def change(path, **replaced):
    """Write the file again with other arrays; None leaves one out."""
    with np.load(path) as file:
        content = {**dict(file), **{key.replace("__", "/").replace("_DOT_", "."): v for key, v in replaced.items()}}
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


def header_with(path, **replaced):
    with np.load(path) as file:
        header = {**json.loads(bytes(file["bibench_tf"])), **replaced}
    change(path, bibench_tf=np.frombuffer(json.dumps(header).encode(), np.uint8))


def test_faults_are_told_in_a_sentence(saved):
    content = saved.read_bytes()
    faults = {
        "truncated": (lambda: saved.write_bytes(content[: len(content) // 2]), "is damaged"),
        "a flipped byte": (lambda: saved.write_bytes(content[:5000] + b"\x55\xaa\x55" + content[5003:]), "is damaged"),
        "no zip file": (lambda: saved.write_text("weights"), "is damaged or no .npz file"),
        "empty": (lambda: saved.write_bytes(b""), "is damaged or no .npz file"),
        "one array": (lambda: np.save(saved.open("wb"), np.zeros(3)), "holds no weights of bibench-tf"),
        "another file": (lambda: np.savez(saved, a=np.zeros(3)), "holds no weights of bibench-tf"),
        "objects": (lambda: np.savez(saved, a=np.array([{}], object)), "is damaged or no .npz file of plain arrays"),
        "newer": (lambda: header_with(saved, version=2), "is of version 2; this bibench-tf reads version 1"),
        "other format": (lambda: header_with(saved, format="x"), "header that cannot be read"),
        "no arrays": (lambda: header_with(saved, arrays=3), "header that cannot be read"),
        "no JSON": (lambda: change(saved, bibench_tf=np.zeros(4, np.uint8)), "header that cannot be read"),
        "size": (lambda: change(saved, conv__kernel_DOT_bits=np.zeros(9, np.uint8)), "'conv/kernel.bits' does not fit"),
        "missing": (lambda: change(saved, bn2__gamma=None), "'bn2/gamma' does not fit"),
        "extra": (lambda: change(saved, zzz=np.zeros(3)), "'zzz' does not fit"),
        "shape": (lambda: header_with(saved, kernels={"conv": [3, 3, 23, 34]}), "the kernel of 'conv'"),
    }
    for name, (spoil, message) in faults.items():
        saved.write_bytes(content)
        spoil()
        with pytest.raises(BibenchError, match=message) as caught:
            weights.load(saved)
        assert str(saved) in str(caught.value), name
    saved.unlink()
    with pytest.raises(BibenchError, match="There is no file"):
        weights.load(saved)


def test_another_network_is_refused_and_left_as_it_was(saved):
    other = network("reactnet", 2)
    before = [weight.numpy() for weight in other.weights]
    with pytest.raises(BibenchError, match=r"another network \('small'\) than 'small': 'conv/input_shift'"):
        weights.restore(other, saved)
    assert all(np.array_equal(old, new) for old, new in zip(before, other.weights, strict=True))
    with pytest.raises(BibenchError, match="'stem_conv/kernel' does not fit"):
        weights.restore(zoo.resnet20("bireal", (28, 28, 1), 10), saved)
    fewer = network("bireal", 2)
    with pytest.raises(BibenchError, match="does not fit"):
        weights.restore(tf.keras.Model(fewer.inputs, fewer.get_layer("pool").output), saved)
    with pytest.raises(BibenchError, match="'conv/kernel' does not fit"):
        weights.restore(network("full_precision", 2), saved)


def test_writing_is_atomic(saved, monkeypatch):
    content = saved.read_bytes()

    def fail(path, data):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(BibenchError, match="Cannot write to .*: disk full"):
        weights.save(network("bireal", 2), saved)
    assert saved.read_bytes() == content and len(list(saved.parent.iterdir())) == 1


def test_a_quantizer_without_signs_is_stored_as_it_is(tmp_path, images):
    import larq as lq

    def ternary(seed):
        tf.keras.utils.set_random_seed(seed)
        image = layers.Input((28, 28, 1))
        x = lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_tern", name="conv")(image)
        return tf.keras.Model(image, layers.GlobalMaxPooling2D()(x))

    original, copy = ternary(1), ternary(2)
    stored = weights.save(original, tmp_path / "net.npz")
    assert not stored.kernels and "conv/kernel" in stored.arrays
    weights.restore(copy, tmp_path / "net.npz")
    np.testing.assert_array_equal(copy.predict(images, verbose=0), original.predict(images, verbose=0))


def test_command(tmp_path):
    output = tmp_path / "net.npz"
    arguments = ["export-weights", "zoo:resnet20@0.5", "--algorithm", "bnn", "--input-shape", "32x32x3"]
    result = CliRunner().invoke(deploy, [*arguments, "--classes", "10", "-o", str(output)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "18 binary kernels" in result.output
    assert zipfile.is_zipfile(output) and len(weights.load(output).kernels) == 18


def test_the_examples_of_the_document_run(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    document = Path(__file__).parents[2] / "docs" / "exports.md"
    examples = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert len(examples) == 3
    names = {}
    for example in examples:
        exec(compile(example, str(document), "exec"), names)
    np.testing.assert_array_equal(np.moveaxis(names["signs"], 0, -1), names["kernel"].signs)
