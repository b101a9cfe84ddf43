"""How networks become known: plug-in files, families of presets, names, and the properties of a network."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import typing

import pytest
import tensorflow as tf

from bibench_tf import complexity, networks, process, registry, zoo
from bibench_tf.datasets.kinds.detection import View
from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.networks import NETWORKS, Preset

PLUGIN = """
import tensorflow as tf
from bibench_tf import algorithms, networks, zoo

@networks.register(aliases=("one_layer",))
def one_convolution(algorithm="bnn", input_shape=(8, 8, 4), num_classes=3, width=1.0):
    "One 3x3 convolution and the head."
    image = tf.keras.Input(input_shape, name="image")
    x = algorithms.get(algorithm).conv2d(round(16 * width), 3, name="conv")(image)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(image, tf.keras.layers.Dense(num_classes, name="head")(x), name="one_convolution")

@zoo.register_family({"plain_mlp": zoo.Preset("A dense layer of 5.", {"units": 5}, (25 + 4, 20, 15))})
def mlp(name, units, algorithm="bnn", input_shape=(4,), num_classes=3):
    rows = tf.keras.Input(input_shape)
    x = algorithms.get(algorithm).dense(units, name="hidden")(rows)
    return tf.keras.Model(rows, tf.keras.layers.Dense(num_classes, name="head")(x), name=name)
"""
PRESETS = [name for name in NETWORKS.names() if NETWORKS.get(name).preset]
MODULES = [module.name for module in pkgutil.iter_modules(zoo.__path__)]
# Counted in the fast tests; the others take seconds each.
SMALL = ("resnet20", "dfsmn", "dfsmn_small", "bert_tiny2", "pointnet_vanilla", "quicknet_small")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plug-in file with two networks, which are forgotten afterwards."""
    NETWORKS.names()
    for attribute in ("_entries", "_aliases"):
        monkeypatch.setattr(NETWORKS, attribute, dict(getattr(NETWORKS, attribute)))
    monkeypatch.setenv(process.PLUGINS_VARIABLE, os.environ.get(process.PLUGINS_VARIABLE, ""))
    path = tmp_path / "my_networks.py"
    path.write_text(PLUGIN)
    registry.load_plugin(path)


def test_a_network_of_a_plug_in_is_built_listed_and_counted(plugin):
    assert {"one_convolution", "plain_mlp"} <= set(zoo.names("image_classification")) & set(dir(zoo))
    assert zoo.names(pattern="one_*") == ["one_convolution"]
    assert zoo.one_layer is zoo.one_convolution
    assert NETWORKS.get("one_convolution").description == "One 3x3 convolution and the head."
    assert NETWORKS.origin("one_convolution").endswith("my_networks.py")
    model = networks.build("one_convolution", "reactnet", input_shape=(6, 6, 4))
    assert model(tf.zeros((2, 6, 6, 4))).shape == (2, 3)
    cost = complexity.count_network("one_convolution@0.5")
    assert (cost.macs_binary, cost.macs_float) == (64 * 9 * 4 * 8, 8 * 3)
    assert networks.task_of("one_convolution@0.5") == "image_classification"


def test_a_family_of_a_plug_in_is_built_and_counted(plugin):
    assert networks.build("plain_mlp", num_classes=2).output_shape == (None, 2)
    assert complexity.count_network("plain_mlp").macs_binary == NETWORKS.get("plain_mlp").preset.counts[1]


def test_no_module_of_the_zoo_has_the_name_of_a_network():
    assert not {*NETWORKS.names(), *NETWORKS.aliases()} & set(MODULES)


def test_modules_can_be_imported_first():
    """In a new process, before any network was looked up."""
    code = (
        "from bibench_tf.zoo.meliusnets import melius_block; from bibench_tf import zoo\n"
        "from bibench_tf.zoo import stems\n"
        "assert callable(zoo.bert) and not hasattr(zoo, 'nothing') and not hasattr(zoo, '__nothing__')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", PRESETS)
def test_builders_of_presets_are_real_functions(name):
    builder, preset = getattr(zoo, name), NETWORKS.get(name).preset
    assert (builder.__name__, NETWORKS.get(name).description) == (name, preset.description)
    signature = inspect.signature(builder)
    assert not set(preset.sizes) & set(signature.parameters)
    assert list(signature.parameters)[0] == "algorithm"
    assert set(typing.get_type_hints(builder)) == {*signature.parameters, "return"}
    assert f"{preset.counts[0]:,} parameters" in builder.__doc__


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
)
def test_counts_of_presets(name):
    with complexity.without_memory():
        model = getattr(zoo, name)()
        cost = complexity.count(model)
    assert model.name == name
    assert (cost.parameters, cost.macs_binary, cost.macs_float) == NETWORKS.get(name).preset.counts


@pytest.mark.parametrize("sizes", [{}, {"depth": 18, "depths": 18}])
def test_presets_that_do_not_fit_their_function(sizes):
    def family(name, depth, algorithm="bnn"):
        raise AssertionError

    with pytest.raises(InvalidOption, match="does not fit"):
        networks.register_family({"new_net": Preset("New.", sizes, (0, 0, 0))})(family)
    assert "new_net" not in NETWORKS


def test_a_builder_needs_an_algorithm():
    with pytest.raises(InvalidOption, match="no parameter 'algorithm'"):
        networks.register()(lambda input_shape: None)


@pytest.mark.parametrize(("name", "options"), [("bert_tiny2", {"layers": 3}), ("meliusnet22", {"groups": 2})])
def test_what_a_preset_fixes_is_no_option(name, options):
    with pytest.raises(BibenchError, match="does not take this option"):
        networks.build(name, **options)


def test_the_views_of_detectors():
    square = View((300, 300))
    assert NETWORKS.get("ssd300_vgg16").input_options == {"coco": square, "voc": square}
    assert NETWORKS.get("ssd_lite").input_options == {"coco": square}
    views = NETWORKS.get("faster_rcnn_resnet18").input_options
    assert {family: view.size for family, view in views.items()} == {"coco": (800, 1333), "voc": (600, 1000)}
    assert all(view.keep_ratio and view.divisor == 32 and view.augmentation == "flip" for view in views.values())


def test_names_in_saved_files_carry_the_package():
    """A user's class of the same name cannot be taken for one of the package."""
    bases = (tf.keras.layers.Layer, tf.keras.constraints.Constraint, tf.keras.initializers.Initializer)
    found = 0
    for module in (importlib.import_module(f"{zoo.__name__}.{name}") for name in MODULES):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, bases) and value.__module__ == module.__name__:
                assert tf.keras.saving.get_registered_name(value) == f"bibench_tf>{name}"
                found += 1
    assert found >= 12
