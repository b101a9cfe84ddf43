"""A binarization algorithm: a pair of quantizers, the layers that are made of them, and the registry of all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import larq as lq
import tensorflow as tf
from msgspec import Meta

from bibench_tf.algorithms.layers import BinaryConv1D, BinaryConv2D, BinaryDense
from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE, BIBENCH, refuse_misspelt
from bibench_tf.options import Count, check_fields, checked
from bibench_tf.registry import Registry

_Padding = Annotated[int, Meta(ge=0, description="an integer >= 0")] | Literal["same", "valid"]
_LAYERS = {"conv2d": BinaryConv2D, "conv1d": BinaryConv1D, "dense": BinaryDense}


def _after_check(post_init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(post_init)
    def checking(self: Algorithm, *arguments: Any) -> None:
        check_fields(self)
        post_init(self, *arguments)

    return checking


@dataclass(frozen=True)
class Algorithm:
    """A binarization algorithm. Subclass it, give the two quantizers, and register it.

    Fields of a subclass are its options; their annotations are checked before a `__post_init__` of the subclass is
    called (`bibench_tf.options`). `activation` is the default nonlinearity of its networks. `unscaled_kernels`
    declares that kernels are signs without a scale: sums of C products are then around sqrt(C), and networks without
    batch normalization divide by that. `layers` are the classes of `conv2d`, `conv1d` and `dense`: subclasses of
    `BinaryConv2D`, `BinaryConv1D` and `BinaryDense`. A misspelt declaration raises InvalidOption when the class is
    defined.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    activation: ClassVar[str] = "hard_tanh"
    unscaled_kernels: ClassVar[bool] = False
    layers: ClassVar[dict[str, type]] = _LAYERS

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(
            f"The algorithm {cls.__name__}", vars(cls).keys() | vars(cls).get("__annotations__", {}), _NAMES
        )
        if "__post_init__" in vars(cls):
            setattr(cls, "__post_init__", _after_check(vars(cls)["__post_init__"]))  # noqa: B010

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def weight_limit(self) -> float | None:
        """Latent weights are clipped to [-weight_limit, weight_limit] after every update; not where it is None."""
        return None

    def input_quantizer(self) -> tf.keras.layers.Layer:
        """A new quantizer for the inputs of one layer."""
        raise NotImplementedError

    def kernel_quantizer(self) -> tf.keras.layers.Layer:
        """A new quantizer for the kernel of one layer."""
        raise NotImplementedError

    def layer_options(self, kind: str) -> dict[str, Any]:
        """Further arguments of `BinaryConv2D`, such as `output_scale`, for a `conv2d`, `conv1d` or `dense`."""
        return {}

    @checked
    def conv2d(
        self,
        filters: Count,
        kernel_size: Any,
        strides: Any = 1,
        padding: _Padding = "same",
        *,
        use_bias: bool = False,
        groups: Count = 1,
        pad_value: float = 0.0,
        **options: Any,
    ) -> tf.keras.layers.Layer:
        """A convolution of images (B, H, W, C).

        `pad_value` is what binary layers add around their binarized inputs: 0, or -1 or +1, which a bit can hold.
        `options` are `dilation_rate` and `name`.
        """
        if pad_value:
            options["pad_values"] = pad_value
        options |= {"kernel_size": kernel_size, "strides": strides, "padding": padding}
        return self._layer("conv2d", filters, use_bias=use_bias, groups=groups, **options)

    @checked
    def conv1d(
        self,
        filters: Count,
        kernel_size: Count,
        strides: Count = 1,
        padding: _Padding = "same",
        *,
        use_bias: bool = False,
        groups: Count = 1,
        **options: Any,
    ) -> tf.keras.layers.Layer:
        """A convolution of sequences (B, L, C); `options` are `dilation_rate` and `name`."""
        options |= {"kernel_size": kernel_size, "strides": strides, "padding": padding}
        return self._layer("conv1d", filters, use_bias=use_bias, groups=groups, **options)

    @checked
    def dense(self, units: Count, use_bias: bool = True, name: str | None = None) -> tf.keras.layers.Layer:
        """A fully connected layer on rows (..., C)."""
        return self._layer("dense", units, use_bias=use_bias, name=name)

    def _layer(self, kind: str, units: int, **options) -> tf.keras.layers.Layer:
        return self.layers[kind](
            units,
            **options,
            input_quantizer=self.input_quantizer(),
            kernel_quantizer=self.kernel_quantizer(),
            kernel_initializer="glorot_normal",
            kernel_constraint=None if self.weight_limit is None else lq.constraints.WeightClip(self.weight_limit),
            **self.layer_options(kind),
        )


_NAMES = frozenset(name for name in vars(Algorithm) if not name.startswith("_")) | {"key", "title", "paper"}

ALGORITHMS: Registry[type[Algorithm]] = Registry(
    "algorithm", "bibench_tf.algorithms", type[Algorithm], first=(BASELINE, *BIBENCH)
)
AlgorithmClass = TypeVar("AlgorithmClass", bound=type[Algorithm])


def register(algorithm: AlgorithmClass) -> AlgorithmClass:
    """A class decorator that makes an `Algorithm` subclass known under its key, and returns it as it is.

    Raises InvalidOption where the class lacks a key, title or paper, and where the key is taken.
    """
    for attribute in ("key", "title", "paper"):
        if not isinstance(getattr(algorithm, attribute, None), str):
            raise InvalidOption(f"{algorithm.__qualname__} needs a class attribute '{attribute}' to be registered.")
    ALGORITHMS.register(algorithm.key, algorithm, origin=algorithm.__module__)
    return algorithm


def names(pattern: str = "*") -> list[str]:
    """The keys that match a pattern of the shell: the baseline, BiBench's eight in its order, then all others."""
    return ALGORITHMS.names(pattern)


def get(key: str | Algorithm, **options: Any) -> Algorithm:
    """The algorithm called `key`, with its options, or an `Algorithm` with these options in place of its own.

    Raises UnknownName for an unknown key, and InvalidOption for an option or a value that the algorithm does not take.
    """
    if isinstance(key, Algorithm) and not options:
        return key
    if not isinstance(key, (str, Algorithm)):
        raise InvalidOption(f"An algorithm is a key, such as 'bnn', or an instance of Algorithm, not {key!r}.")
    make = functools.partial(dataclasses.replace, key) if isinstance(key, Algorithm) else ALGORITHMS.get(key)
    try:
        return make(**options)
    except TypeError as error:
        raise InvalidOption(f"Algorithm '{getattr(key, 'key', key)}' does not take these options: {error}.") from error
