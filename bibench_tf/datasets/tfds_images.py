"""Image data sets that TensorFlow Datasets (TFDS) prepares: `cifar10` and `imagenet2012`.

What is already prepared is found and described by plain file operations, so that missing data are reported
at once: TFDS itself takes seconds to import, and minutes to give up where there is no network. TFDS is
asked only to download and prepare.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from bibench_tf.datasets.base import (
    ArrayImages,
    RecordImages,
    Splits,
    fingerprint_description,
    fingerprint_files,
)
from bibench_tf.errors import BibenchError

_IMAGENET_ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


@dataclass(frozen=True)
class Prepared:
    """A data set as it lies on the disk: the folder of its version, and the files of each split in order."""

    folder: Path
    info: dict[str, Any]
    class_names: tuple[str, ...]
    files: dict[str, tuple[Path, ...]]
    examples: dict[str, int]


def cifar10(data_dir: Path | None = None, download: bool = False) -> ArrayImages:
    """CIFAR-10: 50,000 training and 10,000 test colour images of 32x32 in ten classes, held in memory.

    Normalised by mean and standard deviation of BiBench's CIFAR-10 configurations. Raises BibenchError when
    the data are not prepared. Source: Krizhevsky 2009, "Learning multiple layers of features from tiny
    images".
    """
    found = prepared("cifar10", ("train", "test"), data_dir, download)
    return ArrayImages(
        name="cifar10",
        title="CIFAR-10",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated by the authors",
        input_shape=(32, 32, 3),
        class_names=found.class_names,
        train_examples=found.examples["train"],
        test_examples=found.examples["test"],
        mean=(125.307, 122.961, 113.8575),
        std=(51.5865, 50.847, 51.255),
        fingerprint=fingerprint_files(found.files["train"] + found.files["test"]),
        load=partial(_decoded, found.files["train"], found.files["test"], (32, 32, 3)),
        padding=4,
    )


def imagenet2012(data_dir: Path | None = None, download: bool = False) -> RecordImages:
    """ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 test images, 1,000 classes, streamed at 224x224.

    The validation split serves as test split. The archives have to be fetched by hand, after signing in at
    image-net.org; with `download` TFDS prepares them. Raises BibenchError when the data are not prepared.
    Source: Russakovsky et al. 2015, arXiv 1409.0575; mean and standard deviation as in BiBench.
    """
    found = prepared("imagenet2012", ("train", "validation"), data_dir, download)
    return RecordImages(
        name="imagenet2012",
        title="ImageNet (ILSVRC 2012)",
        source="https://www.image-net.org",
        licence="ImageNet terms of access: non-commercial research and education",
        input_shape=(224, 224, 3),
        class_names=found.class_names,
        train_examples=found.examples["train"],
        test_examples=found.examples["validation"],
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        # Its 150 GB are not read for a digest: version, examples and bytes of every shard stand for them.
        fingerprint=fingerprint_description({key: found.info[key] for key in ("name", "version", "splits")}),
        train_files=found.files["train"],
        test_files=found.files["validation"],
    )


def prepared(name: str, splits: tuple[str, ...], data_dir: Path | None, download: bool) -> Prepared:
    """The prepared data set called `name`, or `name/config`.

    Raises BibenchError when it is not prepared, or not completely, and with `download` for what TFDS could not do.
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = _newest_version(root / name)
    if folder is None and download:
        _download_and_prepare(name, root)
        folder = _newest_version(root / name)
    if folder is None:
        by_hand = (
            f" ({' and '.join(_IMAGENET_ARCHIVES)} have to be fetched by hand first and put into "
            f"{root / 'downloads' / 'manual'})"
            if name == "imagenet2012"
            else ""
        )
        raise BibenchError(
            f"The data set '{name}' is not prepared in {root}: either pass --download to fetch and prepare "
            f"it there{by_hand}, or prepare it with TensorFlow Datasets and pass --data-dir with the folder "
            f"that holds {name}/."
        )
    return _describe(name, splits, folder)


def _newest_version(folder: Path) -> Path | None:
    """The sub-folder with the highest version that is prepared to the end, or None."""
    versions = {
        tuple(int(part) for part in entry.parent.name.split(".")): entry.parent
        for entry in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", entry.parent.name)
    }
    return versions[max(versions)] if versions else None


def _describe(name: str, splits: tuple[str, ...], folder: Path) -> Prepared:
    name = name.partition("/")[0]  # a configuration has a folder of its own, not a name
    advice = f"prepare '{name}' again, or pass --data-dir with another folder"
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        shards = {split["name"]: [int(count) for count in split["shardLengths"]] for split in info["splits"]}
        classes = tuple((folder / "label.labels.txt").read_text(encoding="utf-8").splitlines())
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
            raise BibenchError(f"The data in {folder} lack {file.name}: {advice}.")
    return Prepared(folder, info, classes, files, {split: sum(counts) for split, counts in shards.items()})


def _download_and_prepare(name: str, root: Path) -> None:
    if name == "imagenet2012":
        manual = root / "downloads" / "manual"
        for archive in _IMAGENET_ARCHIVES:
            if not (manual / archive).is_file():
                raise BibenchError(
                    f"'imagenet2012' cannot be downloaded without signing in: fetch {archive} at "
                    f"image-net.org, put it into {manual} and call again."
                )
    import tensorflow_datasets as tfds

    try:
        tfds.builder(name, data_dir=str(root)).download_and_prepare()
    except Exception as error:  # TFDS raises what its many parts raise: network, disk, checksums.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BibenchError(f"The data set '{name}' could not be prepared in {root}: {reason}") from error


@lru_cache(maxsize=1)
def _decoded(train: tuple[Path, ...], test: tuple[Path, ...], shape: tuple[int, int, int]) -> Splits:
    """All images of the record files; kept, so that every track of a session decodes them only once."""
    import tensorflow as tf

    from bibench_tf.datasets import pipelines

    arrays = []
    for files in (train, test):
        try:
            arrays += pipelines.read_all(files, shape)
        except tf.errors.OpError as error:
            raise BibenchError(
                f"Cannot read the images in {files[0].parent} ({error.message.splitlines()[0]}): "
                "prepare the data set again."
            ) from error
    return Splits(*arrays)
