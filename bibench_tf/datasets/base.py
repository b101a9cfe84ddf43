"""The base class of data sets, the entries of the registry, and the registry itself."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bibench_tf.contents import Contents
from bibench_tf.errors import BibenchError, InvalidOption, MissingData
from bibench_tf.options import checked
from bibench_tf.registry import Registry

if TYPE_CHECKING:
    import tensorflow as tf

# (uint8 images [B, H, W, C], index of the first one in the test split) -> images of the same shape and type.
Corrupt = Callable[[np.ndarray, int], np.ndarray]


class LoadOptions:
    """The place of a data set and the options of loading; the argument of every factory.

    `data_dir` is the folder in which TensorFlow Datasets keeps prepared data, None for its default, or the user's own
    file or folder in `NAME:FOLDER`. With `download` missing data are fetched. `vocabulary` is the file of word pieces
    for texts, None for the embedded one.
    """

    @checked
    def __init__(self, data_dir: Path | None = None, download: bool = False, vocabulary: Path | None = None) -> None:
        self._data_dir, self.download, self.vocabulary = data_dir, download, vocabulary
        self.is_place_read = False

    @property
    def data_dir(self) -> Path | None:
        """The place; a factory that never asks for it has no data there, which `is_place_read` shows."""
        self.is_place_read = True
        return self._data_dir

    def own_folder(self, name: str, content: str) -> Path:
        """The user's folder in `NAME:FOLDER`, for the data set `name`; `content` is what it holds, for messages.

        Raises InvalidOption where no folder is named and MissingData where there is no such folder.
        """
        if self.data_dir is None:
            raise InvalidOption(f"'{name}' needs the folder of your {content}: write {name}:FOLDER.")
        folder = self.data_dir.expanduser()
        if not folder.is_dir():
            raise MissingData(f"There is no folder {folder} with {content}.")
        return folder


Factory = Callable[[LoadOptions], "Dataset"]


@dataclass(frozen=True)
class Entry:
    """A registered data set: the function that describes it, the key of its task, and one line about it.

    An `embedded` data set is a part of the package, whose version fixes its content.
    """

    factory: Factory
    task: str
    description: str = ""
    embedded: bool = False


DATASETS: Registry[Entry] = Registry("data set", "bibench_tf.datasets", Entry)


def register(name: str, *, task: str, description: str = "", embedded: bool = False) -> Callable[[Factory], Factory]:
    """A decorator that registers a factory under `name`, and returns it unchanged.

    `task` is the key of the data set's task (`bibench_tf.tasks`). Runs on an `embedded` data set, a part of the
    package, have no fingerprint in their ids. Raises InvalidOption where the name is taken.
    """

    def decorate(factory: Factory) -> Factory:
        DATASETS.register(name, Entry(factory, task, description, embedded), origin=factory.__module__)
        return factory

    return decorate


class _Fingerprint:
    """A field for a text, or for a function that computes the text when it is first asked for."""

    def __get__(self, data: Dataset, owner: type) -> str:
        value = data.__dict__["fingerprint"]
        if not isinstance(value, str):
            value = data.__dict__["fingerprint"] = value()
        return value

    def __set__(self, data: Dataset, value: str | Callable[[], str]) -> None:
        if value is self:
            raise TypeError("A data set needs a fingerprint.")  # `dataclass` takes a descriptor for a default
        data.__dict__["fingerprint"] = value


@dataclass(frozen=True, eq=False)
class Dataset(abc.ABC):
    """A labelled data set with a training and a test split.

    `task` is the key of its task (`bibench_tf.tasks`). `class_names` name the values of the labels; they are empty
    where labels are numbers. `fingerprint` is a hexadecimal digest that changes when the data change, or a function
    that computes it when it is first asked for. `contents` are those of the files that the data are read from, where
    there are any. Examples are read when the first batches are requested.
    """

    name: str
    title: str
    source: str
    licence: str
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    fingerprint: _Fingerprint = field(default=_Fingerprint(), kw_only=True)
    contents: Contents | None = field(default=None, kw_only=True)

    task: ClassVar[str]

    def check_unchanged(self) -> None:
        """Raise BibenchError where the files of the data set have changed since it was described."""
        if self.contents is not None and not self.contents.are_unchanged:
            raise BibenchError(
                f"The data of '{self.name}' have changed while they were in use: start the command again, which takes "
                "them as they are now."
            )

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    @abc.abstractmethod
    def network_options(self) -> Mapping[str, Any]:
        """The options of a network builder for a network that fits these data."""

    @property
    def fixed_options(self) -> Mapping[str, Any]:
        """`network_options` with every size fixed, for operation counts and exported files."""
        return self.network_options

    def for_network(self, network: str) -> Dataset:
        """The same data, prepared as the network called `network` needs its inputs; the data set itself by default."""
        return self

    def train_batches(self, batch_size: int, *, seed: int, epoch: int, augment: bool = True) -> tf.data.Dataset:
        """One shuffled epoch of (inputs, labels), incomplete last batch dropped.

        Its content depends on `seed` and `epoch` (integers from 0) and the batch size alone, bit for bit. Without
        `augment` the examples are shuffled, and otherwise prepared like test examples. Raises InvalidOption for a batch
        larger than the training split, and for a negative seed or epoch.
        """
        return self.train_parts(batch_size, 0, 1, seed=seed, epoch=epoch, augment=augment)

    def train_parts(
        self, batch_size: int, part: int, parts: int, *, seed: int, epoch: int, augment: bool = True
    ) -> tf.data.Dataset:
        """Part number `part` (from 0) of `parts` equal parts of every batch of `train_batches`.

        Raises InvalidOption as `train_batches` does, and for a batch size that `parts` does not divide.
        """
        _check_batch_size(batch_size)
        if batch_size > self.train_examples:
            raise InvalidOption(
                f"A batch of {batch_size} is larger than the {self.train_examples} training examples of '{self.name}'."
            )
        if seed < 0 or epoch < 0:
            raise InvalidOption(f"Seed and epoch must be 0 or more, not {seed} and {epoch}.")
        if batch_size % parts:
            raise InvalidOption(f"A batch of {batch_size} cannot be divided into {parts} equal parts.")
        if parts == 1:
            return self._train_batches(batch_size, seed, epoch, augment)
        return self._train_parts(batch_size, part, parts, seed, epoch, augment)

    def test_batches(self, batch_size: int, *, limit: int | None = None) -> tf.data.Dataset:
        """The test examples, or the first `limit`, in fixed order, as (inputs, labels).

        Raises InvalidOption for a batch size or a limit below 1.
        """
        return self._test_batches(batch_size, self._test_limit(batch_size, limit))

    def _test_limit(self, batch_size: int, limit: int | None) -> int:
        _check_batch_size(batch_size)
        if limit is not None and limit < 1:
            raise InvalidOption(f"At least one test example is needed, not {limit}.")
        return min(limit or self.test_examples, self.test_examples)

    @abc.abstractmethod
    def _train_batches(self, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset: ...

    def _train_parts(
        self, batch_size: int, part: int, parts: int, seed: int, epoch: int, augment: bool
    ) -> tf.data.Dataset:
        import tensorflow as tf

        share = batch_size // parts
        own = slice(part * share, (part + 1) * share)
        batches = self._train_batches(batch_size, seed, epoch, augment)
        return batches.map(lambda *batch: tf.nest.map_structure(lambda values: values[own], batch))

    @abc.abstractmethod
    def _test_batches(self, batch_size: int, limit: int) -> tf.data.Dataset: ...


@dataclass(frozen=True, eq=False)
class ImageDataset(Dataset):
    """Images with one label each: (float32 images [B, H, W, C], int32 labels [B]).

    `input_shape` is (height, width, channels) of the inputs of a network. `mean` and `std` have one
    number per channel on the 0..255 scale; images are normalised as (pixel - mean) / std. The content of an epoch does
    not depend on the batch size.
    """

    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    task: ClassVar[str] = "image_classification"

    @property
    def network_options(self) -> Mapping[str, Any]:
        """Input shape and number of classes."""
        return {"input_shape": self.input_shape, "num_classes": self.num_classes}

    def normalise(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] of 0..255 as a network takes them: float32 (pixel - mean) / std."""
        return normalise(images, self.mean, self.std)

    def test_batches(
        self, batch_size: int, *, limit: int | None = None, corrupt: Corrupt | None = None
    ) -> tf.data.Dataset:
        """The test images, or the first `limit`, in fixed order: (float32 [B, H, W, C], int32 [B]).

        `corrupt` changes images before they are normalised. Raises InvalidOption as `Dataset.test_batches` does.
        """
        return self._test_batches(batch_size, self._test_limit(batch_size, limit), corrupt)

    @abc.abstractmethod
    def _test_batches(self, batch_size: int, limit: int, corrupt: Corrupt | None = None) -> tf.data.Dataset: ...


def normalise(images: np.ndarray | tf.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> tf.Tensor:
    """(pixel - mean) / std as float32; `mean` and `std` per channel on the 0..255 scale."""
    import tensorflow as tf

    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InvalidOption(f"A batch needs at least one example, not {batch_size}.")
