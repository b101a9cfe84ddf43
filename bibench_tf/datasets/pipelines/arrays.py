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
    from bibench_tf.datasets.base import Corrupt, ImageDataset
    from bibench_tf.datasets.kinds.arrays import ArrayDataset, ArrayImages


def mapped(examples: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """`function` of all elements, computed in parallel and kept in order."""
    return examples.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def on_host(*arrays: Any) -> tuple[Any, ...]:
    """The arrays, or mappings of names to arrays, as tensors in the memory of the host."""
    with tf.device("CPU:0"):
        return tuple(tf.nest.map_structure(tf.constant, array) for array in arrays)


def train_batches(data: ArrayDataset, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset:
    """One shuffled epoch, as `Dataset.train_batches` describes it."""
    order = np.random.default_rng([seed, epoch]).permutation(data.train_examples)
    epoch_key = tf.constant([seed, epoch], tf.int64)
    tensors = data.train_tensors  # made here, outside of the graph

    def batch(index, chosen):
        key = tf.random.fold_in(epoch_key, index) if augment else None
        examples = tf.nest.map_structure(lambda array: tf.gather(array, chosen), tensors)
        return examples if data.transform is None else data.transform(*examples, key)

    batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=True)
    return mapped(batches.enumerate(), batch).prefetch(2)


def test_batches(data: ArrayDataset, batch_size: int, limit: int) -> tf.data.Dataset:
    """The first `limit` test examples in order."""
    examples = (data.examples.test_inputs, data.examples.test_labels)
    first = tf.nest.map_structure(lambda array: array[:limit], examples)
    batches = tf.data.Dataset.from_tensor_slices(first).batch(batch_size)
    if data.transform is not None:
        batches = mapped(batches, lambda inputs, labels: data.transform(inputs, labels, None))
    return batches.prefetch(2)


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


def image_train_batches(data: ArrayImages, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset:
    """One shuffled epoch, as `Dataset.train_batches` describes it."""
    random = np.random.default_rng([seed, epoch])
    count, padding = data.train_examples, data.padding
    # The order is drawn first: it is then the same with and without augmentation.
    order = random.permutation(count).astype(np.int32)
    offsets = random.integers(0, 2 * padding + 1, (count, 2), dtype=np.int32)
    flips = random.random(count) < 0.5
    images, labels = data.train_tensors

    def batch(index, offset, flip):
        chosen = tf.gather(images, index)
        if augment:
            chosen = crop_and_flip(chosen, offset[:, 0], offset[:, 1], flip, padding)
        return data.normalise(chosen), tf.gather(labels, index)

    decisions = tf.data.Dataset.from_tensor_slices((order, offsets, flips))
    return mapped(decisions.batch(batch_size, drop_remainder=True), batch).prefetch(2)


def image_test_batches(data: ArrayImages, batch_size: int, limit: int, corrupt: Corrupt | None) -> tf.data.Dataset:
    """The first `limit` test images in order, changed by `corrupt` if it is given."""
    first = (data.splits.test_images[:limit], data.splits.test_labels[:limit])
    return finished(data, tf.data.Dataset.from_tensor_slices(first).batch(batch_size), batch_size, corrupt)


def finished(data: ImageDataset, batches: tf.data.Dataset, batch_size: int, corrupt: Corrupt | None) -> tf.data.Dataset:
    """Batches of uint8 images and labels as a network takes them, the images changed by `corrupt` if it is given."""

    def finish(index, batch):
        images, labels = batch
        if corrupt is not None:
            shape = images.shape
            images = tf.numpy_function(corrupt, [images, index * batch_size], tf.uint8, stateful=False)
            images = tf.ensure_shape(images, shape)
        return data.normalise(images), labels

    return mapped(batches.enumerate(), finish).prefetch(2)
