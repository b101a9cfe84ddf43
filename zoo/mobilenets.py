"""MobileNet v1: separable convolutions, a full-precision network to compare with (arXiv 1704.04861)."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.names import BASELINE
from bibench_tf.networks import register
from bibench_tf.zoo import parts

# Channels and stride of each block.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * ((512, 1),), (1024, 2), (1024, 1))


@register()
def mobilenet_v1(
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
    activation: parts.Activation = None,
) -> tf.keras.Model:
    """MobileNet v1: a convolution and 13 blocks of depthwise 3x3 and pointwise 1x1, each with BN and activation.

    A full-precision reference. An algorithm binarizes the 13 pointwise convolutions, which have 95 % of the MACs. The
    depthwise ones stay in full precision: they have 3 % of the MACs, a sum of nine signs carries little information,
    and Larq Compute Engine has no binary operation for them. First and last layer are in full precision.

    `stem`: `imagenet` has stride 2 in the first convolution, `cifar` stride 1; `auto` takes `cifar` below 96 pixels.
    `activation` defaults to the algorithm's: ReLU in full precision. `width` multiplies all channels.

    224 x 224 x 3 and 1000 classes, in full precision; published parameters, MACs and accuracies are those of TF-Slim:

    | width | parameters | MACs | published | top-1 / top-5 |
    |---|---|---|---|---|
    | 0.5 | 1,331,592 | 149,497,088 | 1.34 M, 150 M | 63.3 / 84.9 % |
    | 0.75 | 2,585,560 | 325,400,448 | 2.59 M, 317 M | 68.4 / 88.2 % |
    | 1.0 | 4,231,976 | 568,740,352 | 4.24 M, 569 M | 70.9 / 89.9 % |

    Input (B, H, W, C) float32, output logits (B, num_classes). Source: arXiv 1704.04861, table 1.
    """
    algorithm = algorithms.get(algorithm)
    activation = algorithm.activation if activation is None else activation
    image, stem = parts.image_and_stem(input_shape, stem, "mobilenet_v1")
    strides = 2 if stem == "imagenet" else 1
    x = parts.normalized(parts.float_conv(parts.scaled(32, width), 3, strides, "stem_conv")(image), "stem", activation)
    for number, (channels, strides) in enumerate(BLOCKS, start=1):
        name = f"block{number}_depthwise"
        depthwise = tf.keras.layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_conv")
        x = parts.normalized(depthwise(x), name, activation)
        name = f"block{number}_pointwise"
        pointwise = algorithm.conv2d(parts.scaled(channels, width), 1, name=f"{name}_conv")
        x = parts.normalized(pointwise(x), name, activation)
    return parts.pooled_classifier(image, x, num_classes, "mobilenet_v1")
