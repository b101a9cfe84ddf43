"""Image data sets, by name.

`get` describes a data set without reading its images and without importing TensorFlow. A data set of your
own is a function (data_dir, download) -> ImageDataset, made known by `register` or by an entry point of the
group `bibench_tf.datasets`; see docs/data.md.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from bibench_tf.datasets import fashion_mini, tfds_images
from bibench_tf.datasets.base import (
    ArrayImages,
    ImageDataset,
    RecordImages,
    Splits,
    fingerprint_arrays,
    fingerprint_files,
)
from bibench_tf.errors import BibenchError, unknown_name

__all__ = [
    "ArrayImages",
    "ImageDataset",
    "RecordImages",
    "Splits",
    "fingerprint_arrays",
    "fingerprint_files",
    "get",
    "names",
    "register",
]

Factory = Callable[[Path | None, bool], ImageDataset]

_FACTORIES: dict[str, Factory] = {
    "cifar10": tfds_images.cifar10,
    "fashion_mini": fashion_mini.get,
    "imagenet2012": tfds_images.imagenet2012,
}


def names() -> list[str]:
    """The names of all data sets, those of installed entry points included."""
    return sorted({*_FACTORIES, *entry_points(group="bibench_tf.datasets").names})


def get(name: str, data_dir: Path | str | None = None, download: bool = False) -> ImageDataset:
    """The data set called `name`.

    `data_dir` is where TensorFlow Datasets keeps prepared data; by default TFDS_DATA_DIR or
    ~/tensorflow_datasets. Nothing is fetched from the network unless `download` is true. Raises
    BibenchError for an unknown name and for data that are missing.
    """
    if name in _FACTORIES:
        factory = _FACTORIES[name]
    else:
        found = tuple(entry_points(group="bibench_tf.datasets", name=name))
        if not found:
            raise unknown_name("data set", name, names())
        factory = found[0].load()
    return factory(None if data_dir is None else Path(data_dir), download)


def register(name: str, factory: Factory) -> None:
    """Make a data set known under `name`; `factory` gets (data_dir, download) of `get`.

    Raises BibenchError when the name is taken.
    """
    if name in names():
        raise BibenchError(f"There is already a data set called '{name}'.")
    _FACTORIES[name] = factory
