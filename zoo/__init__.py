"""The networks: builder functions that return ordinary Keras models, with any algorithm.

    from bibench_tf import zoo
    model = zoo.resnet18(algorithm="reactnet", input_shape=(32, 32, 3), num_classes=10)

`zoo.names()` lists them. A registered builder of a plug-in is an attribute of this module, too. Modules of families are
named in the plural, such as `zoo.resnets`, because an attribute of a module cannot be both a module and a builder.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from bibench_tf.errors import UnknownName
from bibench_tf.networks import NETWORKS, Preset, build, register, register_family, task_of

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Preset", "build", "names", "register", "register_family", "task_of"]

_MODULES = frozenset(module.name for module in pkgutil.iter_modules(__path__))


def names(task: str | None = None, pattern: str = "*") -> list[str]:
    """The names of all networks that match a shell pattern; with `task`, only networks for that task."""
    return [name for name in NETWORKS.names(pattern) if task is None or NETWORKS.get(name).task == task]


def __getattr__(name: str) -> Callable[..., tf.keras.Model]:
    # `from bibench_tf.zoo import stems` asks for the attribute before it imports the module.
    if name in _MODULES or name.startswith("__"):
        raise AttributeError(name)
    try:
        return NETWORKS.get(name).build
    except UnknownName as error:
        raise AttributeError(str(error)) from None


def __dir__() -> list[str]:
    return [*__all__, *NETWORKS.names(), *NETWORKS.aliases()]
