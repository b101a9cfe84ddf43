"""FSMN and D-FSMN: their counts, that they learn real sounds with every algorithm, are saved, and become binary."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import complexity, datasets, zoo
from bibench_tf.deploy import flatbuffer, interpreters
from bibench_tf.errors import BibenchError
from bibench_tf.names import BIBENCH

NAMES = ("dfsmn", "fsmn")
KEYS = ("full_precision", *BIBENCH)
# Of D-FSMN without its head, from BiBench's code: in full precision, and with BNN, whose memory blocks are dense there.
BIBENCH_FULL_PRECISION, BIBENCH_BNN = 587_936, 1_234_075
# One convolution in the front end, and two dense ones in each of two layers; depthwise ones stay float.
CONVERTED = 5
# Converted in every run of the tests: without and with factors behind the convolution, with its own input, in floats.
QUICK = ("full_precision", "bnn", "reactnet", "xnorpp")


def small(name, algorithm, **options):
    tf.keras.utils.set_random_seed(5)
    return zoo.build(name, algorithm, **{"num_classes": 10, "width": 0.25, "layers": 2, **options})


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.fixture(scope="module")
def batch():
    return next(iter(datasets.get("keywords_mini").test_batches(48)))


def sizes(memory_inputs, biases, layers=8):
    """Parameters of D-FSMN without its head: kernels, biases, and two for each channel of a batch norm."""
    front = 25 * 16 + 16 + 2 * 16 + 25 * 16 * 32 + biases * 32 + 2 * 32 + 256 * 128 + 128
    memory = 5 * memory_inputs * 128 + biases * 128 + 2 * 128
    dense = 128 * 256 + biases * 256 + 2 * 256 + 256 * 128 + biases * 128 + 2 * 128
    return front + layers * (memory + dense)


def test_parameters_of_dfsmn_are_those_of_the_reference(binary_layers):
    head = 8 * 128 * 12 + 12
    slopes = 3 + 8 * 3
    assert sizes(memory_inputs=1, biases=1) == BIBENCH_FULL_PRECISION
    assert sizes(memory_inputs=128, biases=0) + slopes == BIBENCH_BNN
    assert trainable(zoo.dfsmn()) == BIBENCH_FULL_PRECISION + head == 600_236
    binary = zoo.dfsmn("bnn")
    assert trainable(binary) == sizes(memory_inputs=1, biases=0) + slopes + head == 596_135
    assert len(binary_layers(binary)) == 25


def test_parameters_of_the_small_one(binary_layers):
    layer = (BIBENCH_FULL_PRECISION - sizes(memory_inputs=1, biases=1, layers=0)) // 8
    assert trainable(zoo.dfsmn_small()) == 600_236 - 6 * layer == 193_964
    binary = zoo.dfsmn_small("bnn")
    assert trainable(binary) == 192_917 and len(binary_layers(binary)) == 7 and binary.name == "dfsmn_small"


def test_parameters_of_fsmn(binary_layers):
    def expected(biases, slopes):
        front = 25 * 16 + 16 + 2 * 16 + 25 * 16 * 32 + biases * 32 + 2 * 32 + 256 * 128 + 128
        layer = 5 * 128 + 2 * 128 * 128 + 3 * biases * 128 + 2 * 2 * 128
        return front + 4 * layer + slopes * 7 + 8 * 128 * 12 + 12

    assert trainable(zoo.fsmn()) == expected(biases=1, slopes=0) == 195_756
    binary = zoo.fsmn("bnn")
    assert trainable(binary) == expected(biases=0, slopes=1) == 194_195
    assert len(binary_layers(binary)) == 13


def test_multiply_accumulates():
    """Kernel sizes times positions: 16 x 16 and 8 x 8 in the front end, then 8 steps."""
    front = 256 * 25 * 16, 64 * 25 * 16 * 32
    dense = 8 * 256 * 128, 8 * 128 * 12
    cost = complexity.count(zoo.dfsmn("bnn"))
    assert cost.macs_binary == front[1] + 8 * 8 * (5 * 128 + 2 * 128 * 256)
    assert cost.macs == cost.macs_binary + front[0] + sum(dense)
    assert complexity.count(zoo.dfsmn()).macs == cost.macs
    cost = complexity.count(zoo.fsmn("bnn"))
    assert cost.macs_binary == front[1] + 4 * 8 * (5 * 128 + 2 * 128 * 128)


def marked(name, key):
    return pytest.param(name, key, marks=() if key in QUICK else pytest.mark.pairs)


@pytest.mark.parametrize(("name", "key"), [marked(name, key) for name in NAMES for key in KEYS])
def test_it_learns_and_is_saved(name, key, batch, take_steps, assert_saved):
    model = small(name, key, layers=1)
    assert model.output_shape == (None, 10)
    losses, largest = take_steps(model, *batch, steps=10, rate=5e-3)
    assert min(losses[-3:]) < 0.8 * losses[0], losses
    assert all(size > 0 for size in largest.values()), largest
    assert_saved(model, batch[0])


def test_time_stays_time(batch):
    """A memory block passes on what happens two steps away, and no layer more than that."""
    model = small("dfsmn", "full_precision", layers=1)
    taps = tf.keras.Model(model.get_layer("front_activation").output, model.get_layer("layer1_add").output)
    steps = np.zeros((2, 8, 32), np.float32)
    steps[1, 3] = 1.0
    before, after = taps(steps).numpy()
    changed = np.flatnonzero(np.abs(after - before).max(axis=1) > 1e-6)
    assert changed.tolist() == [1, 2, 3, 4, 5]
    spectrogram = batch[0][:1].numpy()
    later = spectrogram.copy()
    later[:, 24:] += 10.0  # the last quarter of the time, all bands
    front = tf.keras.Model(model.input, model.get_layer("front_activation").output)
    changed = np.abs(front(later).numpy() - front(spectrogram).numpy()).max(axis=(0, 2)) > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * 4  # two convolutions of 5: steps 24 on reach step 4 x 4 - 3 + 12


def test_memory_blocks_are_depthwise_with_every_algorithm():
    for key in KEYS:
        model = small("dfsmn", key)
        layer = model.get_layer("layer1_memory_conv")
        channels = layer.output_shape[-1]
        kernel = layer.depthwise_kernel if key == "full_precision" else layer.kernel
        assert int(np.prod(kernel.shape)) == 5 * channels


def test_options_are_checked():
    with pytest.raises(BibenchError, match="layer"):
        zoo.dfsmn(layers=0)
    with pytest.raises(BibenchError, match="8 x 8"):
        zoo.fsmn(input_shape=(4, 32, 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", [key if key in QUICK else pytest.param(key, marks=pytest.mark.pairs) for key in KEYS])
def test_it_becomes_binary_but_for_the_memory_blocks(name, key, batch, converter, after_a_training):
    model = after_a_training(small(name, key))
    file = converter.convert(model)
    operators = flatbuffer.operators(file)
    assert operators["LceBconv2d"] == (0 if key == "full_precision" else CONVERTED)
    assert operators["DEPTHWISE_CONV_2D"] == 2
    expected = model.predict(batch[0], verbose=0)
    np.testing.assert_allclose(
        interpreters.predict(file, batch[0].numpy()), expected, atol=2e-3 * np.abs(expected).max()
    )
