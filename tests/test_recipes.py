"""Recipes: the rates by hand, what a name means for a data set and a network, and the documented table."""

import contextlib
import dataclasses
import os
import re
from pathlib import Path
from unittest import mock

import pytest

from bibench_tf import datasets, recipes, registry, tasks
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.deploy.targets import TARGETS
from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.networks import NETWORKS
from bibench_tf.recipes import Recipe, learning_rate
from bibench_tf.recipes.base import BIBENCH, QUICK, RECIPES

RECIPE = Recipe("tiny", epochs=3, batch_size=16, optimizer="adam", learning_rate=1.0, schedule="cosine")
REGISTRIES = (NETWORKS, RECIPES, TARGETS, tasks.TASKS, TRACKS)
TABLE = Path(__file__).parents[1] / "docs" / "recipes.md"


def rates(at, **changes):
    return [learning_rate(dataclasses.replace(RECIPE, **changes), epoch) for epoch in at]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("cosine", [1, 0.75, 0.25]), ("linear", [1, 2 / 3, 1 / 3]), ("step", [1, 1, 0.1]), ("constant", [1, 1, 1])],
)
def test_rates_by_epoch(schedule, expected):
    assert rates(range(3), schedule=schedule) == pytest.approx(expected)
    # Within an epoch the rate changes only with `per_step`.
    assert rates((0.9, 1.9, 2.9), schedule=schedule) == pytest.approx(expected)


def test_rates_by_step():
    assert rates((0.3, 1.5, 2.7), schedule="linear", per_step=True) == pytest.approx([0.9, 0.5, 0.1])
    assert rates((0.5, 1.5), schedule="cosine", per_step=True) == pytest.approx([(1 + 3**0.5 / 2) / 2, 0.5])


def test_glues_warm_up_goes_from_0_to_the_rate_and_straight_back():
    """BertAdam's schedule: x / 0.1 before a tenth is done, then (1 - x) / 0.9."""
    glue = recipes.get("bibench_glue_mnli")
    for done in (0.0, 0.01, 0.05, 0.1, 0.2, 0.55, 0.999):
        expected = done / 0.1 if done < 0.1 else (1 - done) / 0.9
        assert learning_rate(glue, done * glue.epochs) == pytest.approx(5e-5 * expected), done


def test_speechs_warm_up_multiplies_the_cosine_of_the_epoch():
    """mmcv's: in five epochs the factor goes from 0.01 to 1, step by step; the cosine moves between epochs."""
    speech = recipes.get("bibench_speech")
    cosine = {0: 1.0, 2: 0.99989034, 5: 0.99931468, 150: 0.5}
    for epoch, factor in ((0, 0.01), (2, 0.01 + 0.99 * 0.4), (5, 1.0), (150, 1.0)):
        assert learning_rate(speech, epoch) == pytest.approx(5e-3 * cosine[epoch] * factor)
    assert learning_rate(speech, 2.5) == pytest.approx(5e-3 * cosine[2] * (0.01 + 0.99 * 0.5))
    assert learning_rate(speech, 150.9) == learning_rate(speech, 150)


def test_what_changes_the_rate_within_an_epoch():
    assert not RECIPE.changes_every_step
    assert dataclasses.replace(RECIPE, per_step=True).changes_every_step
    assert dataclasses.replace(RECIPE, warm_up=0.5).changes_every_step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_up": 1.0}, "Recipe 'tiny': warm_up must be a number >= 0 and < 1, not 1.0"),
        ({"distils": True}, "'tiny' has no teacher"),
        ({"precision": "float8"}, "precision must be 'float32', 'mixed_float16' or 'mixed_bfloat16', not 'float8'"),
        ({"epochs": 0}, "epochs must be an integer >= 1, not 0"),
    ],
)
def test_recipes_that_make_no_sense(changes, message):
    with pytest.raises(BibenchError, match=message):
        dataclasses.replace(RECIPE, **changes)


def test_unknown_schedules_are_named():
    with pytest.raises(BibenchError, match="schedule must be 'cosine', 'linear', 'step' or 'constant', not 'sine'"):
        rates([0], schedule="sine")


def test_bibenchs_speech_recipes():
    binary = recipes.get("bibench_speech")
    for recipe, rate, decay in ((binary, 5e-3, 1e-4), (binary.start, 1e-3, 1e-2)):
        assert (recipe.optimizer, recipe.momentum, recipe.nesterov) == ("sgd", 0.9, True)
        assert (recipe.learning_rate, recipe.weight_decay, recipe.epochs, recipe.batch_size) == (rate, decay, 300, 96)
    assert binary.start.start is None and not binary.distils


