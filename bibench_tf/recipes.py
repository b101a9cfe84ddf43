"""Training recipes: the hyperparameters of a run, by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bibench_tf.errors import BibenchError, unknown_name

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides data, network, algorithm and seed.

    `learning_rate` is the rate at the start. `schedule`: `cosine` goes to 0 over all epochs, `step` multiplies by
    0.1 when a fraction of `milestones` of the epochs is done, `constant` keeps it. The rate changes between epochs, or
    from step to step with `per_step`, without which a training of one epoch has no schedule at all. `weight_decay` is
    the L2 penalty added to the gradient of every trainable weight (as torch.optim does). `momentum` is used by SGD
    only. `start` is the recipe of the full-precision network whose weights binary networks start from; None starts
    from scratch. `precision` is that of the arithmetic while training: in the mixed ones activations and gradients
    have 16 bits and weights keep 32; the trained network is a float32 network all the same.
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
    start: Recipe | None = None
    per_step: bool = False
    precision: Precision = "float32"

    def __post_init__(self):
        if self.precision not in get_args(Precision):
            raise unknown_name("precision", self.precision, get_args(Precision))
        if self.epochs < 1 or self.batch_size < 1:
            raise BibenchError(f"Recipe '{self.name}' needs at least one epoch and one image a batch.")
        object.__setattr__(self, "milestones", tuple(self.milestones))


_BIBENCH_CIFAR10_FLOAT = Recipe(
    "bibench_cifar10_float",
    epochs=200,
    batch_size=128,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="cosine",
    weight_decay=1e-4,
)

_BIBENCH_IMAGENET_FLOAT = Recipe(
    "bibench_imagenet_float",
    epochs=100,
    batch_size=256,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="step",
    weight_decay=1e-4,
    milestones=(0.3, 0.6, 0.9),
)

_RECIPES = {
    recipe.name: recipe
    for recipe in (
        # An honest small version for two CPU cores; reaches a fraction of what the papers' recipes do.
        Recipe(
            "quick",
            epochs=1,
            batch_size=64,
            optimizer="adam",
            learning_rate=2e-3,
            schedule="cosine",
            per_step=True,
        ),
        # CIFAR-10 in an hour or two of CPU time for nine ResNet-20; many points below what long training gives.
        Recipe("cifar10_short", epochs=3, batch_size=128, optimizer="adam", learning_rate=2e-3, schedule="cosine"),
        # BiBench acc_cifar10, full precision. Published for ResNet-20: 92.1 %.
        _BIBENCH_CIFAR10_FLOAT,
        # BiBench acc_cifar10, binary, from the full-precision weights. Published for ResNet-20, by algorithm: 84 to
        # 87 %.
        Recipe(
            "bibench_cifar10",
            epochs=400,
            batch_size=128,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="cosine",
            start=_BIBENCH_CIFAR10_FLOAT,
        ),
        # BiBench eff_train: a ResNet-18 on CIFAR-10 from scratch, in one of the eight settings of its grid.
        Recipe("bibench_training", epochs=200, batch_size=128, optimizer="adam", learning_rate=1e-3, schedule="cosine"),
        # BiBench acc_imagenet, full precision; its released schedule file is missing, so the steps are the usual
        # ones at 30, 60 and 90 epochs. Published for ResNet-18: 69.8 %.
        _BIBENCH_IMAGENET_FLOAT,
        # BiBench acc_imagenet, binary ResNet-18, from the full-precision weights. Published, by algorithm: 42 to 61 %.
        Recipe(
            "bibench_imagenet",
            epochs=100,
            batch_size=256,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="cosine",
            start=_BIBENCH_IMAGENET_FLOAT,
        ),
    )
}


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(_RECIPES)


def get(name: str, epochs: int | None = None, precision: Precision = "float32") -> Recipe:
    """The recipe called `name`, at `precision`; `epochs` replaces its number of epochs.

    Both hold for the recipe it starts from, too. Raises BibenchError for an unknown name.
    """
    if name not in _RECIPES:
        raise unknown_name("recipe", name, _RECIPES)
    changes = {"precision": precision} | ({} if epochs is None else {"epochs": epochs})
    recipe = _RECIPES[name]
    start = recipe.start and dataclasses.replace(recipe.start, **changes)
    return dataclasses.replace(recipe, start=start, **changes)


def from_dict(data: dict[str, Any]) -> Recipe:
    """The inverse of `dataclasses.asdict`."""
    start = data["start"] and from_dict(data["start"])
    return Recipe(**{**data, "start": start, "milestones": tuple(data["milestones"])})
