"""TensorFlow Datasets builders of `modelnet40` and `shapenet_part`, from the user's files.

Importing this module registers them with TensorFlow Datasets: `tfds.load("modelnet40")`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from bibench_tf.datasets import modelnet40, point_folder, shapenet_part
from bibench_tf.datasets.formats import point_files, unusable
from bibench_tf.errors import BibenchError

_Example = tuple[str, dict[str, Any]]


class Modelnet40(tfds.core.GeneratorBasedBuilder):
    """ModelNet40 as clouds of 2,048 points."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the folder ModelNet40 (OFF meshes) or modelnet40_ply_hdf5_2048 (HDF5 files) here; see "
        "https://modelnet.cs.princeton.edu."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "points": tfds.features.Tensor(shape=(modelnet40.POOL, 3), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=modelnet40.CLASS_NAMES),
        }
        return self.dataset_info_from_configs(
            description="Point clouds of CAD models in 40 classes.",
            homepage="https://modelnet.cs.princeton.edu",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("points", "label"),
        )

    def _split_generators(self, dl_manager) -> dict:
        folder = _folder(dl_manager, modelnet40.LAYOUTS)
        return {split: self._generate_examples(folder, split) for split in ("train", "test")}

    def _generate_examples(self, folder: Path, split: str) -> Iterator[_Example]:
        return (_clouds_of_meshes if any(folder.glob("*/*/*.off")) else _clouds_of_hdf5)(folder, split)


class ShapenetPart(tfds.core.GeneratorBasedBuilder):
    """ShapeNetPart as clouds of 2,048 points with a part each."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the folder hdf5_data (HDF5 files) or shapenetcore_partanno_segmentation_benchmark_v0_normal (text files) "
        "here; see https://shapenet.org."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "points": tfds.features.Tensor(shape=(shapenet_part.POOL, 3), dtype=np.float32),
            "parts": tfds.features.Tensor(shape=(shapenet_part.POOL,), dtype=np.int32),
            "label": tfds.features.ClassLabel(names=list(shapenet_part.PARTS)),
        }
        return self.dataset_info_from_configs(
            description="Point clouds of shapes in 16 categories with 50 parts.",
            homepage="https://shapenet.org",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager) -> dict:
        folder = _folder(dl_manager, shapenet_part.LAYOUTS)
        return {split: self._generate_examples(folder, split) for split in ("train", "validation", "test")}

    def _generate_examples(self, folder: Path, split: str) -> Iterator[_Example]:
        texts = (folder / shapenet_part.CATEGORIES).is_file()
        return (_parts_of_texts if texts else _parts_of_hdf5)(folder, split)


def _folder(dl_manager, names: tuple[str, ...]) -> Path:
    """The first of the folders `names` that exists."""
    return next(folder for name in names if (folder := Path(dl_manager.manual_dir) / name).is_dir())


def _clouds_of_meshes(folder: Path, split: str) -> Iterator[_Example]:
    files = point_folder.off_files(folder)
    missing = sorted(set(modelnet40.CLASS_NAMES) - set(files))
    if missing:
        raise BibenchError(f"{folder} has no OFF files of {', '.join(missing)}")
    meshes = [(file, name) for name in modelnet40.CLASS_NAMES for file, part in files[name] if part == split]
    for path, points, label in point_folder.mesh_clouds(folder, meshes, modelnet40.POOL, f"{split} "):
        yield path, {"points": points, "label": label}


def _clouds_of_hdf5(folder: Path, split: str) -> Iterator[_Example]:
    for name, clouds in _hdf5(folder, point_folder.LISTS, split, modelnet40.POOL, len(modelnet40.CLASS_NAMES)):
        for index in range(len(clouds.points)):
            yield f"{name}[{index}]", {"points": clouds.points[index], "label": int(clouds.labels[index])}


def _parts_of_hdf5(folder: Path, split: str) -> Iterator[_Example]:
    foreign = []
    for name, clouds in _hdf5(folder, shapenet_part.LISTS, split, shapenet_part.POOL, len(shapenet_part.PARTS)):
        if clouds.parts is None:
            raise BibenchError(f"{folder / name} has no parts ('pid')")
        for index in range(len(clouds.points)):
            label, parts = int(clouds.labels[index]), clouds.parts[index].astype(np.int32)
            if _of_category(label, parts):
                yield f"{name}[{index}]", {"points": clouds.points[index], "parts": parts, "label": label}
            else:
                foreign.append(f"{name}[{index}]")
    unusable.warn(foreign, f"clouds in {folder} have parts of other categories")


def _hdf5(folder: Path, lists: dict[str, str], split: str, pool: int, classes: int):
    """The name and the usable clouds of each HDF5 file of a split."""
    files = sorted(folder.glob("*.h5"))
    chosen = [
        file for file, own in zip(files, point_folder.hdf5_splits(folder, files, lists), strict=True) if own == split
    ]
    if not chosen:
        raise BibenchError(f"{folder} has no HDF5 files of the {split} split")
    for file, clouds in point_folder.hdf5_clouds(folder, chosen, split=f"{split} ", classes=classes, pool=pool):
        yield file.name, clouds


def _parts_of_texts(folder: Path, split: str) -> Iterator[_Example]:
    lines = (folder / shapenet_part.CATEGORIES).read_text(encoding="utf-8").splitlines()
    categories = {synset: name for name, synset in (line.split() for line in lines if line.strip())}
    labels = {name: index for index, name in enumerate(shapenet_part.PARTS)}
    listed = json.loads((folder / shapenet_part.TEXT_LISTS[split]).read_text(encoding="utf-8"))
    broken = []
    for entry in listed:
        # shape_data/02691156/1a04e3eab45ca15dd86060f189eb133
        _, synset, shape = entry.split("/")
        name = f"{synset}/{shape}.txt"
        try:
            rows = np.loadtxt(folder / name, ndmin=2)
            if rows.shape[1] < 4 or not np.isfinite(rows).all():
                raise ValueError("its lines are not x y z, normal, part")
            label = labels[categories[synset]]
            parts = rows[:, -1].astype(np.int32)
            if not _of_category(label, parts):
                raise ValueError("it has parts of other categories")
        except (OSError, ValueError, KeyError) as error:
            broken.append(f"{name} ({str(error)[:100]})")
            continue
        chosen = point_files.pool_of(len(rows), shapenet_part.POOL, name)
        yield name, {"points": rows[chosen, :3].astype(np.float32), "parts": parts[chosen], "label": label}
    unusable.warn(broken, f"of {len(listed)} {split} files in {folder} cannot be used")


def _of_category(label: int, parts: np.ndarray) -> bool:
    """Whether all `parts` are of the category `label`."""
    first = sum(list(shapenet_part.PARTS.values())[:label])
    return first <= parts.min() and parts.max() < first + list(shapenet_part.PARTS.values())[label]
