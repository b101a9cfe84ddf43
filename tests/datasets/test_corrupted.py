"""Small stand-ins for CIFAR-10-C and ImageNet-C, as TensorFlow Datasets and as the authors leave them."""

from __future__ import annotations

import itertools
import json
import os
import shutil

import numpy as np
import pytest

from bibench_tf import corruptions, datasets
from bibench_tf.datasets.kinds import corrupted
from bibench_tf.errors import BibenchError

NAMES = ("fog", "glass_blur", "elastic_transform")
CLASSES = ("dark", "bright", "striped")
COUNT = 7
LABELS = np.array([2, 0, 1, 1, 0, 2, 1])


def dataset(name="cifar10", labels=LABELS, shape=(32, 32, 3)):
    images = np.zeros((COUNT, *shape), np.uint8)
    return datasets.ArrayImages(
        name=name,
        title="",
        source="",
        licence="",
        input_shape=shape,
        class_names=CLASSES,
        train_examples=COUNT,
        test_examples=COUNT,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        fingerprint="f",
        load=lambda: datasets.Splits(images, labels, images, labels),
    )


def pixels(corruption, severity):
    seed = [severity, *corruption.encode()]
    return np.random.default_rng(seed).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)


def gathered(batches):
    parts = list(batches)
    return [len(labels) for _, labels in parts], *(np.concatenate(part) for part in zip(*parts, strict=True))


# The authors' folder


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "CIFAR-10-C"
    path.mkdir()
    for name in NAMES:
        np.save(path / f"{name}.npy", np.concatenate([pixels(name, severity) for severity in range(1, 6)]))
    np.save(path / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    return path


def test_the_authors_arrays_are_read_by_severity(folder):
    found = corrupted.find(str(folder), dataset(), NAMES)
    for name, severity in itertools.product(NAMES, range(1, 6)):
        sizes, images, labels = gathered(found.batches(name, severity, 3, COUNT))
        assert sizes == [3, 3, 1] and images.dtype == np.uint8
        np.testing.assert_array_equal(images, pixels(name, severity))
        np.testing.assert_array_equal(labels, LABELS)
    sizes, images, labels = gathered(found.batches("fog", 5, 2, 5))
    assert sizes == [2, 2, 1]
    np.testing.assert_array_equal(images, pixels("fog", 5)[:5])
    assert found.title == "the authors' arrays in CIFAR-10-C"


def test_arrays_are_mapped_not_loaded(folder, monkeypatch):
    modes = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *given, **options: modes.append(options) or load(*given, **options))
    gathered(corrupted.find(str(folder), dataset(), NAMES).batches("fog", 1, 3, COUNT))
    assert modes and all(options == {"mmap_mode": "r", "allow_pickle": False} for options in modes)


def test_another_order_of_the_same_labels_is_taken_and_other_labels_are_refused(folder):
    turned = corrupted.find(str(folder), dataset(labels=LABELS[::-1]), NAMES)
    np.testing.assert_array_equal(gathered(turned.batches("fog", 1, 3, COUNT))[2], LABELS)
    other = corrupted.find(str(folder), dataset(labels=np.array([2, 0, 1, 1, 0, 2, 0])), NAMES)
    for use in (lambda: gathered(other.batches("fog", 1, 3, COUNT)), other.check):
        with pytest.raises(BibenchError, match="does not hold the labels"):
            use()


@pytest.mark.parametrize(
    "labels",
    [
        np.tile(LABELS, 4),
        np.concatenate([np.tile(LABELS, 4), LABELS[::-1]]),
        np.tile(LABELS, 5).astype(float),
        np.tile(LABELS, 5)[:, None],
    ],
)
def test_labels_that_are_not_five_times_the_same_are_refused(folder, labels):
    np.save(folder / "labels.npy", labels)
    found = corrupted.find(str(folder), dataset(), NAMES)
    for use in (lambda: gathered(found.batches("fog", 1, 3, COUNT)), found.check):
        with pytest.raises(BibenchError, match="five times over"):
            use()


