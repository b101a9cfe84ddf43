"""`fashion_mini`: a subset of Fashion-MNIST inside the package."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import embedded
from bibench_tf.datasets.kinds.arrays import ArrayImages, Splits

FILE = embedded.FOLDER / "fashion_mini.npz"
SHA256 = "c4d7b43bbe689753ccdb9eab24cdbb9fdfc99aba9a3e0d06423f9d0d7979b387"
CLASSES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def load(file: Path = FILE) -> Splits:
    """The arrays in `file`: uint8 images [8000, 28, 28, 1] and [2000, 28, 28, 1], labels 0..9.

    Raises MissingData when the file is missing, and BibenchError when its SHA-256 differs.
    """
    with np.load(io.BytesIO(embedded.read(file, SHA256)), allow_pickle=False) as content:
        return Splits(**{name: content[name] for name in Splits._fields})


@register(
    "fashion_mini",
    task="image_classification",
    description="Fashion-MNIST, 8,000 / 2,000 images of 28x28, 10 classes; comes with the package",
    embedded=True,
)
def get(options: LoadOptions) -> ArrayImages:
    """A stratified subset of Fashion-MNIST: 800 training and 200 test images of each of the ten classes.

    Training images are drawn from the official training split and test images from the official test split,
    see `bibench_tf.datasets.making.fashion_mini`. The options are not used. Source: Xiao, Rasul and
    Vollgraf 2017, arXiv 1708.07747.
    """
    return ArrayImages(
        name="fashion_mini",
        title="Fashion-MNIST, stratified subset 8,000 / 2,000",
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT, copyright 2017 Zalando SE",
        input_shape=(28, 28, 1),
        class_names=CLASSES,
        train_examples=8000,
        test_examples=2000,
        # Of the 8,000 training images.
        mean=(72.8126,),
        std=(89.9378,),
        fingerprint=SHA256,
        load=load,
        padding=2,
    )
