from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bibench_tf import datasets
from bibench_tf.datasets.kinds import detection
from bibench_tf.errors import BibenchError


def write_prepared(root, name, splits, version="1.0.0", classes=("a", "b"), image=None, image_format="png"):
    """A data set as TFDS leaves it: `splits` maps a split to labels by shard, `image` a label to pixels."""
    import tensorflow as tf

    encode = tf.io.encode_png if image_format == "png" else tf.io.encode_jpeg
    folder = root / name / version
    folder.mkdir(parents=True)
    for split, shards in splits.items():
        for index, labels in enumerate(shards):
            file = folder / f"{name}-{split}.tfrecord-{index:05}-of-{len(shards):05}"
            with tf.io.TFRecordWriter(str(file)) as writer:
                for label in labels:
                    features = {
                        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encode(image(label)).numpy()])),
                        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                    }
                    example = tf.train.Example(features=tf.train.Features(feature=features))
                    writer.write(example.SerializeToString())
    info = {
        "name": name,
        "version": version,
        "fileFormat": "tfrecord",
        "splits": [
            {"name": split, "numBytes": "1", "shardLengths": [str(len(labels)) for labels in shards]}
            for split, shards in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("\n".join(classes) + "\n")
    return folder


def cifar_image(label):
    return np.random.default_rng(label).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def small_cifar(tmp_path):
    folder = write_prepared(
        tmp_path,
        "cifar10",
        {"train": [[0, 1, 2], [3, 4]], "test": [[5, 6]]},
        classes=[f"class {index}" for index in range(7)],
        image=cifar_image,
    )
    return tmp_path, folder


@pytest.mark.parametrize("name", ["cifar10", "imagenet2012"])
def test_missing_data_are_reported_at_once_without_network_and_tensorflow(name, tmp_path):
    code = f"""
import socket, sys, time
def refuse(*arguments, **options):
    raise AssertionError("network")
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
from bibench_tf import datasets
from bibench_tf.datasets.kinds import detection
from bibench_tf.errors import BibenchError
for data_dir in ({str(tmp_path)!r}, {str(tmp_path / "absent")!r}, None):
    try:
        datasets.get({name!r}, data_dir)
    except BibenchError as error:
        print(error)
assert "tensorflow" not in sys.modules and "tensorflow_datasets" not in sys.modules
"""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path / "home"), "PATH": ""},
    )
    # Far from a time limit that a slow machine could miss, and far below the import of TensorFlow Datasets.
    assert time.perf_counter() - start < 10
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert f"'{name}'" in line and "--download" in line and "--data-dir" in line
        assert ("by hand" in line) == (name == "imagenet2012")
    assert not list(tmp_path.iterdir())


def test_the_default_folder_is_that_of_tfds(small_cifar, monkeypatch):
    root, _ = small_cifar
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert datasets.get("cifar10").train_examples == 5


def test_imagenet_archives_are_asked_for_before_anything_is_downloaded(tmp_path):
    with pytest.raises(BibenchError, match="ILSVRC2012_img_train.tar"):
        datasets.get("imagenet2012", tmp_path, download=True)
    assert not list(tmp_path.iterdir())


def test_prepared_images_are_read_in_order(small_cifar):
    dataset = datasets.get("cifar10", str(small_cifar[0]))
    assert (dataset.train_examples, dataset.test_examples, dataset.num_classes) == (5, 2, 7)
    assert dataset.class_names[1] == "class 1"
    np.testing.assert_array_equal(dataset.splits.train_labels, range(5))
    np.testing.assert_array_equal(dataset.splits.train_images, [cifar_image(label) for label in range(5)])
    np.testing.assert_array_equal(dataset.splits.test_images, [cifar_image(5), cifar_image(6)])


def test_images_are_normalised_by_the_numbers_of_bibench(small_cifar, small_imagenet):
    """Mean and standard deviation of red, green and blue, from the configurations of its release."""
    cifar10 = datasets.get("cifar10", small_cifar[0])
    assert (cifar10.mean, cifar10.std) == ((125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255))
    # BiBench crops from four black pixels more on each side.
    assert cifar10.padding == 4
    imagenet = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert (small_imagenet.mean, small_imagenet.std) == (detection.MEAN, detection.STD) == imagenet


def test_prepared_data_are_not_downloaded_again(small_cifar):
    assert datasets.get("cifar10", small_cifar[0], download=True).test_examples == 2


def fake_tfds(monkeypatch, download_and_prepare):
    module = types.ModuleType("tensorflow_datasets")
    module.builder = lambda name, data_dir: types.SimpleNamespace(
        download_and_prepare=lambda: download_and_prepare(name, Path(data_dir))
    )
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)


def test_download_prepares_and_reads(tmp_path, monkeypatch):
    def prepare(name, root):
        write_prepared(root, name, {"train": [[0]], "test": [[1]]}, image=cifar_image)

    fake_tfds(monkeypatch, prepare)
    assert datasets.get("cifar10", tmp_path / "new", download=True).train_examples == 1


