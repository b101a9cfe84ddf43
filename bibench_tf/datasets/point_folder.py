"""`point_folder:FOLDER`: the user's point clouds, in HDF5 files or as OFF meshes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from bibench_tf.contents import Contents
from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import point_files, unusable, user_files
from bibench_tf.datasets.kinds import points
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples
from bibench_tf.errors import BibenchError
from bibench_tf.files import fingerprint_arrays, fingerprint_description
from bibench_tf.names import own_data

NAMES = "shape_names.txt"
LISTS = {"train": "train_files.txt", "test": "test_files.txt"}
# Points drawn once from a mesh, of which each epoch chooses some; as many as ModelNet40's HDF5 files have.
SAMPLED = 2048
Label = TypeVar("Label")


class Found(NamedTuple):
    """The content of a folder: clouds float32 [N, M, 3], labels int64 [N], the split of each, and the names of classes.

    `files` are those that were read. A split is `train`, `test`, or empty where the folder does not say.
    """

    clouds: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    class_names: tuple[str, ...]
    files: tuple[Path, ...]


@register(
    "point_folder",
    task="point_classification",
    description="point_folder:FOLDER, HDF5 point clouds or OFF meshes of your own",
)
def get(options: LoadOptions) -> ArrayDataset:
    """The clouds in the user's folder; a network sees 1,024 points of each, or all where there are fewer.

    HDF5 files directly in the folder, in the layout of modelnet40_ply_hdf5_2048: `data` (N, points, 3), `label`
    (N, 1); the names of the classes in `shape_names.txt`, else their numbers. The files in `test_files.txt` are the
    test split, or without lists the files with `test` in their names.

    Or OFF meshes, FOLDER/class/train/*.off and FOLDER/class/test/*.off as in ModelNet40, or FOLDER/class/*.off. They
    are read and sampled at every call; a large collection is better prepared once, as in `modelnet40`.

    Without a given test split, it is a fifth of each class, drawn from a fixed seed. Files and clouds that cannot be
    used are left out with a warning. Raises MissingData where there is no folder, and BibenchError where it does not
    have two classes with training and test clouds.
    """
    folder = options.own_folder("point_folder", "point clouds")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".h5", ".hdf5") and file.is_file())
    found = _read_hdf5(folder, files) if files else _read_meshes(folder)
    test = found.splits == "test"
    if not test.any() and not (found.splits == "train").any():
        test = points.stratified_test(found.labels)
    present, trained = ([found.class_names[label] for label in np.unique(found.labels[own])] for own in (..., ~test))
    user_files.check_classes(folder, "point clouds", present, trained, bool(test.any()), LISTS["test"])
    order = points.in_fixed_order(found.clouds.shape[1])
    count = min(points.POINTS, len(order))
    labels = found.labels.astype(np.int32)
    arrays = (found.clouds[~test][:, order], labels[~test], found.clouds[test][:, order[:count]], labels[test])
    return points.classification(
        name=own_data("point_folder", folder),
        title=f"{len(found.class_names)} classes of point clouds, {np.sum(~test):,} / {np.sum(test):,}",
        source="files of the user",
        licence="as the files",
        class_names=found.class_names,
        train_examples=int(np.sum(~test)),
        test_examples=int(np.sum(test)),
        fingerprint=fingerprint_description({"arrays": fingerprint_arrays(arrays), "classes": found.class_names}),
        contents=Contents(found.files),
        points=count,
        load=lambda: Examples(*arrays),
    )


def hdf5_splits(folder: Path, files: list[Path], lists: dict[str, str]) -> list[str]:
    """The split of each file: by the lists, without lists by its name, else empty."""
    named = {split: point_files.listed(folder / name) for split, name in lists.items() if (folder / name).is_file()}
    splits = []
    for file in files:
        by_list = [split for split, names in named.items() if file.name in names]
        by_name = [split for split in lists if split in file.stem.lower()]
        splits.append((by_list or ([] if named else by_name) or [""])[0])
    return splits


def hdf5_clouds(
    folder: Path, files: list[Path], *, split: str = "", classes: int | None = None, pool: int | None = None
) -> Iterator[tuple[Path, point_files.Clouds]]:
    """The usable clouds of each HDF5 file; the others are left out with a warning.

    `split` is a word before `files` in the warnings. `classes` is the number of known labels, and `pool` the points
    that every cloud must have; None allows any.
    """
    broken, left_out = [], []
    for file in files:
        try:
            clouds = point_files.read_hdf5(file)
            if pool not in (None, clouds.points.shape[1]):
                raise ValueError(f"its clouds have {clouds.points.shape[1]} points, not {pool}")
        except ValueError as error:
            broken.append(f"{file.name} ({error})")
            continue
        good = point_files.usable(clouds.points) & (clouds.labels >= 0)
        if classes is not None:
            good &= clouds.labels < classes
        left_out += [f"{file.name}[{index}]" for index in np.nonzero(~good)[0]]
        parts = None if clouds.parts is None else clouds.parts[good]
        yield file, point_files.Clouds(clouds.points[good], clouds.labels[good], parts)
    unusable.warn(broken, f"of {len(files)} {split}files in {folder} are not usable HDF5 files")
    unusable.warn(left_out, f"clouds in {folder} have no finite points, no extent, or no known label")


def mesh_clouds(
    folder: Path, meshes: list[tuple[Path, Label]], points_of_each: int, split: str = ""
) -> Iterator[tuple[str, np.ndarray, Label]]:
    """Path in the folder, points and label of each usable OFF mesh; the others are left out with a warning."""
    broken = []
    for file, label in meshes:
        path = file.relative_to(folder).as_posix()
        try:
            cloud = point_files.cloud_of_mesh(file.read_bytes(), path, points_of_each)
        except (OSError, ValueError) as error:
            broken.append(f"{path} ({error})")
            continue
        yield path, cloud, label
    unusable.warn(broken, f"of {len(meshes)} {split}files in {folder} are not usable OFF files")


def _read_hdf5(folder: Path, files: list[Path]) -> Found:
    split_of = dict(zip(files, hdf5_splits(folder, files, LISTS), strict=True))
    read = [(file, clouds.points, clouds.labels) for file, clouds in hdf5_clouds(folder, files)]
    if not sum(len(clouds) for _, clouds, _ in read):
        raise BibenchError(f"There are no usable point clouds in {folder}: HDF5 files need 'data' and 'label'.")
    pools = {clouds.shape[1] for _, clouds, _ in read}
    if len(pools) > 1:
        raise BibenchError(
            f"The HDF5 files in {folder} have different numbers of points ({', '.join(map(str, sorted(pools)))}): keep "
            "those with the same number in one folder."
        )
    used = tuple(file for file, _, _ in read)
    labels = np.concatenate([labels for _, _, labels in read])
    splits = np.concatenate([np.full(len(labels), split_of[file], "<U5") for file, _, labels in read])
    names = folder / NAMES
    class_names = user_files.lines(names) or [str(label) for label in range(labels.max() + 1)]
    if labels.max() >= len(class_names):
        raise BibenchError(f"{names} names {len(class_names)} classes, but there are labels up to {labels.max()}.")
    return Found(np.concatenate([clouds for _, clouds, _ in read]), labels, splits, tuple(class_names), used)


def _read_meshes(folder: Path) -> Found:
    files = off_files(folder)
    meshes = [(file, (label, split)) for label, of_class in enumerate(files.values()) for file, split in of_class]
    read = [*mesh_clouds(folder, meshes, SAMPLED)]
    if not read:
        raise BibenchError(
            f"There are no usable point clouds in {folder}: it needs HDF5 files, or a folder with OFF files for each "
            "class."
        )
    paths, clouds, of_clouds = zip(*read, strict=True)
    labels, splits = zip(*of_clouds, strict=True)
    used = tuple(folder / path for path in paths)
    return Found(np.stack(clouds), np.array(labels), np.array(splits, "<U5"), tuple(files), used)


def off_files(folder: Path) -> dict[str, list[tuple[Path, str]]]:
    """The OFF files of each class in order, each with its split, which is empty where folders do not name it."""
    files = {}
    for entry in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        found = [
            (file, split)
            for split in ("train", "test", "")
            for file in sorted((entry / split).glob("*"))
            if file.suffix.lower() == ".off" and file.is_file()
        ]
        if found:
            files[entry.name] = found
    return files
