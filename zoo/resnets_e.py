"""ResNetE (arXiv 1906.08637): residual networks for binary convolutions, with full-precision down-sampling."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.bnn import BNN
from bibench_tf.networks import Preset, register_family
from bibench_tf.zoo import parts, stems
from bibench_tf.zoo.resnets import CHANNELS, ResidualBlocks, blocks_of

# The binarization of Larq's copy: gradients pass, and weights live, within 1.25 of zero.
CLIPPED = BNN(clip_value=1.25)

_PRESETS = {
    "resnet_e18": Preset(
        "ResNetE of 18 layers: 16 binary convolutions.",
        {"depth": 18},
        (11_689_640, 1_676_279_808, 137_793_536),
        "60.0 % top-1 on ImageNet, 60.6 % with the grouped stem (the authors); 58.3 % (Larq Zoo).",
    ),
    "resnet_e34": Preset(
        "ResNetE of 34 layers: 32 binary convolutions.",
        {"depth": 34},
        (21_797_800, 3_525_967_872, 137_793_536),
        "63.2 % top-1 on ImageNet, 63.7 % with the grouped stem (the authors).",
    ),
}


@register_family(_PRESETS)
def resnet_e(
    name: str,
    depth: int,
    algorithm: str | algorithms.Algorithm = CLIPPED,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    stem: str = "auto",
) -> tf.keras.Model:
    """A residual network with one shortcut per 3x3 convolution, all of which `algorithm` binarizes.

    A unit is conv3x3, BN, + shortcut; in full precision ReLU follows the sum. Where the size halves, the shortcut is
    average pool 2x2 / 2, conv1x1, BN in full precision. After the last sum come ReLU, global average pool and the head.

    `stem` is one of `zoo.stems`: `imagenet` or `grouped`, which a further BN follows, or `thumbnail`; `auto` takes
    `thumbnail` below 96 pixels, else `imagenet`. `width` multiplies all channels.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 1906.08637.
    """
    algorithm = algorithms.get(algorithm)
    stem = stems.choose(stem, input_shape, "imagenet")
    image = stems.image(input_shape, stem, name)
    x = stems.stem(image, stem, parts.scaled(CHANNELS[0], width))
    if stem != "thumbnail":
        x = parts.batch_norm("stem_pool_bn")(x)
    builder = ResidualBlocks(algorithm, shortcut="conv", pooled_shortcut=True)
    x = builder.stages(x, blocks_of(depth), [parts.scaled(channels, width) for channels in CHANNELS])
    x = parts.activation_layer("relu", "last_activation")(x)
    return parts.pooled_classifier(image, x, num_classes, name)
