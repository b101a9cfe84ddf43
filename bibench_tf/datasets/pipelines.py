"""The tf.data pipelines of image data sets.

Every random decision of an epoch comes from (seed, epoch) by stateless means, and every operation is
element by element, so that an epoch is the same bit for bit whatever the thread count and TensorFlow's
global seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bibench_tf.datasets.base import Corrupt, RecordImages

# Files of a streamed epoch read at once, and records that are shuffled together after that. ImageNet
# records have about 110 kB, so one window takes about 0.2 GB.
_FILES_AT_ONCE = 16
_WINDOW = 2048
# The default is faster, but differs between machines, and darkens red and blue by about one grey level.
_ACCURATE = "INTEGER_ACCURATE"


def on_host(*arrays):
    """The arrays, or mappings of names to arrays, as tensors in the memory of the host."""
    with tf.device("CPU:0"):
        return tuple(tf.nest.map_structure(tf.constant, array) for array in arrays)


def transformed_train_batches(
    inputs, labels: tf.Tensor, batch_size: int, transform, *, seed: int, epoch: int, augment: bool
) -> tf.data.Dataset:
    """One epoch of arrays in memory, shuffled, by batches; `transform` as in `ArrayDataset`."""
    order = np.random.default_rng([seed, epoch]).permutation(labels.shape[0])
    epoch_key = tf.constant([seed, epoch], tf.int64)

    def batch(index, chosen):
        chosen = tf.ensure_shape(chosen, [batch_size])
        key = tf.random.fold_in(epoch_key, index) if augment else None
        examples = tf.nest.map_structure(lambda array: tf.gather(array, chosen), (inputs, labels))
        return examples if transform is None else transform(*examples, key)

    return (
        tf.data.Dataset.from_tensor_slices(order)
        .batch(batch_size, drop_remainder=True)
        .enumerate()
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(2)
    )


def transformed_test_batches(inputs, labels: np.ndarray, batch_size: int, transform, *, limit: int) -> tf.data.Dataset:
    """The first `limit` of the given examples in order."""
    first = tf.nest.map_structure(lambda array: array[:limit], (inputs, labels))
    batches = tf.data.Dataset.from_tensor_slices(first).batch(batch_size)
    if transform is not None:
        batches = batches.map(
            lambda *examples: transform(*examples, None), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
    return batches.prefetch(2)


def normalise(images: tf.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> tf.Tensor:
    """(pixel - mean) / std as float32; `mean` and `std` per channel on the 0..255 scale."""
    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)


def crop_and_flip(images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, flip: tf.Tensor, padding: int) -> tf.Tensor:
    """Pad [B, H, W, C] with zeros on each side, crop [H, W] at (`top`, `left`), mirror the crop where `flip`.

    `top` and `left` are int32 [B] in 0..2 * padding, `flip` bool [B]. One gather does it for the whole batch.
    """
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    columns = tf.range(width)[None, :]
    columns = tf.where(flip[:, None], width - 1 - columns, columns) + left[:, None]
    rows = tf.range(height)[None, :] + top[:, None]
    padded_width = width + 2 * padding
    pixels = rows[:, :, None] * padded_width + columns[:, None, :]
    flat = tf.reshape(padded, [-1, (height + 2 * padding) * padded_width, images.shape[3]])
    return tf.gather(flat, pixels, axis=1, batch_dims=1)


def array_train_batches(
    images: tf.Tensor,
    labels: tf.Tensor,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    padding: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tf.data.Dataset:
    """One epoch of arrays in memory, shuffled; augmented where `padding` is a number."""
    random = np.random.default_rng([seed, epoch])
    count = images.shape[0]
    # The order is drawn first: it is then the same with and without augmentation.
    order = random.permutation(count).astype(np.int32)
    offsets = random.integers(0, 2 * (padding or 0) + 1, (count, 2), dtype=np.int32)
    flips = random.random(count) < 0.5

    def batch(index, offset, flip):
        chosen = tf.gather(images, index)
        if padding is not None:
            chosen = crop_and_flip(chosen, offset[:, 0], offset[:, 1], flip, padding)
        chosen = tf.ensure_shape(chosen, [batch_size, *images.shape[1:]])
        return normalise(chosen, mean, std), tf.gather(labels, index)

    decisions = tf.data.Dataset.from_tensor_slices((order, offsets, flips))
    return (
        decisions.batch(batch_size, drop_remainder=True)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(2)
    )


def array_test_batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    corrupt: Corrupt | None,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tf.data.Dataset:
    """The given images and labels in order, corrupted if asked for."""
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    return _test_batches(batches, batch_size, corrupt, mean, std)


def read_all(files: Sequence[Path], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """All images (uint8 [N, H, W, C]) and labels (int32 [N]) of record files, in their order.

    Raises tf.errors.OpError for files that are damaged.
    """
    batches = stored_batches(files, shape, batch_size=1000, limit=-1)
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def parts_of(batches: tf.data.Dataset, part: int, share: int) -> tf.data.Dataset:
    """Part number `part` of every batch, `share` examples long."""
    return batches.map(
        lambda *batch: tf.nest.map_structure(lambda values: values[part * share : (part + 1) * share], batch)
    )


def record_train_batches(
    dataset: RecordImages, batch_size: int, *, seed: int, epoch: int, augment: bool, part: int = 0, parts: int = 1
) -> tf.data.Dataset:
    """One epoch of a streamed data set: files in random order, read side by side, shuffled by windows.

    Of every batch only part number `part` of `parts`.
    """
    files = np.array([str(file) for file in dataset.train_files])
    files = files[np.random.default_rng([seed, epoch]).permutation(len(files))]
    key = tf.constant([seed, epoch], tf.int64)

    def shuffle(window, records):
        draws = tf.random.stateless_uniform(tf.shape(records), tf.random.fold_in(key, 2 * window))
        return tf.gather(records, tf.argsort(draws, stable=True))

    def example(index, record):
        encoded, label = _parse(record)
        if augment:
            return _random_resized_crop(encoded, dataset.input_shape, tf.random.fold_in(key, 2 * index + 1)), label
        return _centre_crop(encoded, dataset.input_shape, dataset.resize), label

    records = _records(files).batch(_WINDOW).enumerate().map(shuffle).unbatch()
    records = records.enumerate()
    share = batch_size // parts
    if parts > 1:
        # An incomplete last batch may have complete parts.
        records = records.take(dataset.train_examples // batch_size * batch_size)
        records = records.filter(lambda index, record: index % batch_size // share == part)
    return (
        records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(share, drop_remainder=True)
        .map(lambda images, labels: (normalise(images, dataset.mean, dataset.std), labels))
        .apply(tf.data.experimental.assert_cardinality(dataset.train_examples // batch_size))
        .prefetch(2)
    )


def record_test_batches(dataset: RecordImages, batch_size: int, limit: int, corrupt: Corrupt | None) -> tf.data.Dataset:
    """The first `limit` test images of a streamed data set, in the order of its files."""

    def example(record):
        encoded, label = _parse(record)
        return _centre_crop(encoded, dataset.input_shape, dataset.resize), label

    batches = (
        _records([str(file) for file in dataset.test_files])
        .take(limit)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .apply(tf.data.experimental.assert_cardinality(-(-limit // batch_size)))
    )
    return _test_batches(batches, batch_size, corrupt, dataset.mean, dataset.std)


def stored_batches(files: Sequence[Path], shape: tuple[int, int, int], batch_size: int, limit: int) -> tf.data.Dataset:
    """The first `limit` (-1: all) images, uint8 [B, *shape], and labels of record files, one after the other."""

    def example(record):
        encoded, label = _parse(record)
        return tf.ensure_shape(_decode(encoded, shape[2]), shape), label

    records = tf.data.TFRecordDataset([str(file) for file in files]).take(limit)
    return records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch_size).prefetch(2)


def _test_batches(batches, batch_size, corrupt, mean, std) -> tf.data.Dataset:
    def finish(index, batch):
        images, labels = batch
        if corrupt is not None:
            shape = images.shape
            images = tf.numpy_function(corrupt, [images, index * batch_size], tf.uint8, stateful=False)
            images = tf.ensure_shape(images, shape)
        return normalise(images, mean, std), labels

    return batches.enumerate().map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def _records(files) -> tf.data.Dataset:
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


def _centre_crop(encoded: tf.Tensor, shape: tuple[int, int, int], resize: int) -> tf.Tensor:
    image = _decode(encoded, shape[2])
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    scaled = tf.cast(tf.round(size * (resize / tf.reduce_min(size))), tf.int32)
    image = _to_uint8(tf.image.resize(image, scaled))
    top, left = tf.unstack((scaled - tf.constant(shape[:2])) // 2)
    return tf.ensure_shape(image[top : top + shape[0], left : left + shape[1]], shape)
