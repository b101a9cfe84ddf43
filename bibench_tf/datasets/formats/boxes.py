"""Images with boxes: how they are stored, and how a network sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bibench_tf.errors import InvalidOption, UnknownName
from bibench_tf.options import check_fields

if TYPE_CHECKING:
    import tensorflow as tf

AUGMENTATIONS = ("flip", "ssd")
# Columns stored for each object: the first of `bibench_tf.detection.annotations`, in pixels of the original image.
STORED_COLUMNS = 7


@dataclass(frozen=True)
class View:
    """How images become what the network sees.

    Without `keep_ratio` every image is resized to `size` (height, width). With it, `size` is (short side, long side):
    the image is made as large as it can be with its short side at most the first and its long side at most the second,
    and zeros are added at the bottom and on the right, after normalisation, up to multiples of `divisor` and to the
    largest image of the batch. All in pixels.

    `augmentation` is what happens to training images: `flip`, left and right with probability 0.5, or `ssd`, which
    adds expansion, crops and distortion of colours (`bibench_tf.datasets.pipelines.detection`).
    """

    size: tuple[int, int]
    keep_ratio: bool = False
    divisor: int = 1
    augmentation: str = "ssd"

    def __post_init__(self) -> None:
        """Raises InvalidOption for impossible sizes and UnknownName for an unknown augmentation."""
        check_fields(self)
        if min(*self.size, self.divisor) < 1 or (self.keep_ratio and self.size[0] > self.size[1]):
            raise InvalidOption(
                f"A view needs sizes of 1 or more, the short side before the long one, not {self.size} and a divisor "
                f"of {self.divisor}."
            )
        if self.augmentation not in AUGMENTATIONS:
            raise UnknownName("augmentation", self.augmentation, AUGMENTATIONS)


class Annotated(NamedTuple):
    """Images with random access.

    `images` are files (JPEG or PNG), read when they are needed, or uint8 [N, H, W, 3]. `objects` has for each image a
    float32 array [objects, 7]: the columns of `bibench_tf.detection.annotations` up to AREA, in pixels of the image.
    """

    images: tuple[Path, ...] | np.ndarray
    objects: tuple[np.ndarray, ...]


class Recorded(NamedTuple):
    """Images streamed from TFRecord files: `parse` makes (encoded image, objects as in `Annotated`) of a record.

    The boxes of these objects are shares of the image's height and width, and an area of 0 means the area of the box.
    """

    files: tuple[Path, ...]
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class DetectionSplits(NamedTuple):
    """The images of the training and of the test split."""

    train: Annotated | Recorded
    test: Annotated | Recorded
