"""The class of a corruption, and the registry of the corruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from bibench_tf.corruptions.draws import Draws
from bibench_tf.errors import InvalidOption
from bibench_tf.registry import Registry

Group = Literal["standard", "extra"]
Function = Callable[[np.ndarray, Any, Draws], np.ndarray]
AnyFunction = TypeVar("AnyFunction", bound=Function)

SEVERITIES = (1, 2, 3, 4, 5)
# The published tables of severities: CIFAR-10-C for images of about 32 x 32 pixels, ImageNet-C for about 224 x 224.
TABLES = ("cifar10", "imagenet")


@dataclass(frozen=True)
class Corruption:
    """One corruption.

    `function` takes images uint8 [N, H, W, C], the parameter of a severity and the images' random numbers, and returns
    grey levels [N, H, W, C], which may be fractions and exceed 0 to 255. `severities` are the parameters of the five
    severities, by table. A benchmark takes the `standard` group, and keeps the `extra` one for validation. `number` is
    the place in the list of the authors (arXiv 1903.12261), None for a corruption of others.
    """

    name: str
    function: Function
    severities: Mapping[str, tuple[Any, ...]]
    group: Group = "extra"
    number: int | None = None
    needs_colour: bool = False

    def __post_init__(self) -> None:
        if self.group not in get_args(Group):
            raise InvalidOption(f"The corruption '{self.name}' is in the group '{self.group}', not standard or extra.")
        if not self.severities or any(len(values) != len(SEVERITIES) for values in self.severities.values()):
            raise InvalidOption(f"The corruption '{self.name}' needs the parameters of five severities for each table.")


CORRUPTIONS: Registry[Corruption] = Registry("corruption", "bibench_tf.corruptions", Corruption)


def register(
    *, group: Group = "extra", number: int | None = None, needs_colour: bool = False, **severities: Sequence[Any]
) -> Callable[[AnyFunction], AnyFunction]:
    """A decorator that registers a function as a corruption under its own name, and returns the function unchanged.

    The parameters of the five severities are given by table: `@register(cifar10=(0.1, 0.2, 0.3, 0.4, 0.5))`. For the
    others see `Corruption`. Raises InvalidOption for a name that is taken, and for another number of severities.
    """
    tables = {table: tuple(parameters) for table, parameters in severities.items()}

    def decorate(function: AnyFunction) -> AnyFunction:
        corruption = Corruption(function.__name__, function, tables, group, number, needs_colour)
        CORRUPTIONS.register(corruption.name, corruption, origin=function.__module__)
        return function

    return decorate


def as_levels(values: np.ndarray) -> np.ndarray:
    """Grey levels cut to whole numbers 0 to 255, not rounded; uint8.

    The small added number keeps a whole number with a rounding error from falling to the level below.
    """
    return np.clip(values + np.float32(1e-3), 0, 255).astype(np.uint8)
