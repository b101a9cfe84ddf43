"""ModelNet40 and ShapeNetPart from small files in the layouts that users have, prepared by TensorFlow Datasets."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from bibench_tf import datasets
from bibench_tf.datasets import modelnet40, shapenet_part
from bibench_tf.datasets.kinds import points
from bibench_tf.errors import BibenchError

SQUARE = "OFF{} 2 0\n0 0 0\n4 0 0\n4 2 0\n0 2 0\n3 0 1 2\n3 0 2 3\n"
SYNSET = {"Mug": "03797390", "Airplane": "02691156"}
TEXTS = "shapenetcore_partanno_segmentation_benchmark_v0_normal"


def cloud_of(number):
    return np.random.default_rng(number).normal(size=(2048, 3)).astype(np.float32)


def write_hdf5(file, numbers, labels, parts=None):
    with h5py.File(file, "w") as content:
        content["data"] = np.stack([cloud_of(number) for number in numbers])
        content["label"] = np.array(labels, np.uint8)[:, np.newaxis]
        if parts is not None:
            content["pid"] = np.stack(parts).astype(np.uint8)


def manual(root, name):
    folder = root / "downloads" / "manual" / name
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["modelnet40", "shapenet_part"])
def test_missing_data_are_reported_at_once(name, tmp_path):
    code = f"""
import sys
from bibench_tf import datasets
from bibench_tf.errors import BibenchError
for download in (False, True):
    try:
        datasets.get({name!r}, {str(tmp_path)!r}, download)
    except BibenchError as error:
        print(error)
