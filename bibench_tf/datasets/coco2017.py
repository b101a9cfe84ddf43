"""`coco2017`: COCO as TensorFlow Datasets prepares it."""

from __future__ import annotations

from pathlib import Path

from bibench_tf.datasets import tfds_detection
from bibench_tf.datasets.detection import FASTER_RCNN_COCO, SSD300, DetectionDataset
from bibench_tf.datasets.tfds_detection import Marks, Part


def get(data_dir: Path | None = None, download: bool = False) -> DetectionDataset:
    """COCO 2017: 118,287 images to train on, 5,000 to test on (validation), 80 classes; figures of COCO.

    Raises BibenchError when the data are not prepared. Source: Lin et al. 2014, arXiv 1405.0312.
    """
    return tfds_detection.dataset(
        name="coco2017",
        title="COCO 2017",
        source="https://cocodataset.org",
        licence="annotations CC BY 4.0, photographs under the terms of Flickr",
        train=(Part("coco/2017", ("train",)),),
        test=Part("coco/2017", ("validation",)),
        marks=Marks("is_crowd", "area"),
        view=FASTER_RCNN_COCO,
        views={"ssd300_vgg16": SSD300, "ssd_lite": SSD300},
        protocol="coco",
        data_dir=data_dir,
        download=download,
    )
