"""Data sets of point clouds: six channels for each point, and a new random choice of points each epoch.

A cloud is float32 [M, 3] in memory. Where it has more points than a network sees, each training batch takes a random
subset of them. TensorFlow is imported with the first batch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.datasets.kinds.arrays import ArrayDataset

if TYPE_CHECKING:
    import tensorflow as tf

# Points of a cloud, as BiBench for ModelNet40.
POINTS = 1024
CHANNELS = 6
_SEED = 2023


def classification(*, class_names: tuple[str, ...], points: int, **description: Any) -> ArrayDataset:
    """A data set of clouds with one class each; a network sees `points` of the points of each cloud.

    `description` are the other fields of `ArrayDataset`; `load` gives clouds (float32 [N, M, 3]) and labels
    (int32 [N]).
    """
    return ArrayDataset(
        task="point_classification",
        class_names=class_names,
        options={"input_shape": (points, CHANNELS), "num_classes": len(class_names)},
        transform=partial(_classified, points=points),
        **description,
    )


def segmentation(*, class_names: tuple[str, ...], points: int, **description: Any) -> ArrayDataset:
    """A data set of clouds with a part for each point.

    `class_names` are `category/part`, the parts of a category one after the other. `load` gives
    {"points": float32 [N, M, 3], "category": int32 [N]} and labels (int32 [N, M]).
    """
    categories = len({part.partition("/")[0] for part in class_names})
    return ArrayDataset(
        task="part_segmentation",
        class_names=class_names,
        options={"input_shape": (points, CHANNELS), "num_categories": categories, "num_parts": len(class_names)},
        transform=partial(_segmented, points=points, categories=categories),
        **description,
    )


def features(clouds: tf.Tensor) -> tf.Tensor:
    """Six channels for each point of clouds [B, N, 3]: x, y, z in the unit sphere, then x, y, z unchanged.

    In the unit sphere: minus the centroid of the N points, over the largest distance from it. Source: BiBench.
    """
    import tensorflow as tf

    centred = clouds - tf.reduce_mean(clouds, axis=1, keepdims=True)
    radius = tf.reduce_max(tf.norm(centred, axis=2, keepdims=True), axis=1, keepdims=True)
    return tf.concat([centred / radius, clouds], axis=2)


def in_fixed_order(pool: int) -> np.ndarray:
    """A permutation of the points 0..pool-1 from a fixed seed, so that any prefix is a random sample.

    Files may list points by position. Test clouds are the first points in this order.
    """
    return np.random.default_rng(_SEED).permutation(pool)


def stratified_test(labels: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Which examples (bool [N]) are the test split: `share` of each class, at least one, drawn from a fixed seed.

    A class with a single example has none in the test split.
    """
    random = np.random.default_rng(_SEED)
    in_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        in_test[random.permutation(members)[:count]] = True
    return in_test


def _classified(clouds, labels, key, *, points):
    import tensorflow as tf

    return features(tf.gather(clouds, _chosen(clouds, key, points), axis=1)), labels


def _segmented(inputs, labels, key, *, points, categories):
    import tensorflow as tf

    chosen = _chosen(inputs["points"], key, points)
    clouds = {
        "points": features(tf.gather(inputs["points"], chosen, axis=1)),
        "category": tf.one_hot(inputs["category"], categories),
    }
    return clouds, tf.gather(labels, chosen, axis=1)


def _chosen(clouds, key, points):
    """The numbers of the chosen points: at random with a key, else the first.

    One choice serves the whole batch, because the points of different clouds are unrelated.
    """
    import tensorflow as tf

    pool = clouds.shape[1]
    if key is None or pool == points:
        return tf.range(points)
    return tf.argsort(tf.random.stateless_uniform([pool], key))[:points]
