"""Images for the tests of corruptions: real ones that come with the package, grey and colour, of many sizes."""

from __future__ import annotations

import numpy as np
import pytest

from bibench_tf import datasets


class Fixed:
    """Stands in for the random numbers of a corruption: gives the arrays it was made with, one after the other."""

    def __init__(self, *arrays):
        self._arrays = list(arrays)

    def _next(self, *shape_or_bounds):
        return self._arrays.pop(0)

    normal = uniform = integers = poisson = _next


@pytest.fixture(scope="session")
def fixed():
    return Fixed


@pytest.fixture(scope="session")
def grey():
    """24 items of clothing, uint8 [24, 32, 32, 1]."""
    images = datasets.get("fashion_mini").splits.test_images[:24]
    return np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])


@pytest.fixture(scope="session")
def colour(grey):
    """Three items of clothing, one in each channel: structure, and many different hues."""
    return np.concatenate([grey, np.roll(grey, 1, axis=0), np.roll(grey, 2, axis=0)], axis=-1)


@pytest.fixture(scope="session")
def large(colour):
    """Two images of 224 x 224."""
    return np.kron(colour[:2], np.ones((1, 7, 7, 1), np.uint8))


def damage(corrupted, images):
    return float(np.mean((corrupted.astype(float) - images) ** 2))
