"""The tf.data pipelines of images that are streamed from TFRecord files of `image` (JPEG or PNG) and `label`.

Random decisions as in `bibench_tf.datasets.pipelines.arrays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from bibench_tf.datasets.pipelines.arrays import corrupted_and_normalised, normalise

if TYPE_CHECKING:
    from bibench_tf.datasets.base import Corrupt

# Files of an epoch that are read at once, and records that are shuffled together after that. ImageNet records have
# about 110 kB, so one window takes about 0.2 GB.
_FILES_AT_ONCE = 16
_WINDOW = 2048
# The default is faster, but differs between machines, and darkens red and blue by about one grey level.
_ACCURATE = "INTEGER_ACCURATE"


class Form(NamedTuple):
    """The form of a network's images: (height, width, channels), and mean and std per channel on the 0..255 scale.

    `resize` is the short side in pixels before test images are cropped in the middle.
    """

    shape: tuple[int, int, int]
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def train_batches(
    files: Sequence[Path],
    form: Form,
    batch_size: int,
    *,
    examples: int,
    seed: int,
    epoch: int,
    augment: bool,
    part: int = 0,
    parts: int = 1,
) -> tf.data.Dataset:
    """One epoch of `examples` images: files in random order, read in parallel, shuffled by windows.

    Of every batch only part number `part` of `parts`.
    """
    names = np.array([str(file) for file in files])
    names = names[np.random.default_rng([seed, epoch]).permutation(len(names))]
    key = tf.constant([seed, epoch], tf.int64)

    def shuffle(window, records):
        draws = tf.random.stateless_uniform(tf.shape(records), tf.random.fold_in(key, 2 * window))
        return tf.gather(records, tf.argsort(draws, stable=True))

    def example(index, record):
        encoded, label = _parse(record)
        if augment:
            return _random_resized_crop(encoded, form.shape, tf.random.fold_in(key, 2 * index + 1)), label
        return _centre_crop(encoded, form), label

    records = _records(names).batch(_WINDOW).enumerate().map(shuffle).unbatch()
    records = records.enumerate()
    share = batch_size // parts
    if parts > 1:
        # An incomplete last batch may have complete parts.
        records = records.take(examples // batch_size * batch_size)
        records = records.filter(lambda index, record: index % batch_size // share == part)
    return (
        records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(share, drop_remainder=True)
        .map(lambda images, labels: (normalise(images, form.mean, form.std), labels))
        .apply(tf.data.experimental.assert_cardinality(examples // batch_size))
        .prefetch(2)
    )


def test_batches(
    files: Sequence[Path], form: Form, batch_size: int, limit: int, corrupt: Corrupt | None
) -> tf.data.Dataset:
    """The first `limit` images in the order of the files."""

    def example(record):
        encoded, label = _parse(record)
        return _centre_crop(encoded, form), label

    batches = (
        _records([str(file) for file in files])
        .take(limit)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .apply(tf.data.experimental.assert_cardinality(-(-limit // batch_size)))
    )
    return corrupted_and_normalised(batches, batch_size, corrupt, form.mean, form.std)


def stored_image(record: tf.Tensor, shape: tuple[int, int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """The image of a record as it is stored, uint8 `shape`, and its label (int32 [])."""
    encoded, label = _parse(record)
    return tf.ensure_shape(_decode(encoded, shape[2]), shape), label


def stored_batches(files: Sequence[Path], shape: tuple[int, int, int], batch_size: int, limit: int) -> tf.data.Dataset:
    """The first `limit` images as they are stored, uint8 [B, *shape], with their labels (int32 [B]), in order."""
    records = tf.data.TFRecordDataset([str(file) for file in files]).take(limit)
    images = records.map(
        lambda record: stored_image(record, shape), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return images.batch(batch_size).prefetch(2)


def _records(files: Sequence[str] | np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(files).interleave(
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


def _decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """The uint8 image [H, W, C] in JPEG or PNG bytes."""
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method=_ACCURATE)


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


def _centre_crop(encoded: tf.Tensor, form: Form) -> tf.Tensor:
    shape = form.shape
    image = _decode(encoded, shape[2])
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    scaled = tf.cast(tf.round(size * (form.resize / tf.reduce_min(size))), tf.int32)
    image = _to_uint8(tf.image.resize(image, scaled))
    top, left = tf.unstack((scaled - tf.constant(shape[:2])) // 2)
    return tf.ensure_shape(image[top : top + shape[0], left : left + shape[1]], shape)
