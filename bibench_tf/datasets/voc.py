"""PASCAL VOC as TensorFlow Datasets prepares it: `voc2007`, `voc2012` and `voc0712`.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) challenge".
"""

from __future__ import annotations

from pathlib import Path

from bibench_tf.datasets import tfds_detection
from bibench_tf.datasets.detection import FASTER_RCNN_VOC, SSD300, DetectionDataset
from bibench_tf.datasets.tfds_detection import Marks, Part

_TRAINVAL = ("train", "validation")
_TEST_2007 = Part("voc/2007", ("test",))


def voc2007(data_dir: Path | None = None, download: bool = False) -> DetectionDataset:
    """VOC 2007: 5,011 images to train on (trainval), 4,952 to test on, 20 classes; figures of VOC 2007.

    Raises BibenchError when the data are not prepared.
    """
    return _dataset(
        "voc2007", "PASCAL VOC 2007", (Part("voc/2007", _TRAINVAL),), _TEST_2007, "voc2007", data_dir, download
    )


def voc2012(data_dir: Path | None = None, download: bool = False) -> DetectionDataset:
    """VOC 2012: 5,717 images to train on (train), 5,823 to test on (validation), 20 classes; figures of VOC 2012.

    The annotations of its own test split are not public. Raises BibenchError when the data are not prepared.
    """
    test = Part("voc/2012", ("validation",))
    return _dataset("voc2012", "PASCAL VOC 2012", (Part("voc/2012", ("train",)),), test, "voc2012", data_dir, download)


def voc0712(data_dir: Path | None = None, download: bool = False) -> DetectionDataset:
    """VOC 07+12: 16,551 images to train on (trainval of both), tested on VOC 2007's 4,952; figures of VOC 2007.

    What BiBench trains on. Raises BibenchError when the data are not prepared.
    """
    train = (Part("voc/2007", _TRAINVAL), Part("voc/2012", _TRAINVAL))
    return _dataset("voc0712", "PASCAL VOC 2007 and 2012", train, _TEST_2007, "voc2007", data_dir, download)


def _dataset(name, title, train, test, protocol, data_dir, download) -> DetectionDataset:
    return tfds_detection.dataset(
        name=name,
        title=title,
        source="http://host.robots.ox.ac.uk/pascal/VOC",
        licence="photographs under the terms of Flickr",
        train=train,
        test=test,
        marks=Marks("is_difficult", from_one=True),
        view=SSD300,
        views={"faster_rcnn_resnet18": FASTER_RCNN_VOC},
        protocol=protocol,
        data_dir=data_dir,
        download=download,
    )
