"""Bi-Real Net (arXiv 1808.00278): residual networks with a shortcut around every binary convolution."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bibench_tf import networks
from bibench_tf.algorithms import Algorithm
from bibench_tf.zoo.resnets import resnet

CHANNELS = (64, 128, 256, 512)


def birealnet(
    name: str,
    blocks: Sequence[int],
    algorithm: str | Algorithm,
    input_shape: Sequence[int],
    num_classes: int,
    width: float = 1.0,
    *,
    stem: str = "auto",
    activation=None,
    padding: str = "same",
) -> tf.keras.Model:
    """A residual network with one shortcut per 3x3 convolution, all of which `algorithm` binarizes.

    Each is conv3x3, BN, + shortcut. Where the size halves, the shortcut is average pool 2x2 / 2, conv1x1, BN in full
    precision. The stem is conv7x7 / 2, BN, max-pool 3x3 / 2, without ReLU; below 96 pixels conv3x3, BN. A binary
    network has no nonlinearity but the sign; in full precision ReLU follows every sum and the BN of the stem. The
    options are those of `resnet`. Counts are those of Larq Zoo's copy.

    Input (B, H, W, C) float32; output logits (B, num_classes).
    """
    return resnet(
        name,
        blocks,
        CHANNELS,
        algorithm=algorithm,
        input_shape=input_shape,
        num_classes=num_classes,
        width=width,
        shortcut="conv",
        pooled_shortcut=True,
        stem=stem,
        activation=activation,
        padding=padding,
    )


@networks.register()
def birealnet18(
    algorithm: str | Algorithm = "bireal", input_shape=(224, 224, 3), num_classes=1000, width=1.0, **options
) -> tf.keras.Model:
    """Bi-Real Net of 18 layers: 16 binary convolutions.

    224 x 224 x 3 and 1000 classes: 11,689,512 parameters (4,189,344 bytes), 1,676,279,808 binary and 137,793,536 float
    MACs, of which 512,000 in the head: 1.63e8 operations without it. Published accuracy on ImageNet: 56.4 % top-1 (the
    authors), 57.5 % (Larq Zoo). Options: see `birealnet`. Source: arXiv 1808.00278.
    """
    return birealnet("birealnet18", (2, 2, 2, 2), algorithm, input_shape, num_classes, width, **options)


@networks.register()
def birealnet34(
    algorithm: str | Algorithm = "bireal", input_shape=(224, 224, 3), num_classes=1000, width=1.0, **options
) -> tf.keras.Model:
    """Bi-Real Net of 34 layers: 32 binary convolutions.

    224 x 224 x 3 and 1000 classes: 21,797,672 parameters, 3,525,967,872 binary and 137,793,536 float MACs. Published
    accuracy on ImageNet: 62.2 % top-1 (the authors). Options: see `birealnet`. Source: arXiv 1808.00278.
    """
    return birealnet("birealnet34", (3, 4, 6, 3), algorithm, input_shape, num_classes, width, **options)
