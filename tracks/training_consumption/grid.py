"""The settings of the training track: what a name such as `sgd-1e-1-step` or `bibench` stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe

# (optimizer, momentum, weight decay) by the first part of a setting's name; Adam and RAdam have no momentum to set.
_OPTIMIZERS = {
    "adam": ("adam", 0.9, 0.0),
    "radam": ("radam", 0.9, 0.0),
    "sgd": ("sgd", 0.9, 1e-4),
    "sgd_plain": ("sgd", 0.0, 1e-4),
}
_SCHEDULES = ("cosine", "step", "constant")
# Epochs 100 and 150 of 200.
_MILESTONES = (0.5, 0.75)

GRIDS = {
    # Two optimizers by two schedules; the first is the setting of the recipe `quick`, whose run is shared.
    "quick": ("adam-2e-3-cosine", "adam-2e-3-step", "sgd-1e-1-cosine", "sgd-1e-1-step"),
    # BiBench's eight, momentum 0.9 for all of SGD.
    "bibench": tuple(
        f"{optimizer}-{schedule}"
        for optimizer in ("sgd-1e-1", "sgd-1e-2", "adam-1e-3", "adam-1e-4")
        for schedule in ("cosine", "step")
    ),
}
# As BiBench's released files have it: they set momentum for SGD with cosine only.
GRIDS["bibench-released"] = tuple(
    setting.replace("sgd-", "sgd_plain-") if setting.endswith("step") else setting for setting in GRIDS["bibench"]
)
# Those that cover what BiBench's score is over.
WHOLE = ("bibench", "bibench-released")


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """The settings that names of settings and of grids stand for, each once."""
    return tuple(dict.fromkeys(setting for name in names for setting in GRIDS.get(name, (name,))))


def recipe_for(recipe: Recipe, setting: str) -> Recipe:
    """The recipe with the optimizer, learning rate and schedule of a setting such as `adam-1e-3-cosine`, from scratch.

    A setting that is the recipe's own gives the recipe itself, so that its run is shared with the other tracks. Weight
    decay goes with the optimizer as in BiBench's sweep: 1e-4 for SGD, none for Adam. SGD has momentum 0.9, `sgd_plain`
    none. The step schedule falls after 1/2 and 3/4 of the training. Raises BibenchError for anything else.
    """
    optimizer, _, rest = setting.partition("-")
    rate, _, schedule = rest.rpartition("-")
    try:
        learning_rate = float(rate)
    except ValueError:
        learning_rate = 0.0
    if optimizer not in _OPTIMIZERS or schedule not in _SCHEDULES or not 0 < learning_rate < float("inf"):
        raise BibenchError(
            f"'{setting}' is not a setting of the grid; write OPTIMIZER-RATE-SCHEDULE, such as adam-1e-3-cosine or "
            f"sgd-1e-1-step, or the name of a grid: {', '.join(GRIDS)}."
        )
    name, momentum, weight_decay = _OPTIMIZERS[optimizer]
    named: dict[str, Any] = {"optimizer": name, "schedule": schedule}
    changed = dataclasses.replace(
        recipe,
        **named,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        milestones=_MILESTONES,
        start=None,
        nesterov=False,
        warm_up=0.0,
        distils=False,
    )
    return recipe if changed == recipe else dataclasses.replace(changed, name=f"{recipe.name}/{setting}")
