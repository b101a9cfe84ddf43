"""Training recipes: the hyperparameters of a run, by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from bibench_tf.errors import BibenchError, unknown_name


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides data, network, algorithm and seed.

    `learning_rate` is the rate at the start. `schedule`: `cosine` goes to 0 over all epochs, `step` multiplies by
    0.1 when a fraction of `milestones` of the epochs is done, `constant` keeps it. `weight_decay` is the L2 penalty
    added to the gradient of every trainable weight (as torch.optim does). `momentum` is used by SGD only.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: Literal["adam", "sgd", "radam"]
    learning_rate: float
    schedule: Literal["cosine", "step", "constant"]
    momentum: float = 0.9
    weight_decay: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    augment: bool = True
    start: Literal["scratch", "full_precision"] = "scratch"

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1:
            raise BibenchError(f"Recipe '{self.name}' needs at least one epoch and one image a batch.")
        object.__setattr__(self, "milestones", tuple(self.milestones))


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        # An honest small version for two CPU cores; reaches a fraction of what the papers' recipes do.
        Recipe("quick", epochs=3, batch_size=64, optimizer="adam", learning_rate=2e-3, schedule="cosine"),
        # CIFAR-10 in an hour or two of CPU time for the nine networks; a few points per epoch are still missing.
        Recipe("cifar10_short", epochs=4, batch_size=128, optimizer="adam", learning_rate=2e-3, schedule="cosine"),
        # BiBench acc_cifar10: binary networks, from the full-precision weights, 400 epochs. Expect 84-87 % for
        # ResNet-20 by the papers' own figures.
        Recipe(
            "bibench_cifar10",
            epochs=400,
            batch_size=128,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="cosine",
            start="full_precision",
        ),
        # BiBench acc_cifar10: the full-precision networks. Published for ResNet-20: 92.1 %.
        Recipe(
            "bibench_cifar10_float",
            epochs=200,
            batch_size=128,
            optimizer="sgd",
            learning_rate=0.1,
            schedule="cosine",
            weight_decay=1e-4,
        ),
        # BiBench acc_imagenet: binary ResNet-18, from the full-precision weights, 100 epochs.
        Recipe(
            "bibench_imagenet",
            epochs=100,
            batch_size=256,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="cosine",
            start="full_precision",
        ),
    )
}


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(_RECIPES)


def get(name: str, **changes) -> Recipe:
    """The recipe called `name`, with the fields in `changes` replaced."""
    if name not in _RECIPES:
        raise unknown_name("recipe", name, _RECIPES)
    return dataclasses.replace(_RECIPES[name], **changes)
