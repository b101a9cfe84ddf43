"""Image data sets that TensorFlow Datasets prepares: `cifar10` and `imagenet2012`."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from bibench_tf.datasets.base import ArrayImages, RecordImages, Splits
from bibench_tf.datasets.tfds_prepared import ByHand, prepared
from bibench_tf.errors import BibenchError
from bibench_tf.files import fingerprint_description, fingerprint_files

_IMAGENET_ARCHIVES = ByHand(("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"), "image-net.org")


def cifar10(data_dir: Path | None = None, download: bool = False) -> ArrayImages:
    """CIFAR-10: 50,000 training and 10,000 test colour images of 32x32 in ten classes, held in memory.

    Normalised by mean and standard deviation of BiBench's CIFAR-10 configurations. Raises BibenchError when
    the data are not prepared. Source: Krizhevsky 2009, "Learning multiple layers of features from tiny
    images".
    """
    found = prepared("cifar10", ("train", "test"), data_dir, download)
    return ArrayImages(
        name="cifar10",
        title="CIFAR-10",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated by the authors",
        input_shape=(32, 32, 3),
        class_names=found.class_names,
        train_examples=found.examples["train"],
        test_examples=found.examples["test"],
        mean=(125.307, 122.961, 113.8575),
        std=(51.5865, 50.847, 51.255),
        fingerprint=fingerprint_files(found.files["train"] + found.files["test"]),
        load=partial(_decoded, found.files["train"], found.files["test"], (32, 32, 3)),
        padding=4,
    )


def imagenet2012(data_dir: Path | None = None, download: bool = False) -> RecordImages:
    """ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 test images, 1,000 classes, streamed at 224x224.

    The validation split serves as test split. The archives have to be fetched by hand, after signing in at
    image-net.org; with `download` TFDS prepares them. Raises BibenchError when the data are not prepared.
    Source: Russakovsky et al. 2015, arXiv 1409.0575; mean and standard deviation as in BiBench.
    """
    found = prepared("imagenet2012", ("train", "validation"), data_dir, download, by_hand=_IMAGENET_ARCHIVES)
    return RecordImages(
        name="imagenet2012",
        title="ImageNet (ILSVRC 2012)",
        source="https://www.image-net.org",
        licence="ImageNet terms of access: non-commercial research and education",
        input_shape=(224, 224, 3),
        class_names=found.class_names,
        train_examples=found.examples["train"],
        test_examples=found.examples["validation"],
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        # Its 150 GB are not read for a digest: version, examples and bytes of every shard stand for them.
        fingerprint=fingerprint_description({key: found.info[key] for key in ("name", "version", "splits")}),
        train_files=found.files["train"],
        test_files=found.files["validation"],
    )


@lru_cache(maxsize=1)
def _decoded(train: tuple[Path, ...], test: tuple[Path, ...], shape: tuple[int, int, int]) -> Splits:
    """All images of the record files; kept, so that every track of a session decodes them only once."""
    import tensorflow as tf

    from bibench_tf.datasets import pipelines

    arrays = []
    for files in (train, test):
        try:
            arrays += pipelines.read_all(files, shape)
        except tf.errors.OpError as error:
            raise BibenchError(
                f"Cannot read the images in {files[0].parent} ({error.message.splitlines()[0]}): "
                "prepare the data set again."
            ) from error
    return Splits(*arrays)
