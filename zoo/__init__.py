"""The networks: builder functions that return ordinary Keras models, with any algorithm.

from bibench_tf import zoo
model = zoo.resnet18(algorithm="reactnet", input_shape=(32, 32, 3), num_classes=10)

`zoo.names()` lists them. Modules of families are named in the plural, so that `zoo.bert` is the builder. A builder of your own is known here, too, once `bibench_tf.networks.register` has seen it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bibench_tf.errors import UnknownName
from bibench_tf.networks import NETWORKS, build, register, task_of

__all__ = ["build", "names", "register", "task_of"]


def names(task: str | None = None, pattern: str = "*") -> list[str]:
    """The names of all networks that match a pattern of the shell; with `task`, of those that serve it."""
    return [name for name in NETWORKS.names(pattern) if task in (None, NETWORKS.get(name).task)]


def __getattr__(name: str) -> Callable[..., Any]:
    try:
        return NETWORKS.get(name).build
    except UnknownName as error:
        raise AttributeError(str(error)) from None


def __dir__() -> list[str]:
    return [*__all__, *NETWORKS.names(), *NETWORKS.aliases()]
