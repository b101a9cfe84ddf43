"""Shared by the builders of the zoo: option checks, widths and the layers around the binary ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.activations import hard_tanh
from bibench_tf.algorithms.capabilities import capabilities_of
from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE
from bibench_tf.networks import check_width

BATCH_NORM = {"epsilon": 1e-5, "momentum": 0.9}
# A builder's option `activation`: a Keras name, `hard_tanh`, `prelu` or a function; None is the builder's default.
Activation = str | Callable[[tf.Tensor], tf.Tensor] | None


def is_binary(algorithm: algorithms.Algorithm) -> bool:
    """Whether the algorithm binarizes: some networks have other activations, biases or pools in full precision."""
    return algorithm.key != BASELINE


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, rounded, at least 1. Raises InvalidOption as `networks.check_width`."""
    return max(1, round(channels * check_width(width)))


def image_input(input_shape: tuple[int, ...], minimum: int, network: str) -> tf.Tensor:
    """A Keras input of (height, width, channels).

    Raises InvalidOption for another rank, for unknown sizes and for sizes below `minimum`.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InvalidOption(f"{network} takes images of a fixed (height, width, channels), not {shape}.")
    if min(shape[:2]) < minimum:
        raise InvalidOption(
            f"{network} needs images of at least {minimum} x {minimum} pixels, not {shape[0]} x {shape[1]}."
        )
    return tf.keras.Input(shape, name="image")


def check_choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InvalidOption unless `value` is one of the choices of a builder's option."""
    if value not in choices:
        raise InvalidOption(f"{option} is one of {', '.join(choices)}, not {value!r}.")


def choose_stem(
    stem: str,
    input_shape: tuple[int, ...],
    kinds: tuple[str, ...] = ("cifar", "imagenet"),
    small: str = "cifar",
    large: str = "imagenet",
) -> str:
    """The kind of stem for an option `stem`: `auto` is `small` below 96 pixels on the shorter side, else `large`.

    Raises InvalidOption for a name that is neither `auto` nor one of `kinds`.
    """
    check_choice("stem", stem, ("auto", *kinds))
    if stem != "auto":
        return stem
    sizes = [size for size in input_shape[:2] if isinstance(size, int)]
    return large if sizes and min(sizes) >= 96 else small


def image_and_stem(input_shape: tuple[int, ...], stem: str, network: str) -> tuple[tf.Tensor, str]:
    """The Keras input of a network for images, and its kind of stem, `cifar` or `imagenet`.

    Raises InvalidOption for another `stem`, and for images below 32 x 32 pixels, or 8 x 8 with the `cifar` stem.
    """
    kind = choose_stem(stem, input_shape)
    return image_input(input_shape, 32 if kind == "imagenet" else 8, network), kind


def batch_norm(name: str, **options: Any) -> tf.keras.layers.Layer:
    """Batch normalization with PyTorch's constants (epsilon 1e-5, momentum 0.9); `options` are those of Keras."""
    return tf.keras.layers.BatchNormalization(name=name, **{**BATCH_NORM, **options})


def normalized(x: tf.Tensor, name: str, activation: Activation, number: int | str = "") -> tf.Tensor:
    """Batch normalization, `{name}_bn{number}`, and the activation behind it."""
    return activation_layer(activation, f"{name}_activation{number}")(batch_norm(f"{name}_bn{number}")(x))


def activation_layer(activation: Activation, name: str) -> tf.keras.layers.Layer:
    """A layer for `activation`: `hard_tanh`, `prelu` (a slope per channel), any Keras name or a function."""
    if activation == "prelu":
        initializer = tf.keras.initializers.Constant(0.25)
        return tf.keras.layers.PReLU(alpha_initializer=initializer, shared_axes=[1, 2], name=name)
    if activation == "hard_tanh":
        activation = hard_tanh
    try:
        return tf.keras.layers.Activation(activation, name=name)
    except (ValueError, TypeError) as error:
        raise InvalidOption(f"Unknown activation '{activation}'; try relu, hard_tanh or prelu.") from error


def check_classes(num_classes: int) -> None:
    """Raise InvalidOption unless a classifier has at least two classes."""
    if num_classes < 2:
        raise InvalidOption(f"A classifier needs at least two classes, not {num_classes}.")


def classifier(features: tf.Tensor, num_classes: int, use_bias: bool = True) -> tf.Tensor:
    """The full-precision head: logits of shape (B, num_classes)."""
    check_classes(num_classes)
    return tf.keras.layers.Dense(num_classes, use_bias=use_bias, name="head")(features)


def pooled_classifier(image: tf.Tensor, features: tf.Tensor, num_classes: int, name: str) -> tf.keras.Model:
    """The network from `image` to the head on the mean of the features (B, H, W, C) over their positions."""
    pooled = tf.keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return tf.keras.Model(image, classifier(pooled, num_classes), name=name)


