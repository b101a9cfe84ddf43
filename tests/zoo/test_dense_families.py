"""BinaryDenseNet and MeliusNet: the authors' sizes and operations, Larq Zoo's exact counts, and what blocks compute."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, complexity, zoo
from bibench_tf.algorithms.bnn import BNN
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.deploy import flatbuffer, interpreters
from bibench_tf.deploy.conversion import Converter
from bibench_tf.errors import BibenchError
from bibench_tf.names import PAPER
from bibench_tf.networks import NETWORKS
from bibench_tf.zoo import stems
from bibench_tf.zoo.binary_densenets import DenseStages, channel_shuffle, dense_block, dense_network, transition_width
from bibench_tf.zoo.meliusnets import melius_block

FAMILIES = [name for name in zoo.names() if name.startswith(("binary_densenet", "meliusnet"))]

# The authors' table (CurrentBestResults.md of BMXNet-v2-wiki), as printed: MiB and operations. Parameters, with two for
# each batch-norm channel, are a count by hand that gives both; Larq Zoo prints those of MeliusNet22 and of
# BinaryDenseNet with the imagenet stem.
HPI = [
    ("meliusnet22", "imagenet", "3.89", "2.58", 6_948_392),
    ("meliusnet22", "grouped", "3.88", "2.08", 6_944_584),
    ("meliusnet29", "imagenet", "5.08", "2.64", 11_332_136),
    ("meliusnet29", "grouped", "5.07", "2.14", 11_328_328),
    ("meliusnet42", "grouped", "10.1", "3.25", 26_825_544),
    ("meliusnet59", "grouped", "17.39", "5.32", 55_555_336),
    ("meliusnet_a", "grouped", "4.05", "1.63", 9_238_984),
    ("meliusnet_b", "grouped", "5.0", "1.96", 12_239_176),
    ("meliusnet_c", "grouped", "4.46", "1.50", 12_240_264),
    ("binary_densenet28", "imagenet", "4.04", "2.58", 5_131_496),
    ("binary_densenet28", "grouped", "4.03", "2.09", 5_131_496 - 3_808),
    ("binary_densenet37", "imagenet", "5.13", "2.70", 8_702_248),
    ("binary_densenet37", "grouped", "5.12", "2.20", 8_702_248 - 3_808),
    # Not in the table: Larq's size, and operations counted by hand.
    ("binary_densenet45", "imagenet", "7.35", "3.44", 13_889_512),
    ("meliusnet23", "grouped", "3.715", "1.1344", 8_187_784),
]

# larq/docs, zoo_hero: parameters, bytes, MACs of one bit and in float. Larq's MeliusNet22 has the grouped stem, its
# BinaryDenseNets have the imagenet stem: the defaults here.
LARQ = {
    "meliusnet22": (6_944_584, 4_065_568, 4_624_220_160, 136_388_608),
    "binary_densenet28": (5_131_496, 4_241_312, 3_587_383_296, 202_484_224),
    "binary_densenet37": (8_702_248, 5_382_304, 4_506_808_320, 199_738_368),
    "binary_densenet37_dilated": (8_702_248, 5_382_304, 7_774_470_144, 452_625_408),
    "binary_densenet45": (13_889_512, 7_703_968, 6_430_556_160, 244_103_424),
}

# Channels before and after each transition, and at the end.
WIDTHS = {
    "binary_densenet28": ((448, 160), (544, 192), (576, 256), 576),
    "binary_densenet37": ((448, 128), (640, 192), (960, 256), 640),
    "binary_densenet37_dilated": ((448, 128), (640, 192), (960, 256), 640),
    "binary_densenet45": ((448, 160), (928, 288), (1184, 288), 800),
    "meliusnet22": ((320, 160), (480, 224), (480, 256), 512),
    "meliusnet23": ((192, 128), (384, 192), (576, 288), 672),
    "meliusnet29": ((320, 128), (512, 192), (704, 256), 640),
    "meliusnet42": ((384, 160), (672, 256), (1152, 416), 1056),
    "meliusnet59": ((448, 192), (960, 320), (1856, 544), 1312),
    "meliusnet_a": ((320, 160), (480, 256), (576, 288), 672),
    "meliusnet_b": ((320, 160), (544, 224), (736, 320), 704),
    "meliusnet_c": ((256, 128), (448, 192), (832, 288), 672),
}


@functools.cache
def unallocated(name, stem) -> tf.keras.Model:
    """The network at its default size and with its paper's binarization, without memory for its weights."""
    with complexity.without_memory():
        return zoo.build(name, PAPER, stem=stem)


