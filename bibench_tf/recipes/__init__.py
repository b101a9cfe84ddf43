"""Training recipes: the hyperparameters of a run, by name, or by data set and network."""

from __future__ import annotations

import dataclasses
from typing import Any

from bibench_tf.errors import InvalidOption, UnknownName
from bibench_tf.names import data_kind
from bibench_tf.recipes.base import BIBENCH, QUICK, RECIPES, Precision, Recipe, learning_rate, register

_GROUPS = {
    "bibench": "BiBench's recipe for the data set and the network",
    "quick": "the small recipe for two cores of the task",
}


def names() -> list[str]:
    """The names of all recipes, and of the groups that `resolve` chooses from, sorted."""
    return sorted({*RECIPES.names(), *_GROUPS})


def describe(name: str) -> str:
    """One line about a recipe or a group. Raises UnknownName."""
    if name in _GROUPS:
        return _GROUPS[name]
    recipe = get(name)
    start = f", {'distils' if recipe.distils else 'starts'} from {recipe.start.name}" if recipe.start else ""
    return (
        f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}, batch {recipe.batch_size}, {recipe.optimizer} "
        f"{recipe.learning_rate:g}, {recipe.schedule} schedule{start}"
    )


def resolve(
    name: str, task: str, dataset: str, network: str, epochs: int | None = None, precision: Precision = "float32"
) -> Recipe:
    """The recipe that `name` means for a task, a data set, and a network, NAME or NAME@WIDTH.

    `quick` is chosen by the task and `bibench` by data set and network; any other name is that of the recipe itself.
    `epochs` and `precision` as for `get`. Raises UnknownName, and InvalidOption where BiBench has no recipe.
    """
    if name in _GROUPS:
        for each in RECIPES.names():
            RECIPES.get(each)  # the recipe of an entry point declares its tasks and data sets when it is loaded
    if name == "quick":
        if task not in QUICK:
            raise UnknownName("task", task, QUICK)
        name = QUICK[task]
    elif name == "bibench":
        dataset = data_kind(dataset)
        if dataset not in BIBENCH:
            raise InvalidOption(
                f"BiBench has no recipe for '{dataset}', only for {', '.join(sorted(BIBENCH))}: choose one of "
                "'bibench ls recipes'."
            )
        of_networks = BIBENCH[dataset]
        builder = network.partition("@")[0]
        if builder not in of_networks:
            raise InvalidOption(
                f"BiBench's recipe for {dataset} is for {', '.join(of_networks)}, not for '{network}': to use it "
                f"nevertheless, give its name, {' or '.join(dict.fromkeys(of_networks.values()))}."
            )
        name = of_networks[builder]
    return get(name, epochs, precision)


def get(name: str, epochs: int | None = None, precision: Precision = "float32") -> Recipe:
    """The recipe called `name`, at `precision`; `epochs` replaces its number of epochs.

    Both hold for the recipe it starts from, too. Raises UnknownName, also for a group that needs `resolve`.
    """
    recipe = RECIPES.get(name)
    changes: dict[str, Any] = {"precision": precision} | ({} if epochs is None else {"epochs": epochs})
    start = recipe.start and dataclasses.replace(recipe.start, **changes)
    return dataclasses.replace(recipe, start=start, **changes)
