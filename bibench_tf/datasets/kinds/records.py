"""Image data sets too large for memory, streamed from TFRecord files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tf.datasets.base import Corrupt, ImageDataset

if TYPE_CHECKING:
    import tensorflow as tf


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

    def _train_batches(self, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset:
        return self._train_parts(batch_size, 0, 1, seed, epoch, augment)

    def _train_parts(
        self, batch_size: int, part: int, parts: int, seed: int, epoch: int, augment: bool
    ) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import records

        # The images of other parts are read but not decoded; decoding is the slow step.
        return records.train_batches(self, batch_size, part, parts, seed, epoch, augment)

    def _test_batches(self, batch_size: int, limit: int, corrupt: Corrupt | None = None) -> tf.data.Dataset:
        from bibench_tf.datasets.pipelines import records

        return records.test_batches(self, batch_size, limit, corrupt)
