"""The binary layers every algorithm shares: Larq's QuantConv2D with an output stage, for images, sequences and rows.

`BinaryConv1D` and `BinaryDense` are the same convolution with kernels (1, k) and (1, 1), because that is the only
form Larq Compute Engine runs as a binary operation, and because an algorithm then has one estimator for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import larq as lq
import tensorflow as tf

from bibench_tf.algorithms.capabilities import capabilities_of
from bibench_tf.errors import InvalidOption

# Below every activation a network produces; see `BinaryConv2D._scale`.
_LOWEST = -3e38
# Positions that have a scale where the size of the output is not known.
_OPEN_POSITIONS = 2000


def is_training(training: bool | tf.Tensor | None) -> bool:
    """Whether this call traces a training step, decided in Python so that the inference graph has no trace of it.

    Raises InvalidOption for a tensor whose value is not known while a graph is traced.
    """
    if training is None or not tf.is_tensor(training):
        return bool(training)
    tensor = tf.convert_to_tensor(training)
    value = tensor.numpy() if tf.executing_eagerly() else tf.get_static_value(tensor)
    if value is None:
        raise InvalidOption(
            "Binary layers differ in training and inference, and the tensor 'training' has no value while the graph is "
            "traced: call the network with training=True or training=False."
        )
    return bool(value)


@contextmanager
def quantized_scope(quantize: bool) -> Iterator[None]:
    """Larq's `quantized_scope`, which ends after an exception too."""
    scope = lq.context.quantized_scope(quantize)
    scope.__enter__()
    try:
        yield
    finally:
        # Without the exception, which would keep Larq from restoring what was before.
        scope.__exit__(None, None, None)


