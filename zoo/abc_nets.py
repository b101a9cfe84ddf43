"""ABC-Net (arXiv 1711.11294): residual networks whose layers have several binary kernels and inputs."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.errors import InvalidOption
from bibench_tf.networks import register
from bibench_tf.zoo import parts
from bibench_tf.zoo.resnets import CHANNELS, ResidualBlocks, blocks_of


@register()
def abc_net(
    algorithm: str | algorithms.Algorithm = "abc",
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    depth: int = 18,
    weight_bases: int | None = None,
    activation_bases: int | None = None,
    stem: str = "auto",
    activation: parts.Activation = None,
) -> tf.keras.Model:
    """ResNet-18 or -34 (`depth`) as ABC-Net has it: max-pool first, then batch norm and activation.

    Blocks are those of `resnet`, with a shortcut per block, every 3x3 convolution made by `algorithm`; the first layer,
    the 1x1 shortcuts and the last layer stay in full precision. The `imagenet` stem is conv7x7 / 2, max-pool 3x3 / 2,
    BN, activation: a max-pool directly before a binarization would make nearly all inputs +1. `cifar` is conv3x3, BN,
    activation, without a pool. `stem`, `activation` and `width` are those of `resnet`.

    `weight_bases` and `activation_bases`, M and N, replace those of ABC-Net's layers; the default, 5 and 5, is the
    paper's main result. Raises InvalidOption when they are given for another algorithm, and for another depth.

    224 x 224 x 3, 1000 classes, depth 18, M = N = 5: 55,631,880 parameters, of them 54,927,360 binary, 41,906,995,200
    binary and 137,793,536 float MACs; with M = N = 1 10,985,472 binary parameters and 1,676,279,808 binary MACs.
    Published top-1 / top-5 on ImageNet, from a second-hand table, M x N: 1 x 1 42.7 / 67.6, 3 x 1 49.1 / 73.8, 3 x 3
    61.0 / 83.2, 5 x 1 54.1 / 78.1, 5 x 5 65.0 / 85.9.

    Input (B, H, W, C) float32; output logits (B, num_classes). Source: arXiv 1711.11294, section 4.
    """
    algorithm = _with_bases(algorithms.get(algorithm), weight_bases=weight_bases, activation_bases=activation_bases)
    blocks = ResidualBlocks(algorithm, activation)
    image, stem = parts.image_and_stem(input_shape, stem, "abc_net")

    x = parts.stem_pool(parts.stem_conv(image, stem, parts.scaled(CHANNELS[0], width)), stem)
    x = blocks.activate(parts.batch_norm("stem_bn")(x), "stem_activation")
    x = blocks.stages(x, blocks_of(depth), [parts.scaled(wide, width) for wide in CHANNELS])
    return parts.pooled_classifier(image, x, num_classes, "abc_net")


def _with_bases(algorithm: algorithms.Algorithm, **bases: int | None) -> algorithms.Algorithm:
    given = {option: number for option, number in bases.items() if number is not None}
    if given and algorithm.key != "abc":
        raise InvalidOption(f"{' and '.join(given)} are for algorithm 'abc', not '{algorithm.key}'.")
    return dataclasses.replace(algorithm, **given)
