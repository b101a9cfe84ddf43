"""`shapenet_part`: ShapeNetPart, prepared by a TensorFlow Datasets builder of our own from files the user has."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats.tfds_prepared import ByHand, prepared, read_columns
from bibench_tf.datasets.kinds import points
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples

# Points of a prepared cloud, all of which a network sees; usual for this data set.
POOL = 2048
# The number of parts of each category, in the order in which both layouts number them.
PARTS = {
    "Airplane": 4,
    "Bag": 2,
    "Cap": 2,
    "Car": 4,
    "Chair": 4,
    "Earphone": 3,
    "Guitar": 3,
    "Knife": 2,
    "Lamp": 4,
    "Laptop": 2,
    "Motorbike": 6,
    "Mug": 2,
    "Pistol": 3,
    "Rocket": 3,
    "Skateboard": 3,
    "Table": 3,
}
# The folders that may lie in downloads/manual, by preference.
LAYOUTS = ("hdf5_data", "shapenetcore_partanno_segmentation_benchmark_v0_normal")
# The lists of HDF5 files, the file that marks the layout of texts, and its lists.
_LISTED = {"train": "train", "validation": "val", "test": "test"}
LISTS = {split: f"{name}_hdf5_file_list.txt" for split, name in _LISTED.items()}
CATEGORIES = "synsetoffset2category.txt"
TEXT_LISTS = {split: f"train_test_split/shuffled_{name}_file_list.json" for split, name in _LISTED.items()}
_FEATURES = {"points": ((POOL, 3), "float32"), "parts": ((POOL,), "int64"), "label": ((), "int64")}
_BY_HAND = ByHand(LAYOUTS, "shapenet.org", any_of=True, module="bibench_tf.datasets.making.point_builders")


@register(
    "shapenet_part",
    task="part_segmentation",
    description="ShapeNetPart: 14,007 / 2,874 point clouds, 16 categories with 50 parts",
)
def get(options: LoadOptions) -> ArrayDataset:
    """ShapeNetPart: 14,007 training and 2,874 test clouds in 16 categories with 50 parts, held in memory.

    The training split is that of the authors and their validation split. Prepared once as clouds of 2,048 points: those
    of the HDF5 files, or a fixed choice of the points in the text files (a shape with fewer points has some of them
    twice). Parts have numbers for names, `Chair/1` and so on, because the files do not name them. Raises MissingData
    when the data are not prepared. Source: Yi et al. 2016, "A scalable
    active framework for region annotation in 3D shape collections".
    """
    splits = ("train", "validation", "test")
    found = prepared("shapenet_part", splits, options, by_hand=_BY_HAND)
    train = found.files["train"] + found.files["validation"]
    return points.segmentation(
        name="shapenet_part",
        title="ShapeNetPart",
        source="https://shapenet.org",
        licence="ShapeNet terms of use: non-commercial research and education",
        class_names=tuple(f"{name}/{part + 1}" for name, parts in PARTS.items() for part in range(parts)),
        train_examples=found.examples["train"] + found.examples["validation"],
        test_examples=found.examples["test"],
        fingerprint=found.fingerprint,
        contents=found.contents,
        points=POOL,
        load=partial(_load, train, found.files["test"]),
    )


def _load(train: tuple[Path, ...], test: tuple[Path, ...]) -> Examples:
    order = points.in_fixed_order(POOL)
    arrays: list[Any] = []
    for files in (train, test):
        clouds, parts, categories = read_columns(files, _FEATURES)
        inputs = {"points": clouds[:, order], "category": categories.astype(np.int32)}
        arrays += [inputs, parts[:, order].astype(np.int32)]
    return Examples(*arrays)
