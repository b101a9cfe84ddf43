"""The tf.data pipelines of images that are streamed from TFRecord files of `image` (JPEG or PNG) and `label`.

Random decisions as in `bibench_tf.datasets.pipelines.arrays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from bibench_tf.datasets.pipelines.arrays import finished, mapped

if TYPE_CHECKING:
    from bibench_tf.datasets.base import Corrupt
    from bibench_tf.datasets.kinds.records import RecordImages

# Files of an epoch that are read at once, and records that are shuffled together after that. ImageNet records have
# about 110 kB, so one window takes about 0.2 GB.
_FILES_AT_ONCE = 16
_WINDOW = 2048
# The default is faster, but differs between machines, and darkens red and blue by about one grey level.
_ACCURATE = "INTEGER_ACCURATE"


def train_batches(
    data: RecordImages, batch_size: int, part: int, parts: int, seed: int, epoch: int, augment: bool
) -> tf.data.Dataset:
    """Part number `part` of `parts` of every batch of an epoch, as `Dataset.train_parts` describes it."""
    key = tf.constant([seed, epoch], tf.int64)

    def example(index, record):
        encoded, label = _parse(record)
        if augment:
            return _random_resized_crop(encoded, data.input_shape, tf.random.fold_in(key, 2 * index + 1)), label
        return _centre_crop(encoded, data), label

    records = shuffled(data.train_files, _WINDOW, seed, epoch).enumerate()
    share = batch_size // parts
    if parts > 1:
        # An incomplete last batch may have complete parts.
        records = records.take(data.train_examples // batch_size * batch_size)
        records = records.filter(lambda index, record: index % batch_size // share == part)
    return (
        mapped(records, example)
        .batch(share, drop_remainder=True)
        .map(lambda images, labels: (data.normalise(images), labels))
        .apply(tf.data.experimental.assert_cardinality(data.train_examples // batch_size))
        .prefetch(2)
    )


def test_batches(data: RecordImages, batch_size: int, limit: int, corrupt: Corrupt | None) -> tf.data.Dataset:
    """The first `limit` images in the order of the files."""

    def example(record):
        encoded, label = _parse(record)
        return _centre_crop(encoded, data), label

    records = _interleaved(_names(data.test_files)).take(limit)
    cardinality = tf.data.experimental.assert_cardinality(-(-limit // batch_size))
    return finished(data, mapped(records, example).batch(batch_size).apply(cardinality), batch_size, corrupt)


def stored_image(record: tf.Tensor, shape: tuple[int, int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """The image of a record as it is stored, uint8 `shape`, and its label (int32 [])."""
    encoded, label = _parse(record)
    return tf.ensure_shape(decoded(encoded, shape[2]), shape), label


def stored_batches(files: Sequence[Path], shape: tuple[int, int, int], batch_size: int, limit: int) -> tf.data.Dataset:
    """The first `limit` images as they are stored, uint8 [B, *shape], with their labels (int32 [B]), in order."""
    records = in_order(files).take(limit)
    return mapped(records, lambda record: stored_image(record, shape)).batch(batch_size).prefetch(2)


def in_order(files: Sequence[Path]) -> tf.data.Dataset:
    """The records of files, one file after the other."""
    return tf.data.TFRecordDataset(_names(files))


def shuffled(files: Sequence[Path], window: int, seed: int, epoch: int) -> tf.data.Dataset:
    """The records of files in random order, read in parallel, shuffled by windows of `window` records.

    The windows are shuffled by the even numbers folded into the key (`seed`, `epoch`); odd ones are free for records.
    """
    key = tf.constant([seed, epoch], tf.int64)

    def shuffle(index, records):
        draws = tf.random.stateless_uniform(tf.shape(records), tf.random.fold_in(key, 2 * index))
        return tf.gather(records, tf.argsort(draws, stable=True))

    names = np.array(_names(files))[np.random.default_rng([seed, epoch]).permutation(len(files))]
    return _interleaved(names).batch(window).enumerate().map(shuffle).unbatch()


def decoded(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """The uint8 image [H, W, C] in JPEG or PNG bytes."""
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method=_ACCURATE)


def _names(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]


def _interleaved(names: Sequence[str] | np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(names).interleave(
        tf.data.TFRecordDataset,
        cycle_length=_FILES_AT_ONCE,
        block_length=1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    example = tf.io.parse_single_example(record, features)
    return example["image"], tf.cast(example["label"], tf.int32)


def _to_uint8(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(images), 0.0, 255.0), tf.uint8)


def _random_resized_crop(encoded: tf.Tensor, shape: tuple[int, int, int], key: tf.Tensor) -> tf.Tensor:
    box_key, flip_key = tf.unstack(tf.random.split(key))
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(encoded),
        tf.zeros([1, 0, 4]),
        seed=box_key,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.io.decode_and_crop_jpeg(encoded, window, channels=shape[2], dct_method=_ACCURATE)
    image = _to_uint8(tf.image.resize(image, shape[:2]))
    flip = tf.random.stateless_uniform([], flip_key) < 0.5
    return tf.ensure_shape(tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image), shape)


def _centre_crop(encoded: tf.Tensor, data: RecordImages) -> tf.Tensor:
    shape = data.input_shape
    image = decoded(encoded, shape[2])
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    scaled = tf.cast(tf.round(size * (data.resize / tf.reduce_min(size))), tf.int32)
    image = _to_uint8(tf.image.resize(image, scaled))
    top, left = tf.unstack((scaled - tf.constant(shape[:2])) // 2)
    return tf.ensure_shape(image[top : top + shape[0], left : left + shape[1]], shape)