def float_conv(
    filters: int,
    kernel_size: int,
    strides: int,
    name: str,
    padding: Literal["same", "valid"] = "same",
    groups: int = 1,
) -> tf.keras.layers.Layer:
    """A full-precision convolution without bias, for stems, shortcuts and transitions."""
    return algorithms.get(BASELINE).conv2d(filters, kernel_size, strides, padding, groups=groups, name=name)


def stem_conv(image: tf.Tensor, kind: str, filters: int, padding: str = "same") -> tf.Tensor:
    """The first convolution, `stem_conv`: 3x3, or 7x7 / 2 for the `imagenet` stem, which a max-pool follows."""
    if kind == "cifar":
        return float_conv(filters, 3, 1, "stem_conv")(image)
    if padding == "same":
        return float_conv(filters, 7, 2, "stem_conv")(image)
    # One pixel more on each side: the pool after it needs no padding, and the output size stays the same.
    return float_conv(filters, 7, 2, "stem_conv", "valid")(tf.keras.layers.ZeroPadding2D(4, name="stem_pad")(image))


def stem_pool(x: tf.Tensor, kind: str, padding: str = "same") -> tf.Tensor:
    """The max-pool 3x3 / 2 of the `imagenet` stem, which halves the size; other stems have no pool."""
    if kind != "imagenet":
        return x
    return tf.keras.layers.MaxPooling2D(3, 2, padding="same" if padding == "same" else "valid", name="stem_pool")(x)


def stages(blocks: Sequence[int], channels: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Name, channels and stride of each of `blocks[i]` blocks in stage i: 2 for the first from stage 2 on, else 1."""
    for stage, (count, wide) in enumerate(zip(blocks, channels, strict=True), start=1):
        for block in range(1, count + 1):
            yield f"stage{stage}_block{block}", wide, 2 if stage > 1 and block == 1 else 1


def projected(
    x: tf.Tensor, channels: int, strides: int, name: str, algorithm: algorithms.Algorithm | None = None
) -> tf.Tensor:
    """The shortcut of a block that changes size or channels, conv1x1 and BN; `algorithm` binarizes the convolution."""
    convolve = float_conv if algorithm is None else algorithm.conv2d
    return batch_norm(f"{name}_bn")(convolve(channels, 1, strides=strides, name=f"{name}_conv")(x))


def halved(x: tf.Tensor, strides: int, name: str) -> tf.Tensor:
    """The average pool of a shortcut around a strided convolution; x itself without a stride."""
    if strides == 1:
        return x
    return tf.keras.layers.AveragePooling2D(strides, padding="same", name=name)(x)


def padding_of_binary_convs(padding: str, algorithm: algorithms.Algorithm) -> dict[str, Any]:
    """The arguments of 3x3 binary convolutions for the builders' option `padding`.

    `same` pads with 0 as Keras does; `minus_one` with -1, one on each side, which is what a bit can hold.
    Raises InvalidOption for other values, and for `minus_one` in full precision.
    """
    check_choice("padding", padding, ("same", "minus_one"))
    if padding == "same":
        return {}
    if not is_binary(algorithm):
        raise InvalidOption("padding='minus_one' is for binary networks; in full precision take 'same'.")
    return {"padding": 1, "pad_value": -1.0}


def pad_with_one(algorithm: algorithms.Algorithm) -> dict[str, Any]:
    """The arguments of 3x3 binary convolutions that pad with +1, which a bit can hold.

    None in full precision and where the inputs are not signs alone (XNOR-Net, WRPN, more than one bit): these pad
    with 0.
    """
    if not is_binary(algorithm):
        return {}
    inputs = capabilities_of(algorithm.input_quantizer())
    signs_alone = inputs.signs_in_inference and not inputs.has_output_factor and inputs.sign_values == (-1.0, 1.0)
    return {"pad_value": 1.0} if signs_alone else {}


def channel_gate(x: tf.Tensor, channels: int, reduction: int, name: str, use_bias: bool) -> tf.Tensor:
    """A factor in (0, 1) for each of `channels` channels, computed from x (B, H, W, C); shape (B, 1, 1, channels).

    sigmoid(W2 relu(W1 z)), z the mean over positions, W1 to C / reduction features, rounded down but at least 1; both
    with biases if `use_bias`. Source: squeeze-and-excitation, arXiv 1709.01507, section 3.
    """
    hidden = max(1, x.shape[-1] // reduction)
    z = tf.keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    for units, activation, step in ((hidden, "relu", "reduce"), (channels, "sigmoid", "expand")):
        z = tf.keras.layers.Dense(
            units, activation, use_bias=use_bias, kernel_initializer="he_normal", name=f"{name}_{step}"
        )(z)
    return tf.keras.layers.Reshape((1, 1, channels), name=f"{name}_reshape")(z)
