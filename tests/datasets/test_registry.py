from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_data

from bibench_tf import datasets, files
from bibench_tf.errors import BibenchError, InvalidOption, MissingData


def arrays(count=20):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    return images, np.arange(count) % 4


def make(splits, **changes):
    description = {
        "name": "mine",
        "title": "Mine",
        "source": "generated",
        "licence": "none",
        "input_shape": (6, 5, 3),
        "class_names": ("a", "b", "c", "d"),
        "train_examples": 20,
        "test_examples": 20,
        "mean": (1.0, 2.0, 3.0),
        "std": (4.0, 5.0, 6.0),
        "fingerprint": "0",
        "load": lambda: splits,
    }
    return datasets.ArrayImages(**{**description, **changes})


def test_names_and_unknown_name():
    assert {"fashion_mini", "cifar10", "imagenet2012"} <= set(datasets.names())
    with pytest.raises(BibenchError, match="Did you mean 'cifar10'.*fashion_mini"):
        datasets.get("cifar")


def test_a_registered_data_set_is_found_once(monkeypatch):
    mine, seen = make(datasets.Splits(*arrays(), *arrays())), []

    def get(options):
        seen.append((options.data_dir, options.download, options.vocabulary))
        return mine

    tiny_data.register(monkeypatch, "mine", get)
    assert datasets.get("mine:folder", download=True, vocabulary="words") is mine and "mine" in datasets.names()
    assert datasets.task_of("mine:folder") == "image_classification"
    assert seen == [(Path("folder"), True, Path("words"))]
    with pytest.raises(InvalidOption, match="'mine' .* is taken by"):
        datasets.DATASETS.register("mine", datasets.describe("mine"), origin="elsewhere")


PLUGIN = """
from bibench_tf import datasets

@datasets.register("stripes", task="image_classification", description="Stripes")
def stripes(options):
    return datasets.get("fashion_mini")
"""


def test_a_file_outside_the_package_adds_a_data_set_without_tensorflow(tmp_path):
    (tmp_path / "stripes.py").write_text(PLUGIN)
    code = (
        "import sys; from bibench_tf import datasets; "
        "assert datasets.describe('stripes').description == 'Stripes'; datasets.get('stripes'); "
        "assert 'tensorflow' not in sys.modules"
    )
    environment = {**os.environ, "BIBENCH_PLUGINS": str(tmp_path / "stripes.py")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("name", ["point_folder", "wav_folder", "voc_folder", "coco_folder", "tsv"])
def test_errors_can_be_told_apart(name, tmp_path):
    with pytest.raises(InvalidOption, match=f"{name}:FOLDER"):
        datasets.get(name)
    with pytest.raises(MissingData):
        datasets.get(f"{name}:{tmp_path / 'absent'}")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s._replace(test_images=s.test_images.astype(np.float32)),
        lambda s: s._replace(train_images=s.train_images[:-1]),
        lambda s: s._replace(train_labels=s.train_labels + 1),
        lambda s: s._replace(test_labels=s.test_labels[:-1]),
    ],
)
def test_arrays_that_do_not_fit_their_description_are_refused(change):
    dataset = make(change(datasets.Splits(*arrays(), *arrays())))
    with pytest.raises(BibenchError, match="'mine'"):
        dataset.test_batches(4)


@pytest.mark.parametrize("arguments", [(0, 0, 0), (21, 0, 0), (4, -1, 0), (4, 0, -1)])
def test_bad_training_batches_are_refused(arguments):
    batch_size, seed, epoch = arguments
    with pytest.raises(BibenchError):
        make(None).train_batches(batch_size, seed=seed, epoch=epoch)


def test_bad_test_batches_are_refused():
    with pytest.raises(BibenchError):
        make(None).test_batches(0)
    with pytest.raises(BibenchError):
        make(None).test_batches(4, limit=0)


def test_array_fingerprint_sees_bytes_shape_and_type():
    base = np.arange(6, dtype=np.uint8)
    changed = base.copy()
    changed[3] ^= 1
    variants = [base, changed, base.reshape(2, 3), base.view(np.int8)]
    assert len({files.fingerprint_arrays([variant]) for variant in variants}) == 4
    assert files.fingerprint_arrays([base[::-1]]) == files.fingerprint_arrays([base[::-1].copy()])


def test_describing_a_data_set_imports_no_tensorflow():
    code = (
        "import sys; from bibench_tf import datasets; d = datasets.get('fashion_mini'); "
        "assert d.num_classes == 10 and d.fingerprint; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