assert "tensorflow" not in sys.modules and "tensorflow_datasets" not in sys.modules
"""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert time.perf_counter() - start < 60
    first, second = done.stdout.splitlines()
    folder = {"modelnet40": "modelnet40_ply_hdf5_2048", "shapenet_part": "hdf5_data"}[name]
    assert "--download" in first and folder in first and str(tmp_path / "downloads" / "manual") in first
    assert "fetch" in second and folder in second and " or " in second


def test_modelnet40_from_meshes(tmp_path, capsys):
    folder = manual(tmp_path, "ModelNet40")
    for name in modelnet40.CLASS_NAMES:
        for split in ("train", "test"):
            (folder / name / split).mkdir(parents=True)
            # The counts glued to the word, as in some files of ModelNet40.
            (folder / name / split / f"{name}_0001.off").write_text(SQUARE.format("4" if split == "train" else "\n4"))
    (folder / "bed" / "train" / "bed_0002.off").write_text("OFF\n4 2 0\n0 0 0\n")
    data = datasets.get("modelnet40", tmp_path, download=True)
    assert (data.train_examples, data.test_examples, data.num_classes) == (40, 40, 40)
    assert data.network_options == {"input_shape": (1024, 6), "num_classes": 40}
    said = capsys.readouterr().err
    assert "1 of 41 train files" in said and "bed/train/bed_0002.off (it ends too early)" in said
    pool = data.examples.train_inputs
    # The square 4 x 2 around its centre, the largest coordinate 1.
    assert pool.shape == (40, 2048, 3) and np.abs(pool[..., 1]).max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(pool[..., 0]).max() == pytest.approx(1, abs=0.01) and not pool[..., 2].any()
    assert sorted(data.examples.test_labels) == list(range(40))
    # Prepared once: again without --download, and by the name that TensorFlow Datasets knows it under.
    assert datasets.get("modelnet40", tmp_path).fingerprint == data.fingerprint
    import tensorflow_datasets as tfds

    example = next(iter(tfds.load("modelnet40", split="test", data_dir=str(tmp_path), download=False)))
    assert example["points"].shape == (2048, 3)


def test_modelnet40_without_a_class_is_refused(tmp_path):
    (manual(tmp_path, "ModelNet40") / "bed" / "train").mkdir(parents=True)
    file = tmp_path / "downloads" / "manual" / "ModelNet40" / "bed" / "train" / "bed_0001.off"
    file.write_text(SQUARE.format("\n4"))
    with pytest.raises(BibenchError, match="no OFF files of airplane"):
        datasets.get("modelnet40", tmp_path, download=True)


def test_modelnet40_from_hdf5(tmp_path):
    folder = manual(tmp_path, "modelnet40_ply_hdf5_2048")
    write_hdf5(folder / "ply_data_train0.h5", [0, 1], [3, 39])
    write_hdf5(folder / "ply_data_train1.h5", [2], [0])
    write_hdf5(folder / "ply_data_test0.h5", [3], [7])
    data = datasets.get("modelnet40", tmp_path, download=True)
    assert (data.train_examples, data.test_examples) == (3, 1)
    stored = {int(label): cloud for cloud, label in zip(*data.examples[:2], strict=True)}
    order = points.in_fixed_order(2048)
    assert all(np.array_equal(stored[label], cloud_of(n)[order]) for n, label in enumerate((3, 39, 0)))
    inputs, labels = next(iter(data.test_batches(1).as_numpy_iterator()))
    assert labels.tolist() == [7] and np.array_equal(inputs[0, :, 3:], cloud_of(3)[order[:1024]])


def mug(number, handle):
    return np.where(np.arange(2048) < handle, 36, 37)


def test_shapenet_part_from_hdf5(tmp_path, capsys):
    folder = manual(tmp_path, "hdf5_data")
    # The second cloud of the test has parts of an aeroplane.
    for file, split, numbers in (("train0", "train", [0]), ("val0", "val", [1]), ("test0", "test", [2, 3])):
        parts = [mug(number, 100 + number) if number < 3 else np.zeros(2048) for number in numbers]
        write_hdf5(folder / f"ply_data_{file}.h5", numbers, [11] * len(numbers), parts)
        (folder / f"{split}_hdf5_file_list.txt").write_text(f"ply_data_{file}.h5\n")
    data = datasets.get("shapenet_part", tmp_path, download=True)
    assert (data.train_examples, data.test_examples, data.num_classes) == (2, 1, 50)
    assert data.class_names[36:38] == ("Mug/1", "Mug/2")
    assert data.network_options == {"input_shape": (2048, 6), "num_categories": 16, "num_parts": 50}
    assert "1 clouds" in (said := capsys.readouterr().err) and "ply_data_test0.h5[1]" in said
    inputs, labels = next(iter(data.test_batches(1).as_numpy_iterator()))
    order = points.in_fixed_order(2048)
    assert np.array_equal(inputs["points"][0, :, 3:], cloud_of(2)[order])
    assert np.array_equal(labels[0], mug(2, 102)[order]) and inputs["category"][0].argmax() == 11


def test_shapenet_part_from_texts(tmp_path, capsys):
    folder = manual(tmp_path, TEXTS)
    (folder / "train_test_split").mkdir()
    (folder / "synsetoffset2category.txt").write_text("".join(f"{name}\t{code}\n" for name, code in SYNSET.items()))
    listed = {"train": ["Mug/a", "Airplane/b"], "val": ["Mug/c"], "test": ["Mug/d", "Mug/e"]}
    for split, shapes in listed.items():
        entries = [(SYNSET[name], shape) for name, shape in (entry.split("/") for entry in shapes)]
        lists = [f"shape_data/{synset}/{shape}" for synset, shape in entries]
        (folder / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(lists))
        for synset, shape in entries:
            (folder / synset).mkdir(exist_ok=True)
            count = 3000 if shape == "d" else 500
            rows = np.zeros((count, 7))
            rows[:, 0] = np.arange(count)
            rows[:, 6] = (36 if synset == SYNSET["Mug"] else 2) + (np.arange(count) >= count // 2)
            np.savetxt(folder / synset / f"{shape}.txt", rows)
    (folder / SYNSET["Mug"] / "e.txt").write_text("1 2 three\n")
    data = datasets.get("shapenet_part", tmp_path, download=True)
    assert (data.train_examples, data.test_examples) == (3, 1)
    assert "1 of 2 test files" in (said := capsys.readouterr().err) and f"{SYNSET['Mug']}/e.txt (" in said
    (cloud,), (parts,) = data.examples.test_inputs["points"], data.examples.test_labels
    assert len(set(cloud[:, 0])) == 2048, "no point twice, where there are enough"
    assert np.array_equal(parts, 36 + (cloud[:, 0] >= 1500))
    assert sorted(data.examples.train_inputs["category"]) == [0, 11, 11]
    assert len(set(data.examples.train_inputs["points"][0, :, 0])) == 500, "all points, where there are too few"


def test_parts_of_shapenet_part_are_numbered_as_in_pointnet():
    """The first part of each category by the authors' table `seg_classes`; the last is Table/3, number 49."""
    firsts = {
        **{"Airplane": 0, "Bag": 4, "Cap": 6, "Car": 8, "Chair": 12, "Earphone": 16, "Guitar": 19, "Knife": 22},
        **{
            "Lamp": 24,
            "Laptop": 28,
            "Motorbike": 30,
            "Mug": 36,
            "Pistol": 38,
            "Rocket": 41,
            "Skateboard": 44,
            "Table": 47,
        },
    }
    parts = [f"{category}/{part + 1}" for category, count in shapenet_part.PARTS.items() for part in range(count)]
    assert {category: parts.index(f"{category}/1") for category in firsts} == firsts
    assert parts[-1] == "Table/3" and len(parts) == 50


def test_categories_of_shapenet_part_have_50_parts():
    assert sum(shapenet_part.PARTS.values()) == 50 and len(shapenet_part.PARTS) == 16
    assert list(shapenet_part.PARTS) == sorted(shapenet_part.PARTS)
    assert len(modelnet40.CLASS_NAMES) == 40 and list(modelnet40.CLASS_NAMES) == sorted(modelnet40.CLASS_NAMES)
