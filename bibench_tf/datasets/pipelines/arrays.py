"""The tf.data pipelines of examples in memory.

Every random decision of an epoch comes from (seed, epoch) by stateless means, and every operation is element by
element, so that an epoch is the same bit for bit whatever the thread count and TensorFlow's global seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from bibench_tf.datasets.base import Corrupt

# As in `bibench_tf.datasets.kinds.arrays.ArrayDataset`.
Transform = Callable[[Any, tf.Tensor, "tf.Tensor | None"], tuple[Any, tf.Tensor]]


def on_host(*arrays: Any) -> tuple[Any, ...]:
    """The arrays, or mappings of names to arrays, as tensors in the memory of the host."""
    with tf.device("CPU:0"):
        return tuple(tf.nest.map_structure(tf.constant, array) for array in arrays)


def transformed_train_batches(
    inputs: Any,
    labels: tf.Tensor,
    batch_size: int,
    transform: Transform | None,
    *,
    seed: int,
    epoch: int,
    augment: bool,
) -> tf.data.Dataset:
    """One shuffled epoch of arrays, or of mappings of names to arrays."""
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


def transformed_test_batches(
    inputs: Any, labels: np.ndarray, batch_size: int, transform: Transform | None, *, limit: int
) -> tf.data.Dataset:
    """The first `limit` of the given examples in order."""
    first = tf.nest.map_structure(lambda array: array[:limit], (inputs, labels))
    batches = tf.data.Dataset.from_tensor_slices(first).batch(batch_size)
    if transform is not None:
        batches = batches.map(
            lambda *examples: transform(*examples, None), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
    return batches.prefetch(2)


def parts_of(batches: tf.data.Dataset, part: int, share: int) -> tf.data.Dataset:
    """Part number `part` of every batch, `share` examples long."""
    return batches.map(
        lambda *batch: tf.nest.map_structure(lambda values: values[part * share : (part + 1) * share], batch)
    )


def normalise(images: tf.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> tf.Tensor:
    """(pixel - mean) / std as float32; `mean` and `std` per channel on the 0..255 scale."""
    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)


def crop_and_flip(images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, flip: tf.Tensor, padding: int) -> tf.Tensor:
    """Pad [B, H, W, C] with zeros on each side, crop [H, W] at (`top`, `left`), and mirror the crop where `flip`.

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
    """The given images and labels in order, the images changed by `corrupt` if it is given."""
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    return corrupted_and_normalised(batches, batch_size, corrupt, mean, std)


def corrupted_and_normalised(
    batches: tf.data.Dataset,
    batch_size: int,
    corrupt: Corrupt | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tf.data.Dataset:
    """Batches of uint8 images and labels as a network takes them, the images changed by `corrupt` if it is given."""

    def finish(index, batch):
        images, labels = batch
        if corrupt is not None:
            shape = images.shape
            images = tf.numpy_function(corrupt, [images, index * batch_size], tf.uint8, stateful=False)
            images = tf.ensure_shape(images, shape)
        return normalise(images, mean, std), labels

    return batches.enumerate().map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)
