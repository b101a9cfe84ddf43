from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from bibench_tf import datasets, files
from bibench_tf.datasets import shapes_mini
from bibench_tf.datasets.formats import point_files, unusable
from bibench_tf.datasets.formats.stable_random import StableRandom
from bibench_tf.datasets.kinds import points
from bibench_tf.errors import BibenchError

# A cube with corners 0 and 2, its six faces squares.
CUBE = """8 6 12
0 0 0
2 0 0
2 2 0
0 2 0
0 0 2
2 0 2
2 2 2
0 2 2
4 0 1 2 3
4 4 5 6 7
4 0 1 5 4
4 2 3 7 6
4 1 2 6 5
4 0 3 7 4
"""


@pytest.fixture(autouse=True)
def print_again():
    """Messages that an earlier test has caused are printed again."""
    unusable._print.cache_clear()


def write_hdf5(file, clouds, labels, parts=None):
    with h5py.File(file, "w") as content:
        content["data"] = clouds
        content["label"] = np.array(labels, np.uint8)[:, np.newaxis]
        if parts is not None:
            content["pid"] = parts


def clouds(count, pool=32, seed=0):
    return np.random.default_rng(seed).normal(size=(count, pool, 3)).astype(np.float32)


def first(batches):
    return next(iter(batches.as_numpy_iterator()))


def written_out(cloud):
    """The six channels of a cloud, with NumPy."""
    centred = cloud - cloud.mean(axis=0)
    return np.concatenate([centred / np.sqrt((centred**2).sum(axis=1)).max(), cloud], axis=1)


# shapes_mini -----------------------------------------------------------------------------------------------------


def test_generated_shapes_are_the_same_everywhere():
    train, test = shapes_mini._clouds(shapes_mini.TRAIN, shapes_mini._SEED), shapes_mini._clouds(400, 2024)
    assert files.fingerprint_arrays([*train, *test]) == shapes_mini.SHA256
    # No transcendental function, whose last bit may differ, and no float in what is hashed.
    names = shapes_mini._posed.__code__.co_names + shapes_mini._circle.__code__.co_names
    assert not {"sin", "cos", "tan", "arctan2", "exp", "log", "power", "dot", "matmul", "einsum"} & set(names)
    assert train.points.dtype == np.int16 and {array.dtype for array in train[1:]} == {np.dtype(np.int8)}


def test_shapes_that_come_out_differently_are_refused(monkeypatch):
    shapes_mini.generate.cache_clear()
    monkeypatch.setattr(shapes_mini, "SHA256", "0" * 64)
    with pytest.raises(BibenchError, match="differ on this machine"):
        datasets.get("shapes_mini").test_batches(4)
    shapes_mini.generate.cache_clear()


