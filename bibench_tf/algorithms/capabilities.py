"""What a quantizer declares about itself: the base class of quantizers, and the same view of plain Larq ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import larq as lq
import tensorflow as tf

from bibench_tf.errors import InvalidOption
from bibench_tf.names import refuse_misspelt
from bibench_tf.options import checked

if TYPE_CHECKING:
    from bibench_tf.algorithms.layers import BinaryConv2D

_LARQ_SIGNS = (lq.quantizers.SteSign, lq.quantizers.ApproxSign, lq.quantizers.SwishSign)


class Capabilities:
    """What layers, operation counts, networks and exports ask of a quantizer, with the defaults.

    `precision` is the number of bits of the quantized values, None for unquantized ones. `signs_in_inference` declares
    that an input quantizer gives exactly -1 and +1 in inference: grouped convolutions then run on bits. `sign_values`
    are the numbers that its -1 and +1 stand for: the layer computes with these. `draws_at_random` declares that it
    draws random numbers in training.
    """

    precision: int | None = None
    signs_in_inference: bool = False
    sign_values: tuple[float, float] = (-1.0, 1.0)
    draws_at_random: bool = False

    def output_factor(self, inputs: tf.Tensor, layer: BinaryConv2D) -> tf.Tensor:
        """A factor of the output of `layer`, computed from its unquantized inputs; optional.

        Its shape broadcasts to (B, H_out, W_out, filters). A quantizer has a factor if its class defines this method.
        """
        raise NotImplementedError

    def scales_inputs(self, training: bool) -> bool:
        """Whether the quantized inputs contain the output factor already."""
        return False

    def update_schedule(self, epoch: float, epochs: float) -> None:
        """Set the state for `epoch`, from 0 to `epochs` - 1, whole or not; optional.

        A quantizer has a schedule if its class defines this method. The state is a non-trainable weight, which is
        saved with the network. Called at the start of every epoch or step, once the quantizer is built.
        """

    @property
    def has_output_factor(self) -> bool:
        """Whether the class defines `output_factor`."""
        return type(self).output_factor is not Capabilities.output_factor

    @property
    def is_scheduled(self) -> bool:
        """Whether the class defines `update_schedule`."""
        return type(self).update_schedule is not Capabilities.update_schedule


_NAMES = frozenset(name for name in vars(Capabilities) if not name.startswith("_"))


QuantizerClass = TypeVar("QuantizerClass", bound=type)


class Quantizer(Capabilities, lq.quantizers.Quantizer):
    """The base class of quantizers: Larq's, with `Capabilities`.

    A subclass defines `call(inputs)` or `call(inputs, training=None)`, `get_config` where it has arguments, and the
    capabilities that it has. A misspelt capability raises InvalidOption when the class is defined or the attribute set.

    The annotated arguments of `__init__` are checked (`bibench_tf.options`).

    `training` is False in a frozen layer (`trainable=False`). A binary layer of this package decides that for its
    quantizers. In layers of other packages, and alone, the quantizer's own `trainable` counts, which Keras sets with
    that of the layer or network around it. The schedule of a frozen quantizer stands still.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_spelling(cls.__name__, [*vars(cls), *vars(cls).get("__annotations__", ())])
        if "__init__" in vars(cls):
            setattr(cls, "__init__", checked(vars(cls)["__init__"]))  # noqa: B010

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_masking = True  # one value for each value

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Not for symbolic inputs: the value would stay in the network that is made of them.
        if not (self.trainable or args or tf.is_tensor(inputs) and tf.keras.backend.is_keras_tensor(inputs)):
            kwargs.setdefault("training", False)
        return super().__call__(inputs, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name):
            _check_spelling(type(self).__name__, [name])
        super().__setattr__(name, value)


def own(alias: str) -> Callable[[QuantizerClass], QuantizerClass]:
    """A decorator for quantizers of this package: Keras saves them with its name, and Larq finds them by `alias`."""

    def decorate(quantizer: QuantizerClass) -> QuantizerClass:
        return lq.utils.register_alias(alias)(tf.keras.utils.register_keras_serializable("bibench_tf")(quantizer))

    return decorate


def _check_spelling(owner: str, names: list[str]) -> None:
    own = [name for name in names if not hasattr(lq.quantizers.Quantizer, name)]
    refuse_misspelt(f"The quantizer {owner}", own, _NAMES)


def capabilities_of(quantizer: Callable[..., Any] | None) -> Capabilities:
    """The capabilities of whatever a layer takes as quantizer: a `Quantizer`, one of Larq's, a function, or None.

    Raises InvalidOption for another class that declares capabilities, which would have no effect.
    """
    if isinstance(quantizer, Capabilities):
        return quantizer
    declared = [name for name in sorted(_NAMES - {"precision"}) if hasattr(quantizer, name)]
    if declared:
        raise InvalidOption(
            f"The quantizer {type(quantizer).__name__} declares '{declared[0]}', but is no subclass of "
            "bibench_tf.algorithms.Quantizer: derive it from that class."
        )
    plain = Capabilities()
    plain.precision = getattr(quantizer, "precision", None)
    plain.signs_in_inference = isinstance(quantizer, _LARQ_SIGNS)
    return plain
