"""What an image data set is, and the two kinds there are: in memory, or streamed from prepared records."""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import tensorflow as tf

Corrupt = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class ImageDataset(abc.ABC):
    """A labelled image data set with a training and a test split.

    `input_shape` is (height, width, channels) of the images a network sees. `mean` and `std` have one
    number per channel on the 0..255 scale; images leave the pipelines as (pixel - mean) / std.
    `fingerprint` is a hexadecimal digest that changes when the data change. Nothing is read from the disk
    before batches are asked for.
    """

    name: str
    title: str
    source: str
    licence: str
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def train_batches(self, batch_size: int, *, seed: int, epoch: int, augment: bool = True) -> tf.data.Dataset:
        """One shuffled epoch: (float32 images [B, H, W, C], int32 labels [B]), incomplete last batch dropped.

        Its content depends on `seed` and `epoch` (integers from 0) alone, bit for bit. Without `augment`
        the images are only shuffled and normalised. Raises BibenchError for a batch larger than the
        training split.
        """
        _check_batch_size(batch_size)
        if batch_size > self.train_examples:
            raise BibenchError(
                f"A batch of {batch_size} is larger than the {self.train_examples} training images of '{self.name}'."
            )
        if seed < 0 or epoch < 0:
            raise BibenchError(f"Seed and epoch must be 0 or more, not {seed} and {epoch}.")
        return self._train_batches(batch_size, seed, epoch, augment)

    def test_batches(
        self, batch_size: int, *, limit: int | None = None, corrupt: Corrupt | None = None
    ) -> tf.data.Dataset:
        """The test images, or the first `limit`, in fixed order: (float32 [B, H, W, C], int32 [B]).

        `corrupt` gets uint8 images [B, H, W, C] and the index of the first one, before they are normalised,
        and returns images of the same shape and type.
        """
        _check_batch_size(batch_size)
        if limit is not None and limit < 1:
            raise BibenchError(f"At least one test image is needed, not {limit}.")
        return self._test_batches(batch_size, min(limit or self.test_examples, self.test_examples), corrupt)

    @abc.abstractmethod
    def _train_batches(self, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset: ...

    @abc.abstractmethod
    def _test_batches(self, batch_size: int, limit: int, corrupt: Corrupt | None) -> tf.data.Dataset: ...


class Splits(NamedTuple):
    """A whole data set in memory: uint8 images [N, H, W, C] and integer labels [N]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class ArrayImages(ImageDataset):
    """A data set that fits in memory; `load` returns its arrays and is called once, when they are needed.

    Augmentation: `padding` black pixels on each side, a random crop of the original size, and with
    probability 0.5 a left-right flip.
    """

    load: Callable[[], Splits]
    padding: int = 4

    @cached_property
    def splits(self) -> Splits:
        """The arrays, labels as int32. Raises BibenchError when they do not fit the description."""
        data = self.load()
        for part, images, labels, examples in (
            ("training", data.train_images, data.train_labels, self.train_examples),
            ("test", data.test_images, data.test_labels, self.test_examples),
        ):
            if images.dtype != np.uint8 or images.shape != (examples, *self.input_shape):
                raise BibenchError(
                    f"The {part} images of '{self.name}' are {images.dtype} {list(images.shape)}, "
                    f"not uint8 {[examples, *self.input_shape]}."
                )
            if labels.shape != (examples,) or labels.min() < 0 or labels.max() >= self.num_classes:
                raise BibenchError(
                    f"The {part} labels of '{self.name}' are not {examples} numbers from 0 to {self.num_classes - 1}."
                )
        return data._replace(
            train_labels=data.train_labels.astype(np.int32), test_labels=data.test_labels.astype(np.int32)
        )

    @cached_property
    def _train_tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        from bibench_tf.datasets import pipelines

        return pipelines.on_host(self.splits.train_images, self.splits.train_labels)

    def _train_batches(self, batch_size, seed, epoch, augment):
        from bibench_tf.datasets import pipelines

        return pipelines.array_train_batches(
            *self._train_tensors,
            batch_size,
            seed=seed,
            epoch=epoch,
            padding=self.padding if augment else None,
            mean=self.mean,
            std=self.std,
        )

    def _test_batches(self, batch_size, limit, corrupt):
        from bibench_tf.datasets import pipelines

        data = self.splits
        return pipelines.array_test_batches(
            data.test_images[:limit],
            data.test_labels[:limit],
            batch_size,
            corrupt,
            mean=self.mean,
            std=self.std,
        )


@dataclass(frozen=True, eq=False)
class RecordImages(ImageDataset):
    """A data set too large for memory, streamed from TFRecord files of `image` (JPEG) and `label`.

    Augmentation: a random crop of 8..100 % of the area and aspect ratio 3/4..4/3, resized to the input
    shape, and with probability 0.5 a left-right flip. Test images (and training images without
    augmentation) are resized to `resize` pixels on the short side and cropped in the middle.
    """

    train_files: tuple[Path, ...]
    test_files: tuple[Path, ...]
    resize: int = 256

    def _train_batches(self, batch_size, seed, epoch, augment):
        from bibench_tf.datasets import pipelines

        return pipelines.record_train_batches(self, batch_size, seed=seed, epoch=epoch, augment=augment)

    def _test_batches(self, batch_size, limit, corrupt):
        from bibench_tf.datasets import pipelines

        return pipelines.record_test_batches(self, batch_size, limit, corrupt)


def fingerprint_arrays(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 over type, shape and bytes of `arrays`, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_files(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of `files` in the given order, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint_description(description: Mapping[str, Any]) -> str:
    """SHA-256 over a description in plain JSON values, for data too large to read whole."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise BibenchError(f"A batch needs at least one image, not {batch_size}.")
