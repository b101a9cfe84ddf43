"""`modelnet40`: ModelNet40, prepared by a TensorFlow Datasets builder of our own from files the user has."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats.tfds_prepared import ByHand, prepared, read_columns
from bibench_tf.datasets.kinds import points
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples

# Points of a prepared cloud, as in the HDF5 files; each epoch uses some of them.
POOL = 2048
# The folders that may lie in downloads/manual, by preference: meshes are what BiBench takes.
LAYOUTS = ("ModelNet40", "modelnet40_ply_hdf5_2048")
# In the order of the labels in the HDF5 files.
CLASS_NAMES = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup"),
    *("curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop"),
    *("mantel", "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa"),
    *("stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox"),
)
_FEATURES = {"points": ((POOL, 3), "float32"), "label": ((), "int64")}
_BY_HAND = ByHand(LAYOUTS, "modelnet.cs.princeton.edu", any_of=True, module="bibench_tf.datasets.making.point_builders")


@register("modelnet40", task="point_classification", description="ModelNet40: 9,843 / 2,468 point clouds, 40 classes")
def get(options: LoadOptions) -> ArrayDataset:
    """ModelNet40: 9,843 training and 2,468 test clouds in 40 classes, held in memory.

    Prepared once as clouds of 2,048 points: drawn evenly from the surface of each mesh, centred at the mean of its
    vertices and scaled to a largest coordinate of 1; or those of the HDF5 files, which are in the unit sphere. A
    network sees 1,024 of them: random ones for each training batch, the same in every test. BiBench draws new points
    from the surface at every access, also in tests. Raises MissingData when the data are not prepared. Source: Wu
    et al. 2015, arXiv 1406.5670.
    """
    found = prepared("modelnet40", ("train", "test"), options, by_hand=_BY_HAND)
    return points.classification(
        name="modelnet40",
        title="ModelNet40",
        source="https://modelnet.cs.princeton.edu",
        licence="for academic research; the models belong to their authors",
        class_names=found.class_names,
        train_examples=found.examples["train"],
        test_examples=found.examples["test"],
        fingerprint=found.fingerprint,
        contents=found.contents,
        points=points.POINTS,
        load=partial(_load, found.files["train"], found.files["test"]),
    )


def _load(train: tuple[Path, ...], test: tuple[Path, ...]) -> Examples:
    order = points.in_fixed_order(POOL)
    train_clouds, train_labels = read_columns(train, _FEATURES)
    test_clouds, test_labels = read_columns(test, _FEATURES)
    return Examples(
        train_clouds[:, order],
        train_labels.astype(np.int32),
        test_clouds[:, order[: points.POINTS]],
        test_labels.astype(np.int32),
    )