def test_shapes_have_classes_parts_and_the_size_that_is_said():
    for clouds_, count in zip(shapes_mini.generate(), (1600, 400), strict=True):
        assert clouds_.points.shape == (count, 256, 3) and np.abs(clouds_.points).max() == 8192
        assert (np.bincount(clouds_.classes) == count // 10).all()
        owner = np.repeat(np.arange(10), [len(parts) for parts in shapes_mini.PARTS.values()])
        assert (owner[clouds_.parts] == clouds_.classes[:, np.newaxis]).all()
        assert set(np.unique(clouds_.parts)) == set(range(26))
        # Some lack a part, none its first.
        first_part = np.searchsorted(owner, np.arange(10))
        assert (clouds_.parts == first_part[clouds_.classes][:, np.newaxis]).any(axis=1).all()
    train, test = shapes_mini.generate()
    assert not {cloud.tobytes() for cloud in train.points} & {cloud.tobytes() for cloud in test.points}


def test_directions_are_on_the_circle_and_nearly_even():
    turns = np.arange(4000) / 4000
    cosine, sine = shapes_mini._circle(turns)
    assert np.allclose(cosine**2 + sine**2, 1)
    angles = np.unwrap(np.arctan2(sine, cosine))
    assert np.abs(angles - 2 * np.pi * turns).max() < 0.03


@pytest.mark.parametrize("piece", [(0, (0, 0, 0), (1.0, 2.0, 3.0), False), (0, (0, 0, 0), (0.5, 1.5, 2.0), True)])
def test_surface_points_are_on_the_surface_and_even(piece):
    piece = shapes_mini.Piece(*piece)
    uniform = StableRandom(0).uniform
    cloud = np.concatenate([shapes_mini._surface_points([piece], uniform)[0] for _ in range(80)])
    a, b, c = piece.size
    if piece.round:
        radius = np.hypot(cloud[:, 0], cloud[:, 1])
        assert np.allclose(radius, a + (b - a) * cloud[:, 2] / c)
        # The share of the area below half the height.
        assert np.mean(cloud[:, 2] < c / 2) == pytest.approx((a + (a + b) / 2) / (2 * (a + b)), abs=0.02)
    else:
        on_face = [np.isclose(np.abs(cloud[:, 0]), a / 2), np.isclose(np.abs(cloud[:, 1]), b / 2)]
        on_face.append(np.isclose(cloud[:, 2], 0) | np.isclose(cloud[:, 2], c))
        assert np.any(on_face, axis=0).all()
        area = a * b + a * c + b * c
        assert [face.mean() for face in on_face] == pytest.approx([b * c / area, a * c / area, a * b / area], abs=0.02)
        assert abs(cloud[:, :2].mean()) < 0.05 and cloud[:, 2].mean() == pytest.approx(c / 2, abs=0.05)


def test_both_tasks_see_the_same_clouds():
    whole, parts = datasets.get("shapes_mini"), datasets.get("shapes_mini_parts")
    assert whole.fingerprint == parts.fingerprint == shapes_mini.SHA256
    assert parts.class_names[:4] == ("bed/mattress", "bed/headboard", "bed/legs", "bench/seat")
    (inputs, labels), (part_inputs, part_labels) = first(whole.test_batches(50)), first(parts.test_batches(50))
    assert np.array_equal(inputs, part_inputs["points"])
    assert np.array_equal(np.eye(10, dtype=np.float32)[labels], part_inputs["category"])
    assert inputs.dtype == np.float32 and part_labels.dtype == np.int32 and part_labels.shape == (50, 256)
    raw = shapes_mini.generate()[1].points[:50] / np.float32(8192)
    for index in range(5):
        assert np.allclose(inputs[index], written_out(raw[index]), atol=1e-5)
    owners = [name.partition("/")[0] for name in parts.class_names]
    assert all(owners[row[0]] == whole.class_names[label] for row, label in zip(part_labels, labels, strict=True))


def test_describing_shapes_generates_nothing_and_needs_no_tensorflow():
    code = (
        "import sys; from bibench_tf import datasets; from bibench_tf.datasets import shapes_mini; "
        "shapes_mini._clouds = None; "
        "[datasets.get(name).num_classes for name in ('shapes_mini', 'shapes_mini_parts')]; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Pipelines -------------------------------------------------------------------------------------------------------


def numbered(parts=False):
    """Two clouds whose points carry their own number, 8 of 32 seen."""
    pool = np.zeros((2, 32, 3), np.float32)
    pool[..., 0] = np.arange(32)
    pool[..., 1] = np.arange(2)[:, np.newaxis]
    labels = np.tile(np.arange(32, dtype=np.int32), (2, 1)) if parts else np.arange(2, dtype=np.int32)
    inputs = {"points": pool, "category": np.arange(2, dtype=np.int32)} if parts else pool
    make = points.segmentation if parts else points.classification
    return make(
        name="numbered",
        title="Numbered",
        source="generated",
        licence="none",
        class_names=tuple(f"{index // 16}/{index % 16}" for index in range(32)) if parts else ("a", "b"),
        train_examples=2,
        test_examples=2,
        fingerprint="0",
        points=8,
        load=lambda: datasets.Examples(inputs, labels, inputs, labels),
    )


def test_training_takes_other_points_each_epoch_and_the_test_never():
    data = numbered()
    seen = [first(data.train_batches(2, seed=0, epoch=epoch))[0][..., 3] for epoch in (0, 0, 1)]
    assert np.array_equal(seen[0], seen[1]) and set(seen[0][0]) != set(seen[2][0])
    assert len(set(seen[0][0])) == 8, "no point twice"
    for batches in (data.test_batches(2), data.train_batches(2, seed=0, epoch=3, augment=False)):
        assert np.array_equal(first(batches)[0][0, :, 3], np.arange(8))


def test_parts_follow_their_points():
    data = numbered(parts=True)
    assert data.network_options == {"input_shape": (8, 6), "num_categories": 2, "num_parts": 32}
    inputs, labels = first(data.train_batches(2, seed=0, epoch=0))
    assert np.array_equal(inputs["points"][..., 3], labels)
    assert np.array_equal(inputs["points"][:, 0, 4], inputs["category"].argmax(axis=1))


def test_a_split_of_our_own_is_a_fifth_of_each_class():
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    test = points.stratified_test(labels)
    assert np.bincount(labels[test], minlength=4).tolist() == [10, 2, 1, 0]
    assert np.array_equal(test, points.stratified_test(labels))


# Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["OFF\n", "OFF", "OFF ", "# a cube\n\nOFF # here\n# counts\n", "COFF\n"])
def test_headers_of_off_files(head):
    vertices, triangles = point_files.read_off(head + CUBE)
    assert vertices.shape == (8, 3) and triangles.shape == (12, 3)
    assert vertices[6].tolist() == [2, 2, 2]


def test_polygons_colours_and_mixed_faces_of_off_files():
    text = "OFF\n5 3 0\n0 0 0 255 0 0\n1 0 0\n1 1 0\n0 1 0\n.5 .5 1\n3 0 1 4 255 0 0\n4 0 1 2 3\n2 0 1\n"
    vertices, triangles = point_files.read_off(text)
    assert vertices[4].tolist() == [0.5, 0.5, 1] and triangles.tolist() == [[0, 1, 4], [0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "OFF"),
        ("solid\n" + CUBE, "OFF"),
        ("OFF\nmany\n", "numbers of"),
        ("OFF\n" + CUBE[: len(CUBE) // 2], "early"),
        ("OFF\n8 0 0\n", "no faces"),
        ("OFF\n" + CUBE.replace("2 2 2", "2 x 2"), "words"),
        ("OFF\n" + CUBE.replace("2 2 2", "2 nan 2"), "not finite"),
        ("OFF\n" + CUBE.replace("4 0 3 7 4", "4 0 3 7 8"), "not there"),
        ("OFF\n" + CUBE.replace("4 0 3 7 4", "4 0 3 7"), "too few"),
    ],
)
def test_broken_off_files_say_why(text, reason):
    with pytest.raises(ValueError, match=reason):
        point_files.read_off(text)


def test_meshes_are_sampled_by_area():
    # A large triangle in the plane z = 0 and one of a hundredth of its area at z = 1.
    vertices = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1.0]])
    cloud = point_files.sample_surface(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 40_000, np.random.default_rng(0))
    low = cloud[cloud[:, 2] == 0]
    assert len(low) / 40_000 == pytest.approx(100 / 101, abs=0.002)
    assert (low[:, 0] + low[:, 1] <= 10 + 1e-9).all() and (low >= 0).all()
    # Even in the triangle: its centroid, and a quarter of its area is in the half-size triangle at the corner.
    assert low[:, :2].mean(axis=0) == pytest.approx([10 / 3, 10 / 3], abs=0.05)
    assert np.mean(low[:, 0] + low[:, 1] < 5) == pytest.approx(0.25, abs=0.01)
    with pytest.raises(ValueError, match="no area"):
        point_files.sample_surface(vertices, np.array([[0, 0, 0]]), 10, np.random.default_rng(0))