@pytest.mark.parametrize(
    ("name", "iterations", "batch_size", "examples", "rate"),
    [("mnli", 60000, 32, 392702, 5e-5), ("cola", 25000, 16, 8551, 1e-4), ("mrpc", 2500, 32, 3668, 2e-4)],
)
def test_bibenchs_glue_recipes_have_its_iterations(name, iterations, batch_size, examples, rate):
    recipe = recipes.get(f"bibench_glue_{name}")
    steps = recipe.epochs * (examples // recipe.batch_size)
    assert abs(steps - iterations) <= examples / batch_size / 2  # to the nearest epoch
    assert (recipe.batch_size, recipe.learning_rate, recipe.optimizer) == (batch_size, rate, "bert_adam")
    assert recipe.distils and recipe.weight_decay == 0.01
    assert recipe.start.name == "bert_fine_tuning" and not recipe.start.distils


def test_bibenchs_recipes_of_detectors():
    """The epochs of the data repeated; a warm-up of 500 steps; and at once the rate of a tenth for binary networks."""
    rcnn, ssd, coco = (recipes.get(f"bibench_{name}") for name in ("voc_rcnn", "voc_ssd", "coco"))
    assert (rcnn.epochs, rcnn.start.epochs, ssd.epochs, ssd.start.epochs) == (5 * 5, 5 * 5, 24 * 10, 24 * 10)
    assert [(recipe.optimizer, recipe.learning_rate) for recipe in (rcnn, ssd, coco)] == [("adam", 1e-4)] * 3
    assert [learning_rate(rcnn.start, epoch) for epoch in (0, 19, 20)] == pytest.approx([0.01, 0.01, 0.001])
    assert [learning_rate(ssd.start, epoch) for epoch in (159, 160, 200)] == pytest.approx([1e-3, 1e-4, 1e-5])
    assert ssd.start.momentum == 0
    steps = 14_658
    assert learning_rate(coco.start, 0) == pytest.approx(0.02 * 1e-3)
    assert learning_rate(coco.start, 250 / steps) == pytest.approx(0.02 * (1e-3 + 0.999 / 2))
    assert [learning_rate(coco.start, epoch) for epoch in (15, 16, 22)] == pytest.approx([0.02, 0.002, 0.0002])


# BiBench's configurations; data repeated in an epoch count as epochs. Optimizer, rate, schedule, epochs, batch;
# momentum, weight decay, steps and the epochs to warm up where there are any.
RELEASED = {
    "cifar10_float": ("sgd", 0.1, "cosine", 200, 128, 0.9, 1e-4),
    "cifar10": ("adam", 1e-3, "cosine", 400, 128),
    "training": ("adam", 1e-3, "cosine", 200, 128),
    "imagenet_float": ("sgd", 0.1, "step", 100, 256, 0.9, 1e-4, (30, 60, 90)),
    "imagenet": ("adam", 1e-3, "cosine", 100, 256),
    "modelnet40": ("adam", 1e-3, "cosine", 200, 256),
    "shapenet": ("adam", 1e-3, "cosine", 200, 256),
    "speech_float": ("sgd", 1e-3, "cosine", 300, 96, 0.9, 1e-2, (), 5),
    "speech": ("sgd", 5e-3, "cosine", 300, 96, 0.9, 1e-4, (), 5),
    "voc_rcnn_float": ("sgd", 0.01, "step", 5 * 5, 2, 0.9, 1e-4, (4 * 5,)),
    "voc_rcnn": ("adam", 1e-4, "cosine", 5 * 5, 2),
    "voc_ssd_float": ("sgd", 1e-3, "step", 24 * 10, 8, 0.0, 0.0, (160, 200)),
    "voc_ssd": ("adam", 1e-4, "cosine", 24 * 10, 32),
    "coco_float": ("sgd", 0.02, "step", 24, 8, 0.9, 1e-4, (16, 22), 500 / 14_658),
    "coco": ("adam", 1e-4, "cosine", 12, 8),
}


@pytest.mark.parametrize("name", RELEASED)
def test_bibenchs_hyperparameters(name):
    """Any changed number of a recipe, with those that the documented table does not have."""
    optimizer, rate, schedule, epochs, batch_size, *rest = RELEASED[name]
    momentum, decay, steps, warm_up = (*rest, *(None, 0.0, (), 0)[len(rest) :])
    recipe = recipes.get(f"bibench_{name}")
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == (optimizer, rate, schedule)
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (epochs, batch_size, decay)
    if optimizer == "sgd":
        assert recipe.momentum == momentum
    if schedule == "step":
        assert [epochs * milestone for milestone in recipe.milestones] == pytest.approx(steps)
    assert epochs * recipe.warm_up == pytest.approx(warm_up)
    start = f"{name}_float" in RELEASED
    assert (recipe.start.name if recipe.start else None) == (f"bibench_{name}_float" if start else None)
    assert recipe.augment and not recipe.per_step and not recipe.distils


def test_the_released_hyperparameters_are_of_all_recipes_but_those_of_texts():
    bibenchs = {name.removeprefix("bibench_") for name in RECIPES.names() if name.startswith("bibench_")}
    assert {name for name in bibenchs if not name.startswith("glue_")} == set(RELEASED)


@pytest.mark.parametrize("milestones", [(), (0.8,), (0.25, 0.5)])
def test_a_step_schedule_divides_the_rate_at_each_milestone(milestones):
    found = rates((0, 3, 5, 7, 8, 9), epochs=10, schedule="step", milestones=milestones)
    expected = [0.1 ** sum(epoch >= 10 * milestone for milestone in milestones) for epoch in (0, 3, 5, 7, 8, 9)]
    assert found == pytest.approx(expected)


def test_a_step_schedule_without_milestones_of_its_own_has_bibenchs():
    """At a half and three quarters: 100 and 150 of the 200 epochs of eff_train."""
    assert rates((99, 100, 149, 150), epochs=200, schedule="step") == pytest.approx([1, 0.1, 0.1, 0.01])


def test_quick_is_chosen_by_the_task():
    for task in tasks.names():
        recipe = recipes.resolve("quick", task, "any", "any")
        assert recipe.name.startswith("quick") and recipe.epochs <= 20
    assert recipes.resolve("quick", "image_classification", "fashion_mini", "resnet20") == recipes.get("quick")
    with pytest.raises(BibenchError, match="Unknown task 'cooking'"):
        recipes.resolve("quick", "cooking", "any", "any")


@pytest.mark.parametrize(
    ("dataset", "network", "expected"),
    [
        ("cifar10", "resnet20@0.5", "bibench_cifar10"),
        ("imagenet2012", "resnet18", "bibench_imagenet"),
        ("modelnet40:/home/me/meshes", "pointnet_vanilla", "bibench_modelnet40"),
        ("speech_commands", "dfsmn", "bibench_speech"),
        ("voc0712", "ssd300_vgg16", "bibench_voc_ssd"),
        ("voc0712", "faster_rcnn_resnet18", "bibench_voc_rcnn"),
        ("coco2017", "faster_rcnn_resnet18@0.5", "bibench_coco"),
        ("glue_cola", "bert_tiny4", "bibench_glue_cola"),
        ("glue_rte", "bert_base", "bibench_glue_mrpc"),
    ],
)
def test_bibench_is_chosen_by_data_set_and_network(dataset, network, expected):
    assert recipes.resolve("bibench", "any", dataset, network) == recipes.get(expected)


def test_where_bibench_has_no_recipe():
    with pytest.raises(BibenchError, match="no recipe for 'fashion_mini', only for cifar10, "):
        recipes.resolve("bibench", "image_classification", "fashion_mini", "resnet20")
    with pytest.raises(BibenchError, match="for resnet18, .*not for 'alexnet'.*bibench_cifar10"):
        recipes.resolve("bibench", "image_classification", "cifar10", "alexnet")


def test_what_bibench_is_chosen_by_exists():
    from bibench_tf import zoo

    for dataset, of_networks in BIBENCH.items():
        task = datasets.task_of(dataset)
        assert set(RECIPES.names()) >= set(of_networks.values())
        assert {zoo.task_of(network) for network in of_networks} == {task}


def test_any_other_name_is_the_recipe_itself():
    recipe = recipes.resolve("bibench_cifar10", "any", "any", "any", epochs=7, precision="mixed_float16")
    assert recipe == recipes.get("bibench_cifar10", 7, "mixed_float16")
    assert (recipe.epochs, recipe.start.epochs, recipe.start.precision) == (7, 7, "mixed_float16")
    with pytest.raises(BibenchError, match="Unknown recipe 'quikc'"):
        recipes.resolve("quikc", "any", "any", "any")


PLUGIN = """
from bibench_tf import recipes

mine = recipes.Recipe("mine", epochs=5, batch_size=8, optimizer="adam", learning_rate=1e-3, schedule="cosine")
recipes.register(mine, quick_for="tasting", bibench_for={"wines": ("resnet20",)})
"""


@pytest.fixture
def restored():
    """What a test registers is forgotten."""
    for known in REGISTRIES:
        known.names()
    with contextlib.ExitStack() as stack:
        for known in (*(each._entries for each in REGISTRIES), QUICK, BIBENCH, os.environ):
            stack.enter_context(mock.patch.dict(known))
        yield


@pytest.fixture
def plugin(tmp_path, restored):
    """A plug-in file with a recipe."""
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return path


def test_one_file_adds_a_recipe(plugin):
    registry.load_plugin(plugin)
    mine = recipes.get("mine")
    assert mine.epochs == 5 and "mine" in recipes.names()
    assert recipes.resolve("quick", "tasting", "any", "any") == mine
    assert recipes.resolve("bibench", "tasting", "wines", "resnet20@0.5") == mine
    assert recipes.resolve("quick", "image_classification", "any", "any") == recipes.get("quick")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"quick_for": "detection"}, "'other' cannot be the recipe for 'detection', which has 'quick_detection'"),
        ({"bibench_for": {"coco2017": ("faster_rcnn_resnet18",)}}, "which has 'bibench_coco'"),
        ({"name": "quick"}, "taken by bibench_tf.recipes.quick"),
    ],
)
def test_a_place_that_is_taken_stays_so(plugin, place, message):
    recipe = dataclasses.replace(RECIPE, name=place.pop("name", "other"))
    with pytest.raises(InvalidOption, match=message):
        recipes.register(recipe, **place)
    assert "other" not in recipes.names()


