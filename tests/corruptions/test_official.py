"""Against the authors' set, where it is: BIBENCH_CIFAR10C names the folder with fog.npy, ..., and the clean test set.

The clean images are those of `cifar10`; BIBENCH_DATA_DIR says where TensorFlow Datasets keeps it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bibench_tf import corruptions, datasets
from bibench_tf.errors import BibenchError

IMAGES = 2000
# Frost is drawn here and photographed there.
LOOSE = {"frost"}


@pytest.fixture(scope="module")
def official():
    folder = os.environ.get("BIBENCH_CIFAR10C")
    if not folder:
        pytest.skip("BIBENCH_CIFAR10C does not say where CIFAR-10-C is")
    return Path(folder)


def coarse(images):
    """The means of 4 x 4 fields of 8 x 8 pixels: float [N, 48]."""
    return images.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4)).reshape(-1, 48)


@pytest.fixture(scope="module")
def clean(official):
    """The clean images of the first corrupted ones, in the authors' order."""
    try:
        images = datasets.get("cifar10", os.environ.get("BIBENCH_DATA_DIR")).splits.test_images
    except BibenchError as error:
        pytest.skip(str(error))
    # Whatever the order is: an image that is a little brighter is still most like itself.
    theirs = coarse(np.load(official / "brightness.npy", mmap_mode="r", allow_pickle=False)[:IMAGES])
    ours = coarse(corruptions.apply("brightness", images, 1))
    distance = (theirs**2).sum(axis=1)[:, None] - 2 * theirs @ ours.T + (ours**2).sum(axis=1)
    nearest = distance.argmin(axis=1)
    assert len(set(nearest)) == IMAGES and np.abs(theirs - ours[nearest]).max() < 10
    return images[nearest]


def describe(images, clean):
    """Mean, spread within an image, change from pixel to pixel, and damage."""
    images = images.astype(float)
    return np.array(
        [
            images.mean(),
            images.std(axis=(1, 2, 3)).mean(),
            np.abs(np.diff(images, axis=2)).mean(),
            np.sqrt(np.mean((images - clean) ** 2)),
        ]
    )


@pytest.mark.parametrize("name", corruptions.names())
def test_means_and_spreads_are_those_of_the_authors(name, official, clean):
    published = np.load(official / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    for severity in corruptions.SEVERITIES:
        theirs = np.array(published[(severity - 1) * 10_000 :][:IMAGES])
        ours = corruptions.apply(name, clean, severity)
        tolerance = 0.15 if name in LOOSE else 0.04
        np.testing.assert_allclose(
            describe(ours, clean), describe(theirs, clean), rtol=tolerance, atol=0.3, err_msg=f"{name} {severity}"
        )
