"""Data sets as TensorFlow Datasets (TFDS) prepares them on the disk: found, described, and prepared on demand.

Plain file operations find and describe prepared data, so that missing data are reported at once: TFDS itself takes
seconds to import, and minutes to fail without a network. TFDS only downloads and prepares.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.contents import Contents
from bibench_tf.datasets.base import LoadOptions
from bibench_tf.errors import BibenchError, MissingData
from bibench_tf.files import fingerprint_description

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Prepared:
    """A data set on the disk: the folder of its version, and the files of each split in order.

    `class_names` is empty where labels are not classes.
    """

    folder: Path
    class_names: tuple[str, ...]
    files: dict[str, tuple[Path, ...]]
    examples: dict[str, int]

    @cached_property
    def contents(self) -> Contents:
        """The record files of all splits."""
        return Contents(file for files in self.files.values() for file in files)

    def fingerprint(self) -> str:
        """The digest of the examples: of the record files, of their division into splits, and of the classes."""
        return fingerprint_description(
            {"files": self.contents.digest, "splits": [*self.examples.items()], "classes": self.class_names}
        )


@dataclass(frozen=True)
class ByHand:
    """Files that TFDS cannot fetch: the user fetches them at `site` and puts them into downloads/manual.

    With `any_of` one of these files or folders is enough. `module` defines the builder, if TFDS does not have it.
    """

    files: tuple[str, ...]
    site: str
    any_of: bool = False
    module: str | None = None


def prepared(
    name: str,
    splits: tuple[str, ...],
    options: LoadOptions,
    *,
    by_hand: ByHand | None = None,
    classes: bool = True,
) -> Prepared:
    """The prepared data set called `name`, or `name/config`.

    `options.data_dir` is by default TFDS_DATA_DIR or ~/tensorflow_datasets. `by_hand` are the files that have to be
    there before `options.download` works. Without `classes` no names of labels are read. Raises MissingData when the
    data set is not prepared or incomplete, and BibenchError when it is damaged or TFDS fails.
    """
    root = Path(options.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = _newest_version(root / name)
    if folder is None and options.download:
        download_and_prepare(name, root, by_hand)
        folder = _newest_version(root / name)
    if folder is None:
        first = (
            f" ({_all_of(by_hand)} have to be fetched by hand first and put into {_manual(root)})" if by_hand else ""
        )
        raise MissingData(
            f"The data set '{name}' is not prepared in {root}: either pass --download to fetch and prepare "
            f"it there{first}, or prepare it with TensorFlow Datasets and pass --data-dir with the folder "
            f"that holds {name}/."
        )
    return _describe(name, splits, folder, classes)


def download_and_prepare(name: str, root: Path, by_hand: ByHand | None = None) -> None:
    """Have TFDS fetch the data set and write it to the folder `root`.

    Raises MissingData where a file of `by_hand` is missing, before TFDS is imported, and BibenchError when TFDS fails.
    """
    if by_hand:
        there = [(_manual(root) / file).exists() for file in by_hand.files]
        if not (any(there) if by_hand.any_of else all(there)):
            missing = _all_of(by_hand) if by_hand.any_of else by_hand.files[there.index(False)]
            raise MissingData(
                f"'{name}' cannot be downloaded without signing in: fetch {missing} at {by_hand.site}, put it into "
                f"{_manual(root)} and call again."
            )
    import tensorflow_datasets as tfds

    if by_hand and by_hand.module:
        importlib.import_module(by_hand.module)
    try:
        tfds.builder(name, data_dir=str(root)).download_and_prepare()
    except Exception as error:  # network, disk, checksums: TFDS has no base class for its errors
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BibenchError(f"The data set '{name}' could not be prepared in {root}: {reason}") from error


def read(
    files: tuple[Path, ...], example: Callable[[tf.Tensor], Any], batch_size: int = 1000
) -> tuple[np.ndarray, ...]:
    """All examples of record files in order, an array for each tensor that `example` makes of a record (tf.string []).

    Each tensor has the same shape for all records; the arrays stack them. Raises BibenchError for damaged files and for
    records that `example` cannot parse.
    """
    import tensorflow as tf

    records = tf.data.TFRecordDataset([str(file) for file in files])
    batches = records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch_size)
    try:
        columns = zip(*batches.as_numpy_iterator(), strict=True)
        return tuple(np.concatenate(column) for column in columns)
    except tf.errors.OpError as error:
        raise BibenchError(
            f"Cannot read the records in {files[0].parent} ({error.message.splitlines()[0]}): "
            "prepare the data set again."
        ) from error


def read_columns(files: tuple[Path, ...], features: Mapping[str, tuple[tuple[int, ...], str]]) -> list[np.ndarray]:
    """The columns of record files, an array for each of `features`: shape and type of a feature by its name.

    Raises BibenchError as `read` does.
    """
    import tensorflow as tf

    fixed = {name: tf.io.FixedLenFeature(shape, tf.as_dtype(kind)) for name, (shape, kind) in features.items()}

    def example(record):
        content = tf.io.parse_single_example(record, fixed)
        return tuple(content[name] for name in features)

    return list(read(files, example))


def _all_of(by_hand: ByHand) -> str:
    """The names of the files, in words."""
    return (" or " if by_hand.any_of else " and ").join(by_hand.files)


def _manual(root: Path) -> Path:
    return root / "downloads" / "manual"


def _newest_version(folder: Path) -> Path | None:
    """The sub-folder with the highest version that is prepared to the end, or None."""
    versions = {
        tuple(int(part) for part in entry.parent.name.split(".")): entry.parent
        for entry in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", entry.parent.name)
    }
    return versions[max(versions)] if versions else None


def _describe(name: str, splits: tuple[str, ...], folder: Path, classes: bool) -> Prepared:
    advice = f"prepare '{name}' again, or pass --data-dir with another folder"
    name = name.partition("/")[0]  # a configuration has its own folder, but not its own name
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        shards = {split["name"]: [int(count) for count in split["shardLengths"]] for split in info["splits"]}
        labels = (folder / "label.labels.txt").read_text(encoding="utf-8").splitlines() if classes else ()
        shards = {split: shards[split] for split in splits}
        if info["name"] != name or info.get("fileFormat", "tfrecord") != "tfrecord":
            raise ValueError(f"it holds {info['name']} as {info.get('fileFormat')}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BibenchError(f"Cannot use the data in {folder} ({error}): {advice}.") from error
    files = {
        split: tuple(folder / f"{name}-{split}.tfrecord-{index:05}-of-{len(counts):05}" for index in range(len(counts)))
        for split, counts in shards.items()
    }
    for file in (file for split in splits for file in files[split]):
        if not file.is_file():
            raise MissingData(f"The data in {folder} lack {file.name}: {advice}.")
    return Prepared(folder, tuple(labels), files, {split: sum(counts) for split, counts in shards.items()})
