"""What a data set of object detection is: images of any size with boxes, and how they become a network's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from bibench_tf.datasets.base import Dataset
from bibench_tf.errors import BibenchError, UnknownName

if TYPE_CHECKING:
    import tensorflow as tf

AUGMENTATIONS = ("flip", "ssd")
PROTOCOLS = ("coco", "voc2007", "voc2012")
# Of ImageNet, red, green and blue on the 0..255 scale, as in BiBench.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# What is stored of an object: the first columns of `bibench_tf.detection.annotations`, in pixels of the original image.
STORED_COLUMNS = 7


@dataclass(frozen=True)
class View:
    """How images become what the network sees.

    Without `keep_ratio` every image is resized to `size` (height, width). With it, `size` is (short side, long side):
    the image is made as large as it can be with its short side at most the first and its long side at most the second,
    and zeros are added at the bottom and on the right, after normalisation, up to multiples of `divisor` and to the
    largest image of the batch. All in pixels.

    `augmentation` is what happens to training images: `flip`, left and right with probability 0.5, or `ssd`, which
    adds expansion, crops and distortion of colours (`bibench_tf.datasets.detection_pipelines`).
    """

    size: tuple[int, int]
    keep_ratio: bool = False
    divisor: int = 1
    augmentation: str = "ssd"

    def __post_init__(self):
        """Raises BibenchError for sizes that are no sizes and for an unknown augmentation."""
        if min(*self.size, self.divisor) < 1 or (self.keep_ratio and self.size[0] > self.size[1]):
            raise BibenchError(
                f"A view needs sizes of 1 or more, the short side before the long one, not {self.size} and a divisor "
                f"of {self.divisor}."
            )
        if self.augmentation not in AUGMENTATIONS:
            raise UnknownName("augmentation", self.augmentation, AUGMENTATIONS)


SSD300 = View((300, 300))
FASTER_RCNN_VOC = View((600, 1000), keep_ratio=True, divisor=32, augmentation="flip")
FASTER_RCNN_COCO = View((800, 1333), keep_ratio=True, divisor=32, augmentation="flip")


class Annotated(NamedTuple):
    """Images that can be taken in any order.

    `images` are files (JPEG or PNG), read when they are needed, or uint8 [N, H, W, 3]. `objects` has for each a float32
    array [objects, 7]: the columns of `bibench_tf.detection.annotations` up to AREA, in pixels of the image.
    """

    images: tuple[Path, ...] | np.ndarray
    objects: tuple[np.ndarray, ...]


class Recorded(NamedTuple):
    """Images streamed from TFRecord files: `parse` makes (encoded image, objects as in `Annotated`) of a record.

    The objects that `parse` gives have boxes as shares of the image's height and width, and an area of 0 stands for the
    box's.
    """

    files: tuple[Path, ...]
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class DetectionSplits(NamedTuple):
    """The images of the training and of the test split."""

    train: Annotated | Recorded
    test: Annotated | Recorded


@dataclass(frozen=True, eq=False)
class DetectionDataset(Dataset):
    """Images with boxes: batches of (float32 images [B, H, W, 3], float32 objects [B, M, 11]).

    The columns of the objects are those of `bibench_tf.detection.annotations`; their boxes lie in the image that the
    network sees. M is that of the image with the most objects, and at least 1. `mean` and `std` have one number per
    channel on the 0..255 scale; images leave the pipelines as (pixel - mean) / std. `protocol` names the figures:
    `voc2007`, `voc2012` or `coco`. `load` returns the splits and is called once.

    `view` is how networks see the images, but for those that `views` has another for, by their names. The content of an
    epoch does not depend on the batch size, but for what pads images and rows.
    """

    load: Callable[[], DetectionSplits]
    view: View
    protocol: str
    views: Mapping[str, View] = field(default_factory=dict)
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    task: ClassVar[str] = "detection"

    def __post_init__(self):
        """Raises BibenchError for an unknown protocol."""
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

    def seen_by(self, network: str) -> DetectionDataset:
        """The same images in the view of the network called `network`."""
        return replace(self, view=self.views.get(network, self.view))

    @cached_property
    def splits(self) -> DetectionSplits:
        """The images. Raises BibenchError when their numbers are not those of the description."""
        splits = self.load()
        for part, split, count in (
            ("training", splits.train, self.train_examples),
            ("test", splits.test, self.test_examples),
        ):
            if isinstance(split, Annotated) and not len(split.images) == len(split.objects) == count:
                raise BibenchError(f"'{self.name}' does not have the {count} {part} images that it is said to have.")
        return splits

    def _train_batches(self, batch_size, seed, epoch, augment):
        from bibench_tf.datasets import detection_pipelines

        return detection_pipelines.train_batches(self, batch_size, seed=seed, epoch=epoch, augment=augment)

    def _test_batches(self, batch_size, limit):
        from bibench_tf.datasets import detection_pipelines

        return detection_pipelines.test_batches(self, batch_size, limit)
