from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import datasets

MEAN, STD, PADDING = (10.0, 20.0, 30.0), (4.0, 5.0, 6.0), 2
RANDOM = np.random.default_rng(1)
TRAIN, TEST = RANDOM.integers(0, 256, (2, 50, 7, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def dataset():
    # The label of an image is its position, so that every image can be traced through the pipeline.
    return datasets.ArrayImages(
        name="traced",
        title="",
        source="",
        licence="",
        input_shape=(7, 6, 3),
        class_names=tuple(str(index) for index in range(50)),
        train_examples=50,
        test_examples=50,
        mean=MEAN,
        std=STD,
        fingerprint="",
        load=lambda: datasets.Splits(TRAIN, np.arange(50), TEST, np.arange(50)),
        padding=PADDING,
    )


def collect(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def normalised(images):
    return ((images.astype(np.float64) - MEAN) / STD).astype(np.float32)


def test_shapes_types_and_dropped_remainder(dataset):
    batches = dataset.train_batches(16, seed=0, epoch=0)
    assert len(batches) == 3
    images, labels = batches.element_spec
    assert images.shape == (16, 7, 6, 3) and images.dtype == tf.float32 and labels.dtype == tf.int32
    assert collect(batches)[0].shape == (48, 7, 6, 3)


def test_without_augmentation_an_epoch_is_a_permutation_of_the_normalised_images(dataset):
    images, labels = collect(dataset.train_batches(10, seed=3, epoch=1, augment=False))
    assert sorted(labels) == list(range(50)) and list(labels) != list(range(50))
    np.testing.assert_allclose(images, normalised(TRAIN[labels]), rtol=1e-6, atol=1e-6)


def test_an_epoch_depends_on_seed_and_epoch_alone(dataset):
    first = collect(dataset.train_batches(10, seed=3, epoch=1))
    tf.random.set_seed(99)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    again = collect(dataset.train_batches(10, seed=3, epoch=1).with_options(options))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for seed, epoch in ((3, 2), (4, 1), (1, 3)):
        assert list(collect(dataset.train_batches(10, seed=seed, epoch=epoch))[1]) != list(first[1])


def test_the_order_of_other_examples_depends_on_seed_and_epoch_too():
    """Of arrays that are no images, whose order an augmentation would hide."""
    places = datasets.Examples(np.arange(50.0), np.arange(50), np.arange(2.0), np.arange(2))
    data = datasets.ArrayDataset(
        **{"name": "places", "title": "", "source": "", "licence": "", "fingerprint": ""},
        task="keyword_spotting",
        class_names=tuple(map(str, range(50))),
        train_examples=50,
        test_examples=2,
        load=lambda: places,
        options={},
    )
    orders = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inputs, labels = collect(data.train_batches(10, seed=seed, epoch=epoch))
        np.testing.assert_array_equal(inputs, labels)
        assert sorted(labels) == list(range(50))
        assert list(labels) == list(collect(data.train_batches(10, seed=seed, epoch=epoch))[1])
        orders[seed, epoch] = tuple(labels)
    assert len({*orders.values(), tuple(range(50))}) == 5


def test_batch_size_and_augmentation_leave_the_order_alone(dataset):
    _, order = collect(dataset.train_batches(10, seed=0, epoch=0))
    assert list(order) == list(collect(dataset.train_batches(25, seed=0, epoch=0))[1])
    assert list(order) == list(collect(dataset.train_batches(10, seed=0, epoch=0, augment=False))[1])


def crops_by_hand(image):
    """All crops of a padded image that augmentation can make, by (top, left, mirrored)."""
    height, width, channels = image.shape
    canvas = np.zeros((height + 2 * PADDING, width + 2 * PADDING, channels), np.uint8)
    canvas[PADDING : PADDING + height, PADDING : PADDING + width] = image
    for top in range(2 * PADDING + 1):
        for left in range(2 * PADDING + 1):
            crop = canvas[top : top + height, left : left + width]
            yield (top, left, False), crop
            yield (top, left, True), crop[:, ::-1]


def test_augmentation_is_a_crop_of_the_padded_image_mirrored_half_the_time(dataset):
    seen = []
    for epoch in range(12):
        images, labels = collect(dataset.train_batches(50, seed=0, epoch=epoch))
        for image, label in zip(images, labels, strict=True):
            matches = [
                key
                for key, crop in crops_by_hand(TRAIN[label])
                if np.allclose(normalised(crop), image, rtol=1e-5, atol=1e-5)
            ]
            assert len(matches) == 1
            seen += matches
    tops, lefts, mirrored = np.array(seen).T
    for offsets in (tops, lefts):
        # 600 draws of 5 offsets: 120 of each expected, standard deviation 10.
        assert np.all(np.abs(np.bincount(offsets, minlength=2 * PADDING + 1) - 120) < 50)
    assert 240 < mirrored.sum() < 360
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


def test_test_images_come_in_order_and_none_is_dropped(dataset):
    images, labels = collect(dataset.test_batches(16))
    assert list(labels) == list(range(50))
    np.testing.assert_allclose(images, normalised(TEST), rtol=1e-6, atol=1e-6)
    assert [len(labels) for _, labels in dataset.test_batches(16, limit=20)] == [16, 4]
    assert len(collect(dataset.test_batches(16, limit=1000))[1]) == 50


def test_corrupt_sees_raw_images_and_their_place(dataset):
    calls = {}

    def corrupt(images, first_index):
        calls[int(first_index)] = images.copy()
        return 255 - images

    images, _ = collect(dataset.test_batches(16, limit=40, corrupt=corrupt))
    assert sorted(calls) == [0, 16, 32]
    np.testing.assert_array_equal(np.concatenate([calls[key] for key in sorted(calls)]), TEST[:40])
    np.testing.assert_allclose(images, normalised(255 - TEST[:40]), rtol=1e-6, atol=1e-6)
