"""Data sets, by name.

`get` describes a data set without reading its examples and without importing TensorFlow. A data set of your own is one
file with a function that is decorated by `register`; see docs/data.md.
"""

from __future__ import annotations

from pathlib import Path

from bibench_tf.contents import Contents
from bibench_tf.datasets.base import DATASETS, Dataset, Entry, ImageDataset, LoadOptions, register
from bibench_tf.datasets.formats.boxes import Annotated, DetectionSplits, Recorded, View
from bibench_tf.datasets.kinds.arrays import ArrayDataset, ArrayImages, Examples, Splits
from bibench_tf.datasets.kinds.detection import DetectionDataset
from bibench_tf.datasets.kinds.records import RecordImages
from bibench_tf.errors import InvalidOption
from bibench_tf.files import fingerprint_arrays, fingerprint_files
from bibench_tf.names import data_kind


def names() -> list[str]:
    """The names of all data sets in alphabetical order."""
    return sorted(DATASETS.names())


def describe(name: str) -> Entry:
    """The registered entry of a data set, also by its name in records (`bibench_tf.names`). Raises UnknownName."""
    return DATASETS.get(data_kind(name))


def task_of(name: str) -> str:
    """The key of the task (`bibench_tf.tasks`) of a data set. Raises UnknownName."""
    return describe(name).task


def get(
    name: str, data_dir: Path | str | None = None, download: bool = False, vocabulary: Path | str | None = None
) -> Dataset:
    """The data set `NAME`, or the user's data `NAME:FOLDER`.

    `data_dir` is the folder in which TensorFlow Datasets keeps prepared data; by default TFDS_DATA_DIR or
    ~/tensorflow_datasets. Only with `download` anything is fetched from the network. `vocabulary` is the file of word
    pieces for texts. Raises UnknownName, MissingData for data that are missing or not prepared, InvalidOption where
    FOLDER is needed and where the data set has no use for it, and BibenchError for data that cannot be used.
    """
    kind, colon, folder = name.partition(":")
    place = folder if colon else data_dir
    if place == "":
        raise InvalidOption(f"'{name}' names no folder: write one after the colon, or leave out the colon.")
    options = LoadOptions(
        None if place is None else Path(place), download, None if vocabulary is None else Path(vocabulary)
    )
    data = DATASETS.get(kind).factory(options)
    if colon and not options.is_place_read:
        raise InvalidOption(
            f"'{kind}' is not read from a folder, so that {folder} would have no effect: write {kind} alone."
        )
    return data
