from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bibench_tf import datasets
from bibench_tf.datasets import fashion_mini
from bibench_tf.datasets.making import fashion_mini as make_fashion_mini
from bibench_tf.errors import BibenchError

OFFICIAL = Path("/usr/share/datasets/fashion-mnist")


def test_shape_strata_and_licence():
    dataset = datasets.get("fashion_mini")
    splits = dataset.splits
    assert splits.train_images.shape == (8000, 28, 28, 1) and splits.test_images.shape == (2000, 28, 28, 1)
    assert np.bincount(splits.train_labels).tolist() == [800] * 10
    assert np.bincount(splits.test_labels).tolist() == [200] * 10
    assert fashion_mini.FILE.stat().st_size < 6e6
    assert "Zalando" in fashion_mini.FILE.with_suffix(".LICENSE").read_text()


def test_class_names_are_those_of_the_labels():
    """Of labels 0 to 9 as the authors of Fashion-MNIST list them, and as the images show some of them."""
    dataset = datasets.get("fashion_mini")
    assert [name.lower() for name in dataset.class_names] == [
        *("t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    ]
    images, labels = dataset.splits.train_images[..., 0] > 64, dataset.splits.train_labels
    widths, heights = (
        {
            name: images[labels == label].any(axis=axis).sum(axis=1).mean()
            for label, name in enumerate(dataset.class_names)
        }
        for axis in (1, 2)
    )
    assert sorted(widths, key=widths.get)[:2] == ["trouser", "dress"]
    assert sorted(heights, key=heights.get)[0] == "sneaker"
    assert max(("sandal", "sneaker", "ankle boot"), key=heights.get) == "ankle boot"


def test_train_and_test_images_are_disjoint():
    splits = datasets.get("fashion_mini").splits
    train = {image.tobytes() for image in splits.train_images}
    assert not train & {image.tobytes() for image in splits.test_images}


def test_the_first_thousand_test_images_are_nearly_balanced():
    counts = np.bincount(datasets.get("fashion_mini").splits.test_labels[:1000])
    assert counts.min() > 70 and counts.max() < 130


def test_mean_and_std_are_those_of_the_training_images():
    dataset = datasets.get("fashion_mini")
    images = dataset.splits.train_images.astype(np.float64)
    np.testing.assert_allclose([images.mean(), images.std()], [dataset.mean[0], dataset.std[0]], atol=1e-4)


def test_a_changed_or_missing_file_is_refused(tmp_path):
    content = bytearray(fashion_mini.FILE.read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "fashion_mini.npz"
    changed.write_bytes(content)
    for file in (changed, tmp_path / "absent.npz"):
        with pytest.raises(BibenchError, match="install bibench-tf again"):
            fashion_mini.load(file)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_subset_is_drawn_again_from_the_official_files():
    drawn, positions = make_fashion_mini.draw(OFFICIAL)
    for ours, theirs in zip(fashion_mini.load(), drawn, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(set(positions["train"])) == 8000 and len(set(positions["test"])) == 2000
