"""The published corrupted test sets CIFAR-10-C and ImageNet-C, from the user's copies.

They come prepared by TensorFlow Datasets (`cifar10_corrupted`, `imagenet2012_corrupted`, a configuration for each
corruption and severity), or as the authors' folder of arrays (`CIFAR-10-C/fog.npy`, ..., `labels.npy`). Source:
Hendrycks and Dietterich 2019, arXiv 1903.12261; https://zenodo.org/records/2535967.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bibench_tf import contents
from bibench_tf.corruptions.export import SETTINGS_FILE
from bibench_tf.datasets.base import ImageDataset, LoadOptions
from bibench_tf.datasets.formats.tfds_prepared import prepared
from bibench_tf.datasets.kinds.arrays import ArrayImages
from bibench_tf.errors import BibenchError, InvalidOption, MissingData
from bibench_tf.files import digest

TFDS = "tfds"
_SEVERITIES = 5
# Images whose labels are compared, and the correlation of thumbnails and the number that such a comparison needs.
_COMPARED = 200
_ALIKE = 0.9
_LEAST_COMPARED = 20
# By data set: the name in TensorFlow Datasets, the test split, and corruptions that have another name there.
_PREPARED = {
    "cifar10": ("cifar10_corrupted", "test", {"elastic_transform": "elastic", "glass_blur": "frosted_glass_blur"}),
    "imagenet2012": ("imagenet2012_corrupted", "validation", {}),
}

Batches = Iterable[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class PublishedSet:
    """A published corrupted test set of a data set.

    `batches(corruption, severity, batch_size, limit)` reads the first `limit` images, uint8 [B, H, W, C], with their
    labels [B]. Their order is the same for all corruptions and severities, but need not be that of the clean test
    images. It raises BibenchError for files that are damaged and for labels that do not fit the data set.

    `fingerprint(corruption)` is a digest of the images and labels of a corruption, hexadecimal: it changes when they
    do, and does not depend on the place of the files. `check()` raises BibenchError for labels that are not those of
    the test images, or not those of the corrupted images.
    """

    title: str
    batches: Callable[[str, int, int, int], Batches]
    fingerprint: Callable[[str], str]
    check: Callable[[], None]


def find(
    source: str,
    dataset: ImageDataset,
    corruptions: Sequence[str],
    data_dir: Path | None = None,
    download: bool = False,
) -> PublishedSet:
    """The published corrupted test set of `dataset`: prepared by TensorFlow Datasets (`tfds`), or in a folder.

    `source` is `tfds` or the path of a folder of arrays. No images are read here, but all files have to be there;
    with `download` TensorFlow Datasets fetches and prepares missing ones. Raises InvalidOption for data sets without
    such a set, MissingData for missing files, and BibenchError for files that do not fit the data set or were made from
    other data.
    """
    if source == TFDS:
        return _by_tfds(dataset, corruptions, LoadOptions(data_dir, download))
    return _in_folder(Path(source).expanduser(), dataset, corruptions)


def _by_tfds(dataset: ImageDataset, corruptions: Sequence[str], options: LoadOptions) -> PublishedSet:
    if dataset.name not in _PREPARED:
        raise InvalidOption(
            f"TensorFlow Datasets has no corrupted images of '{dataset.name}', only of {' and '.join(_PREPARED)}: "
            "use made ones."
        )
    name, split, own_names = _PREPARED[dataset.name]
    sets = {}
    for corruption in corruptions:
        for severity in range(1, _SEVERITIES + 1):
            config = f"{name}/{own_names.get(corruption, corruption)}_{severity}"
            found = prepared(config, (split,), options)
            if found.examples[split] != dataset.test_examples or found.class_names != dataset.class_names:
                raise BibenchError(
                    f"'{config}' has {found.examples[split]:,} images of {len(found.class_names)} classes, not "
                    f"the {dataset.test_examples:,} test images of '{dataset.name}' and its classes."
                )
            sets[corruption, severity] = found

    def batches(corruption: str, severity: int, batch_size: int, limit: int) -> Batches:
        import tensorflow as tf

        from bibench_tf.datasets.pipelines import records

        found = sets[corruption, severity].files[split]
        try:
            yield from records.stored_batches(found, dataset.input_shape, batch_size, limit).as_numpy_iterator()
        except tf.errors.OpError as error:
            raise BibenchError(
                f"Cannot read the images in {found[0].parent} ({error.message.splitlines()[0]}): "
                f"prepare '{name}' again."
            ) from error

    def fingerprint(corruption: str) -> str:
        return digest([sets[corruption, severity].fingerprint() for severity in range(1, _SEVERITIES + 1)])

    # Images and labels are in one record, and their number and classes were compared above.
    return PublishedSet(f"{name} of TensorFlow Datasets", batches, fingerprint, check=lambda: None)


def _in_folder(folder: Path, dataset: ImageDataset, corruptions: Sequence[str]) -> PublishedSet:
    if not isinstance(dataset, ArrayImages):
        raise InvalidOption(
            f"Corrupted images of '{dataset.name}' are not read from a folder of arrays: use made ones."
        )
    missing = [name for name in (*corruptions, "labels") if not (folder / f"{name}.npy").is_file()]
    if missing:
        raise MissingData(
            f"The folder {folder} lacks {', '.join(f'{name}.npy' for name in missing)}: give the folder CIFAR-10-C "
            "as its authors publish it, or fewer corruptions."
        )
    made_from, wanted = _made_from(folder), str(dataset.fingerprint)
    if made_from not in (None, wanted):
        raise BibenchError(
            f"The images in {folder} were made from other data than the test images of '{dataset.name}' (fingerprint "
            f"{made_from[:12]}, not {wanted[:12]}): make them again by bibench corrupt."
        )
    shape = (_SEVERITIES * dataset.test_examples, *dataset.input_shape)
    for name in corruptions:
        images = _mapped(folder / f"{name}.npy")
        if images.dtype != np.uint8 or images.shape != shape:
            raise BibenchError(
                f"{folder / name}.npy holds {images.dtype} {list(images.shape)}, not uint8 {list(shape)}: five "
                f"severities of the {dataset.test_examples:,} test images of '{dataset.name}'."
            )

    def fingerprint(corruption: str) -> str:
        return contents.digest_of([folder / f"{corruption}.npy", folder / "labels.npy"])

    def check() -> None:
        labels = _labels(folder / "labels.npy", dataset)
        if made_from is not None and not np.array_equal(labels, dataset.splits.test_labels):
            raise BibenchError(
                f"{folder / 'labels.npy'} holds the labels of '{dataset.name}' in another order than the images, which "
                "were made from the test images in their order: make them again by bibench corrupt."
            )
        expected = _thumbnails(dataset.splits.test_images)
        for name in corruptions:
            _check_order(folder / f"{name}.npy", labels, expected, dataset)

    return PublishedSet(
        f"the authors' arrays in {folder.name}", partial(_read_arrays, folder, dataset), fingerprint, check
    )


def _made_from(folder: Path) -> str | None:
    """The fingerprint of the data that `bibench corrupt` made the images of a folder from; None for other folders."""
    try:
        return json.loads((folder / SETTINGS_FILE).read_text("utf-8"))["fingerprint"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BibenchError(
            f"{folder / SETTINGS_FILE} does not say what the images were made from ({type(error).__name__}): make them "
            "again by bibench corrupt."
        ) from error


def _read_arrays(
    folder: Path, dataset: ArrayImages, corruption: str, severity: int, batch_size: int, limit: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    labels = _labels(folder / "labels.npy", dataset)
    images = _mapped(folder / f"{corruption}.npy")
    first = (severity - 1) * dataset.test_examples
    for start in range(0, limit, batch_size):
        end = min(start + batch_size, limit)
        yield np.array(images[first + start : first + end]), labels[start:end]


def _labels(path: Path, dataset: ArrayImages) -> np.ndarray:
    """The labels of one severity, checked to be those of the data set's test images in any order."""
    expected = dataset.splits.test_labels
    labels = _mapped(path)
    if labels.shape == (_SEVERITIES * len(expected),) and labels.dtype.kind in "ui":
        labels = np.array(labels).reshape(_SEVERITIES, -1)
        # Files may have the images in another order; other numbers by class mean other images.
        if (labels == labels[0]).all() and np.array_equal(np.sort(labels[0]), np.sort(expected)):
            return labels[0].astype(np.int32)
    raise BibenchError(f"{path} does not hold the labels of the test images of '{dataset.name}', five times over.")


