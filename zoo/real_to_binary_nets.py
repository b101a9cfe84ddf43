"""The network of Real-to-Binary: Bi-Real Net with channel gates computed from the data (arXiv 2003.11535)."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.networks import register
from bibench_tf.zoo import parts
from bibench_tf.zoo.resnets import CHANNELS

# The hidden layer of a gate has an eighth of the input's channels.
GATE_REDUCTION = 8


@register()
def real_to_binary(
    algorithm: str | algorithms.Algorithm = "bnn",
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
) -> tf.keras.Model:
    """Real-to-Binary: 16 binary 3x3 convolutions, four each of 64, 128, 256, 512 channels, with gated outputs.

    A block has its own shortcut: BN, binary convolution, times a gate, PReLU, + shortcut. The gate of an output
    channel is sigmoid(W2 relu(W1 z)), z the mean of the normalized input over its positions, W1 to an eighth of the
    input's channels, no biases. Where size and channels change (the first convolution of stages 2 to 4), the shortcut
    is a 2x2 average pool, a float 1x1 convolution and BN. `stem`: `imagenet` is conv7x7 / 2, BN, PReLU, max-pool
    3x3 / 2; `cifar` conv3x3, BN, PReLU; `auto` takes `cifar` below 96 pixels. `width` multiplies all channels.

    The default binarizes with plain signs; the gates take the place of scales. The paper's teachers and stages of
    training belong to recipes.

    224 x 224 x 3 and 1000 classes: 11,986,920 parameters (Larq Zoo prints 11,995,624, with four numbers for each
    channel of batch norm), 1,676,279,808 binary and 138,087,936 float MACs, 5,378,976 bytes. ImageNet top-1 / top-5:
    65.4 / 86.2 % (the paper), 65.0 / 85.7 % (Larq Zoo). Input (B, H, W, C) float32, output logits (B, num_classes).
    Source: arXiv 2003.11535, section 4.3 and figure 1; layers as in Larq Zoo's RealToBinaryNet.
    """
    algorithm = algorithms.get(algorithm)
    image, stem = parts.image_and_stem(input_shape, stem, "real_to_binary")
    x = parts.stem_pool(parts.normalized(parts.stem_conv(image, stem, parts.scaled(64, width)), "stem", "prelu"), stem)
    for block, channels, strides in parts.stages((4, 4, 4, 4), CHANNELS):
        x = _gated_block(x, algorithm, parts.scaled(channels, width), strides, block)
    return parts.pooled_classifier(image, x, num_classes, "real_to_binary")


def _gated_block(x: tf.Tensor, algorithm: algorithms.Algorithm, channels: int, strides: int, name: str) -> tf.Tensor:
    shortcut = x
    if strides > 1:
        shortcut = parts.projected(parts.halved(x, strides, f"{name}_shortcut_pool"), channels, 1, f"{name}_shortcut")
    x = parts.batch_norm(f"{name}_bn")(x)
    y = algorithm.conv2d(channels, 3, strides=strides, name=f"{name}_conv")(x)
    gate = parts.channel_gate(x, channels, GATE_REDUCTION, f"{name}_gate", use_bias=False)
    y = tf.keras.layers.Multiply(name=f"{name}_gate")([y, gate])
    y = parts.activation_layer("prelu", f"{name}_activation")(y)
    return tf.keras.layers.Add(name=f"{name}_add")([y, shortcut])
