"""Data sets of object detection: images of any size with boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bibench_tf.contents import Contents
from bibench_tf.datasets.base import Dataset
from bibench_tf.datasets.formats.annotated_images import Usable
from bibench_tf.datasets.formats.boxes import Annotated, DetectionSplits, View
from bibench_tf.detection.annotations import IGNORED
from bibench_tf.errors import BibenchError, UnknownName
from bibench_tf.files import fingerprint_description
from bibench_tf.names import own_data
from bibench_tf.networks import NETWORKS

if TYPE_CHECKING:
    import tensorflow as tf
# The protocols of evaluation, each with the family by which networks name their views.
PROTOCOLS = {"coco": "coco", "voc2007": "voc", "voc2012": "voc"}
# Of ImageNet, red, green and blue on the 0..255 scale, as in BiBench.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# The view of data sets without a view of their own, for networks that need no other.
USUAL = View((300, 300))


@dataclass(frozen=True, eq=False)
class DetectionDataset(Dataset):
    """Images with boxes: batches of (float32 images [B, H, W, 3], float32 objects [B, M, 11]).

    The columns of the objects are those of `bibench_tf.detection.annotations`; boxes are in pixels of the network's
    image. M is the largest number of objects in an image of the batch, and at least 1. `mean` and `std` have one number
    per channel on the 0..255 scale; images are normalised as (pixel - mean) / std. `protocol` is a key of `PROTOCOLS`.
    `load` returns the splits and is called once. `view` is how images become inputs of a network, see `for_network`.
    Apart from padding, the content of an epoch does not depend on the batch size.
    """

    load: Callable[[], DetectionSplits]
    protocol: str
    view: View = USUAL
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    task: ClassVar[str] = "detection"

    def __post_init__(self) -> None:
        """Raises UnknownName for an unknown protocol."""
        if self.protocol not in PROTOCOLS:
            raise UnknownName("protocol", self.protocol, PROTOCOLS)

    @property
    def network_options(self) -> Mapping[str, Any]:
        """Input shape, whose sides are None where the ratio of images is kept, and number of classes."""
        sides = (None, None) if self.view.keep_ratio else self.view.size
        return {"input_shape": (*sides, 3), "num_classes": self.num_classes}

    @property
    def fixed_options(self) -> Mapping[str, Any]:
        """As `network_options`; where the ratio of images is kept, a wide image of the largest size."""
        divisor = self.view.divisor
        sides = (divisor * -(-side // divisor) for side in self.view.size)
        return {"input_shape": (*sides, 3), "num_classes": self.num_classes}

    def for_network(self, network: str) -> DetectionDataset:
        """The same images in the view of the network called `network`.

        The `input_options` of a registered detector are None, for any view, or have a view for `coco` and one for
        `voc`. A view with `keep_ratio` means that the network takes images of any size: a data set that has its own
        view, other than `USUAL`, then keeps it.
        """
        views = NETWORKS.get(network).input_options if network in NETWORKS else None
        view = (views or {}).get(PROTOCOLS[self.protocol], self.view)
        return self if view.keep_ratio and self.view != USUAL else replace(self, view=view)

    @cached_property
    def splits(self) -> DetectionSplits:
        """The images. Raises BibenchError when their numbers differ from those of the description, or files changed."""
        splits = self.load()
        for part, split, count in (
            ("training", splits.train, self.train_examples),
            ("test", splits.test, self.test_examples),
        ):
            if isinstance(split, Annotated) and not len(split.images) == len(split.objects) == count:
                raise BibenchError(f"The description of '{self.name}' has {count} {part} images, its splits have not.")
        self.check_unchanged()
        return splits

    def _train_batches(self, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import detection

        return detection.train_batches(self, batch_size, seed, epoch, augment)

    def _test_batches(self, batch_size: int, limit: int) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import detection

        return detection.test_batches(self, batch_size, limit)


def annotated_folder(
    folder: Path,
    layout: str,
    usable: Mapping[str, Usable],
    class_names: tuple[str, ...],
    train_names: Iterable[str],
    test_names: Iterable[str],
    protocol: str,
) -> DetectionDataset:
    """The data set of a user's folder in the `layout` VOC or COCO; `usable` are its images by name.

    The fingerprint is that of classes, splits, names, objects and contents of images. Raises BibenchError unless there
    are training and test images and an object to learn from.
    """
    train, test = ([usable[name] for name in names if name in usable] for names in (train_names, test_names))
    for part, images in (("training", train), ("test", test)):
        if not images:
            raise BibenchError(f"There are no usable {part} images in {folder}.")
    if not any((image.objects[:, IGNORED] == 0).any() for image in train):
        raise BibenchError(f"No training image in {folder} has a usable object.")
    contents = Contents(image.file for image in (*train, *test))
    splits = [[(image.file.name, image.objects.tolist()) for image in images] for images in (train, test)]
    return DetectionDataset(
        name=own_data(f"{layout.lower()}_folder", folder),
        title=f"{len(class_names)} classes in images with {layout} annotations, {len(train):,} / {len(test):,}",
        source="images of the user",
        licence="as the images",
        class_names=class_names,
        train_examples=len(train),
        test_examples=len(test),
        fingerprint=lambda: fingerprint_description(
            {"classes": class_names, "splits": splits, "images": contents.digest}
        ),
        contents=contents,
        load=lambda: DetectionSplits(_annotated(train), _annotated(test)),
        protocol=protocol,
    )


def _annotated(images: Sequence[Usable]) -> Annotated:
    return Annotated(tuple(image.file for image in images), tuple(image.objects for image in images))
