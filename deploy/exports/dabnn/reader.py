"""The Keras graph of a network as steps of daBNN."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import larq as lq
import numpy as np
import tensorflow as tf

from bibench_tf.algorithms.capabilities import capabilities_of
from bibench_tf.algorithms.layers import BinaryConv1D, BinaryDense
from bibench_tf.deploy.exports.dabnn.steps import Step
from bibench_tf.deploy.flatbuffer import same_padding
from bibench_tf.errors import BibenchError

Level = Literal["strict", "aggressive"]

_layers = tf.keras.layers
_NOISE = (_layers.Dropout, _layers.SpatialDropout2D, _layers.GaussianNoise, _layers.GaussianDropout)
_UNCHANGED = (*_NOISE, _layers.Flatten)


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


class NotExpressible(BibenchError):
    """A network that daBNN cannot compute; `reasons` has one for each layer by name."""

    def __init__(self, reasons: dict[str, str]) -> None:
        """The message names the first layer and the number of the others."""
        self.reasons = dict(reasons)
        name, reason = next(iter(reasons.items()))
        same = Counter(reasons.values())[reason] - 1
        others = len(reasons) - 1 - same
        also = f" (the same for {same} more)" if same else ""
        also += f" (and {others} for other reasons)" if others else ""
        super().__init__(f"daBNN cannot express layer '{name}'{also}: {reason}.")


class Reader:
    """Turns Keras tensors, from the last one back, into steps."""

    def __init__(self, model: tf.keras.Model, level: Level) -> None:
        """Analyse the binary layers. Raises NotExpressible with the reasons of all layers that daBNN lacks."""
        self.level, self.image = level, model.inputs[0].node.layer.name
        self.steps: list[Step] = []
        self._names: dict[tuple, str] = {}
        self._used: Counter[str] = Counter()
        self._binary: dict[int, BinaryLayer] = {}
        self._signed: set[tuple] = set()
        reasons: dict[str, str] = {}
        for node in _nodes(model):
            layer = node.layer
            try:
                if _is_binary(layer):
                    self._binary[id(node)] = binary = _analyse(layer, node, level)
                    if binary.shift is None and not binary.flipped:
                        self._signed.add(_key(self._source(node.keras_inputs[0], binary)))
                elif type(layer) not in _HANDLERS and not isinstance(layer, _UNCHANGED):
                    if isinstance(layer, tf.keras.Model):
                        raise Refusal("it is a model inside a model; build the network as one")
                    raise Refusal(f"it has no operation for {type(layer).__name__}")
            except Refusal as refusal:
                reasons.setdefault(layer.name, str(refusal))
        if reasons:
            raise NotExpressible(reasons)

    def finish(self, tensor: Any) -> str:
        """The name of the network's output. Raises NotExpressible."""
        layer = tensor.node.layer
        kind, source = type(layer), tensor.node.keras_inputs[0] if tensor.node.keras_inputs else None
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if kind is _layers.Softmax or (kind is _layers.Activation and activation == "softmax"):
            return self._add("Softmax", layer, [self.finish(source)], axis=1)
        if kind is _layers.Dense and activation in ("linear", "softmax"):
            x = self.value(source)
            if _spatial(source) == (1, 1):
                rows = self._reshape(layer, x, layer.input_spec.axes[-1])
                weights = {"weight": layer.kernel.numpy().T, "bias": _bias_of(layer, layer.units)}
                result = self._add("Gemm", layer, [rows], weights, transA=0, transB=1, alpha=1.0, beta=1.0)
            else:
                result = self._reshape(layer, self._dense(layer, x, source), layer.units)
            return self._add("Softmax", layer, [result], axis=1) if activation == "softmax" else result
        x = self.value(tensor)
        return x if len(tensor.shape) == 4 else self._reshape(layer, x, int(np.prod(tensor.shape[1:])))

    def value(self, tensor: Any) -> str:
        """The name of the NCHW tensor of a Keras tensor; vectors stay images until the end. Raises NotExpressible."""
        key = _key(tensor)
        if key not in self._names:
            node = tensor.node
            try:
                if id(node) in self._binary:
                    name = self._convolve(node)
                elif isinstance(node.layer, _UNCHANGED):
                    name = self.value(node.keras_inputs[0])
                else:
                    name = _HANDLERS[type(node.layer)](self, node.layer, node.keras_inputs)
            except Refusal as refusal:
                raise NotExpressible({node.layer.name: str(refusal)}) from refusal
            if key in self._signed:
                channels = tensor.shape[-1]
                name = self._affine(node.layer, name, np.ones(channels), np.zeros(channels), part="no_zero", side=1)
            self._names[key] = name
        return self._names[key]

    def _add(self, kind, layer, inputs, weights=None, *, part="", side=0, **attributes) -> str:
        """A step named after the layer, or after a `part` of its work."""
        name = f"{layer.name}/{part}" if part else layer.name
        self._used[name] += 1
        name = name if self._used[name] == 1 else f"{name}/{self._used[name]}"
        self.steps.append(Step(kind, tuple(inputs), name, weights or {}, attributes, side))
        return name

    def _affine(self, layer, x, scale, bias, *, part="", side=0) -> str:
        weights = {"scale": np.asarray(scale, np.float64), "bias": np.asarray(bias, np.float64)}
        return self._add("Affine", layer, [x], weights, part=part, side=side)

    def _reshape(self, layer, x, size) -> str:
        return self._add("Reshape", layer, [x], {"shape": np.array([1, size], np.int64)}, part="rows")

    def _source(self, tensor, binary: BinaryLayer):
        """The tensor that a sign may read in place of `tensor`: that before layers that keep every sign."""
        keeps_thresholds = binary.shift is None or (np.abs(binary.shift) < 1).all()
        while True:
            layer = tensor.node.layer
            function = _function(layer) if type(layer) is _layers.Activation else None
            if isinstance(layer, _UNCHANGED) or function == "linear" or (function == "hard_tanh" and keeps_thresholds):
                tensor = tensor.node.keras_inputs[0]
            else:
                return tensor

    def _convolve(self, node) -> str:
        binary, layer = self._binary[id(node)], node.layer
        x = self.value(self._source(node.keras_inputs[0], binary))
        if binary.shift is not None or binary.flipped:
            turn = -1 if binary.flipped else 1
            shift = np.zeros(binary.kernel.shape[1]) if binary.shift is None else binary.shift
            x = self._affine(layer, x, np.full(shift.shape, turn), turn * shift, part="shift", side=turn)
        kernel = -binary.kernel if binary.flipped else binary.kernel
        size = list(kernel.shape[2:])
        attributes = {"kernel_shape": size, "strides": binary.strides, "padding": binary.padding}
        x = self._add("BinaryConv", layer, [x], {"kernel": kernel}, **attributes)
        x = self._affine(layer, x, binary.scale, binary.bias, part="scale")
        return self._activate(layer, x)

    def _activate(self, layer, x) -> str:
        function = _function(layer)
        if function == "linear":
            return x
        if function == "relu":
            return self._add("Relu", layer, [x])
        if function == "hard_tanh":
            # clip(x, -1, 1) = 1 - relu(2 - relu(x + 1))
            channels = self._channels(layer)
            for scale, bias, relu in ((1, 1, True), (-1, 2, True), (-1, 1, False)):
                x = self._affine(layer, x, np.full(channels, scale), np.full(channels, bias), part="clip")
                x = self._add("Relu", layer, [x], part="relu") if relu else x
            return x
        raise Refusal(f"it has no activation '{function}'; linear, relu, hard_tanh and PReLU layers can be expressed")

    def _channels(self, layer) -> int:
        shape = layer.output_shape[0] if isinstance(layer.output_shape, list) else layer.output_shape
        if len(shape) == 2:
            raise Refusal("rows of numbers take relu only")
        return shape[-1]

    # The layers of Keras

    def _activation(self, layer, inputs) -> str:
        return self._activate(layer, self.value(inputs[0]))

    def _relu(self, layer, inputs) -> str:
        if layer.max_value is not None or layer.threshold or layer.negative_slope:
            raise Refusal("it has only the plain relu")
        return self._add("Relu", layer, [self.value(inputs[0])])

    def _prelu(self, layer, inputs) -> str:
        slope = layer.alpha.numpy()
        if slope.size not in (1, slope.shape[-1]):
            raise Refusal("it has one slope for each channel; share the other axes (shared_axes=[1, 2])")
        return self._add("PRelu", layer, [self.value(inputs[0])], {"slope": slope.reshape(-1, 1, 1)})

    def _add_up(self, layer, inputs) -> str:
        if len({tuple(tensor.shape) for tensor in inputs}) > 1:
            raise Refusal("it adds tensors of the same shape only")
        return self._chain("Add", layer, inputs)

    def _join(self, layer, inputs) -> str:
        if layer.axis not in (-1, 3) or len(inputs[0].shape) != 4:
            raise Refusal("it joins images along the channels only")
        return self._chain("Concat", layer, inputs, axis=1)

    def _chain(self, kind, layer, inputs, **attributes) -> str:
        """Steps of two inputs each for any number of them."""
        names = [self.value(tensor) for tensor in inputs]
        return functools.reduce(lambda first, other: self._add(kind, layer, [first, other], **attributes), names)

    def _normalize(self, layer, inputs) -> str:
        if list(layer.axis) != [len(inputs[0].shape) - 1] or _spatial(inputs[0]) not in (None, (1, 1)):
            raise Refusal("it normalizes the channels of images")
        mean, variance = (np.asarray(value, np.float64) for value in (layer.moving_mean, layer.moving_variance))
        scale = 1 / np.sqrt(variance + layer.epsilon)
        scale = scale * np.asarray(layer.gamma, np.float64) if layer.scale else scale
        bias = np.asarray(layer.beta, np.float64) if layer.center else 0.0
        return self._affine(layer, self.value(inputs[0]), scale, bias - mean * scale)

    def _float_convolution(self, layer, inputs) -> str:
        if layer.data_format != "channels_last" or layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1):
            raise Refusal("it has convolutions without groups and dilation, of images with channels last")
        source, pairs = inputs[0], _paddings(layer, inputs[0].shape)
        if type(source.node.layer) is _layers.ZeroPadding2D and not any(map(any, pairs)):
            pairs, source = source.node.layer.padding, source.node.keras_inputs[0]
        pads = [max(pair) for pair in pairs]
        # daBNN pads both sides alike; rows of zeros in the kernel make up for the difference.
        margins = [(max(pair) - before, max(pair) - after) for pair in pairs for before, after in [pair]]
        kernel = np.pad(layer.kernel.numpy(), [*margins, (0, 0), (0, 0)])
        x = self._conv(layer, self.value(source), kernel, list(layer.strides), pads)
        return self._activate(layer, x)

    def _conv(self, layer, x, kernel, strides, pads) -> str:
        """A float convolution; the kernel (kh, kw, I, O) is Keras'."""
        if (np.abs(kernel) == 1).all():
            raise Refusal("its kernel has no values but +1 and -1, so onnx2bnn would binarize its input")
        weights = {"kernel": kernel.transpose(3, 2, 0, 1)}
        if layer.use_bias:
            weights["bias"] = layer.bias.numpy()
        size = list(kernel.shape[:2])
        return self._add("Conv", layer, [x], weights, kernel_shape=size, strides=strides, pads=[*pads, *pads])

    def _pool(self, layer, inputs) -> str:
        pairs = _paddings(layer, inputs[0].shape)
        if any(before != after for before, after in pairs):
            raise Refusal(
                f"its pooling pads {pairs}, and daBNN pads the same on both sides; choose sizes that need no padding "
                "(networks of the zoo: padding='minus_one')"
            )
        kind = "AveragePool" if isinstance(layer, _layers.AveragePooling2D) else "MaxPool"
        if kind == "MaxPool" and tuple(layer.pool_size) not in ((2, 2), (3, 3)):
            raise Refusal("it has max-pools of 2x2 and 3x3")
        pads = [pair[0] for pair in pairs] * 2
        size, strides = list(layer.pool_size), list(layer.strides)
        return self._add(kind, layer, [self.value(inputs[0])], pads=pads, kernel_shape=size, strides=strides)

    def _global_pool(self, layer, inputs) -> str:
        kind = "GlobalMaxPool" if isinstance(layer, _layers.GlobalMaxPooling2D) else "GlobalAveragePool"
        return self._add(kind, layer, [self.value(inputs[0])])

    def _zero_padding(self, layer, inputs) -> str:
        raise Refusal("it pads as a part of convolutions; follow the padding by a float convolution alone")

    def _dense_layer(self, layer, inputs) -> str:
        return self._activate(layer, self._dense(layer, self.value(inputs[0]), inputs[0]))

    def _dense(self, layer, x, source) -> str:
        """A Dense layer as the convolution of the whole image: onnx2bnn makes a 1x1 convolution of a Gemm."""
        spatial = _spatial(source)
        if spatial is None:
            raise Refusal("a Dense layer needs rows; put Flatten or a global pool before it")
        kernel = layer.kernel.numpy()
        return self._conv(layer, x, kernel.reshape(*spatial, -1, layer.units), [1, 1], [0, 0])


