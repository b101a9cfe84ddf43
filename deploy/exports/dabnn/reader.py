"""The Keras graph of a network as steps of daBNN."""

from __future__ import annotations

from collections import Counter
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from bibench_tf.deploy.exports.dabnn.binary import BinaryLayer, Level, Refusal, analyse, bias_of, is_binary, paddings
from bibench_tf.deploy.exports.dabnn.steps import Step
from bibench_tf.errors import BibenchError

_layers = tf.keras.layers
_UNCHANGED = (_layers.Dropout, _layers.SpatialDropout2D, _layers.GaussianNoise, _layers.GaussianDropout)


class NotExpressible(BibenchError):
    """A network that daBNN cannot compute; `reasons` has one for each layer by name."""

    def __init__(self, reasons: dict[str, str]) -> None:
        """The message names the first layer and the number of the others."""
        self.reasons = dict(reasons)
        name, reason = next(iter(reasons.items()))
        same = Counter(reasons.values())[reason] - 1
        others = len(reasons) - 1 - same
        also = (f" (the same for {same} more)" if same else "") + (
            f" (and {others} for other reasons)" if others else ""
        )
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
                if is_binary(layer):
                    self._binary[id(node)] = binary = analyse(layer, node, level)
                    if binary.shift is None and not binary.flipped:
                        self._signed.add(_key(self._source(node.keras_inputs[0], binary)))
                elif type(layer) not in _HANDLERS and not isinstance(layer, _UNCHANGED):
                    raise Refusal(_no_operation(layer))
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
                weights = {"weight": layer.kernel.numpy().T, "bias": bias_of(layer, layer.units)}
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
        weights = {key: np.asarray(value, np.float32) for key, value in (weights or {}).items()}
        self.steps.append(Step(kind, tuple(inputs), name, weights, attributes, side))
        return name

    def _affine(self, layer, x, scale, bias, *, part="", side=0) -> str:
        name = self._add("Affine", layer, [x], part=part, side=side)
        self.steps[-1].weights.update(scale=np.asarray(scale, np.float64), bias=np.asarray(bias, np.float64))
        return name

    def _reshape(self, layer, x, size) -> str:
        name = self._add("Reshape", layer, [x], part="rows")
        self.steps[-1].weights["shape"] = np.array([1, size], np.int64)
        return name

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

    def _input(self, layer, inputs) -> str:
        return self.image

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
        first, *others = [self.value(tensor) for tensor in inputs]
        if len({tuple(tensor.shape) for tensor in inputs}) > 1:
            raise Refusal("it adds tensors of the same shape only")
        for other in others:
            first = self._add("Add", layer, [first, other])
        return first

    def _join(self, layer, inputs) -> str:
        if layer.axis not in (-1, 3) or len(inputs[0].shape) != 4:
            raise Refusal("it joins images along the channels only")
        first, *others = [self.value(tensor) for tensor in inputs]
        for other in others:
            first = self._add("Concat", layer, [first, other], axis=1)
        return first

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
        source, pairs = inputs[0], paddings(layer, inputs[0].shape)
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
        pairs = paddings(layer, inputs[0].shape)
        if any(before != after for before, after in pairs):
            raise Refusal(
                f"its pooling pads {pairs}, and daBNN pads the same on both sides; choose sizes that need no padding "
                "(networks of the zoo: padding='minus_one')"
            )
        average = isinstance(layer, _layers.AveragePooling2D)
        if not average and tuple(layer.pool_size) not in ((2, 2), (3, 3)):
            raise Refusal("it has max-pools of 2x2 and 3x3")
        attributes = {"kernel_shape": list(layer.pool_size), "strides": list(layer.strides)}
        pads = [pair[0] for pair in pairs]
        kind = "AveragePool" if average else "MaxPool"
        return self._add(kind, layer, [self.value(inputs[0])], pads=[*pads, *pads], **attributes)

    def _global_pool(self, layer, inputs) -> str:
        kind = "GlobalMaxPool" if isinstance(layer, _layers.GlobalMaxPooling2D) else "GlobalAveragePool"
        return self._add(kind, layer, [self.value(inputs[0])])

    def _zero_padding(self, layer, inputs) -> str:
        raise Refusal("it pads as a part of convolutions; follow the padding by a float convolution alone")

    def _flatten(self, layer, inputs) -> str:
        return self.value(inputs[0])

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
    _layers.InputLayer: Reader._input,
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
    _layers.Flatten: Reader._flatten,
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


def _no_operation(layer) -> str:
    kind = type(layer).__name__
    if isinstance(layer, tf.keras.Model):
        return "it is a model inside a model; build the network as one"
    return f"it has no operation for {kind}"


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
