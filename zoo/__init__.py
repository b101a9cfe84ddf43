"""The networks: builder functions that return ordinary Keras models, with any algorithm.

from bibench_tf import zoo
model = zoo.resnet18(algorithm="reactnet", input_shape=(32, 32, 3), num_classes=10)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import tensorflow as tf

from bibench_tf.benchmark import BASELINE, PAPER
from bibench_tf.errors import BibenchError, unknown_name
from bibench_tf.zoo.resnet import resnet18, resnet20, resnet34
from bibench_tf.zoo.vgg import vgg_small

_BUILDERS: dict[str, Callable[..., tf.keras.Model]] = {
    builder.__name__: builder for builder in (resnet18, resnet20, resnet34, vgg_small)
}

__all__ = ["build", "has_own_binarization", "names", "resnet18", "resnet20", "resnet34", "vgg_small"]


def names() -> list[str]:
    """The names of all networks."""
    return list(_BUILDERS)


def has_own_binarization(name: str) -> bool:
    """Whether the paper of the network called `name` binarizes it in a way of its own, the builder's default."""
    return inspect.signature(_builder(name)).parameters["algorithm"].default != BASELINE


def build(name: str, algorithm=BASELINE, **options) -> tf.keras.Model:
    """The network called `name`; the options are those of its builder function.

    `algorithm` is a key, an `Algorithm`, or `paper` for the binarization of the network's own paper. Raises
    BibenchError for an unknown name, naming the nearest and listing all, for `paper` where there is none, and for an
    option the network does not take.
    """
    builder = _builder(name)
    if algorithm != PAPER:
        options["algorithm"] = algorithm
    elif not has_own_binarization(name):
        raise BibenchError(f"{name} has no binarization of its own paper: name an algorithm instead of '{PAPER}'.")
    try:
        return builder(**options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise BibenchError(f"Network '{name}' does not take this option: {error}.") from error


def _builder(name: str) -> Callable[..., tf.keras.Model]:
    if name not in _BUILDERS:
        raise unknown_name("network", name, _BUILDERS)
    return _BUILDERS[name]