@functools.cache
def cost(name, stem) -> complexity.ModelCost:
    return complexity.count(unallocated(name, stem))


def as_printed(value: float, printed: str) -> str:
    return f"{value:.{len(printed.split('.')[1])}f}"


@pytest.mark.parametrize(("name", "stem", "size_mib", "operations_e8", "parameters"), HPI)
def test_the_authors_table(name, stem, size_mib, operations_e8, parameters):
    """One bit for a binary weight, two floats for a batch-norm channel; binary MACs / 64 + float MACs, without head."""
    default = {"binary_densenet": "imagenet", "meliusnet": "grouped"}[name.rstrip("_abc0123456789")]
    counted = cost(name, "auto" if stem == default else stem)
    head = next(layer for layer in counted.layers if layer.name == "head")
    operations = counted.macs_binary / 64 + counted.macs_float - head.macs
    assert as_printed(counted.bits / 8 / 2**20, size_mib) == size_mib
    assert as_printed(operations / 1e8, operations_e8) == operations_e8
    assert counted.parameters == parameters


@pytest.mark.parametrize("name", LARQ)
def test_larq_zoos_counts_to_the_unit(name):
    counted = cost(name, "auto")
    assert (counted.parameters, counted.bits / 8, counted.macs_binary, counted.macs_float) == LARQ[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_widths(name):
    model = unallocated(name, "auto")
    *transitions, last = WIDTHS[name]
    convolutions = [model.get_layer(f"transition{number}_conv") for number in (1, 2, 3)]
    assert [(layer.input_shape[-1], layer.output_shape[-1]) for layer in convolutions] == transitions
    assert model.get_layer("pool").output_shape == (None, last)
    groups = {"meliusnet23": 8, "meliusnet_a": 4, "meliusnet_b": 2, "meliusnet_c": 4}.get(name, 1)
    assert {layer.groups for layer in convolutions} == {groups}
    shuffles = [layer for layer in model.layers if layer.name.endswith("_shuffle_split")]
    assert [layer.target_shape[1] for layer in shuffles] == ([16] * 3 if groups > 1 else [])


@pytest.mark.parametrize(
    ("channels", "reduction", "expected"),
    [(960, 4, 256), (288, 2, 128), (448, 2.7, 160), (1184, 4, 288), (640, 3.3, 192), (64, 1, 64)],
)
def test_transition_width_rounds_halves_to_even(channels, reduction, expected):
    # 960 / 4 is 7.5 times 32 and goes up, 288 / 2 is 4.5 times 32 and goes down.
    assert transition_width(channels, reduction) == expected


def test_the_dilated_network_keeps_its_size_in_stages_3_and_4():
    model = unallocated("binary_densenet37_dilated", "auto")
    convolutions = [layer for layer in model.layers if isinstance(layer, BinaryConv2D)]
    seen = [(layer.name[:6], layer.dilation_rate[0], layer.output_shape[1]) for layer in convolutions]
    expected = [("stage1", 1, 56)] * 6 + [("stage2", 1, 28)] * 8 + [("stage3", 2, 28)] * 12 + [("stage4", 4, 28)] * 6
    assert seen == expected
    pools = [layer.name for layer in model.layers if isinstance(layer, tf.keras.layers.MaxPooling2D)]
    assert pools == ["stem_pool", "transition1_pool"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_papers_binarization_is_the_default(name):
    model = unallocated(name, "auto")
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Lambda", "TFOpLambda", "SlicingOpLambda"}
    for layer in model.layers:
        if isinstance(layer, BinaryConv2D):
            assert layer.input_quantizer.clip_value == layer.kernel_quantizer.clip_value == 1.3
            assert layer.kernel_constraint.clip_value == 1.3
        elif "conv" in layer.name and isinstance(layer, tf.keras.layers.Conv2D):
            assert layer.name.startswith(("stem", "transition"))


def test_aliases():
    assert zoo.meliusnet25_4 is zoo.meliusnet_a
    assert zoo.meliusnet29_2 is zoo.meliusnet_b
    assert NETWORKS.get("meliusnet25_4").has_own_binarization and NETWORKS.get("meliusnet29_2").has_own_binarization
    assert not set(zoo.names()) & {"meliusnet25_4", "meliusnet29_2"}
    with pytest.raises(BibenchError, match="at least 8 x 8"):
        zoo.build("meliusnet29_2", PAPER, input_shape=(7, 7, 3))


def tiny(algorithm="bnn", block=melius_block, groups=1, shuffle_groups=1, **options):
    """A network of two stages of one block each."""
    options = {"stem": "thumbnail", "input_shape": (8, 8, 3), "width": 0.25, "num_classes": 3, **options}
    stages = DenseStages(block, (1, 1), (96,), (1, 1), groups, shuffle_groups)
    return dense_network("tiny", stages, algorithm, **options)


def test_a_dense_block_appends_its_channels():
    model = tiny(block=dense_block)
    block = tf.keras.Model(model.get_layer("stem_conv").output, model.get_layer("stage1_block1_concat1").output)
    x = tf.random.normal((2, 8, 8, 16), seed=1)
    y = block(x).numpy()
    new = model.get_layer("stage1_block1_conv1")(model.get_layer("stage1_block1_bn1")(x))
    np.testing.assert_array_equal(y, np.concatenate([x.numpy(), new.numpy()], axis=-1))


def test_an_improvement_block_adds_to_the_new_channels_only():
    model = tiny()
    parts = [model.get_layer(f"stage1_block1_{part}").output for part in ("concat1", "conv2", "concat2")]
    block = tf.keras.Model(model.get_layer("stem_conv").output, parts)
    before, improvement, after = (part.numpy() for part in block(tf.random.normal((2, 8, 8, 16), seed=1)))
    assert improvement.shape[-1] == 16
    assert improvement.any(axis=(0, 1, 2)).all()
    expected = before.copy()
    expected[..., -16:] += improvement
    np.testing.assert_array_equal(after, expected)


@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (320, 16), (8, 8), (6, 1)])
def test_shuffle_takes_one_channel_of_each_group_in_turn(channels, groups):
    x = np.random.default_rng(0).normal(size=(2, 3, 5, channels)).astype("float32")
    inputs = tf.keras.Input(x.shape[1:])
    once = channel_shuffle(inputs, groups, "shuffle")
    twice = channel_shuffle(once, channels // groups, "unshuffle")
    shuffled, restored = tf.keras.Model(inputs, [once, twice])(x)
    order = [group * (channels // groups) + i for i in range(channels // groups) for group in range(groups)]
    np.testing.assert_array_equal(shuffled, x[..., order])
    np.testing.assert_array_equal(restored, x)


@functools.cache
def float_twin():
    return tiny("full_precision")


@pytest.mark.parametrize("key", [key for key in algorithms.names() if key != "full_precision"])
def test_every_algorithm_builds_with_the_same_layer_names(key):
    model = tiny(key)
    assert [layer.name for layer in model.layers] == [layer.name for layer in float_twin().layers]
    assert model(tf.zeros((2, 8, 8, 3))).shape == (2, 3)
    binary = [layer.name for layer in model.layers if hasattr(layer, "kernel_quantizer")]
    assert binary == [f"stage{stage}_block1_conv{number}" for stage in (1, 2) for number in (1, 2)]


def test_full_precision_has_a_nonlinearity_before_each_convolution():
    name = "stage2_block1_activation1"
    assert float_twin().get_layer(name).activation.__name__ == "relu"
    assert tiny("bnn").get_layer(name).activation.__name__ == "linear"


@pytest.mark.parametrize(
    ("stem", "width", "channels", "transition", "groups"),
    [
        ("thumbnail", 0.125, 8, 12, 4),
        ("grouped", 0.125, 8, 12, 4),
        ("grouped", 0.3, 19, 29, 1),
        ("imagenet", 0.5, 32, 48, 8),
    ],
)
def test_width_multiplies_all_channels_and_groups_give_way(stem, width, channels, transition, groups):
    model = tiny(width=width, stem=stem, input_shape=(32, 32, 3), groups=8, shuffle_groups=16)
    convolution = model.get_layer("transition1_conv")
    assert convolution.input_shape[-1] == 2 * channels
    assert (convolution.filters, convolution.groups) == (transition, groups)
    assert model(tf.zeros((1, 32, 32, 3))).shape == (1, 3)


def test_stems():
    shapes = {}
    for kind in stems.STEMS:
        image = tf.keras.Input((64, 48, 3))
        model = tf.keras.Model(image, stems.stem(image, kind, 64))
        convolutions = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Conv2D)]
        shapes[kind] = (model.output_shape[1:], [tuple(layer.kernel.shape) for layer in convolutions])
    assert shapes == {
        "imagenet": ((16, 12, 64), [(7, 7, 3, 64)]),
        "grouped": ((16, 12, 64), [(3, 3, 3, 32), (3, 3, 8, 32), (3, 3, 4, 64)]),
        "thumbnail": ((64, 48, 64), [(3, 3, 3, 64)]),
    }


@pytest.mark.parametrize(
    ("stem", "size", "large", "expected"),
    [
        ("auto", 96, "grouped", "grouped"),
        ("auto", 96, "imagenet", "imagenet"),
        ("auto", 95, "grouped", "thumbnail"),
        ("imagenet", 32, "grouped", "imagenet"),
    ],
)
def test_the_stem_follows_the_input_size(stem, size, large, expected):
    assert stems.choose(stem, (size, 200, 3), large) == expected


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("meliusnet22", {"stem": "cifar"}, "stem is one of auto, imagenet, grouped, thumbnail"),
        ("meliusnet22", {"shuffle_groups": 4}, "does not take this option"),
        ("meliusnet_a", {"shuffle_groups": 0}, "shuffle_groups must be an integer >= 1, not 0"),
        ("meliusnet_a", {"shuffle_groups": 2.5}, "shuffle_groups must be an integer >= 1, not 2.5"),
        ("binary_densenet28", {"input_shape": (31, 31, 3), "stem": "grouped"}, "at least 32 x 32"),
        ("binary_densenet28", {"input_shape": (7, 8, 3)}, "at least 8 x 8"),
        ("binary_densenet28", {"width": 0}, "width"),
    ],
)
def test_bad_options_are_one_sentence(name, options, message):
    with pytest.raises(BibenchError, match=message):
        zoo.build(name, "bnn", **options)