def test_a_download_that_fails_is_told_in_one_sentence(tmp_path, monkeypatch):
    def prepare(name, root):
        raise ConnectionError("no route\nto host")

    fake_tfds(monkeypatch, prepare)
    with pytest.raises(BibenchError, match="could not be prepared in .*: no route to host"):
        datasets.get("cifar10", tmp_path, download=True)


def test_the_newest_version_is_read(small_cifar):
    root, folder = small_cifar
    shutil.copytree(folder, root / "cifar10" / "0.9.10")
    write_prepared(root, "cifar10", {"train": [[0]], "test": [[1]]}, "1.0.1", image=cifar_image)
    assert datasets.get("cifar10", root).train_examples == 1


def test_the_fingerprint_follows_the_files(small_cifar):
    root, folder = small_cifar
    before = datasets.get("cifar10", root).fingerprint
    assert before == datasets.get("cifar10", root).fingerprint
    file = folder / "cifar10-test.tfrecord-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert datasets.get("cifar10", root).fingerprint != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "cifar10-train.tfrecord-00001-of-00002").unlink(),
        lambda folder: (folder / "dataset_info.json").write_text("{"),
        lambda folder: (folder / "dataset_info.json").write_text('{"name": "cifar10", "splits": []}'),
        lambda folder: (folder / "label.labels.txt").unlink(),
    ],
)
def test_an_incomplete_folder_is_refused(small_cifar, damage):
    root, folder = small_cifar
    damage(folder)
    with pytest.raises(BibenchError, match="prepare 'cifar10' again"):
        datasets.get("cifar10", root)


def test_truncated_records_are_refused(small_cifar):
    root, folder = small_cifar
    file = folder / "cifar10-train.tfrecord-00000-of-00002"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BibenchError, match="prepare the data set again"):
        datasets.get("cifar10", root).train_batches(2, seed=0, epoch=0)


def imagenet_image(label):
    # Smooth, so that JPEG keeps it; wider than high for even labels.
    height, width = (300, 400) if label % 2 == 0 else (400, 300)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.ones((height, 1, 3))
    return (ramp + label).astype(np.uint8)


@pytest.fixture(scope="module")
def small_imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_prepared(
        root,
        "imagenet2012",
        {"train": [[0, 1, 2], [3, 4, 5], [6, 7]], "validation": [[8, 9, 10]]},
        classes=[f"n{index}" for index in range(11)],
        image=imagenet_image,
        image_format="jpeg",
    )
    return datasets.get("imagenet2012", root)