def test_missing_files_are_all_named(folder):
    (folder / "fog.npy").unlink()
    (folder / "labels.npy").unlink()
    with pytest.raises(BibenchError, match=r"lacks fog\.npy, labels\.npy: give"):
        corrupted.find(str(folder), dataset(), NAMES)
    np.save(folder / "labels.npy", np.tile(LABELS, 5))
    corrupted.find(str(folder), dataset(), NAMES[1:])


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "fetch it again"),
        (lambda path: path.write_bytes(b""), "fetch it again"),
        (lambda path: np.save(path, np.array([{"a": 1}], dtype=object)), "fetch it again"),
        (lambda path: np.save(path, np.zeros((COUNT, 32, 32, 3), np.uint8)), "five severities"),
        (lambda path: np.save(path, np.zeros((5 * COUNT, 32, 32, 3), np.float32)), "five severities"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_read(folder, damage, said):
    damage(folder / "fog.npy")
    with pytest.raises(BibenchError, match=said):
        corrupted.find(str(folder), dataset(), NAMES)


def test_a_fingerprint_is_that_of_the_images_and_labels_of_a_corruption(folder, tmp_path):
    """Notices a digest of paths, sizes or times, and one of the whole folder."""

    def fingerprints(path, names=NAMES):
        return {name: corrupted.find(str(path), dataset(), names).fingerprint(name) for name in names}

    before = fingerprints(folder)
    assert len(set(before.values())) == 3
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprints(tmp_path / "copy") == before and fingerprints(folder, NAMES[:1]) == {"fog": before["fog"]}
    images = np.load(folder / "fog.npy")
    images[-1, 0, 0, 0] ^= 1
    times = (folder / "fog.npy").stat()
    np.save(folder / "fog.npy", images)
    os.utime(folder / "fog.npy", ns=(times.st_atime_ns, times.st_mtime_ns))
    after = fingerprints(folder)
    assert [name for name in NAMES if after[name] != before[name]] == ["fog"]
    np.save(folder / "labels.npy", np.tile(LABELS[::-1], 5).astype(np.uint8))
    assert not set(fingerprints(folder).values()) & set(after.values())


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """Real images, corrupted mildly, in an order of their own with their labels."""
    path = tmp_path_factory.mktemp("fashion")
    data = datasets.get("fashion_mini")
    order = np.random.default_rng(0).permutation(data.test_examples)
    for name in ("gaussian_noise", "contrast", "elastic_transform"):
        images = corruptions.apply(name, data.splits.test_images[order], 1)
        np.save(path / f"{name}.npy", np.tile(images, (5, 1, 1, 1)))
    np.save(path / "labels.npy", np.tile(data.splits.test_labels[order], 5))
    return data, path, order


def test_labels_in_the_order_of_the_images_are_taken(fashion):
    """Notices that a set in its own order, as the authors' is, is refused."""
    data, path, _ = fashion
    corrupted.find(str(path), data, ("gaussian_noise", "contrast", "elastic_transform")).check()


@pytest.mark.parametrize("name", ["gaussian_noise", "contrast", "elastic_transform"])
@pytest.mark.parametrize("wrong", ["in the order of the test images", "shuffled", "backwards"])
def test_labels_in_another_order_than_the_images_are_refused(fashion, tmp_path, name, wrong):
    """Notices labels with the right number of each class that belong to other images."""
    data, path, order = fashion
    labels = data.splits.test_labels
    labels = {
        "in the order of the test images": labels,
        "shuffled": np.random.default_rng(1).permutation(labels),
        "backwards": labels[order][::-1],
    }[wrong]
    shutil.copy(path / f"{name}.npy", tmp_path)
    np.save(tmp_path / "labels.npy", np.tile(labels, 5))
    with pytest.raises(BibenchError, match=f"not those of the images in {name}.npy: of .* have its label"):
        corrupted.find(str(tmp_path), data, (name,)).check()


def test_images_of_other_data_under_these_labels_are_refused(fashion, tmp_path):
    """Notices the training images with the labels of the test images."""
    data, *_ = fashion
    images = data.splits.train_images[: data.test_examples]
    np.save(tmp_path / "contrast.npy", np.tile(corruptions.apply("contrast", images, 1), (5, 1, 1, 1)))
    np.save(tmp_path / "labels.npy", np.tile(data.splits.test_labels, 5))
    with pytest.raises(BibenchError, match="not those of the images in contrast.npy"):
        corrupted.find(str(tmp_path), data, ("contrast",)).check()


def test_a_set_that_this_program_made_belongs_to_its_data(folder):
    """Notices a set that was exported from other data of the same shape, and labels that were put in another order."""
    settings = {"source": "data:cifar10", "fingerprint": "f", "seed": 0, "table": "cifar10", "version": 2}
    path = folder / "corruptions.json"
    path.write_text(json.dumps(settings))
    corrupted.find(str(folder), dataset(), NAMES).check()
    with pytest.raises(BibenchError, match="another order than the images"):
        corrupted.find(str(folder), dataset(labels=LABELS[::-1]), NAMES).check()
    for text, said in (
        (
            json.dumps(settings | {"fingerprint": "e"}),
            r"other data than the test images of 'cifar10' \(fingerprint e, not f\)",
        ),
        (json.dumps({"source": "/photos", "seed": 0}), "does not say what the images were made from"),
        ("[]", "does not say"),
        ("{", "does not say"),
    ):
        path.write_text(text)
        with pytest.raises(BibenchError, match=said):
            corrupted.find(str(folder), dataset(), NAMES)


# TensorFlow Datasets


def write_config(root, name, config, split, shards, classes=CLASSES):
    """One configuration as TFDS leaves it; `shards` are lists of (image, label)."""
    import tensorflow as tf

    folder = root / name / config / "1.0.0"
    folder.mkdir(parents=True)
    for index, examples in enumerate(shards):
        with tf.io.TFRecordWriter(str(folder / f"{name}-{split}.tfrecord-{index:05}-of-{len(shards):05}")) as writer:
            for image, label in examples:
                encoded = tf.io.encode_png(image).numpy()
                features = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    info = {
        "name": name,
        "configName": config,
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [{"name": split, "numBytes": "1", "shardLengths": [str(len(shard)) for shard in shards]}],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("\n".join(classes) + "\n")
    return folder


@pytest.fixture(scope="module")
def tfds_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    for name, word in zip(NAMES, ("fog", "frosted_glass_blur", "elastic"), strict=True):
        for severity in range(1, 6):
            examples = list(zip(pixels(name, severity), LABELS, strict=True))
            # The number of files differs between severities, as it does for ImageNet-C; the order may not.
            cut = severity if severity < 4 else COUNT
            shards = [shard for shard in (examples[:cut], examples[cut:]) if shard]
            write_config(root, "cifar10_corrupted", f"{word}_{severity}", "test", shards)
    return root


def test_prepared_configurations_are_read_by_their_own_names_in_order(tfds_root):
    found = corrupted.find("tfds", dataset(), NAMES, tfds_root)
    for name, severity in itertools.product(NAMES, range(1, 6)):
        sizes, images, labels = gathered(found.batches(name, severity, 3, COUNT))
        assert sizes == [3, 3, 1] and images.dtype == np.uint8
        np.testing.assert_array_equal(images, pixels(name, severity))
        np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(gathered(found.batches("fog", 2, 2, 5))[1], pixels("fog", 2)[:5])
    assert found.title == "cifar10_corrupted of TensorFlow Datasets"


def test_a_prepared_fingerprint_changes_with_the_records(tfds_root, tmp_path):
    """Notices a digest of the folder's path, and one that is the same for other records."""
    found = corrupted.find("tfds", dataset(), NAMES, tfds_root)
    before = {name: found.fingerprint(name) for name in NAMES}
    assert len(set(before.values())) == 3
    copy = shutil.copytree(tfds_root, tmp_path / "copy")
    assert corrupted.find("tfds", dataset(), NAMES[:1], copy).fingerprint("fog") == before["fog"]
    shutil.rmtree(copy / "cifar10_corrupted" / "fog_3")
    write_config(copy, "cifar10_corrupted", "fog_3", "test", [list(zip(pixels("x", 1), LABELS, strict=True))])
    changed = corrupted.find("tfds", dataset(), NAMES, copy)
    assert [name for name in NAMES if changed.fingerprint(name) != before[name]] == ["fog"]
    changed.check()


def test_imagenet_has_names_and_a_split_of_its_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 224, 224, 3), dtype=np.uint8)
    for severity in range(1, 6):
        shards = [list(zip(images, LABELS, strict=True))]
        write_config(tmp_path, "imagenet2012_corrupted", f"glass_blur_{severity}", "validation", shards)
    data = dataset("imagenet2012", shape=(224, 224, 3))
    found = corrupted.find("tfds", data, ("glass_blur",), tmp_path)
    np.testing.assert_array_equal(gathered(found.batches("glass_blur", 4, 4, COUNT))[1], images)


