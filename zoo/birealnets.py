"""Bi-Real Net (arXiv 1808.00278): residual networks with a shortcut around every binary convolution."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf.algorithms import Algorithm
from bibench_tf.networks import Preset, register_family
from bibench_tf.zoo import parts
from bibench_tf.zoo.resnets import CHANNELS, blocks_of, resnet

_PRESETS = {
    "birealnet18": Preset(
        "Bi-Real Net of 18 layers: 16 binary convolutions.",
        {"depth": 18},
        (11_689_512, 1_676_279_808, 137_793_536),
        "56.4 % top-1 on ImageNet (the authors), 57.5 % (Larq Zoo).",
    ),
    "birealnet34": Preset(
        "Bi-Real Net of 34 layers: 32 binary convolutions.",
        {"depth": 34},
        (21_797_672, 3_525_967_872, 137_793_536),
        "62.2 % top-1 on ImageNet (the authors).",
    ),
}


@register_family(_PRESETS)
def birealnet(
    name: str,
    depth: int,
    algorithm: str | Algorithm = "bireal",
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
    activation: parts.Activation = None,
    padding: str = "same",
) -> tf.keras.Model:
    """A residual network with one shortcut per 3x3 convolution, all of which `algorithm` binarizes.

    A unit is conv3x3, BN, + shortcut. Where the size halves, the shortcut is average pool 2x2 / 2, conv1x1, BN in full
    precision. The stem is conv7x7 / 2, BN, max-pool 3x3 / 2, without ReLU; below 96 pixels conv3x3, BN. A binary
    network has no nonlinearity but the sign; in full precision ReLU follows every sum and the BN of the stem. The
    options are those of `resnet18`. Counts equal those of Larq Zoo's copy.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 1808.00278.
    """
    return resnet(
        name,
        blocks_of(depth),
        CHANNELS,
        algorithm,
        input_shape,
        num_classes,
        width,
        shortcut="conv",
        pooled_shortcut=True,
        stem=stem,
        activation=activation,
        padding=padding,
    )
