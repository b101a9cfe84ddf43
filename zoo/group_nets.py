"""Group-Net (arXiv 1811.10413): every residual block as the mean of several binary ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms.bireal import BiReal
from bibench_tf.networks import Preset, register_family
from bibench_tf.operations import Operations
from bibench_tf.options import Count
from bibench_tf.zoo import parts
from bibench_tf.zoo.resnets import CHANNELS, blocks_of

# Bi-Real Net's sign for activations; weights with one scale for the layer and the identity as their gradient.
_PAPER = BiReal(weight_scale="layer", clips_weight_gradient=False)


@tf.keras.utils.register_keras_serializable("bibench_tf")
class SoftGate(tf.keras.layers.Layer):
    """The input of each branch of a block: its own branch of the block before, mixed with the mean of all branches.

    Input [x_1, .., x_K, mean], all of shape (B, H, W, C); output K tensors y_i = s x_i + (1 - s) mean, with s =
    sigmoid(gate) of one learned scalar, which starts in [0, 1). Source: arXiv 1811.10413, section 3.2.
    """

    def build(self, input_shape: Any) -> None:
        self.gate = self.add_weight("gate", shape=(), initializer=tf.keras.initializers.RandomUniform(0.0, 1.0))
        super().build(input_shape)

    def call(self, inputs: Any) -> list[tf.Tensor]:
        *branches, mean = inputs
        share = tf.sigmoid(self.gate)
        rest = (1 - share) * mean
        return [share * branch + rest for branch in branches]

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """One multiplication of the mean, and a multiplication and an addition for each branch."""
        return Operations({}, other=(2 * len(output_shape) + 1) * math.prod(output_shape[0][1:]))


_PRESETS = {
    "group_net18": Preset(
        "Group-Net of 18 layers: 16 binary 3x3 convolutions in each of 5 branches, and 3 shared shortcuts.",
        {"depth": 18},
        (55_662_126, 8_477_736_960, 118_525_952),
        "55.6, 62.5 and 64.8 % top-1 on ImageNet with 1, 3 and 5 branches.",
    ),
    "group_net34": Preset(
        "Group-Net of 34 layers: 32 binary 3x3 convolutions in each of 5 branches, and 3 shared shortcuts.",
        {"depth": 34},
        (106_202_933, 17_726_177_280, 118_525_952),
        "68.5 % top-1 on ImageNet with 5 branches.",
    ),
}


@register_family(_PRESETS)
def group_net(
    name: str,
    depth: int,
    algorithm: str | algorithms.Algorithm = _PAPER,
    input_shape: tuple[int, ...] = (224, 224, 3),
    num_classes: int = 1000,
    width: float = 1.0,
    *,
    branches: Count = 5,
    soft_gates: bool = True,
    binary_downsample: bool = True,
    stem: str = "auto",
) -> tf.keras.Model:
    """A residual network in which each block is the mean of K = `branches` parallel blocks with their own weights.

    A block of a branch is twice: binary 3x3, ReLU, BN, + what came before. All branches of stage 1 read the mean of the
    block before; from stage 2 on each reads a mix of its own branch and the mean, see `SoftGate`, one for each block;
    all read the mean with `soft_gates=False`, and where there is only one branch. Where the size halves, the first
    shortcut is conv1x1 / 2, BN, whose weights all branches share, binary or, with `binary_downsample=False`, in full
    precision. Binary inputs are padded with +1, which a bit can hold; with 0 in full precision and where inputs are not
    signs alone. The stem is conv7x7 / 2, max-pool 3x3 / 2, BN, or conv3x3, BN (`cifar`); it and the last layer stay in
    full precision. `width` multiplies all channels.

    Input (B, H, W, C) float32; output logits (B, num_classes). Raises InvalidOption unless there is a branch. Source:
    arXiv 1811.10413, section 3.2; the order of layers and the shortcuts as in the authors' networks.
    """
    algorithm = algorithms.get(algorithm)
    network = _Blocks(algorithm, branches, soft_gates, binary_downsample, parts.pad_with_one(algorithm))
    image, stem = parts.image_and_stem(input_shape, stem, name)

    x = parts.stem_pool(parts.stem_conv(image, stem, parts.scaled(CHANNELS[0], width)), stem)
    mean, outputs = parts.batch_norm("stem_bn")(x), None
    for block, wide, strides in parts.stages(blocks_of(depth), CHANNELS):
        inputs = network.inputs(outputs, mean, block)
        outputs = network.block(inputs, parts.scaled(wide, width), strides, block)
        mean = tf.keras.layers.Average(name=f"{block}_mean")(outputs) if branches > 1 else outputs[0]
    return parts.pooled_classifier(image, mean, num_classes, name)


@dataclass(frozen=True)
class _Blocks:
    """The blocks of one network: options of `group_net`, and the padding of 3x3 convolutions."""

    algorithm: algorithms.Algorithm
    branches: int
    soft_gates: bool
    binary_downsample: bool
    padding: dict[str, Any]

    def inputs(self, outputs: Sequence[tf.Tensor] | None, mean: tf.Tensor, name: str) -> list[tf.Tensor]:
        """The input of each branch of a block, from the branches of the block before and their mean."""
        if outputs and self.soft_gates and self.branches > 1 and not name.startswith("stage1_"):
            return SoftGate(name=f"{name}_gate")([*outputs, mean])
        return [mean] * self.branches

    def block(self, inputs: Sequence[tf.Tensor], channels: int, strides: int, name: str) -> list[tf.Tensor]:
        """The outputs of all branches of a block."""
        shortcut = self.shortcut(inputs[0], channels, strides, f"{name}_shortcut")
        outputs = []
        for number, x in enumerate(inputs, start=1):
            branch = f"{name}_branch{number}"
            y = self.convolve(x, channels, strides, branch, 1)
            x = tf.keras.layers.Add(name=f"{branch}_add1")([y, shortcut(x)])
            y = self.convolve(x, channels, 1, branch, 2)
            outputs.append(tf.keras.layers.Add(name=f"{branch}_add2")([y, x]))
        return outputs

    def shortcut(self, x: tf.Tensor, channels: int, strides: int, name: str) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function of a branch's input, whose layers the branches share."""
        if strides == 1 and x.shape[-1] == channels:
            return lambda x: x
        make = self.algorithm.conv2d if self.binary_downsample else parts.float_conv
        convolution = make(channels, 1, strides=strides, name=f"{name}_conv")
        normalization = parts.batch_norm(f"{name}_bn")
        return lambda x: normalization(convolution(x))

    def convolve(self, x: tf.Tensor, channels: int, strides: int, branch: str, number: int) -> tf.Tensor:
        """Binary 3x3 convolution, ReLU, BN."""
        x = self.algorithm.conv2d(channels, 3, strides=strides, name=f"{branch}_conv{number}", **self.padding)(x)
        x = parts.activation_layer("relu", f"{branch}_activation{number}")(x)
        return parts.batch_norm(f"{branch}_bn{number}")(x)
