"""`imagenet2012`: ImageNet (ILSVRC 2012) as TensorFlow Datasets prepares it."""

from __future__ import annotations

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats.tfds_prepared import ByHand, prepared
from bibench_tf.datasets.kinds.records import RecordImages

_ARCHIVES = ByHand(("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"), "image-net.org")


@register("imagenet2012", task="image_classification", description="ImageNet: 1,281,167 / 50,000 images, 1,000 classes")
def get(options: LoadOptions) -> RecordImages:
    """ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 test images, 1,000 classes, streamed at 224x224.

    The validation split serves as test split. The archives have to be fetched by hand, after signing in at
    image-net.org; with `download` TFDS prepares them. Raises MissingData when the data are not prepared.
    Source: Russakovsky et al. 2015, arXiv 1409.0575; mean and standard deviation as in BiBench.
    """
    found = prepared("imagenet2012", ("train", "validation"), options, by_hand=_ARCHIVES)
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
        fingerprint=found.fingerprint,
        contents=found.contents,
        train_files=found.files["train"],
        test_files=found.files["validation"],
    )