def test_clouds_of_meshes_are_centred_scaled_and_their_own():
    cube = f"OFF\n{CUBE}".encode()
    cloud = point_files.cloud_of_mesh(cube, "a.off", 500)
    assert cloud.dtype == np.float32 and np.allclose(np.abs(cloud).max(axis=1), 1, atol=1e-6)
    assert np.array_equal(cloud, point_files.cloud_of_mesh(cube, "a.off", 500))
    assert not np.array_equal(cloud, point_files.cloud_of_mesh(cube, "b.off", 500))
    with pytest.raises(ValueError, match="no area"):
        point_files.cloud_of_mesh(b"OFF 3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n", "a.off", 5)


# Folders ---------------------------------------------------------------------------------------------------------


def furniture(folder):
    for split, count in (("train", 6), ("test", 4)):
        write_hdf5(folder / f"ply_data_{split}0.h5", clouds(count, seed=count), np.arange(count) % 2)
    (folder / "shape_names.txt").write_text("chair\ntable\n")
    (folder / "train_files.txt").write_text("data/old/ply_data_train0.h5\n")
    (folder / "test_files.txt").write_text("data/old/ply_data_test0.h5\n")
    return folder


def test_a_folder_of_hdf5_files(tmp_path):
    data = datasets.get(f"point_folder:{furniture(tmp_path)}")
    assert (data.train_examples, data.test_examples, data.class_names) == (6, 4, ("chair", "table"))
    assert data.network_options == {"input_shape": (32, 6), "num_classes": 2}, "all points, where there are few"
    inputs, labels = first(data.test_batches(4))
    assert labels.tolist() == [0, 1, 0, 1]
    expected = written_out(clouds(4, seed=4)[0])
    assert np.allclose(inputs[0], expected[points.in_fixed_order(32)], atol=1e-5)


def test_the_split_of_hdf5_files_by_list_by_name_and_by_chance(tmp_path):
    furniture(tmp_path)
    (tmp_path / "train_files.txt").write_text("ply_data_test0.h5\n")
    (tmp_path / "test_files.txt").write_text("ply_data_train0.h5\n")
    assert datasets.get(f"point_folder:{tmp_path}").test_examples == 6, "lists count more than names"
    for name in ("train_files.txt", "test_files.txt"):
        (tmp_path / name).unlink()
    assert datasets.get(f"point_folder:{tmp_path}").test_examples == 4
    (tmp_path / "ply_data_test0.h5").unlink()
    (tmp_path / "ply_data_train0.h5").rename(tmp_path / "all.h5")
    data = datasets.get(f"point_folder:{tmp_path}")
    assert (data.train_examples, data.test_examples) == (4, 2)


