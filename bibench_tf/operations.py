"""What a layer declares about itself where Keras cannot know it: its operations, weights, samples, draws and schedule.

A layer has any of these by defining the method or attribute; it needs no base class. `check_declarations` refuses
misspelt ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

from bibench_tf.names import refuse_misspelt


@dataclass(frozen=True)
class Operations:
    """The operations of one call of a layer, for one sample.

    `macs` gives multiply-accumulates by the bits of the larger operand, `other` the number of other float operations.
    """

    macs: Mapping[int, int]
    other: int = 0


@runtime_checkable
class CountsOperations(Protocol):
    """A layer whose cost is not one kernel application per output position."""

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """The operations for one sample; the shapes are Keras', with the batch, lists where there are several."""
        ...


@runtime_checkable
class CountsWeights(Protocol):
    """A layer that deploys other weights than it has in training."""

    def count_weights(self) -> Mapping[int, int]:
        """The number of deployed weights by their bits."""
        ...


@runtime_checkable
class CountsSamples(Protocol):
    """A layer whose outputs are more or fewer samples than its inputs, such as the regions of an image."""

    def count_samples(self, input_shape: Any) -> int:
        """The samples for one sample of the network; the cost of all layers behind is multiplied by this number."""
        ...


@runtime_checkable
class DrawsAtRandom(Protocol):
    """A layer that may draw random numbers in training, which are then seeded by the training step."""

    draws_at_random: bool


@runtime_checkable
class FollowsTraining(Protocol):
    """A layer or quantizer whose state follows the training progress."""

    def update_schedule(self, epoch: float, epochs: float) -> None:
        """Set the state for `epoch`, from 0 to `epochs` - 1, whole or not."""
        ...


_DECLARATIONS = ("count_operations", "count_weights", "count_samples", "draws_at_random", "update_schedule")


@cache
def check_declarations(layer_type: type) -> None:
    """Raise InvalidOption for a layer class with a name that is nearly one of these declarations."""
    import tensorflow as tf

    names = set(dir(layer_type)) - set(dir(tf.keras.layers.Layer))
    refuse_misspelt(f"The layer class {layer_type.__name__}", sorted(names), _DECLARATIONS)
