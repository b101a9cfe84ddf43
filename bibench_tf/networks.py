"""The networks by name: what the core knows of the zoo, and how a network is built.

The builders are in `bibench_tf.zoo`, which is imported at the first look-up, and with it TensorFlow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.names import BASELINE, PAPER
from bibench_tf.registry import Registry

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.algorithms import Algorithm

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True)
class Network:
    """A builder function of the zoo, and what is known of the networks that it builds.

    `build(algorithm=..., input_shape=..., num_classes=..., **options)` returns a `tf.keras.Model`. `task` is the key
    of the task (`bibench_tf.tasks`) that the network serves. `input_options` say how data sets of that task have to
    prepare the inputs of this network; what they may hold is the task's affair (for detectors see
    `bibench_tf.datasets.kinds.detection.View`).
    """

    name: str
    build: Callable[..., Any]
    task: str
    input_options: Any = field(default=None, compare=False)

    @property
    def description(self) -> str:
        """The first line of the builder's docstring."""
        return (inspect.getdoc(self.build) or "").partition("\n")[0]

    @property
    def has_own_binarization(self) -> bool:
        """Whether the network's paper binarizes it in a way of its own, which is then the builder's default."""
        return inspect.signature(self.build).parameters["algorithm"].default != BASELINE


NETWORKS: Registry[Network] = Registry("network", "bibench_tf.zoo", Network)


def register(
    *, task: str = "image_classification", input_options: Any = None, aliases: tuple[str, ...] = ()
) -> Callable[[Builder], Builder]:
    """A decorator that makes a builder function known under its own name, and returns it as it is.

    The builder has to take `algorithm`. Raises InvalidOption where it does not, and where the name is taken.
    """

    def decorate(builder: Builder) -> Builder:
        name = builder.__name__
        if "algorithm" not in inspect.signature(builder).parameters:
            raise InvalidOption(f"The builder '{name}' of {builder.__module__} has no parameter 'algorithm'.")
        network = Network(name, builder, task, input_options)
        NETWORKS.register(name, network, origin=builder.__module__, aliases=aliases)
        return builder

    return decorate


def build(name: str, algorithm: str | Algorithm = BASELINE, **options: Any) -> tf.keras.Model:
    """The network called `name`; the options are those of its builder function.

    `algorithm` is a key, an `Algorithm`, or `paper` for the binarization of the network's own paper. Raises
    UnknownName, and InvalidOption for `paper` where there is none and for an option the network does not take.
    """
    network = NETWORKS.get(name)
    if algorithm != PAPER:
        options["algorithm"] = algorithm
    elif not network.has_own_binarization:
        raise InvalidOption(f"{name} has no binarization of its own paper: name an algorithm instead of '{PAPER}'.")
    try:
        return network.build(**options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InvalidOption(f"Network '{name}' does not take this option: {error}.") from error


def parse(network: str) -> tuple[str, float]:
    """`resnet20@0.5` as name and width multiplier; without @ the width is 1. Raises BibenchError for a bad width."""
    name, at, width = network.partition("@")
    try:
        return name, float(width) if at else 1.0
    except ValueError:
        raise BibenchError(f"'{network}' is not a network; write NAME or NAME@WIDTH, such as resnet20@0.5.") from None


def task_of(network: str) -> str:
    """The key of the task of a network, NAME or NAME@WIDTH. Raises UnknownName."""
    return NETWORKS.get(parse(network)[0]).task