def collect(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_streamed_epochs_depend_on_seed_and_epoch_alone(small_imagenet):
    import tensorflow as tf

    images, labels = collect(small_imagenet.train_batches(4, seed=1, epoch=0))
    assert images.shape == (8, 224, 224, 3) and images.dtype == np.float32 and sorted(labels) == list(range(8))
    tf.random.set_seed(7)
    again = collect(small_imagenet.train_batches(4, seed=1, epoch=0))
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    orders = {
        tuple(collect(small_imagenet.train_batches(4, seed=seed, epoch=epoch))[1])
        for seed, epoch in ((1, 0), (1, 1), (2, 0), (0, 1))
    }
    assert len(orders) > 2


def test_streamed_parts_are_those_of_the_batches_and_nothing_else_is_decoded(small_imagenet, monkeypatch):
    """Of 8 images 6 make a batch; the other two would be a part, and are left out."""
    import tensorflow as tf

    from bibench_tf.datasets.pipelines import records

    ((images, labels),) = small_imagenet.train_batches(6, seed=1, epoch=0).as_numpy_iterator()
    decoded = []
    crop = records._random_resized_crop

    def counted(encoded, shape, key):
        with tf.control_dependencies([tf.py_function(lambda: decoded.append(1), [], [])]):
            return crop(tf.identity(encoded), shape, key)

    monkeypatch.setattr(records, "_random_resized_crop", counted)
    for part in range(3):
        batches = [*small_imagenet.train_parts(6, part, 3, seed=1, epoch=0).as_numpy_iterator()]
        assert len(batches) == 1
        np.testing.assert_array_equal(batches[0][0], images[2 * part : 2 * part + 2])
        np.testing.assert_array_equal(batches[0][1], labels[2 * part : 2 * part + 2])
    assert len(decoded) == 6
    with pytest.raises(BibenchError, match="cannot be divided into 4 equal parts"):
        small_imagenet.train_parts(6, 0, 4, seed=1, epoch=0)


def test_streamed_crops_are_stretched_parts_of_the_image(small_imagenet):
    slopes = []
    for epoch in range(8):
        images, labels = collect(small_imagenet.train_batches(8, seed=0, epoch=epoch))
        pixels = images * np.array(small_imagenet.std) + np.array(small_imagenet.mean)
        rows = pixels[..., 0].mean(axis=1)
        per_pixel = (rows[:, 180] - rows[:, 40]) / 140
        source = np.where(labels % 2 == 0, 200 / 399, 200 / 299)
        slopes += list(per_pixel / source)
    slopes = np.array(slopes)
    mirrored = (slopes < 0).mean()
    assert 0.25 < mirrored < 0.75
    # A crop is between about 0.25 and 1 of the width, so its ramp has 0.25 * width / 224 up to width / 224.
    assert np.abs(slopes).max() < 400 / 224 + 0.1 and np.abs(slopes).min() > 0.3 and np.abs(slopes).std() > 0.1


def test_streamed_crops_have_between_8_and_100_percent_of_the_area():
    """Of an image whose levels are the places of its pixels: the area of a crop, and its ratio of width to height."""
    import tensorflow as tf

    from bibench_tf.datasets.pipelines import records

    places = np.zeros((500, 500, 3), np.uint8)
    places[..., 0], places[..., 1] = np.linspace(0, 250, 500)[None, :], np.linspace(0, 250, 500)[:, None]
    encoded = tf.io.encode_jpeg(places, quality=100)
    crop = tf.function(lambda key: records._random_resized_crop(encoded, (64, 64, 3), key))
    crops = np.stack([crop(tf.constant([number, 0], tf.int64)).numpy() for number in range(300)]).astype(float)
    widths = np.abs(crops[:, :, -1, 0] - crops[:, :, 0, 0]).mean(axis=1) / 250 * 64 / 63
    heights = (crops[:, -1, :, 1] - crops[:, 0, :, 1]).mean(axis=1) / 250 * 64 / 63
    areas, shapes = widths * heights, widths / heights
    assert 0.07 < areas.min() < 0.15 and 0.85 < areas.max() < 1.02
    assert 0.3 < areas.mean() < 0.5  # large crops that are not square do not fit, and are drawn again
    assert 0.73 < shapes.min() < 0.78 and 1.28 < shapes.max() < 1.37


def test_jpeg_is_decoded_as_by_pillow():
    """By the accurate method, to the level; the fast one is off by up to four levels and differs between machines."""
    from bibench_tf.datasets.pipelines import records

    fields = np.random.default_rng(0).integers(0, 256, (12, 12, 3))
    stream = io.BytesIO()
    Image.fromarray(np.kron(fields, np.ones((5, 5, 1))).astype(np.uint8)).save(stream, "JPEG", quality=75)
    difference = records.decoded(stream.getvalue(), 3).numpy().astype(int) - np.asarray(Image.open(stream))
    assert np.abs(difference).max() <= 1 and np.abs(difference).mean() < 0.1


def test_streamed_test_images_are_resized_and_cropped_in_the_middle(small_imagenet):
    images, labels = collect(small_imagenet.test_batches(2))
    assert list(labels) == [8, 9, 10] and images.shape == (3, 224, 224, 3)
    pixels = images * np.array(small_imagenet.std) + np.array(small_imagenet.mean)
    for image, label in zip(pixels, labels, strict=True):
        source = imagenet_image(label)
        width = source.shape[1]
        scale = 256 / min(source.shape[:2])
        left = (round(width * scale) - 224) // 2
        columns = np.clip((np.arange(224) + left + 0.5) / scale - 0.5, 0, width - 1)
        expected = np.interp(columns, np.arange(width), source[0, :, 0])
        assert np.abs(image[..., 0].mean(axis=0) - expected).max() < 3
    assert len(small_imagenet.test_batches(2)) == 2
    assert len(collect(small_imagenet.test_batches(2, limit=1))[1]) == 1


def test_the_fingerprint_of_streamed_images_follows_the_records_not_the_version(tmp_path):
    """Notices a fingerprint of names and sizes, and one that a preparation of the same records would change."""
    digests = []
    for version, labels in (("1.0.0", [0, 1]), ("1.0.1", [0, 1]), ("1.0.2", [1, 0]), ("1.0.3", [0])):
        write_prepared(
            tmp_path, "imagenet2012", {"train": [labels], "validation": [[0]]}, version, image=imagenet_image
        )
        digests.append(datasets.get("imagenet2012", tmp_path).fingerprint)
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_cifar10_in_full(shared):
    data_dir = shared / "data" / "tensorflow_datasets"
    if not (data_dir / "cifar10").is_dir():
        pytest.skip("no prepared CIFAR-10 in the folder 'shared'")
    dataset = datasets.get("cifar10", data_dir)
    assert dataset.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(dataset.splits.train_labels).tolist() == [5000] * 10
    assert np.bincount(dataset.splits.test_labels).tolist() == [1000] * 10
    # The decoder that TensorFlow takes by default misses the published means by more than one grey level.
    mean = dataset.splits.train_images.mean(axis=(0, 1, 2))
    assert np.abs(mean - dataset.mean).max() < 0.2
