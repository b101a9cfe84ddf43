"""The AlexNets of three binarization papers, in the forms of Larq Zoo: BinaryAlexNet, XNOR-Net and DoReFa-Net."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.dorefa import DoReFa
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.algorithms.quantizers import ClippedSign
from bibench_tf.algorithms.xnor import XNOR
from bibench_tf.networks import register
from bibench_tf.zoo import parts

# The binarizations of the papers.
_XNOR_NET = XNOR(input_scale="spatial")
_DOREFA_NET = DoReFa(activation_bits=2, weight_scale="layer")


@register()
def binary_alexnet(
    algorithm: str | algorithms.Algorithm = "bnn",
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
) -> tf.keras.Model:
    """The AlexNet of BNN: five convolutions and three fully connected layers, all with binary kernels.

    conv11x11 / 4 of 64, conv5x5 of 192, conv3x3 of 384, 384 and 256, fully connected layers of 4096, 4096 and the
    classes; a max-pool 3x3 / 2 after convolutions 1, 2 and 5; batch norm without a factor after every layer. Only
    the sign is between them; in full precision a ReLU. The first layer has float inputs and a binary kernel, the signs
    of BNN with every algorithm, as batch norm cancels scales; that is no binary operation. The
    last layer is binary, and its batch norm `head_bn` gives the logits. `width` multiplies all channels.

    224 x 224 x 3 and 1000 classes: 61,848,720 parameters, 768,512,000 binary and 72,855,552 float MACs, 7,812,248
    bytes. ImageNet top-1 / top-5: 36.3 / 61.5 % (Larq Zoo). Images of at least 57 x 57 pixels (B, H, W, C) float32,
    output logits (B, num_classes). Source: arXiv 1602.02830; layers as in Larq Zoo's BinaryAlexNet.
    """
    algorithm = algorithms.get(algorithm)
    parts.check_classes(num_classes)
    x = image = parts.image_input(input_shape, minimum=57, network="binary_alexnet")
    x = _pool(_binary_kernel_conv(algorithm, parts.scaled(64, width), 11, 4, "stem_conv")(x), "stem_pool")
    x = _between(_bn(x, "stem_bn"), algorithm, "stem_activation")
    for number, channels, kernel_size in ((2, 192, 5), (3, 384, 3), (4, 384, 3), (5, 256, 3)):
        x = algorithm.conv2d(parts.scaled(channels, width), kernel_size, name=f"conv{number}")(x)
        if number in (2, 5):
            x = _pool(x, f"pool{number}")
        x = _between(_bn(x, f"bn{number}"), algorithm, f"activation{number}")
    x = tf.keras.layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = algorithm.dense(parts.scaled(4096, width), use_bias=False, name=f"dense{number}")(x)
        x = _between(_bn(x, f"bn{number}"), algorithm, f"activation{number}")
    x = _bn(algorithm.dense(num_classes, use_bias=False, name="head")(x), "head_bn")
    return tf.keras.Model(image, x, name="binary_alexnet")


@register()
def xnornet(
    algorithm: str | algorithms.Algorithm = _XNOR_NET,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
) -> tf.keras.Model:
    """The AlexNet of XNOR-Net: first and last layer in full precision, six binary layers with input and kernel scales.

    conv11x11 / 4 of 96, BN, ReLU, max-pool 3x3 / 2; then BN, binary convolution, (max-pool 3x3 / 2) with 5x5 of 256
    (pool), 3x3 of 384, 384 and 256 (pool), a convolution over the whole map (6x6) of 4096 and 1x1 of 4096; BN, ReLU and
    a fully connected layer without bias. Batch norm has no factor. Only the sign is between the binary layers;
    in full precision a ReLU. `width` multiplies all channels.

    The default multiplies outputs by the paper's map K of input magnitudes, which Larq Zoo's copy leaves out; counts of
    MACs and parameters are the same with and without it.

    224 x 224 x 3 and 1000 classes: 62,387,104 parameters, 1,025,744,896 binary and 113,379,328 float MACs, 23,880,320
    bytes. ImageNet top-1 / top-5: 44.2 / 69.2 % (the paper), 45.0 / 69.2 % (Larq Zoo, without K). Images of at least
    57 x 57 pixels (B, H, W, C) float32, output logits (B, num_classes). Source: arXiv 1603.05279, sections 3.2 and 4.1;
    layers as in Larq Zoo's XNORNet.
    """
    algorithm = algorithms.get(algorithm)
    x = image = parts.image_input(input_shape, minimum=57, network="xnornet")
    x = _bn(parts.float_conv(parts.scaled(96, width), 11, 4, "stem_conv")(x), "stem_bn")
    x = _pool(parts.activation_layer("relu", "stem_activation")(x), "stem_pool")
    for number, channels, kernel_size in ((2, 256, 5), (3, 384, 3), (4, 384, 3), (5, 256, 3)):
        x = _between(_bn(x, f"bn{number}", epsilon=1e-4), algorithm, f"activation{number}")
        x = algorithm.conv2d(parts.scaled(channels, width), kernel_size, name=f"conv{number}")(x)
        if number in (2, 5):
            x = _pool(x, f"pool{number}")
    for number, kernel_size in ((6, x.shape[1:3]), (7, 1)):
        x = _between(_bn(x, f"bn{number}", epsilon=1e-4), algorithm, f"activation{number}")
        x = algorithm.conv2d(parts.scaled(4096, width), kernel_size, padding="valid", name=f"conv{number}")(x)
    x = parts.activation_layer("relu", "head_activation")(_bn(x, "head_bn", epsilon=1e-3))
    x = tf.keras.layers.Flatten(name="flatten")(x)
    return tf.keras.Model(image, parts.classifier(x, num_classes, use_bias=False), name="xnornet")


@register()
def dorefanet(
    algorithm: str | algorithms.Algorithm = _DOREFA_NET,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
) -> tf.keras.Model:
    """The AlexNet of DoReFa-Net: one-bit kernels and two-bit activations between float first and last layers.

    conv12x12 / 4 of 96 with bias and without padding; conv5x5 of 256, conv3x3 of 384, 384 and 256, fully connected
    layers of 4096 and 4096, each followed by a batch norm without a factor; a max-pool 3x3 / 2 after convolutions 2, 3
    and 5; clipping to [0, 1] and a fully connected layer with bias. Only the quantizer is between the quantized
    layers; in full precision a ReLU. `width` multiplies all channels.

    224 x 224 x 3 and 1000 classes: 62,394,440 parameters, no binary, 2,924,609,536 two-bit and 125,028,352 float MACs,
    22.80 MiB. ImageNet top-1 / top-5: 53.4 / 76.5 % (Larq Zoo). Its layers are float operations in Larq Compute Engine.
    Images of at least 44 x 44 pixels (B, H, W, C) float32, output logits (B, num_classes). Source: arXiv 1606.06160,
    section 3.2; layers as in Larq Zoo's DoReFaNet.
    """
    algorithm = algorithms.get(algorithm)
    x = image = parts.image_input(input_shape, minimum=44, network="dorefanet")
    stem = tf.keras.layers.Conv2D(parts.scaled(96, width), 12, 4, kernel_initializer="he_normal", name="stem_conv")
    x = _between(stem(x), algorithm, "stem_activation")
    pools = {2: "same", 3: "same", 5: "valid"}
    for number, channels, kernel_size in ((2, 256, 5), (3, 384, 3), (4, 384, 3), (5, 256, 3)):
        x = algorithm.conv2d(parts.scaled(channels, width), kernel_size, name=f"conv{number}")(x)
        x = _bn(x, f"bn{number}", epsilon=1e-4)
        if number in pools:
            x = _pool(x, f"pool{number}", pools[number])
        x = _between(x, algorithm, f"activation{number}")
    x = tf.keras.layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = algorithm.dense(parts.scaled(4096, width), use_bias=False, name=f"dense{number}")(x)
        x = _bn(x, f"bn{number}", epsilon=1e-4)
        if number == 6:
            x = _between(x, algorithm, "activation6")
    x = tf.keras.layers.ReLU(max_value=1.0, name="head_activation")(x)
    return tf.keras.Model(image, parts.classifier(x, num_classes), name="dorefanet")


def _binary_kernel_conv(
    algorithm: algorithms.Algorithm, filters: int, kernel_size: int, strides: int, name: str
) -> tf.keras.layers.Layer:
    """A convolution of float inputs with the signs of its kernel; `float_conv` in full precision."""
    if not parts.is_binary(algorithm):
        return parts.float_conv(filters, kernel_size, strides, name)
    return BinaryConv2D(
        filters,
        kernel_size,
        strides=strides,
        use_bias=False,
        kernel_quantizer=ClippedSign(),
        kernel_constraint="weight_clip",
        kernel_initializer="glorot_normal",
        name=name,
    )


def _between(x: tf.Tensor, algorithm: algorithms.Algorithm, name: str) -> tf.Tensor:
    """The activation before a layer that quantizes its inputs itself: ReLU in full precision, else the identity."""
    return parts.activation_layer("linear" if parts.is_binary(algorithm) else "relu", name)(x)


def _bn(x: tf.Tensor, name: str, **options: Any) -> tf.Tensor:
    return parts.batch_norm(name, scale=False, **options)(x)


def _pool(x: tf.Tensor, name: str, padding: str = "valid") -> tf.Tensor:
    return tf.keras.layers.MaxPooling2D(3, 2, padding=padding, name=name)(x)
