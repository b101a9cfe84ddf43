"""`cifar10`: CIFAR-10 as TensorFlow Datasets prepares it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats.tfds_prepared import prepared, read
from bibench_tf.datasets.kinds.arrays import ArrayImages, Splits

SHAPE = (32, 32, 3)


@register("cifar10", task="image_classification", description="CIFAR-10: 50,000 / 10,000 images of 32x32, 10 classes")
def get(options: LoadOptions) -> ArrayImages:
    """CIFAR-10: 50,000 training and 10,000 test colour images of 32x32 in ten classes, held in memory.

    Normalised by mean and standard deviation of BiBench's CIFAR-10 configurations. Raises MissingData when the data are
    not prepared. Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    found = prepared("cifar10", ("train", "test"), options)
    return ArrayImages(
        name="cifar10",
        title="CIFAR-10",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated by the authors",
        input_shape=SHAPE,
        class_names=found.class_names,
        train_examples=found.examples["train"],
        test_examples=found.examples["test"],
        mean=(125.307, 122.961, 113.8575),
        std=(51.5865, 50.847, 51.255),
        fingerprint=found.fingerprint,
        contents=found.contents,
        load=partial(_decoded, found.files["train"], found.files["test"]),
        padding=4,
    )


def _decoded(train: tuple[Path, ...], test: tuple[Path, ...]) -> Splits:
    """All images of the record files."""
    from bibench_tf.datasets.pipelines.records import stored_image

    return Splits(*(array for files in (train, test) for array in read(files, partial(stored_image, shape=SHAPE))))
