"""Corruptions within a tf.data pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import corruptions
from bibench_tf.errors import BibenchError

NAMES = ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")


@pytest.mark.parametrize("name", NAMES)
def test_images_one_by_one_or_in_batches_are_those_of_apply(name, colour):
    expected = corruptions.apply(name, colour, 3, seed=4)
    labels = np.arange(len(colour))
    data = tf.data.Dataset.from_tensor_slices((colour, labels))
    single = data.enumerate().map(corruptions.transform(name, 3, seed=4), num_parallel_calls=4)
    for batches in (
        single.batch(5),
        data.batch(7).enumerate().map(corruptions.transform(name, 3, batch_size=7, seed=4), num_parallel_calls=4),
    ):
        assert batches.element_spec[0].shape[1:] == (32, 32, 3)
        for _ in range(2):  # the same in every pass
            images, found = zip(*batches.as_numpy_iterator(), strict=True)
            np.testing.assert_array_equal(np.concatenate(images), expected)
            np.testing.assert_array_equal(np.concatenate(found), labels)


def test_elements_may_be_images_or_dictionaries(grey):
    expected = corruptions.apply("fog", grey, 2, table="imagenet")
    change = corruptions.transform("fog", 2, table="imagenet")
    images = tf.data.Dataset.from_tensor_slices(grey).enumerate().map(change)
    np.testing.assert_array_equal(np.stack(list(images.as_numpy_iterator())), expected)
    records = tf.data.Dataset.from_tensor_slices({"image": grey, "id": np.arange(24)}).enumerate().map(change)
    for index, record in enumerate(records.as_numpy_iterator()):
        assert record["id"] == index
        np.testing.assert_array_equal(record["image"], expected[index])


def test_what_cannot_work_is_refused_when_the_pipeline_is_made(grey):
    images = tf.data.Dataset.from_tensor_slices(grey).enumerate()
    with pytest.raises(BibenchError, match="needs colour"):
        images.map(corruptions.transform("saturate", 2))
    with pytest.raises(BibenchError, match="Did you mean 'fog'"):
        corruptions.transform("fogg", 2)