def test_an_entry_point_declares_what_its_recipe_is_for(plugin, monkeypatch):
    monkeypatch.syspath_prepend(plugin.parent)
    RECIPES.register("mine", "plugin:mine", origin="plugin")
    assert recipes.resolve("quick", "tasting", "any", "any").name == "mine"


def test_every_name_has_a_line():
    assert {"quick", "bibench", "sst2_short"} <= set(recipes.names())
    for name in recipes.names():
        assert 10 < len(recipes.describe(name)) < 120
    assert recipes.describe("bibench_glue_cola") == (
        "47 epochs, batch 16, bert_adam 0.0001, linear schedule, distils from bert_fine_tuning"
    )


def test_the_documented_table_is_the_recipes():
    """Every recipe has a row, with the numbers it trains by."""
    rows = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if match := re.fullmatch(r"`(\w+)`", cells[0]):
            rows[match[1]] = cells
    assert set(rows) == set(RECIPES.names())
    for name, (_, _, _, optimizer, rate, schedule, epochs, batch_size, augmentation, start, *_) in rows.items():
        recipe = recipes.get(name)
        assert optimizer.split(",")[0].lower().replace(" ", "_").replace("bertadam", "bert_adam") == recipe.optimizer
        assert float(rate) == recipe.learning_rate, name
        assert schedule.split(",")[0] == recipe.schedule
        assert ("warm-up" in schedule) == (recipe.warm_up > 0)
        assert ("by step" in schedule) == recipe.per_step
        assert int(epochs) == recipe.epochs and int(batch_size) == recipe.batch_size
        assert (augmentation == "none") == (not recipe.augment)
        assert ("distils" in start) == recipe.distils
        assert start.split(",")[0].strip("`") == (recipe.start.name if recipe.start else "scratch")
        assert ("Nesterov" in optimizer) == recipe.nesterov
        decay = re.search(r"weight decay ([\d.e-]+)", optimizer)
        assert (float(decay[1]) if decay else 0) == recipe.weight_decay


@pytest.mark.parametrize("guide", ["architecture.md", "devices.md", "recipes.md", "tasks.md", "zoo.md"])
def test_the_examples_of_the_guides_run(guide, restored):
    examples = re.findall(r"^```python\n(.*?)^```", (TABLE.parent / guide).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if guide == "zoo.md":  # the other examples build large networks
        examples = [example for example in examples if "register" in example]
    assert examples
    for example in examples:
        exec(compile(example, guide, "exec"), {"__name__": "guide"})