def test_another_file_changes_the_fingerprint(tmp_path):
    before = datasets.get(f"point_folder:{furniture(tmp_path)}").fingerprint
    assert datasets.get(f"point_folder:{tmp_path}").fingerprint == before
    write_hdf5(tmp_path / "ply_data_test0.h5", clouds(4, seed=9), [0, 1, 0, 1])
    assert datasets.get(f"point_folder:{tmp_path}").fingerprint != before


def test_broken_files_and_clouds_are_counted_and_named(tmp_path, capsys):
    furniture(tmp_path)
    broken = clouds(4)
    broken[1, 3] = np.nan
    broken[2] = 1.0
    write_hdf5(tmp_path / "ply_data_test1.h5", broken, [0, 1, 0, 1])
    (tmp_path / "ply_data_test2.h5").write_bytes(b"no HDF5")
    with h5py.File(tmp_path / "ply_data_test3.h5", "w") as content:
        content["data"] = clouds(2)
    (tmp_path / "test_files.txt").write_text("".join(f"ply_data_test{index}.h5\n" for index in range(4)))
    assert datasets.get(f"point_folder:{tmp_path}").test_examples == 6
    said = capsys.readouterr().err
    assert "2 of 5 files" in said and "ply_data_test2.h5 (" in said and "ply_data_test3.h5 (it has no 'data'" in said
    assert "2 clouds" in said and "ply_data_test1.h5[1], ply_data_test1.h5[2]" in said


def write_meshes(folder, splits=("train/", "test/"), classes=("box", "plate"), count=2):
    for name in classes:
        for split in splits:
            (folder / name / split).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                height = "9" if name == classes[0] else "2"
                text = CUBE.replace(" 2\n", f" {height}\n") if index else CUBE
                (folder / name / split / f"{name}_{index}.off").write_text("OFF" + text)
    return folder


def test_a_folder_of_meshes(tmp_path, capsys):
    write_meshes(tmp_path)
    (tmp_path / "box" / "train" / "cut.off").write_text("OFF\n" + CUBE[:40])
    data = datasets.get(f"point_folder:{tmp_path}")
    assert (data.train_examples, data.test_examples, data.class_names) == (4, 4, ("box", "plate"))
    assert data.network_options["input_shape"] == (1024, 6)
    assert "1 of 9 files" in (said := capsys.readouterr().err) and "box/train/cut.off (" in said
    inputs, labels = first(data.test_batches(4))
    assert labels.tolist() == [0, 0, 1, 1] and np.abs(inputs[..., 3:]).max() <= 1 + 1e-6


def test_meshes_without_splits_are_split_by_chance(tmp_path):
    data = datasets.get(f"point_folder:{write_meshes(tmp_path, splits=('',), count=5)}")
    assert (data.train_examples, data.test_examples) == (8, 2)


def test_folders_without_data_say_what_they_need(tmp_path):
    for name, reason in (
        ("point_folder", "point_folder:FOLDER"),
        (f"point_folder:{tmp_path / 'absent'}", "no folder"),
        (f"point_folder:{tmp_path}", "no usable point clouds"),
    ):
        with pytest.raises(BibenchError, match=reason):
            datasets.get(name)
    write_hdf5(tmp_path / "all.h5", clouds(4), [1, 1, 1, 1])
    with pytest.raises(BibenchError, match="one class"):
        datasets.get(f"point_folder:{tmp_path}")
    write_hdf5(tmp_path / "more.h5", clouds(4, pool=16), [0, 0, 1, 1])
    with pytest.raises(BibenchError, match="16, 32"):
        datasets.get(f"point_folder:{tmp_path}")
    (tmp_path / "more.h5").unlink()
    (tmp_path / "shape_names.txt").write_text("chair\n")
    with pytest.raises(BibenchError, match="1 classes.*up to 1"):
        datasets.get(f"point_folder:{tmp_path}")


def test_real_furniture(shared):
    data = datasets.get(f"point_folder:{shared / 'data' / 'furniture_hdf5'}")
    assert (data.train_examples, data.test_examples, data.num_classes) == (218, 51, 12)
    inputs, labels = first(data.test_batches(51))
    assert inputs.shape == (51, 1024, 6) and np.bincount(labels)[:3].tolist() == [11, 3, 8]
    assert np.linalg.norm(inputs[..., :3], axis=2).max(axis=1) == pytest.approx(np.ones(51), abs=1e-5)
