"""Binary layers as daBNN computes them: a binary convolution with a scale, a bias and a threshold per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import larq as lq
import numpy as np
import tensorflow as tf

from bibench_tf.algorithms.capabilities import capabilities_of
from bibench_tf.algorithms.layers import BinaryConv1D, BinaryDense

Level = Literal["strict", "aggressive"]

_SMALL_PADDING = "build it with padding=1 and pad_values=-1 (networks of the zoo: padding='minus_one')"


class Refusal(Exception):
    """Why daBNN has no operation for a layer."""


@dataclass(frozen=True)
class BinaryLayer:
    """A binary convolution: +1/-1 kernel (O, I, kh, kw), y = scale * conv(sign(x + shift), kernel) + bias.

    Padding is -1, or +1 with `flipped`.
    """

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    strides: list[int]
    padding: tuple[int, int]
    flipped: bool
    shift: np.ndarray | None


def is_binary(layer: Any) -> bool:
    """Whether a layer has a quantizer and is a convolution or built on one."""
    quantizers = (getattr(layer, "input_quantizer", None), getattr(layer, "kernel_quantizer", None))
    return isinstance(layer, lq.layers.QuantConv2D) and any(quantizer is not None for quantizer in quantizers)


def analyse(layer: Any, node: Any, level: Level) -> BinaryLayer:
    """The binary convolution that a layer computes in inference. Raises Refusal where daBNN cannot compute it."""
    if isinstance(layer, (BinaryConv1D, BinaryDense)):
        raise Refusal("it has binary convolutions of images only, no binary sequences and rows")
    if layer.input_quantizer is None or layer.kernel_quantizer is None:
        raise Refusal("inputs and kernel of a convolution are both binary or both float")
    if layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1) or layer.data_format != "channels_last":
        raise Refusal("it has binary convolutions without groups and dilation, of images with channels last")
    if capabilities_of(layer.input_quantizer).has_output_factor:
        raise Refusal("it multiplies its output by a factor computed from its input, and daBNN multiplies by constants")
    kernel = np.asarray(layer.kernel_quantizer(tf.convert_to_tensor(layer.kernel)))
    scale = np.abs(kernel).max(axis=(0, 1, 2))
    if not (np.abs(kernel) == scale).all():
        raise Refusal("its kernel is not one scale times +1 or -1 for each output channel")
    padding, value = _binary_padding(layer, node.keras_inputs[0].shape, level)
    factor, bias = _output_scale(layer), bias_of(layer, layer.filters).astype(np.float64)
    return BinaryLayer(
        kernel=np.where(kernel >= 0, 1.0, -1.0).transpose(3, 2, 0, 1).astype(np.float32),
        scale=scale.astype(np.float64) * factor,
        bias=bias * factor if getattr(layer, "scale_bias", False) else bias,
        strides=list(layer.strides),
        padding=padding,
        flipped=value == 1,
        shift=_threshold(layer, kernel.shape[2]),
    )


def _binary_padding(layer: Any, shape: Any, level: Level) -> tuple[tuple[int, int], float]:
    pairs, value = paddings(layer, shape), float(layer.pad_values)
    if not any(map(any, pairs)):
        if level == "strict":
            raise Refusal("without padding it is recognised at the level 'aggressive' only (--level aggressive)")
        return (0, 0), -1.0
    if value not in (-1.0, 1.0):
        raise Refusal(f"it pads with {value:g}, which is not a bit; {_SMALL_PADDING}")
    if any(before != after for before, after in pairs):
        raise Refusal(f"it pads {pairs}, and daBNN pads the same on both sides; {_SMALL_PADDING}")
    return (pairs[0][0], pairs[1][0]), value


def _output_scale(layer: Any) -> np.ndarray:
    """The learned factor of each output channel."""
    factor = np.ones(layer.filters)
    kind = getattr(layer, "output_scale_kind", None)
    if kind is not None:
        factor = np.asarray(layer.output_scale, np.float64)
    if kind == "spatial":
        for weight in (layer.height_scale, layer.width_scale):
            values = np.ones(1) if weight is None else np.asarray(weight, np.float64)
            if np.ptp(values):
                raise Refusal("it scales output rows and columns differently, and daBNN has one factor for a channel")
            factor = factor * values[0]
    return factor


def _threshold(layer: Any, channels: int) -> np.ndarray | None:
    """The shift t of an input quantizer sign(x + t), None for 0; found by trying it."""
    quantizer = layer.input_quantizer
    shift = np.asarray(getattr(quantizer, "input_shift", np.zeros(channels)), np.float32)
    rng = np.random.default_rng(0)
    trial = rng.normal(0, 2, (1, 6, 6, channels)).astype(np.float32)
    trial[0, 0] = 0
    trial[0, 1] = -shift
    if not np.array_equal(np.asarray(quantizer(tf.constant(trial))), np.where(trial + shift >= 0, 1, -1)):
        raise Refusal(f"its input quantizer {type(quantizer).__name__} is not a sign")
    return shift.astype(np.float64) if shift.any() else None


def paddings(layer: Any, shape: Any) -> list[tuple[int, int]]:
    """The padding of a convolution or pool, (before, after) for height and width; `shape` is that of the input."""
    explicit = getattr(layer, "explicit_padding", None)
    if explicit is not None:
        return [(explicit, explicit)] * 2
    if layer.padding == "valid":
        return [(0, 0), (0, 0)]
    pairs = []
    window = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
    for size, kernel, stride in zip(shape[1:3], window, layer.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pairs.append((total // 2, total - total // 2))
    return pairs


def bias_of(layer: Any, size: int) -> np.ndarray:
    """The bias of a layer with `size` outputs [size]; zeros where it has none."""
    return layer.bias.numpy() if layer.use_bias else np.zeros(size, np.float32)