_HANDLERS = {
    _layers.InputLayer: lambda reader, layer, inputs: reader.image,
    _layers.Conv2D: Reader._float_convolution,
    lq.layers.QuantConv2D: Reader._float_convolution,
    _layers.Dense: Reader._dense_layer,
    _layers.BatchNormalization: Reader._normalize,
    _layers.Activation: Reader._activation,
    _layers.ReLU: Reader._relu,
    _layers.PReLU: Reader._prelu,
    _layers.Add: Reader._add_up,
    _layers.Concatenate: Reader._join,
    _layers.ZeroPadding2D: Reader._zero_padding,
    _layers.MaxPooling2D: Reader._pool,
    _layers.AveragePooling2D: Reader._pool,
    _layers.GlobalAveragePooling2D: Reader._global_pool,
    _layers.GlobalMaxPooling2D: Reader._global_pool,
    _layers.Softmax: Reader._activation,
}


def _spatial(tensor) -> tuple[int, int] | None:
    """Height and width of the image that rows of numbers come from; None for images."""
    if len(tensor.shape) != 2:
        return None
    while type(tensor.node.layer) is not _layers.Flatten:
        if isinstance(tensor.node.layer, (_layers.GlobalAveragePooling2D, _layers.GlobalMaxPooling2D, _layers.Dense)):
            return (1, 1)
        tensor = tensor.node.keras_inputs[0]
    before = tensor.node.keras_inputs[0]
    return tuple(before.shape[1:3]) if len(before.shape) == 4 else _spatial(before)