def quantized(quantizer: Callable[..., tf.Tensor] | None, values: tf.Tensor, training: bool) -> tf.Tensor:
    """The values behind a quantizer: a layer, which may differ in training, a function, or None."""
    if quantizer is None:
        return values
    # Keras takes `training` for every layer, also where its `call` has no such argument.
    return quantizer(values, training=training) if isinstance(quantizer, tf.keras.layers.Layer) else quantizer(values)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class BinaryConv2D(lq.layers.QuantConv2D):
    """A 2D convolution of binarized inputs (B, H, W, C) and a binarized kernel (kh, kw, C / groups, filters).

    y = s * conv(q_in(x), q_k(kernel)) + bias, or s * (conv(...) + bias) with `scale_bias`.

    `padding` is `same`, `valid`, or an integer: that many zeros on every side, added after binarization, as PyTorch
    does; Larq's `pad_values` takes another number for them. Larq Compute Engine runs `same` and `valid` as binary
    operations, integers as float, unless they come to the same as `same`.
    `output_scale` is the learned scale s: None (1), `channel` (one factor for each output channel, weight
    `output_scale`) or `spatial` (output_scale x height_scale x width_scale). Where H or W is open, there are scales for
    2000 positions, as in BiBench, of which an output takes the first.
    Groups are convolved one by one in inference, because only that runs on bits everywhere, where the input quantizer
    declares `signs_in_inference` or is a sign of Larq's.
    With as many groups as channels it is a depthwise convolution, which no engine runs on bits.
    The `output_factor` and the `sign_values` of the input quantizer are applied: see `Quantizer`.

    A call changes nothing in the layer, so that threads may share it and an exception leaves it as it was. A frozen
    layer (`trainable=False`) is in inference, with its quantizers, whatever `training` is. Raises InvalidOption for
    images (B, C, H, W).
    """

    def __init__(
        self,
        filters: int,
        kernel_size,
        *,
        padding: str | int = "same",
        output_scale: str | None = None,
        output_scale_initializer="ones",
        scale_bias: bool = False,
        **kwargs,
    ):
        if output_scale not in (None, "channel", "spatial"):
            raise InvalidOption(f"output_scale is None, 'channel' or 'spatial', not {output_scale!r}.")
        explicit = isinstance(padding, int)
        super().__init__(filters, kernel_size, padding="same" if explicit else padding, **kwargs)
        if self.data_format != "channels_last":
            raise InvalidOption("Binary layers take channels last, (B, H, W, C), not 'channels_first'.")
        if self.pad_values and capabilities_of(self.input_quantizer).has_output_factor:
            raise InvalidOption("XNOR-Net pads with 0 only: its inputs are scaled, and other padding would not be.")
        if not kwargs.get("trainable", True):
            self.trainable = False  # its quantizers, too
        self.explicit_padding = padding if explicit else None
        if explicit:
            self._is_native_padding = False
        self.output_scale_kind = output_scale
        self.output_scale_initializer = tf.keras.initializers.get(output_scale_initializer)
        self.scale_bias = scale_bias

    # Larq pads by itself whenever it does not use the convolution's own padding; these two methods give the padding.
    def _get_spatial_padding_same(self, shape):
        if self.explicit_padding is None:
            return super()._get_spatial_padding_same(shape)
        pads = [(self.explicit_padding, self.explicit_padding)] * self.rank
        if shape is None or tf.is_tensor(shape):
            return pads
        # Without the rows and columns at the end that no window reaches. Where a strided convolution is padded by them,
        # the converter of Larq Compute Engine takes the padding for `same`, and the file computes something else.
        sizes = zip(pads, shape, self.kernel_size, self.strides, self.dilation_rate, strict=True)
        return [(before, _reached(before, *size)) for (before, _), *size in sizes]

    def _pads_like_same(self, inputs):
        """Whether an explicit padding by zeros is that of `same`, which runs on bits."""
        spatial = inputs.shape[1:-1]
        if self.explicit_padding is None or self.pad_values != 0 or not spatial.is_fully_defined():
            return False
        same = super()._get_spatial_padding_same(spatial)
        return [tuple(pad) for pad in self._get_spatial_padding_same(spatial)] == [tuple(pad) for pad in same]

    def _get_padding_same_shape(self, input_shape):
        if self.explicit_padding is None:
            return super()._get_padding_same_shape(input_shape)
        batch, *spatial, channels = input_shape
        padded = [None if size is None else size + 2 * self.explicit_padding for size in spatial]
        return tf.TensorShape([batch, *padded, channels])

    def build(self, input_shape: tf.TensorShape) -> None:
        # Not by Larq, which sets another padding meanwhile, and leaves it set after an exception.
        tf.keras.layers.Conv2D.build(self, input_shape)
        for quantizer, shape in ((self.input_quantizer, input_shape), (self.kernel_quantizer, self.kernel.shape)):
            # Built here, so that weights of a quantizer are named after this layer and exist before any call.
            if isinstance(quantizer, tf.keras.layers.Layer) and not quantizer.built:
                quantizer.build(shape)
        if self.output_scale_kind is not None:
            self.output_scale = self._add_scale("output_scale", self.filters)
        if self.output_scale_kind == "spatial":
            height, width = (size or _OPEN_POSITIONS for size in self._output_size(input_shape))
            # A sequence is an image of height 1: it has a scale along its length only.
            self.height_scale = self._add_scale("height_scale", height) if self._has_height else None
            self.width_scale = self._add_scale("width_scale", width)

    _has_height = True

    def _add_scale(self, name, size):
        return self.add_weight(name, shape=(size,), initializer=self.output_scale_initializer)

    def _output_size(self, input_shape):
        explicit = self.explicit_padding is not None
        padded = self._get_padding_same_shape(input_shape) if explicit else input_shape
        same = self.padding == "same" and not explicit
        sizes = []
        for size, kernel, stride, dilation in zip(
            padded[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True
        ):
            reach = 1 if same else (kernel - 1) * dilation + 1
            sizes.append(None if size is None else (size - reach) // stride + 1)
        return sizes

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return tf.TensorShape([input_shape[0], *self._output_size(input_shape), self.filters])

    # No control flow here depends on tensors; without AutoGraph networks are traced in less time.
    @tf.autograph.experimental.do_not_convert
    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        # As a batch normalization of Keras, a frozen layer is in inference.
        training = is_training(training) and self.trainable
        with quantized_scope(False):
            kernel = tf.convert_to_tensor(self.kernel)
        # That of the variable, in whose place the converter puts what is computed ahead.
        kernel = quantized(getattr(self.kernel, "quantizer", None), kernel, training)
        # In training the factors of the channels are a part of the kernel, which is smaller than the output.
        in_kernel = training and self.output_scale_kind == "channel"
        outputs = self._binary(inputs, kernel * self.output_scale if in_kernel else kernel, training)
        if not tf.executing_eagerly():
            outputs.set_shape(BinaryConv2D.compute_output_shape(self, inputs.shape))
        if self.use_bias and self.scale_bias:
            outputs = tf.nn.bias_add(outputs, self.output_scale * self.bias if in_kernel else self.bias)
        outputs = self._scale(inputs, outputs, training)
        if self.use_bias and not self.scale_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        return outputs

    def _binary(self, inputs, kernel, training):
        """The convolution of the quantized inputs and the quantized kernel."""
        return self._convolve_levels(quantized(self.input_quantizer, inputs, training), kernel, training)

    def _convolve_levels(self, inputs, kernel, training):
        """The convolution of quantized inputs, whose signs stand for the `sign_values` of their quantizer."""
        minus, plus = capabilities_of(self.input_quantizer).sign_values
        if (minus, plus) == (-1.0, 1.0):
            return self._convolve(inputs, kernel, training)
        # The mean of the two numbers contributes a constant to each output channel.
        common = (minus + plus) / 2 * tf.reduce_sum(kernel, axis=[0, 1, 2])
        return tf.nn.bias_add(self._convolve(inputs, (plus - minus) / 2 * kernel, training), common)

    def _convolve(self, inputs, kernel, training):
        padding, as_same = self.padding.upper(), self._pads_like_same(inputs)
        if not (self._is_native_padding or as_same):
            inputs = tf.pad(inputs, self._get_padding_same(inputs), constant_values=self.pad_values)
            padding = "VALID"
        if self._is_depthwise(inputs):
            # Ten times faster than as many groups. Larq Compute Engine has no binary form of either.
            kernel = tf.reshape(kernel, [*kernel.shape[:2], self.groups, -1])
            strides = [1, *self.strides, 1]
            return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding, dilations=self.dilation_rate)
        if self.groups == 1:
            return self._plain_convolution(inputs, kernel, padding)
        simple = self.explicit_padding is None or as_same
        if training or not (simple and capabilities_of(self.input_quantizer).signs_in_inference):
            return self._grouped_convolution(inputs, kernel, padding)
        # Larq Compute Engine's default kernel has no groups, and its converter wants multiples of 32 channels in each.
        # A convolution for each group is binary everywhere, if its input is seen to be a sign: the second sign
        # changes neither values nor gradients.
        groups = zip(tf.split(inputs, self.groups, -1), tf.split(kernel, self.groups, -1), strict=True)
        signs = ((lq.quantizers.ste_sign(x), kernel) for x, kernel in groups)
        return tf.concat([self._plain_convolution(x, kernel, padding) for x, kernel in signs], axis=-1)

    def _plain_convolution(self, inputs, kernel, padding):
        dilations, name = list(self.dilation_rate), type(self).__name__
        return tf.nn.convolution(inputs, kernel, list(self.strides), padding, dilations=dilations, name=name)

    @tf.function(jit_compile=True, autograph=False)
    def _grouped_convolution(self, inputs, kernel, padding):
        # On the CPU grouped convolutions have gradients in XLA only.
        return self._plain_convolution(inputs, kernel, padding)

    def _is_depthwise(self, inputs):
        """Whether every channel is a group, in a form that TensorFlow has a depthwise convolution for."""
        same_strides = len(set(self.strides)) == 1 and (max(self.strides) == 1 or max(self.dilation_rate) == 1)
        return same_strides and self.groups == inputs.shape[-1] > 1

    def _scale(self, inputs, outputs, training):
        if training and self.output_scale_kind == "spatial":
            # One factor for each output of a sample, so that its gradient is a sum over samples alone.
            outputs = outputs * (self.output_scale * self._position_scale(outputs))
        elif self.output_scale_kind is not None and not training:
            outputs = outputs * self.output_scale
            if self.output_scale_kind == "spatial":
                # Larq Compute Engine fuses any constant factor into the binary convolution without a look at its
                # rank, and then cannot run the file. An operation in between, without effect, keeps it apart.
                lowest = max(_LOWEST, outputs.dtype.min)
                outputs = tf.maximum(outputs, lowest) * self._position_scale(outputs)
        declared = capabilities_of(self.input_quantizer)
        if declared.has_output_factor and not declared.scales_inputs(training):
            outputs = outputs * declared.output_factor(inputs, self)
        return outputs

    def _position_scale(self, outputs):
        """The product of height and width scale, of shape (H_out, W_out, 1)."""
        scale = _first(self.width_scale, outputs, 2)[:, tf.newaxis]
        if self.height_scale is None:
            return scale
        return _first(self.height_scale, outputs, 1)[:, tf.newaxis, tf.newaxis] * scale

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        if self.explicit_padding is not None:
            config["padding"] = self.explicit_padding
        return {
            **config,
            "input_quantizer": _serialized(self.input_quantizer),
            "kernel_quantizer": _serialized(self.kernel_quantizer),
            "output_scale": self.output_scale_kind,
            "output_scale_initializer": tf.keras.initializers.serialize(self.output_scale_initializer),
            "scale_bias": self.scale_bias,
        }


def _serialized(quantizer) -> Any:
    """The configuration of a quantizer in Keras' older form, where `class_name` carries the package.

    In the newer form a second field carries it, which Keras does not read in HDF5 files.
    """
    return lq.quantizers.serialize(quantizer, use_legacy_format=isinstance(quantizer, tf.keras.layers.Layer))


def _first(scale, outputs, axis):
    """The first factors of `scale`, one for each output position along `axis`."""
    size = outputs.shape[axis]
    return scale if scale.shape[0] == size else scale[: tf.shape(outputs)[axis] if size is None else size]


@tf.keras.utils.register_keras_serializable("bibench_tf")
class BinaryConv1D(BinaryConv2D):
    """`BinaryConv2D` on sequences (B, L, C), with a kernel of shape (1, k, C / groups, filters)."""

    _has_height = False

    def __init__(self, filters: int, kernel_size: int, *, strides: int = 1, dilation_rate: int = 1, **kwargs):
        super().__init__(
            filters,
            (1, _length(kernel_size)),
            strides=(1, _length(strides)),
            dilation_rate=(1, _length(dilation_rate)),
            **kwargs,
        )
        self.input_spec = tf.keras.layers.InputSpec(ndim=3)

    def _get_spatial_padding_same(self, shape):
        height, width = super()._get_spatial_padding_same(shape)
        return [height if self.explicit_padding is None else (0, 0), width]

    def _get_padding_same_shape(self, input_shape):
        padded = super()._get_padding_same_shape(input_shape)
        return padded if self.explicit_padding is None else tf.TensorShape([padded[0], 1, *padded[2:]])

    def build(self, input_shape: tf.TensorShape) -> None:
        batch, length, channels = tf.TensorShape(input_shape)
        super().build(tf.TensorShape([batch, 1, length, channels]))
        self.input_spec = tf.keras.layers.InputSpec(ndim=3, axes={-1: channels})

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        shape = tf.TensorShape(input_shape)
        if shape.rank == 4:  # Keras checks the convolution's own shape while it builds it.
            return super().compute_output_shape(shape)
        batch, length, channels = shape
        shape = super().compute_output_shape(tf.TensorShape([batch, 1, length, channels]))
        return tf.TensorShape([batch, *shape[2:]])

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        return tf.squeeze(super().call(tf.expand_dims(inputs, 1), training=training), axis=1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, **{key: config[key][-1] for key in ("kernel_size", "strides", "dilation_rate")}}


@tf.keras.utils.register_keras_serializable("bibench_tf")
class BinaryDense(BinaryConv2D):
    """`BinaryConv2D` on rows (..., C), with a kernel of shape (1, 1, C, units).

    Every row is a sample of its own: statistics an algorithm takes per sample are taken per row.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(units, 1, padding="valid", **kwargs)
        self.input_spec = tf.keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    def build(self, input_shape: tf.TensorShape) -> None:
        channels = tf.TensorShape(input_shape)[-1]
        super().build(tf.TensorShape([None, 1, 1, channels]))
        self.input_spec = tf.keras.layers.InputSpec(min_ndim=2, axes={-1: channels})

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return tf.TensorShape([*tf.TensorShape(input_shape)[:-1], self.filters])

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        rows = tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])
        outputs = super().call(rows, training=training)
        shape = [-1 if size is None else size for size in inputs.shape[:-1]]
        if shape.count(-1) > 1:
            shape = tf.unstack(tf.shape(inputs)[:-1])
        return tf.reshape(outputs, [*shape, self.filters])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        own = {"filters", "kernel_size", "strides", "padding", "pad_values", "data_format", "dilation_rate", "groups"}
        return {"units": self.filters, **{key: value for key, value in config.items() if key not in own}}


def _reached(padding: int, size: int, kernel: int, stride: int, dilation: int) -> int:
    """How much of the padding at the end of an axis the last window of a convolution reaches."""
    reach = (kernel - 1) * dilation + 1
    windows = (size + 2 * padding - reach) // stride + 1
    return min(padding, max((windows - 1) * stride + reach - size - padding, 0))


def _length(value) -> int:
    return value[-1] if isinstance(value, (tuple, list)) else value