def test_a_missing_configuration_is_named(tfds_root):
    with pytest.raises(BibenchError, match="'cifar10_corrupted/snow_1' is not prepared.*--download"):
        corrupted.find("tfds", dataset(), (*NAMES, "snow"), tfds_root)


def test_a_data_set_without_a_published_set_is_told(tfds_root):
    with pytest.raises(BibenchError, match="no corrupted images of 'fashion_mini'"):
        corrupted.find("tfds", datasets.get("fashion_mini"), NAMES, tfds_root)


@pytest.mark.parametrize("count, classes", [(COUNT - 1, CLASSES), (COUNT, ("a", "b", "c"))])
def test_another_number_of_images_or_other_classes_are_refused(tmp_path, count, classes):
    examples = list(zip(pixels("fog", 1), LABELS, strict=True))[:count]
    write_config(tmp_path, "cifar10_corrupted", "fog_1", "test", [examples], classes)
    with pytest.raises(BibenchError, match="not the 7 test images"):
        corrupted.find("tfds", dataset(), ("fog",), tmp_path)


def test_damaged_records_are_told_in_one_sentence(tmp_path):
    for severity in range(1, 6):
        examples = list(zip(pixels("fog", severity), LABELS, strict=True))
        folder = write_config(tmp_path, "cifar10_corrupted", f"fog_{severity}", "test", [examples])
    (file,) = folder.glob("*.tfrecord*")
    file.write_bytes(file.read_bytes()[:-100])
    found = corrupted.find("tfds", dataset(), ("fog",), tmp_path)
    assert len(gathered(found.batches("fog", 4, 3, COUNT))[1]) == COUNT
    with pytest.raises(BibenchError, match="prepare 'cifar10_corrupted' again"):
        gathered(found.batches("fog", 5, 3, COUNT))