@pytest.fixture(scope="module")
def trained():
    """A small network with everything that is special in it, after a few steps: grouped convolutions train on a CPU."""
    tf.keras.utils.set_random_seed(0)
    model = tiny(BNN(clip_value=1.3), stem="grouped", input_shape=(32, 32, 3), groups=4, shuffle_groups=4)
    grouped = {layer.name: layer.groups for layer in model.layers if getattr(layer, "groups", 1) > 1}
    assert grouped == {"stem_conv2": 4, "stem_conv3": 8, "transition1_conv": 4}
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = {layer.name: layer.get_weights()[0] for layer in model.layers if "conv" in layer.name}
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, 32, 32, 3)).astype("float32")
    model.fit(images, rng.integers(0, 3, 32), batch_size=8, verbose=0)
    for name, kernel in before.items():
        assert (model.get_layer(name).get_weights()[0] != kernel).any(), name
    return model, images[:8]


def test_grouped_convolutions_and_shuffles_in_graph_mode(trained):
    model, images = trained
    np.testing.assert_allclose(model.predict(images, verbose=0), model(images).numpy(), atol=1e-4)


def test_lce_computes_the_same(trained):
    # Inputs of the last binary convolutions are 4 x 4: LCE's fast kernels are wrong below the size of a kernel.
    model, images = trained
    with Converter() as converter:
        file = converter.convert(model)
    operators = flatbuffer.operators(file)
    assert operators["LceBconv2d"] == 4
    assert operators["CONV_2D"] == 4  # three in the stem and one in the transition: grouped ones stay whole
    np.testing.assert_allclose(interpreters.predict(file, images), model.predict(images, verbose=0), atol=1e-4)


def test_a_saved_network_computes_the_same(trained, tmp_path):
    model, images = trained
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images).numpy(), model(images).numpy())
