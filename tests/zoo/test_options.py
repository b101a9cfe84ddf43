"""Every option of every network is checked: its type by the annotation, its range and choices by the builder."""

from __future__ import annotations

import inspect
import math
import typing

import numpy as np
import pytest

from bibench_tf import algorithms, networks, zoo
from bibench_tf.errors import BibenchError, InvalidOption

# By the type of the option: values of which each was taken for another one, or ended in an error of Python or Keras.
WRONG = {
    int: (2.5, 4.0, True, "4", math.nan, [4]),
    float: (True, "1", math.nan, None, [1.0]),
    bool: (0, 1, "no", None),
    str: (3, True, None, ["auto"]),
    tuple: (3, "abc", (16.0, 16, 1), (16, 16, True), (16, "16", 1)),
}
# Unions with a class, which are checked where they are used.
ELSEWHERE = {"algorithm", "activation", "checkpoint"}


def type_of(annotation):
    """The type that an option has beside None, and whether None fits."""
    types = [each for each in typing.get_args(annotation) if each is not type(None)] or [annotation]
    if typing.get_origin(annotation) in (tuple, typing.Annotated):
        types = [annotation]
    kind = types[0]
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_origin(kind) or kind, type(None) in typing.get_args(annotation)


@pytest.mark.parametrize("name", networks.NETWORKS.names())
def test_types_of_all_options_are_checked(name):
    """By name and by the builder itself; an option without an annotation, or a builder without the check, fails."""
    build = networks.NETWORKS.get(name).build
    hints = typing.get_type_hints(build, vars(inspect.getmodule(inspect.unwrap(build))), include_extras=True)
    checked = 0
    for option, parameter in inspect.signature(build).parameters.items():
        if option in ELSEWHERE or parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind, takes_none = type_of(hints[option])
        for value in WRONG[kind]:
            if value is None and takes_none:
                continue
            for make in (build, lambda name=name, **options: networks.build(name, "bnn", **options)):
                with pytest.raises(InvalidOption, match=rf": {option} must be .*, not "):
                    make(**{option: value})
                checked += 1
    assert checked >= 20


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("vgg_small", {"width": width}) for width in (0, -1, math.inf)),
        ("vgg_small", {"num_classes": 1}),
        *(("vgg_small", {"activation": activation}) for activation in ("rleu", 3, ["relu"])),
        *(("vgg_small", {option: "x"}) for option in ("shortcut", "stem", "padding")),
        ("vgg_small", {"input_shape": (16, 16)}),
        *(("resnet20", {"stem_channels": channels}) for channels in (0, -3)),
        *(("wrpn", {"stem_channels": 0}), ("wrpn", {"shortcut": "x"}), ("wrpn", {"pooled_shortcut": "no"})),
        *(("abc_net", {"depth": 19}), ("abc_net", {"weight_bases": 0}), ("abc_net", {"activation_bases": -1})),
        ("group_net18", {"branches": 0}),
        ("meliusnet23", {"shuffle_groups": 0}),
        *(("fsmn", {"layers": 0}), ("dfsmn", {"layers": -1})),
        ("pointnet_vanilla", {"pool": "x"}),
        *(("pointnet_segmentation", {option: 0}) for option in ("num_categories", "num_parts")),
        *(("bert", {option: 0}) for option in ("layers", "heads", "hidden", "vocabulary_size", "sequence_length")),
        *(("bert", {"dropout": 1.0}), ("bert", {"num_classes": 0})),
        *((name, {"max_detections": 0}) for name in ("ssd_lite", "ssd300_vgg16", "faster_rcnn_resnet18")),
        *(("faster_rcnn_resnet18", {"proposals": 0}), ("ssd_lite", {"num_classes": 0})),
        *(("vgg_small", {"algorithm": algorithm}) for algorithm in (3, None)),
    ],
)
def test_ranges_and_choices_are_checked(name, options):
    """No empty list of detections, no stem of 0 channels, which a width above 0 made 1."""
    options = {"algorithm": "abc" if name == "abc_net" else "bnn", **options}
    with pytest.raises(InvalidOption):
        networks.build(name, **options)


def test_numbers_of_numpy_and_lists_fit():
    options = {"input_shape": [np.int64(16), 16, 1], "num_classes": np.int32(4), "width": np.float32(0.0625)}
    model = zoo.vgg_small("bnn", **options)
    assert model.input_shape == (None, 16, 16, 1) and model.output_shape == (None, 4)


@pytest.mark.parametrize("width", ["nan", "inf", "0", "-1", "x", ""])
def test_a_width_behind_the_name_is_a_positive_number(width):
    with pytest.raises(BibenchError, match="write NAME or NAME@WIDTH"):
        networks.parse(f"resnet20@{width}")
    assert networks.parse("resnet20@2") == ("resnet20", 2.0)


def test_functions_of_families_are_checked():
    """Also where no preset is between them and the caller."""
    with pytest.raises(InvalidOption, match="resnet: width must be a number, not '1'"):
        zoo.resnets.resnet("mine", (1, 1), (8, 8), algorithms.get("bnn"), (16, 16, 1), 4, "1")
