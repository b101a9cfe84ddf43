"""PointNet (arXiv 1612.00593) for classification, as BiBench has it, and for part segmentation.

Layers that see each point alone are fully connected ones on rows (B, N, C), so that with every algorithm the order of
the points means nothing. BiBench has convolutions of length 1 along the points. That is the same for all algorithms but
two: XNOR-Net++ would learn a factor for the first point, one for the second and so on, and XNOR-Net would compute one
factor from all inputs of a cloud, not one for each point.
"""

from __future__ import annotations

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE
from bibench_tf.networks import Preset, register_family
from bibench_tf.options import Count
from bibench_tf.zoo import parts
from bibench_tf.zoo.point_layers import EntropyMaximizingMax, PointTransform

_POOLS = {
    "max": tf.keras.layers.GlobalMaxPooling1D,
    "mean": tf.keras.layers.GlobalAveragePooling1D,
    "ema-max": EntropyMaximizingMax,
}


_CLASSIFIERS = {
    "pointnet": Preset(
        "PointNet with its two T-Nets, as BiBench has it: 15 binary layers.",
        {"transforms": True},
        (3_471_857, 0, 440_030_464),
        "89.2 % in full precision on ModelNet40 (arXiv 1612.00593, table 1).",
    ),
    "pointnet_vanilla": Preset(
        "PointNet without T-Nets: 4 binary layers.",
        {"transforms": False},
        (811_240, 0, 143_665_152),
        "87.1 % in full precision on ModelNet40 (arXiv 1612.00593, table 5).",
    ),
}
_SEGMENTATIONS = {
    "pointnet_segmentation": Preset(
        "PointNet for parts: 18 binary layers, one of them on the features of several layers side by side.",
        {"transforms": True},
        (7_851_259, 0, 4_759_769_344),
        "instance mIoU 83.7 % in full precision on ShapeNetPart (arXiv 1612.00593, table 2).",
    ),
    # For short trainings, in which binary T-Nets do more harm than good. Ours, without a published accuracy.
    "pointnet_vanilla_segmentation": Preset(
        "PointNet for parts without T-Nets: 7 binary layers.",
        {"transforms": False},
        (1_995_762, 0, 4_065_591_296),
    ),
}


@register_family(_CLASSIFIERS, task="point_classification")
def _classifier(
    name: str,
    transforms: bool,
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (1024, 6),
    num_classes: int = 40,
    width: float = 1.0,
    pool: str = "auto",
) -> tf.keras.Model:
    """Layers that see each point alone, a pool over the points, and layers that see the cloud.

    A T-Net computes a k x k matrix from the cloud: layers of 64, 128 and 1024 numbers for each point, `pool` over the
    points, layers of 512 and 256, one of k * k; the identity is added. The network is

        T-Net (3 x 3) for the first three channels - 64 - T-Net (64 x 64) - 128 - 1024 - pool - 512 - 256 - head

    with BN and an activation after every layer but the last of a T-Net, and BN alone before a pool: ReLU in full
    precision, Hardtanh otherwise. Full precision with every algorithm: the layers that see the input (64 of the network
    and 64 of the first T-Net) and the head. Layers of points have a bias in full precision only, as in BiBench. `width`
    multiplies all numbers but the 3 x 3.

    `pool`: `max` as in the paper, `mean`, or `ema-max`, made for binary networks (`EntropyMaximizingMax`); `auto` is
    `max` in full precision and `ema-max` otherwise. BiBench has `max` for all. Behind a batch norm the maximum over
    many points is nearly always positive and above 1, so the binary layer behind it gets the same signs for all clouds,
    and its gradients are stopped: on `shapes_mini` binary networks with `max` stay at chance.

    Not built: the paper's dropout and its loss that keeps the matrices orthogonal, which BiBench does not have. Without
    the head the parameters are those of BiBench.

    Input (B, N, C) float32, C >= 3; output logits (B, num_classes). Source: arXiv 1612.00593.
    """
    network = _Layers(algorithm, width, pool)
    points = x = _points(input_shape)
    if transforms:
        x = network.transform(x, 3, "input_transform", sees_input=True)
    x = network.first(x, 64, "conv1")
    if transforms:
        x = network.transform(x, x.shape[-1], "feature_transform")
    x = network.points(x, 128, "conv2")
    x = network.pool(network.points(x, 1024, "conv3", activates=False), "pool")
    x = network.cloud(x, 512, "fc1")
    x = network.cloud(x, 256, "fc2")
    return tf.keras.Model(points, parts.classifier(x, num_classes), name=name)


