"""Data sets in memory: arrays of any kind, and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bibench_tf.datasets.base import Corrupt, Dataset, ImageDataset
from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import tensorflow as tf

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

    `load` returns its examples and is called once, when they are needed. `transform(inputs, labels, key)` turns a
    batch of stored examples into a batch for the network, by TensorFlow operations on whole batches. `key` is a seed
    (int64 [2]) for the stateless random operations of the augmentation, and None for test examples and for training
    without augmentation. `options` are the `network_options`.
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
        """The arrays. Raises BibenchError when their lengths differ from the description, and when files changed."""
        data = self.load()
        for part, inputs, labels, count in (
            ("training", data.train_inputs, data.train_labels, self.train_examples),
            ("test", data.test_inputs, data.test_labels, self.test_examples),
        ):
            arrays = [*inputs.values()] if isinstance(inputs, Mapping) else [inputs]
            if any(len(array) != count for array in (*arrays, labels)):
                raise BibenchError(
                    f"The description of '{self.name}' has {count} {part} examples, its arrays have not."
                )
        self.check_unchanged()
        return data

    @cached_property
    def train_tensors(self) -> tuple[Any, tf.Tensor]:
        """Inputs and labels of the training split, in the memory of the host."""
        from bibench_tf.datasets.pipelines import arrays

        return arrays.on_host(self.examples.train_inputs, self.examples.train_labels)

    def _train_batches(self, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import arrays

        return arrays.train_batches(self, batch_size, seed, epoch, augment)

    def _test_batches(self, batch_size: int, limit: int) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import arrays

        return arrays.test_batches(self, batch_size, limit)


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
        """The arrays, labels as int32. Raises BibenchError when they differ from the description or files changed."""
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
        self.check_unchanged()
        return data._replace(
            train_labels=data.train_labels.astype(np.int32), test_labels=data.test_labels.astype(np.int32)
        )

    @cached_property
    def train_tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and labels of the training split, in the memory of the host."""
        from bibench_tf.datasets.pipelines import arrays

        return arrays.on_host(self.splits.train_images, self.splits.train_labels)

    def _train_batches(self, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import arrays

        return arrays.image_train_batches(self, batch_size, seed, epoch, augment)

    def _test_batches(self, batch_size: int, limit: int, corrupt: Corrupt | None = None) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import arrays

        return arrays.image_test_batches(self, batch_size, limit, corrupt)
