"""ResNetE (arXiv 1906.08637): residual networks for binary convolutions, with full-precision down-sampling."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bibench_tf import algorithms, networks
from bibench_tf.algorithms import Algorithm
from bibench_tf.algorithms.bnn import BNN
from bibench_tf.zoo import stems
from bibench_tf.zoo.blocks import activation_layer, batch_norm, classifier, scaled
from bibench_tf.zoo.resnets import ResidualBlocks

# The binarization of Larq's copy: gradients pass, and weights live, within 1.25 of zero.
CLIPPED = BNN(clip_value=1.25)
CHANNELS = (64, 128, 256, 512)


def resnet_e(
    name: str,
    blocks: Sequence[int],
    algorithm: str | Algorithm,
    input_shape: Sequence[int],
    num_classes: int,
    width: float = 1.0,
    *,
    stem: str = "auto",
) -> tf.keras.Model:
    """A residual network with one shortcut per 3x3 convolution, all of which `algorithm` binarizes.

    Each is conv3x3, BN, + shortcut; in full precision ReLU follows the sum. Where the size halves, the shortcut is
    average pool 2x2 / 2, conv1x1, BN in full precision. After the last sum come ReLU, global average pool and the head.

    `stem` is one of `zoo.stems`: `imagenet` or `grouped`, which a further BN follows, or `thumbnail`; `auto` takes
    `thumbnail` below 96 pixels, else `imagenet`. `width` multiplies all channels.

    Input (B, H, W, C) float32; output logits (B, num_classes).
    """
    algorithm = algorithms.get(algorithm)
    stem = stems.choose(stem, input_shape, "imagenet")
    image = stems.image(input_shape, stem, name)
    x = stems.stem(image, stem, scaled(CHANNELS[0], width))
    if stem != "thumbnail":
        x = batch_norm("stem_pool_bn")(x)
    builder = ResidualBlocks(algorithm, shortcut="conv", pooled_shortcut=True)
    x = builder.stages(x, blocks, [scaled(channels, width) for channels in CHANNELS])
    x = activation_layer("relu", "last_activation")(x)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(image, classifier(x, num_classes), name=name)


@networks.register()
def resnet_e18(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, **options
) -> tf.keras.Model:
    """ResNetE of 18 layers: 16 binary convolutions.

    224 x 224 x 3 and 1000 classes: 11,689,640 parameters (4,189,856 bytes), 1,676,279,808 binary and 137,793,536 float
    MACs: 1.63e8 operations without the head; 1.14e8 with the grouped stem. Published accuracy on ImageNet: 60.0 %
    top-1, grouped 60.6 % (the authors), 58.3 % (Larq Zoo). Options: see `resnet_e`. Source: arXiv 1906.08637.
    """
    return resnet_e("resnet_e18", (2, 2, 2, 2), algorithm, input_shape, num_classes, width, **options)


@networks.register()
def resnet_e34(
    algorithm: str | Algorithm = CLIPPED, input_shape=(224, 224, 3), num_classes=1000, width=1.0, **options
) -> tf.keras.Model:
    """ResNetE of 34 layers: 32 binary convolutions.

    224 x 224 x 3 and 1000 classes: 21,797,800 parameters (5.23 MiB), 3,525,967,872 binary and 137,793,536 float MACs:
    1.92e8 operations without the head; 1.43e8 with the grouped stem. Published accuracy on ImageNet: 63.2 % top-1,
    grouped 63.7 % (the authors). Options: see `resnet_e`. Source: arXiv 1906.08637.
    """
    return resnet_e("resnet_e34", (3, 4, 6, 3), algorithm, input_shape, num_classes, width, **options)
