"""Options of algorithms and quantizers: types, choices and ranges, wherever the values come from."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, process, registry
from bibench_tf.algorithms import quantizers, reactnet, wrpn
from bibench_tf.algorithms.abc_net import InputBases, KernelBases
from bibench_tf.errors import InvalidOption

NO_NUMBERS = ("3", None, True, math.nan, [1])
NO_CHOICE = ("chanel", "", None, 1, True)
NO_SWITCH = ("no", 0, 1, None)
NO_BITS = (*NO_NUMBERS, 0, 9, -1, 2.0, math.inf)
NO_COUNT = (*NO_NUMBERS, 0, -1, 2.0, math.inf)
NO_CLIP = (*NO_NUMBERS, 0, -1, math.inf, -math.inf)
# Every option of every algorithm: values that fit, with what becomes of them, and values that do not.
SCALES = {"channel": "channel", "layer": "layer"}
BITS = {1: 1, 8: 8, np.int64(3): 3}
OPTIONS = {
    ("bnn", "clip_value"): ({1: 1.0, 1.3: 1.3, np.float32(1.5): 1.5}, NO_CLIP),
    ("xnor", "input_scale"): ({"sample": "sample", "spatial": "spatial"}, NO_CHOICE),
    ("dorefa", "weight_scale"): (SCALES, NO_CHOICE),
    ("dorefa", "activation_bits"): (BITS, NO_BITS),
    ("bireal", "weight_scale"): (SCALES, NO_CHOICE),
    ("bireal", "clips_weight_gradient"): ({True: True, np.bool_(False): False}, NO_SWITCH),
    ("reactnet", "clip_value"): ({None: None, 2: 2.0}, [value for value in NO_CLIP if value is not None]),
    ("wrpn", "weight_bits"): (BITS, NO_BITS),
    ("wrpn", "activation_bits"): (BITS, NO_BITS),
    ("wrpn", "weight_scale"): (SCALES, NO_CHOICE),
    ("abc", "weight_bases"): ({1: 1, np.int32(7): 7}, NO_COUNT),
    ("abc", "activation_bases"): ({1: 1, np.int32(7): 7}, NO_COUNT),
}
QUANTIZERS = [
    (quantizers.ClippedSign, "clip_value", (1.3, 2), NO_CLIP),
    (quantizers.ChannelScaledSign, "per", ("channel", "layer"), NO_CHOICE),
    (quantizers.ChannelScaledSign, "clips_gradient", (True, False), NO_SWITCH),
    (reactnet.ShiftedSign, "clip_value", (None, 1.5), [value for value in NO_CLIP if value is not None]),
    (wrpn.UnitLevels, "bits", (1, 8), NO_BITS),
    (wrpn.SignedLevels, "bits", (2, 8), (*NO_BITS, 1)),
    (KernelBases, "bases", (1, 7), NO_COUNT),
    (InputBases, "bases", (1, 7), NO_COUNT),
]


def makers(key):
    """The ways to an algorithm with options."""
    return (
        lambda **options: algorithms.get(key, **options),
        algorithms.ALGORITHMS.get(key),
        lambda **options: dataclasses.replace(algorithms.get(key), **options),
        lambda **options: algorithms.get(algorithms.get(key), **options),
    )


def test_the_table_has_every_option():
    found = {
        (key, field.name)
        for key in algorithms.names()
        for field in dataclasses.fields(algorithms.get(key))
        if algorithms.ALGORITHMS.origin(key).startswith("bibench_tf.")
    }
    assert found == OPTIONS.keys()


@pytest.mark.parametrize(("key", "option"), OPTIONS)
def test_options_are_checked(key, option):
    """A field without its choices or its range, or a way that goes round the check, fails."""
    fitting, refused = OPTIONS[key, option]
    for make in makers(key):
        for value, expected in fitting.items():
            found = getattr(make(**{option: value}), option)
            assert found == expected and type(found) is type(expected)
        for value in refused:
            with pytest.raises(InvalidOption, match=rf"^\w+: {option} must be .*, not "):
                make(**{option: value})


def test_the_sentence_names_the_choices():
    with pytest.raises(InvalidOption) as error:
        algorithms.get("xnor", input_scale="chanel")
    assert str(error.value) == "XNOR: input_scale must be 'sample' or 'spatial', not 'chanel'."
    with pytest.raises(InvalidOption) as error:
        algorithms.get("wrpn", weight_bits=9)
    assert str(error.value) == "WRPN: weight_bits must be an integer from 1 to 8, not 9."


@pytest.mark.parametrize(("make", "option", "fitting", "refused"), QUANTIZERS)
def test_arguments_of_quantizers_are_checked(make, option, fitting, refused):
    for value in fitting:
        config = json.loads(json.dumps(make(**{option: value}).get_config()))
        assert make.from_config(config).get_config()[option] == value
    for value in refused:
        with pytest.raises(InvalidOption, match=f"^{make.__name__}: {option} must be .*, not "):
            make(**{option: value})


@pytest.mark.parametrize("key", [3, None, ["bnn"], algorithms.ALGORITHMS.get("bnn")])
def test_an_algorithm_is_a_key_or_an_instance(key):
    with pytest.raises(InvalidOption, match="An algorithm is a key"):
        algorithms.get(key)


def test_an_instance_takes_options_in_place_of_its_own():
    """They were ignored."""
    chosen = algorithms.get("wrpn", weight_bits=2)
    assert algorithms.get(chosen) is chosen
    assert algorithms.get(chosen, activation_bits=4) == algorithms.get("wrpn", weight_bits=2, activation_bits=4)
    with pytest.raises(InvalidOption, match="'wrpn' does not take these options"):
        algorithms.get(chosen, bits=2)


PLUGIN = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bibench_tf import algorithms
from bibench_tf.algorithms.bnn import BNN

if TYPE_CHECKING:
    from collections.abc import Sequence


@algorithms.register
@dataclass(frozen=True)
class Checked(BNN):
    """With a check of its own, which relies on the types."""

    key = "checked_plugin"
    title = "Checked"
    paper = "none"

    slope: float = 2.0
    mode: Literal["soft", "hard"] = "soft"
    taps: Sequence[int] = (1, 2)

    def __post_init__(self):
        if self.slope > 10:
            raise ValueError("too steep")
'''


def test_options_of_plug_ins_are_checked(tmp_path, monkeypatch):
    """Before their own `__post_init__`, together with those that they inherit; unknown annotations take all values."""
    monkeypatch.setenv(process.PLUGINS_VARIABLE, "")
    monkeypatch.setattr(algorithms.ALGORITHMS, "_entries", dict(algorithms.ALGORITHMS._entries))
    path = tmp_path / "checked_plugin.py"
    path.write_text(PLUGIN)
    registry.load_plugin(path)
    for make in makers("checked_plugin"):
        assert make(slope=3, taps="any").slope == 3.0
        with pytest.raises(ValueError, match="too steep"):
            make(slope=11)
        for options in ({"slope": "3"}, {"slope": math.nan}, {"mode": "sof"}, {"clip_value": 0}, {"slope": True}):
            with pytest.raises(InvalidOption, match=f"^Checked: {min(options)} must be"):
                make(**options)


@dataclass(frozen=True)
class Plain(algorithms.Algorithm):
    mode: Literal["soft", "hard"] = "soft"


class Inherited(Plain):
    """Without fields, and without the decorator."""


@pytest.mark.parametrize("make", [Plain, Inherited])
def test_algorithms_that_are_not_registered_are_checked(make):
    assert make("hard").mode == "hard"
    with pytest.raises(InvalidOption, match=f"{make.__name__}: mode must be 'soft' or 'hard', not 'sof'"):
        make("sof")


@tf.keras.utils.register_keras_serializable("tests")
class Steep(algorithms.Quantizer):
    def __init__(self, slope: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def call(self, inputs):
        return inputs * self.slope


def test_arguments_of_quantizers_of_plug_ins_are_checked():
    """Keras still finds the arguments, for its errors and for a `get_config` that the class has not."""
    assert (Steep().slope, Steep(3, name="steep").slope, Steep(slope=np.float64(0.5)).slope) == (2.0, 3.0, 0.5)
    for value in ("3", True, math.nan):
        with pytest.raises(InvalidOption, match="Steep: slope must be a number, not"):
            Steep(value)
    with pytest.raises(TypeError, match="slop"):
        Steep(slop=1.0)
    assert Steep.from_config(Steep(3.0).get_config()).slope == 3.0


@pytest.mark.parametrize("key", algorithms.names())
def test_arguments_of_layers_are_checked(key):
    """Keras truncates 2.5 filters to 2, takes True for 1 and any text for True."""
    algorithm = algorithms.get(key)
    for kind, sizes in (("conv2d", (3,)), ("conv1d", (3,)), ("dense", ())):
        make, first = getattr(algorithm, kind), "units" if kind == "dense" else "filters"
        for value in (*NO_COUNT, 2.5):
            with pytest.raises(InvalidOption, match=f"^{kind}: {first} must be an integer >= 1, not"):
                make(value, *sizes)
        for value in NO_SWITCH:
            with pytest.raises(InvalidOption, match=f"^{kind}: use_bias must be True or False, not"):
                make(4, *sizes, use_bias=value)
        for value in NO_COUNT if sizes else ():
            with pytest.raises(InvalidOption, match=f"^{kind}: groups must be an integer >= 1, not"):
                make(4, *sizes, groups=value)
        for value in (True, -1, 1.5, "smae", None) if sizes else ():
            with pytest.raises(InvalidOption, match=f"^{kind}: padding must be .*'same' or 'valid', not"):
                make(4, *sizes, padding=value)
        assert make(np.int64(4), *sizes, use_bias=True).use_bias is True
    for value in ("1", True, math.nan, None):
        with pytest.raises(InvalidOption, match="^conv2d: pad_value must be a number, not"):
            algorithm.conv2d(4, 3, pad_value=value)
