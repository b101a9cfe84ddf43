"""The networks by name: registration of builder functions and of families of them, look-up, and building.

The package's own builders are in `bibench_tf.zoo`, which is imported at the first look-up, and with it TensorFlow.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bibench_tf.errors import InvalidOption, shortened
from bibench_tf.names import BASELINE, PAPER
from bibench_tf.options import checked
from bibench_tf.registry import Registry

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.algorithms import Algorithm

# A wider network of this zoo has layers that no machine holds.
WIDTHS = (0.001, 16.0)

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True)
class Preset:
    """A network of a family: the arguments that make it, and what its documentation states.

    `description` is one line. `sizes` are the arguments of the family's function that the network fixes. `counts` are
    the parameters, the binary and the float multiply-accumulates of the network as its builder makes it by default,
    counted by `bibench_tf.complexity`. `published` gives accuracies and their source. `defaults` replace defaults of
    the function.
    """

    description: str
    sizes: Mapping[str, Any]
    counts: tuple[int, int, int]
    published: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def documentation(self) -> str:
        """The docstring of the network's builder, without the options."""
        parameters, binary, floats = self.counts
        counts = f"By default: {parameters:,} parameters, {binary:,} binary and {floats:,} float MACs."
        published = f"\nPublished: {self.published}" if self.published else ""
        return f"{self.description}\n\n{counts}{published}"


@dataclass(frozen=True)
class Network:
    """A registered builder function, and the properties of the networks that it builds.

    `build(algorithm=..., **options)` returns a `tf.keras.Model`. `task` is the key of the task (`bibench_tf.tasks`)
    that the network serves. `input_options` state how data sets of that task prepare the inputs of this network; their
    type depends on the task. For detectors they map a family of protocols (`coco`, `voc`) to a
    `bibench_tf.datasets.kinds.detection.View`; a family that is missing, or None, stands for the data set's own view.
    `preset` is None for a network without a family.
    """

    name: str
    build: Callable[..., Any]
    task: str
    input_options: Any = field(default=None, compare=False)
    preset: Preset | None = field(default=None, compare=False)

    @property
    def description(self) -> str:
        """The first line of the builder's docstring."""
        return (inspect.getdoc(self.build) or "").partition("\n")[0]

    @property
    def has_own_binarization(self) -> bool:
        """Whether the builder's default is the binarization of the network's own paper."""
        return inspect.signature(self.build).parameters["algorithm"].default != BASELINE


NETWORKS: Registry[Network] = Registry("network", "bibench_tf.zoo", Network)


def register(
    *, task: str = "image_classification", input_options: Any = None, aliases: tuple[str, ...] = ()
) -> Callable[[Builder], Builder]:
    """A decorator that registers a builder function under its own name, and returns it with a check of its arguments.

    The arguments are checked by their annotations (`bibench_tf.options`). Raises InvalidOption for a builder without a
    parameter `algorithm`, and for a name that is taken.
    """

    def decorate(builder: Builder) -> Builder:
        builder = checked(builder)
        _register(Network(builder.__name__, builder, task, input_options), aliases)
        return builder

    return decorate


def register_family(
    presets: Mapping[str, Preset], *, task: str = "image_classification"
) -> Callable[[Builder], Builder]:
    """A decorator that registers one builder for each preset of a family's function, which it returns as `register`.

    The first parameter of the function is the name of the network. The parameters that a preset does not fix are the
    options of its builder. The docstring of a builder is that of its preset, followed by that of the function. Raises
    InvalidOption for a function without a parameter `algorithm`, for a preset that does not fit it, and for a name that
    is taken.
    """

    def decorate(family: Builder) -> Builder:
        family = checked(family)
        for name, preset in presets.items():
            _register(Network(name, _builder(family, name, preset), task, preset=preset), preset.aliases)
        return family

    return decorate


def build(name: str, algorithm: str | Algorithm = BASELINE, **options: Any) -> tf.keras.Model:
    """The network called `name`; `options` are those of its builder function.

    `algorithm` is a key, an `Algorithm`, or `paper` for the binarization of the network's own paper. Raises
    UnknownName, and InvalidOption for `paper` if there is none, for an option that the network does not take, and where
    Keras is set to channels first.
    """
    import tensorflow as tf

    network = NETWORKS.get(name)
    if tf.keras.backend.image_data_format() != "channels_last":
        raise InvalidOption("The networks take channels last, (B, H, W, C), and Keras is set to 'channels_first'.")
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
    """`resnet20@0.5` as name and width multiplier; without @ the width is 1. Raises InvalidOption for a bad width."""
    name, at, width = network.partition("@")
    try:
        return name, check_width(float(width)) if at else 1.0
    except ValueError as error:
        reason = f" {error}" if isinstance(error, InvalidOption) else ""
        raise InvalidOption(
            f"'{shortened(network)}' is not a network; write NAME or NAME@WIDTH, such as resnet20@0.5.{reason}"
        ) from None


def check_width(width: float) -> float:
    """A width multiplier, unchanged. Raises InvalidOption for one outside of `WIDTHS`, also for NaN."""
    narrowest, widest = WIDTHS
    if not narrowest <= width <= widest:
        raise InvalidOption(f"The width multiplier is from {narrowest:g} to {widest:g}, not {width:g}.")
    return width


def task_of(network: str) -> str:
    """The key of the task of a network, NAME or NAME@WIDTH. Raises UnknownName."""
    return NETWORKS.get(parse(network)[0]).task


def _register(network: Network, aliases: tuple[str, ...]) -> None:
    module = network.build.__module__
    if "algorithm" not in inspect.signature(network.build).parameters:
        raise InvalidOption(f"The builder '{network.name}' of {module} has no parameter 'algorithm'.")
    NETWORKS.register(network.name, network, origin=module, aliases=aliases)


def _builder(family: Callable[..., Any], name: str, preset: Preset) -> Callable[..., Any]:
    """The builder of one preset."""
    signature = inspect.signature(family)
    _, *parameters = signature.parameters.values()
    required = {each.name for each in parameters if each.default is each.empty}
    if not required <= set(preset.sizes) <= set(signature.parameters) >= set(preset.defaults):
        raise InvalidOption(f"The preset '{name}' does not fit {family.__module__}.{family.__name__}.")
    options = signature.replace(
        parameters=[
            each.replace(default=preset.defaults.get(each.name, each.default))
            for each in parameters
            if each.name not in preset.sizes
        ]
    )

    @functools.wraps(family)
    def builder(*args: Any, **given: Any) -> Any:
        bound = options.bind(*args, **given)
        bound.apply_defaults()
        return family(name, **preset.sizes, **bound.arguments)

    builder.__name__ = builder.__qualname__ = name
    builder.__signature__ = options  # type: ignore[attr-defined]
    builder.__annotations__ = {k: v for k, v in family.__annotations__.items() if k in (*options.parameters, "return")}
    builder.__doc__ = f"{preset.documentation}\n\n{inspect.getdoc(family) or ''}".rstrip()
    return builder
