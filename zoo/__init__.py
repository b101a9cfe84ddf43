"""The networks: builder functions that return ordinary Keras models, with any algorithm.

from bibench_tf import zoo
model = zoo.resnet18(algorithm="reactnet", input_shape=(32, 32, 3), num_classes=10)
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bibench_tf.errors import BibenchError, unknown_name
from bibench_tf.zoo.resnet import resnet18, resnet20, resnet34
from bibench_tf.zoo.vgg import vgg_small

_BUILDERS: dict[str, Callable[..., tf.keras.Model]] = {
    builder.__name__: builder for builder in (resnet18, resnet20, resnet34, vgg_small)
}

__all__ = ["build", "names", "resnet18", "resnet20", "resnet34", "vgg_small"]


def names() -> list[str]:
    """The names of all networks."""
    return list(_BUILDERS)


def build(name: str, **options) -> tf.keras.Model:
    """The network called `name`; the options are those of its builder function.

    Raises BibenchError for an unknown name, naming the nearest and listing all, and for an option it does not take.
    """
    if name not in _BUILDERS:
        raise unknown_name("network", name, _BUILDERS)
    try:
        return _BUILDERS[name](**options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise BibenchError(f"Network '{name}' does not take this option: {error}.") from error
