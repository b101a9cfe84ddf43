"""Classification of images."""

from __future__ import annotations

from bibench_tf.tasks.base import register
from bibench_tf.tasks.classification import Classification


@register
class ImageClassification(Classification):
    """Images (B, H, W, C): Fashion-MNIST, CIFAR-10, ImageNet."""

    key = "image_classification"
    title = "Image classification"
    group = "cnn"
    network = "resnet20@0.5"
    default_data = "fashion_mini"
    zoo_options = {"input_shape": (224, 224, 3), "num_classes": 1000}
    is_of_images = True
    unit = "image"