@register_family(_SEGMENTATIONS, task="part_segmentation")
def _segmentation(
    name: str,
    transforms: bool,
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (2048, 6),
    num_categories: Count = 16,
    num_parts: int = 50,
    width: float = 1.0,
    pool: str = "auto",
) -> tf.keras.Model:
    """Layers for each point, on its own features and those of the cloud.

        T-Net (3 x 3) - 64 - 128 - 128 - T-Net (128 x 128) - 512 - 2048 - pool
        for each point: 64, 128, 128, the 128 transformed ones, 512, the pooled 2048, the category: 3024 with 16
        categories - 256 - 256 - 128 - head

    T-Nets, BN, activations, biases, `width` and `pool` as in `pointnet`. BiBench announces this network but has no
    code of it: the layers are the paper's, and the ones in full precision are chosen by the rule of BiBench's other
    PointNets, those that see the input and the head. The category comes as a one-hot vector and goes on as -1 and
    +1; a sign would take its 0 and its 1 for the same.

    Inputs `points` (B, N, C) float32, C >= 3, and `category`, one-hot (B, num_categories) float32; output logits
    (B, N, num_parts). Source: arXiv 1612.00593, supplementary material, section C.
    """
    parts.check_classes(num_parts)
    network = _Layers(algorithm, width, pool)
    points = x = _points(input_shape)
    category = tf.keras.Input((num_categories,), name="category")
    if transforms:
        x = network.transform(x, 3, "input_transform", sees_input=True)
    local = [network.first(x, 64, "conv1")]
    for number, units in ((2, 128), (3, 128)):
        local.append(network.points(local[-1], units, f"conv{number}"))
    if transforms:
        local.append(network.transform(local[-1], local[-1].shape[-1], "feature_transform"))
    local.append(network.points(local[-1], 512, "conv4"))
    pooled = network.pool(network.points(local[-1], 2048, "conv5", activates=False), "pool")
    signs = tf.keras.layers.Rescaling(2.0, offset=-1.0, name="category_signs")(category)
    cloud = tf.keras.layers.Concatenate(name="cloud")([pooled, signs])
    cloud = tf.keras.layers.RepeatVector(points.shape[1], name="cloud_for_each_point")(cloud)
    x = tf.keras.layers.Concatenate(name="features")([*local, cloud])
    for number, units in ((1, 256), (2, 256), (3, 128)):
        x = network.points(x, units, f"point_fc{number}")
    return tf.keras.Model([points, category], parts.classifier(x, num_parts), name=name)


def _points(input_shape: tuple[int, ...]) -> tf.Tensor:
    shape = tuple(input_shape)
    if len(shape) != 2 or not all(isinstance(size, int) and size > 0 for size in shape) or shape[1] < 3:
        raise InvalidOption(
            f"A PointNet takes a fixed number of points with at least 3 channels, (points, channels), not {shape}."
        )
    return tf.keras.Input(shape, name="points")


class _Layers:
    """The layers of a PointNet with one algorithm, width and pool."""

    def __init__(self, algorithm: str | algorithms.Algorithm, width: float, pool: str) -> None:
        parts.check_choice("pool", pool, ("auto", *_POOLS))
        self.algorithm = algorithms.get(algorithm)
        self.width = width
        if pool == "auto":
            pool = "ema-max" if parts.is_binary(self.algorithm) else "max"
        self.pooling = _POOLS[pool]

    def first(self, x: tf.Tensor, units: int, name: str) -> tf.Tensor:
        """A layer of points that sees the input, in full precision."""
        return self.normalized(tf.keras.layers.Dense(parts.scaled(units, self.width), name=name)(x), name)

    def points(self, x: tf.Tensor, units: int, name: str, activates: bool = True) -> tf.Tensor:
        """A layer that sees each point alone, (B, N, C)."""
        use_bias = not parts.is_binary(self.algorithm)
        dense = self.algorithm.dense(parts.scaled(units, self.width), use_bias=use_bias, name=name)
        return self.normalized(dense(x), name, activates)

    def cloud(self, x: tf.Tensor, units: int, name: str) -> tf.Tensor:
        """A layer that sees a cloud, (B, C)."""
        return self.normalized(self.algorithm.dense(parts.scaled(units, self.width), name=name)(x), name)

    def pool(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return self.pooling(name=name)(x)

    def transform(self, points: tf.Tensor, size: int, name: str, sees_input: bool = False) -> tf.Tensor:
        """The points, the first `size` channels multiplied by the matrix that a T-Net computes from them."""
        x = (self.first if sees_input else self.points)(points, 64, f"{name}_conv1")
        x = self.points(x, 128, f"{name}_conv2")
        x = self.pool(self.points(x, 1024, f"{name}_conv3", activates=False), f"{name}_pool")
        x = self.cloud(self.cloud(x, 512, f"{name}_fc1"), 256, f"{name}_fc2")
        entries = self.algorithm.dense(size * size, name=f"{name}_matrix")(x)
        return PointTransform(name=name)([points, entries])

    def normalized(self, x: tf.Tensor, name: str, activates: bool = True) -> tf.Tensor:
        return parts.normalized(x, name, self.algorithm.activation) if activates else parts.batch_norm(f"{name}_bn")(x)
