"""What a data set is, and the kinds there are: arrays in memory, images in memory, images streamed from records."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import tensorflow as tf

Corrupt = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Dataset(abc.ABC):
    """A labelled data set with a training and a test split.

    `task` is the key of what is learnt from it (`bibench_tf.tasks`). `class_names` name the values of the labels; a
    data set with numbers as labels has none. `fingerprint` is a hexadecimal digest that changes when the data change.
    Nothing but a description is read from the disk before batches are asked for.
    """

    name: str
    title: str
    source: str
    licence: str
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    fingerprint: str

    task: ClassVar[str]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    @abc.abstractmethod
    def network_options(self) -> Mapping[str, Any]:
        """The options a builder of the zoo needs for a network that fits these data."""

    @property
    def fixed_options(self) -> Mapping[str, Any]:
        """`network_options` with every size known, as for counting and for files."""
        return self.network_options

    def seen_by(self, network: str) -> Dataset:
        """The same data in the form that the network called `network` takes, where that differs between networks."""
        return self

    def train_batches(self, batch_size: int, *, seed: int, epoch: int, augment: bool = True) -> tf.data.Dataset:
        """One shuffled epoch of (inputs, labels), incomplete last batch dropped.

        Its content depends on `seed` and `epoch` (integers from 0) and the batch size alone, bit for bit. Without
        `augment` the examples are only shuffled and prepared as those of the test split are. Raises BibenchError for a
        batch larger than the training split.
        """
        self._check_epoch(batch_size, seed, epoch)
        return self._train_batches(batch_size, seed, epoch, augment)

    def train_parts(
        self, batch_size: int, part: int, parts: int, *, seed: int, epoch: int, augment: bool = True
    ) -> tf.data.Dataset:
        """Of every batch of `train_batches` the part number `part` (from 0) of `parts` equal ones.

        Raises BibenchError as `train_batches` does, and for a batch that does not fall into equal parts.
        """
        self._check_epoch(batch_size, seed, epoch)
        if batch_size % parts:
            raise BibenchError(f"A batch of {batch_size} does not fall into {parts} equal parts.")
        return self._train_parts(batch_size, part, parts, seed, epoch, augment)

    def _check_epoch(self, batch_size: int, seed: int, epoch: int) -> None:
        _check_batch_size(batch_size)
        if batch_size > self.train_examples:
            raise BibenchError(
                f"A batch of {batch_size} is larger than the {self.train_examples} training examples of '{self.name}'."
            )
        if seed < 0 or epoch < 0:
            raise BibenchError(f"Seed and epoch must be 0 or more, not {seed} and {epoch}.")

    def test_batches(self, batch_size: int, *, limit: int | None = None) -> tf.data.Dataset:
        """The test examples, or the first `limit`, in fixed order, as (inputs, labels)."""
        return self._test_batches(batch_size, self._test_limit(batch_size, limit))

    def _test_limit(self, batch_size: int, limit: int | None) -> int:
        _check_batch_size(batch_size)
        if limit is not None and limit < 1:
            raise BibenchError(f"At least one test example is needed, not {limit}.")
        return min(limit or self.test_examples, self.test_examples)

    @abc.abstractmethod
    def _train_batches(self, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset: ...

    def _train_parts(
        self, batch_size: int, part: int, parts: int, seed: int, epoch: int, augment: bool
    ) -> tf.data.Dataset:
        from bibench_tf.datasets import pipelines

        return pipelines.parts_of(self._train_batches(batch_size, seed, epoch, augment), part, batch_size // parts)

    @abc.abstractmethod
    def _test_batches(self, batch_size: int, limit: int) -> tf.data.Dataset: ...


# One array, or arrays by the name of the network's input; examples along the first axis.
Inputs = np.ndarray | Mapping[str, np.ndarray]


class Examples(NamedTuple):
    """A whole data set in memory."""

    train_inputs: Inputs
    train_labels: np.ndarray
    test_inputs: Inputs
    test_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class ArrayDataset(Dataset):
    """A data set of any task that fits in memory.

    `load` returns its examples and is called once, when they are needed. `transform(inputs, labels, key)` makes a
    batch of them what the network takes, by TensorFlow operations on whole batches. `key` is a seed (int64 [2]) for
    the stateless random operations of the augmentation; None, for test examples and where no augmentation is wanted.
    `options` are the `network_options`.
    """

    task: str  # type: ignore[misc]
    load: Callable[[], Examples]
    options: Mapping[str, Any]
    transform: Callable[[Any, tf.Tensor, tf.Tensor | None], tuple[Any, tf.Tensor]] | None = None

    @property
    def network_options(self) -> Mapping[str, Any]:
        """`options`."""
        return self.options

    @cached_property
    def examples(self) -> Examples:
        """The arrays. Raises BibenchError when their numbers are not those of the description."""
        data = self.load()
        for part, inputs, labels, count in (
            ("training", data.train_inputs, data.train_labels, self.train_examples),
            ("test", data.test_inputs, data.test_labels, self.test_examples),
        ):
            arrays = [*inputs.values()] if isinstance(inputs, Mapping) else [inputs]
            if any(len(array) != count for array in (*arrays, labels)):
                raise BibenchError(f"'{self.name}' does not have the {count} {part} examples that it is said to have.")
        return data

    @cached_property
    def _train_tensors(self) -> tuple[Any, tf.Tensor]:
        from bibench_tf.datasets import pipelines

        return pipelines.on_host(self.examples.train_inputs, self.examples.train_labels)

    def _train_batches(self, batch_size, seed, epoch, augment):
        from bibench_tf.datasets import pipelines

        return pipelines.transformed_train_batches(
            *self._train_tensors, batch_size, self.transform, seed=seed, epoch=epoch, augment=augment
        )

    def _test_batches(self, batch_size, limit):
        from bibench_tf.datasets import pipelines

        data = self.examples
        return pipelines.transformed_test_batches(
            data.test_inputs, data.test_labels, batch_size, self.transform, limit=limit
        )


@dataclass(frozen=True, eq=False)
class ImageDataset(Dataset):
    """Images with one label each: (float32 images [B, H, W, C], int32 labels [B]).

    `input_shape` is (height, width, channels) of the images a network sees. `mean` and `std` have one
    number per channel on the 0..255 scale; images leave the pipelines as (pixel - mean) / std. The content of an epoch
    does not depend on the batch size.
    """

    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    task: ClassVar[str] = "image_classification"

    @property
    def network_options(self) -> Mapping[str, Any]:
        """Input shape and number of classes."""
        return {"input_shape": self.input_shape, "num_classes": self.num_classes}

    def test_batches(
        self, batch_size: int, *, limit: int | None = None, corrupt: Corrupt | None = None
    ) -> tf.data.Dataset:
        """The test images, or the first `limit`, in fixed order: (float32 [B, H, W, C], int32 [B]).

        `corrupt` gets uint8 images [B, H, W, C] and the index of the first one, before they are normalised,
        and returns images of the same shape and type.
        """
        return self._test_batches(batch_size, self._test_limit(batch_size, limit), corrupt)

    @abc.abstractmethod
    def _test_batches(self, batch_size: int, limit: int, corrupt: Corrupt | None = None) -> tf.data.Dataset: ...


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

    def _test_batches(self, batch_size, limit, corrupt=None):
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

    def _train_parts(self, batch_size, part, parts, seed, epoch, augment):
        from bibench_tf.datasets import pipelines

        # The images of other parts are read but not decoded, which is what takes time.
        return pipelines.record_train_batches(
            self, batch_size, seed=seed, epoch=epoch, augment=augment, part=part, parts=parts
        )

    def _test_batches(self, batch_size, limit, corrupt=None):
        from bibench_tf.datasets import pipelines

        return pipelines.record_test_batches(self, batch_size, limit, corrupt)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise BibenchError(f"A batch needs at least one example, not {batch_size}.")