def _check_order(path: Path, labels: np.ndarray, clean: np.ndarray, dataset: ArrayImages) -> None:
    """Refuse labels that are not those of the images in `path`; `clean` are the thumbnails of the test images.

    A mildly corrupted image looks like the test image that it was made from, and has its label. Where the labels are in
    another order than the images, these labels agree by chance only. Of CIFAR-10 at severity 1, 99 % or more of the
    labels agree for every corruption, against 6 to 15 % for a wrong order. Images that look like none are left out.
    """
    count, expected = dataset.test_examples, dataset.splits.test_labels
    chosen = np.unique(np.linspace(0, count - 1, _COMPARED).astype(int))
    likeness = _thumbnails(_mapped(path)[chosen]) @ clean.T
    alike = likeness.max(axis=1) > _ALIKE
    agree = labels[chosen][alike] == expected[likeness.argmax(axis=1)[alike]]
    chance = np.square(np.bincount(expected) / count).sum()
    if len(agree) >= _LEAST_COMPARED and agree.mean() < (1 + chance) / 2:
        raise BibenchError(
            f"The labels in {path.parent} are not those of the images in {path.name}: of {len(agree)} that look like a "
            f"test image of '{dataset.name}', {int(agree.sum())} have its label. Give the labels in the order of the "
            "images."
        )


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] as rows of at most 8 x 8 grey levels, of mean 0 and length 1: float32 [N, 64].

    Brightness and contrast are lost. The products of rows are correlations, 0 for an image of one grey.
    """
    levels = images.mean(axis=3, dtype=np.float32)
    for axis in (1, 2):
        edges = np.linspace(0, levels.shape[axis], min(8, levels.shape[axis]) + 1).astype(int)
        sizes = np.diff(edges).reshape([-1 if each == axis else 1 for each in range(3)])
        levels = np.add.reduceat(levels, edges[:-1], axis=axis) / sizes
    rows = levels.reshape(len(images), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(lengths > 1e-3, rows, 0) / np.maximum(lengths, 1e-3)


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BibenchError(f"{path} cannot be read as an array ({error}): fetch it again.") from error