def _function(layer) -> str:
    return getattr(layer.activation, "__name__", "linear") if hasattr(layer, "activation") else "softmax"


def _nodes(model: tf.keras.Model) -> list:
    """The calls of layers that lead to the output, first ones first."""
    found, waiting = {}, [model.outputs[0].node]
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting.extend(tensor.node for tensor in node.keras_inputs)
    position = {id(layer): index for index, layer in enumerate(model.layers)}
    return sorted(found.values(), key=lambda node: position.get(id(node.layer), 0))


def _key(tensor) -> tuple:
    return id(tensor.node), tensor._keras_history.tensor_index


def _is_binary(layer: Any) -> bool:
    """Whether a layer has a quantizer and is a convolution or built on one."""
    quantizers = (getattr(layer, "input_quantizer", None), getattr(layer, "kernel_quantizer", None))
    return isinstance(layer, lq.layers.QuantConv2D) and any(quantizer is not None for quantizer in quantizers)


def _analyse(layer: Any, node: Any, level: Level) -> BinaryLayer:
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
    factor, bias = _output_scale(layer), _bias_of(layer, layer.filters).astype(np.float64)
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
    pairs, value = _paddings(layer, shape), float(layer.pad_values)
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


def _paddings(layer: Any, shape: Any) -> list[tuple[int, int]]:
    """The padding of a convolution or pool, (before, after) for height and width; `shape` is that of the input."""
    explicit = getattr(layer, "explicit_padding", None)
    if explicit is not None:
        return [(explicit, explicit)] * 2
    if layer.padding == "valid":
        return [(0, 0), (0, 0)]
    window = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
    return [same_padding(*axis) for axis in zip(shape[1:3], window, layer.strides, strict=True)]


def _bias_of(layer: Any, size: int) -> np.ndarray:
    """The bias of a layer with `size` outputs [size]; zeros where it has none."""
    return layer.bias.numpy() if layer.use_bias else np.zeros(size, np.float32)
