"""`coco2017`: COCO as TensorFlow Datasets prepares it."""

from __future__ import annotations

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.kinds import tfds_detection
from bibench_tf.datasets.kinds.detection import DetectionDataset
from bibench_tf.datasets.kinds.tfds_detection import Marks, Part


@register("coco2017", task="detection", description="COCO 2017: 118,287 / 5,000 images with boxes, 80 classes")
def get(options: LoadOptions) -> DetectionDataset:
    """COCO 2017: 118,287 images to train on, 5,000 to test on (validation), 80 classes; metrics of COCO.

    Raises MissingData when the data are not prepared. Source: Lin et al. 2014, arXiv 1405.0312.
    """
    return tfds_detection.dataset(
        name="coco2017",
        title="COCO 2017",
        source="https://cocodataset.org",
        licence="annotations CC BY 4.0, photographs under the terms of Flickr",
        train=(Part("coco/2017", ("train",)),),
        test=Part("coco/2017", ("validation",)),
        marks=Marks("is_crowd", "area"),
        protocol="coco",
        options=options,
    )
