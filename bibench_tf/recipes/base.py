"""The class of a recipe, and the registry of the recipes."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bibench_tf.errors import InvalidOption
from bibench_tf.options import BelowOne, Count, Fraction, NotNegative, Positive, check_fields
from bibench_tf.registry import Registry

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
Schedule = Literal["cosine", "linear", "step", "constant"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides data set, network, algorithm and seed.

    `learning_rate` is the rate that the schedule starts from. `schedule`: `cosine` falls to 0 over all epochs, `linear`
    falls to 0 in a straight line after the warm-up, `step` multiplies the rate by 0.1 at each of `milestones`
    (fractions of the epochs), `constant` keeps the rate. The rate changes between epochs, or from step to step with
    `per_step`, without which a training of one epoch has a constant rate. During the first fraction `warm_up` of the
    training the rate is multiplied by a factor that rises in a straight line, step by step, from `warm_up_start` to 1.

    `weight_decay` is the L2 penalty added to the gradient of every trainable weight (as torch.optim does); that of
    `bert_adam` is decoupled: each step subtracts rate x weight_decay x weight. `momentum` is used by SGD only, with
    `nesterov` in Nesterov's form.

    `start` is the recipe of the full-precision network whose weights binary networks start from; None starts from
    scratch. With `distils` that network, frozen and in inference, is the teacher too: the loss is the task's
    distillation loss plus half of the loss on labels.

    `precision` is that of the arithmetic in training: the mixed precisions have activations and gradients of 16 bits
    and weights of 32; the trained network is a float32 network in every case.
    """

    name: str
    epochs: Count
    batch_size: Count
    optimizer: Literal["adam", "sgd", "radam", "bert_adam"]
    learning_rate: Positive
    schedule: Schedule
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = 0.0
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    augment: bool = True
    start: Recipe | None = None
    per_step: bool = False
    precision: Precision = "float32"
    nesterov: bool = False
    warm_up: BelowOne = 0.0
    warm_up_start: Fraction = 0.0
    distils: bool = False

    def __post_init__(self) -> None:
        check_fields(self, f"Recipe '{self.name}'")
        if self.distils and self.start is None:
            raise InvalidOption(
                f"Recipe '{self.name}' has no teacher: a distilling recipe needs a starting recipe as teacher."
            )

    @property
    def changes_every_step(self) -> bool:
        """Whether the rate changes within an epoch."""
        return self.per_step or self.warm_up > 0


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate of a recipe in `epoch` (from 0, 1.5 is in the middle of the second)."""
    rate = recipe.learning_rate * _scheduled(recipe, (epoch if recipe.per_step else math.floor(epoch)) / recipe.epochs)
    done = epoch / recipe.epochs
    if done < recipe.warm_up:
        rate *= recipe.warm_up_start + (1 - recipe.warm_up_start) * done / recipe.warm_up
    return rate


def _scheduled(recipe: Recipe, done: float) -> float:
    """The schedule's factor on the rate when the fraction `done` of the training is done."""
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "linear":
        return min(1.0, (1 - done) / (1 - recipe.warm_up))
    if recipe.schedule == "step":
        return 0.1 ** sum(done >= milestone for milestone in recipe.milestones)
    return 1.0


RECIPES: Registry[Recipe] = Registry("recipe", "bibench_tf.recipes", Recipe)
# The name of the recipe that `quick` means, by task, and that `bibench` means, by data set and network.
QUICK: dict[str, str] = {}
BIBENCH: dict[str, dict[str, str]] = {}


def register(
    recipe: Recipe, *, quick_for: str | None = None, bibench_for: Mapping[str, Iterable[str]] | None = None
) -> Recipe:
    """Make a recipe known under its own name, and return it.

    `quick_for` is the task for which `quick` means this recipe. `bibench_for` has the data sets, each with its
    networks, for which `bibench` means this recipe. Raises InvalidOption where another recipe has the name or is
    already meant.
    """
    choices = [(QUICK, quick_for)] if quick_for else []
    for dataset, networks in (bibench_for or {}).items():
        choices += [(BIBENCH.setdefault(dataset, {}), network) for network in networks]
    for group, key in choices:
        if group.get(key, recipe.name) != recipe.name:
            raise InvalidOption(f"'{recipe.name}' cannot be the recipe for '{key}', which has '{group[key]}'.")
    RECIPES.register(recipe.name, recipe, origin=sys._getframe(1).f_globals.get("__name__", "__main__"))
    for group, key in choices:
        group[key] = recipe.name
    return recipe
