"""The gradient of strided 1x1 convolutions with few input channels, which oneDNN computes outside of its memory.

TensorFlow's operations on x86 processors call oneDNN. For the gradient to a 1x1 kernel with a stride, its kernels
`jit_1x1` copy the pixels in use to a buffer with the channels of the image, but place each part of the copy as if there
were at least 16 channels (AVX-512) or 8 (AVX2). With fewer channels they write behind the buffer. The process then ends
with a segmentation fault or an abort, hangs, or goes on with wrong gradients, for AVX2 with errors as large as the
gradient itself. Measured with TensorFlow 2.15.1 (oneDNN 3.2.1), in float32 and bfloat16, with and without
`tf.function`, for all convolutions made of these operations: Keras' Conv2D and Conv1D, Conv2DTranspose, and binary
layers. Reported upstream, and open: https://github.com/uxlfoundation/oneDNN/issues/6035.

Such a convolution reads only every s-th pixel. The gradient to its kernel is that of a convolution without a stride on
these pixels, which needs no buffer: the same number, to the bit wherever oneDNN stays inside its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

# The largest number of channels that oneDNN takes together, that of AVX-512.
_BLOCK = 16

Gradients = Callable[[Any, tf.Tensor], Sequence[tf.Tensor | None]]


def install() -> None:
    """Replace the gradients of 2D convolutions and of transposed ones in TensorFlow's private table of gradients.

    The table is the one place that eager calls, functions and every kind of layer share. All other shapes keep
    TensorFlow's own gradient. Functions that were differentiated before keep theirs.
    """
    replacements = {"Conv2D": _of_convolution, "Conv2DBackpropInput": _of_transposed_convolution}
    for operation, replacement in replacements.items():
        plain: Gradients = ops.gradient_registry.lookup(operation)
        del ops.gradient_registry._registry[operation]
        tf.RegisterGradient(operation)(partial(replacement, plain))


def leaves_its_memory(image: tf.TensorShape, kernel: tf.TensorShape, strides: Sequence[int]) -> bool:
    """Whether oneDNN may leave its memory in the gradient to a kernel (kh, kw, C / groups, filters).

    `image` is (B, H, W, C), and `strides` are those of height and width. Groups, and sizes that are not multiples of
    the strides, have other implementations, which are right. Unknown sizes of the image count as unsafe.
    """
    height, width, channels, _ = kernel.with_rank(4)
    *sizes, depth = image.with_rank(4)[1:]
    pointwise = height == width == 1 and depth in (None, channels)
    multiples = all(size is None or size % stride == 0 for size, stride in zip(sizes, strides, strict=True))
    return pointwise and max(strides) > 1 and (channels or 0) < _BLOCK and multiples


def _is_unsafe(operation: tf.Operation, image: tf.Tensor, kernel: tf.Tensor) -> bool:
    # Other formats and paddings have other implementations. In eager calls the format can be None, which is NHWC.
    if operation.get_attr("data_format") == b"NCHW" or operation.get_attr("padding") == b"EXPLICIT":
        return False
    return leaves_its_memory(image.shape, kernel.shape, operation.get_attr("strides")[1:3])


def _of_convolution(plain: Gradients, operation: tf.Operation, gradient: tf.Tensor) -> Sequence[tf.Tensor | None]:
    """The gradients to the image and the kernel."""
    image, kernel = operation.inputs
    if not _is_unsafe(operation, image, kernel):
        return plain(operation, gradient)
    strides = operation.get_attr("strides")
    to_image = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(image), filter=kernel, out_backprop=gradient, strides=strides, padding="VALID"
    )
    return [to_image, _to_kernel(image, kernel, gradient, strides)]


def _of_transposed_convolution(
    plain: Gradients, operation: tf.Operation, gradient: tf.Tensor
) -> Sequence[tf.Tensor | None]:
    """The gradients to the kernel and the small image; none to the size of the large one."""
    _, kernel, small = operation.inputs
    if not _is_unsafe(operation, gradient, kernel):
        return plain(operation, gradient)
    strides = operation.get_attr("strides")
    return [None, _to_kernel(gradient, kernel, small, strides), tf.nn.conv2d(gradient, kernel, strides, "VALID")]


def _to_kernel(image: tf.Tensor, kernel: tf.Tensor, outputs: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    # `same` pads nothing around a kernel of one pixel: both paddings read the pixels 0, s, 2 s, ... The mean of one
    # pixel is that pixel; the pool is five times as fast as a strided slice.
    return tf.raw_ops.Conv2DBackpropFilter(
        input=tf.nn.avg_pool2d(image, 1, strides, "VALID"),
        filter_sizes=tf.shape(kernel),
        out_backprop=outputs,
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
