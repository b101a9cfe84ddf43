"""PASCAL VOC as TensorFlow Datasets prepares it: `voc2007`, `voc2012` and `voc0712`.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) challenge".
"""

from __future__ import annotations

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.kinds import tfds_detection
from bibench_tf.datasets.kinds.detection import DetectionDataset
from bibench_tf.datasets.kinds.tfds_detection import Marks, Part

_TRAINVAL = ("train", "validation")
_TEST_2007 = Part("voc/2007", ("test",))


@register("voc2007", task="detection", description="PASCAL VOC 2007: 5,011 / 4,952 images with boxes, 20 classes")
def voc2007(options: LoadOptions) -> DetectionDataset:
    """VOC 2007: 5,011 images to train on (trainval), 4,952 to test on, 20 classes; metrics of VOC 2007.

    Raises MissingData when the data are not prepared.
    """
    return _dataset("voc2007", "PASCAL VOC 2007", (Part("voc/2007", _TRAINVAL),), _TEST_2007, "voc2007", options)


@register("voc2012", task="detection", description="PASCAL VOC 2012: 5,717 / 5,823 images with boxes, 20 classes")
def voc2012(options: LoadOptions) -> DetectionDataset:
    """VOC 2012: 5,717 images to train on (train), 5,823 to test on (validation), 20 classes; metrics of VOC 2012.

    The annotations of its own test split are not public. Raises MissingData when the data are not prepared.
    """
    test = Part("voc/2012", ("validation",))
    return _dataset("voc2012", "PASCAL VOC 2012", (Part("voc/2012", ("train",)),), test, "voc2012", options)


@register("voc0712", task="detection", description="PASCAL VOC 07+12: 16,551 / 4,952 images with boxes, 20 classes")
def voc0712(options: LoadOptions) -> DetectionDataset:
    """VOC 07+12: 16,551 images to train on (trainval of both), tested on VOC 2007's 4,952; metrics of VOC 2007.

    BiBench trains on this data set. Raises MissingData when the data are not prepared.
    """
    train = (Part("voc/2007", _TRAINVAL), Part("voc/2012", _TRAINVAL))
    return _dataset("voc0712", "PASCAL VOC 2007 and 2012", train, _TEST_2007, "voc2007", options)


def _dataset(
    name: str, title: str, train: tuple[Part, ...], test: Part, protocol: str, options: LoadOptions
) -> DetectionDataset:
    return tfds_detection.dataset(
        name=name,
        title=title,
        source="http://host.robots.ox.ac.uk/pascal/VOC",
        licence="photographs under the terms of Flickr",
        train=train,
        test=test,
        marks=Marks("is_difficult", from_one=True),
        protocol=protocol,
        options=options,
    )
