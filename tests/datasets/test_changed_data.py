"""Every kind of data that lies in files: what changes its fingerprint, what does not, and what a record says of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io.wavfile
from PIL import Image

from bibench_tf import contents, datasets, names
from bibench_tf.contents import Contents
from bibench_tf.errors import BibenchError, InvalidOption


@dataclasses.dataclass(frozen=True)
class Written:
    """Data on the disk: the place that a user names, the file that is changed, and the place of a byte in it."""

    place: Path
    file: Path
    byte: int


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def tsv(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("sentence\tlabel\n" + "".join(f"a good film {n}\t{n % 2}\n" for n in range(40)))
    return path


def tsv_file(root):
    file = tsv(root / "x.tsv")
    return Written(file, file, 17)


def tsv_folder(root):
    tsv(root / "texts" / "train.tsv")
    return Written(root / "texts", tsv(root / "texts" / "dev.tsv"), 17)


def wav_folder(root):
    for word in ("yes", "no"):
        for number in range(5):
            file = root / "words" / word / f"{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.wavfile.write(file, 16_000, noise(500).astype(np.int16) + number)
    return Written(root / "words", file, 300)


def background_noise(root):
    words = wav_folder(root).place
    (words / "_background_noise_").mkdir()
    file = words / "_background_noise_" / "hum.wav"
    scipy.io.wavfile.write(file, 16_000, noise(500).astype(np.int16))
    return Written(words, file, 300)


def hdf5(root):
    (root / "clouds").mkdir(parents=True)
    clouds = np.random.default_rng(0).normal(size=(8, 32, 3)).astype(np.float32)
    for split in ("train", "test"):
        file = root / "clouds" / f"{split}.h5"
        with h5py.File(file, "w") as content:
            content["data"], content["label"] = clouds, np.arange(8)[:, None] % 2
    return Written(root / "clouds", file, file.read_bytes().index(clouds.tobytes()) + 1)


def meshes(root):
    text = "OFF\n3 1 0\n0 0 0\n4 0 0\n4 {} 0\n3 0 1 2\n"
    for name in ("box", "plate"):
        for split in ("train", "test"):
            file = root / "shapes" / name / split / "one.off"
            file.parent.mkdir(parents=True)
            file.write_text(text.format(7))
    return Written(root / "shapes", file, text.index("{}"))


def image(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(30, 40, 3)).save(file)
    return file


def coco(root):
    for split in ("train", "val"):
        file = image(root / "nuts" / split / "1.png")
        annotations = root / "nuts" / "annotations" / f"instances_{split}.json"
        annotations.parent.mkdir(exist_ok=True)
        annotations.write_text(
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "1.png"}],
                    "annotations": [{"image_id": 1, "category_id": 3, "bbox": [10, 5, 20, 10]}],
                    "categories": [{"id": 3, "name": "nut"}],
                }
            )
        )
    return Written(root / "nuts", file, 1000)


def coco_boxes(root):
    written = coco(root)
    file = written.place / "annotations" / "instances_val.json"
    return Written(written.place, file, file.read_text().index("20"))


def voc(root):
    box = "<bndbox><xmin>3</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>"
    for name in ("a", "b"):
        annotation = root / "cells" / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text(f"<annotation><object><name>cell</name>{box}</object></annotation>")
        file = image(root / "cells" / "JPEGImages" / f"{name}.jpg")
        listed = root / "cells" / "ImageSets" / "Main" / f"{'train' if name == 'a' else 'val'}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(f"{name}\n")
    return Written(root / "cells", file, 1000)


def voc_boxes(root):
    written = voc(root)
    file = written.place / "Annotations" / "b.xml"
    return Written(written.place, file, file.read_text().index("3"))


def prepared(*configs: str, splits=("train", "test"), labels="label.labels.txt") -> Callable[[Path], Written]:
    """Data as TensorFlow Datasets prepares them; a description does not look into the records."""

    def write(root):
        for config in configs:
            folder = root / "tfds" / config / "1.0.0"
            folder.mkdir(parents=True)
            name = config.partition("/")[0]
            for split in splits:
                file = folder / f"{name}-{split}.tfrecord-00000-of-00001"
                file.write_bytes(f"the records of {split}".encode() * 10)
            found = [{"name": split, "shardLengths": ["10"]} for split in splits]
            (folder / "dataset_info.json").write_text(json.dumps({"name": name, "splits": found}))
            (folder / labels).write_text("_silence_\nother\n")
        return Written(root / "tfds", file, 30)

    return write


OBJECTS = {"splits": ("train", "validation", "test"), "labels": "objects-label.labels.txt"}
PREPARED = {
    "cifar10": prepared("cifar10"),
    "imagenet2012": prepared("imagenet2012", splits=("train", "validation")),
    "speech_commands": prepared("speech_commands"),
    "glue_sst2": prepared("glue/sst2", splits=("train", "validation")),
    "modelnet40": prepared("modelnet40"),
    "shapenet_part": prepared("shapenet_part", splits=("train", "validation", "test")),
    "voc2007": prepared("voc/2007", **OBJECTS),
    "voc2012": prepared("voc/2012", **{**OBJECTS, "splits": ("train", "validation")}),
    "voc0712": prepared("voc/2012", "voc/2007", **OBJECTS),
    "coco2017": prepared("coco/2017", **{**OBJECTS, "splits": ("train", "validation")}),
}
# By the name of the test: the kind and what writes it.
WRITERS = {
    "tsv": ("tsv", tsv_file),
    "tsv folder": ("tsv", tsv_folder),
    "wav": ("wav_folder", wav_folder),
    "background noise": ("wav_folder", background_noise),
    "hdf5": ("point_folder", hdf5),
    "meshes": ("point_folder", meshes),
    "coco": ("coco_folder", coco),
    "coco boxes": ("coco_folder", coco_boxes),
    "voc": ("voc_folder", voc),
    "voc boxes": ("voc_folder", voc_boxes),
    **{name: (name, write) for name, write in PREPARED.items()},
}
# What is in memory once the data are described.
IN_MEMORY = ("coco boxes", "voc boxes")


@pytest.fixture(params=WRITERS)
def case(request):
    return request.param, *WRITERS[request.param]


@pytest.fixture(autouse=True)
def no_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    # Files count as old enough for their digests to be kept.
    monkeypatch.setattr(contents, "_CLOCK_NS", -(10**10))


def flip(written, *, restore_time):
    """Another byte in the file, of the same kind (a digit stays a digit), and the same size."""
    before = written.file.stat()
    time.sleep(0.02)  # the clock of the file system moves on
    with open(written.file, "r+b") as stream:
        stream.seek(written.byte)
        byte = stream.read(1)[0]
        stream.seek(written.byte)
        stream.write(bytes([byte ^ 1]))
    if restore_time:
        os.utime(written.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert written.file.stat().st_size == before.st_size


def test_every_data_set_in_files_is_here():
    """Notices a data set of the package that is not tried below."""
    embedded = {name for name in datasets.names() if datasets.describe(name).embedded}
    assert embedded == {
        *("fashion_mini", "keywords_mini", "shapes_mini", "shapes_mini_parts", "sentiment_mini", "canvas_mini")
    }
    same = {name for name in datasets.names() if name.startswith("glue_")} - {"glue_sst2"}
    own = {name for name in datasets.names() if datasets.DATASETS.origin(name).startswith("bibench_tf.")}
    assert {kind for kind, _ in WRITERS.values()} == own - embedded - same


@pytest.mark.parametrize("restore_time", [True, False])
def test_a_byte_of_the_contents_changes_the_fingerprint(case, restore_time, tmp_path):
    """Notices a fingerprint of names, sizes and times, and a change that the cache hides."""
    name, kind, write = case
    written = write(tmp_path)
    before = datasets.get(f"{kind}:{written.place}")
    fingerprint = before.fingerprint
    before.check_unchanged()
    flip(written, restore_time=restore_time)
    assert datasets.get(f"{kind}:{written.place}").fingerprint != fingerprint
    if name not in IN_MEMORY:
        with pytest.raises(BibenchError, match=f"The data of '{kind}.*' have changed while they were in use"):
            before.check_unchanged()
    flip(written, restore_time=restore_time)
    assert datasets.get(f"{kind}:{written.place}").fingerprint == fingerprint
    before.check_unchanged()


def test_the_same_contents_elsewhere_are_the_same_data(case, tmp_path, monkeypatch):
    """Notices a path, its spelling, a time or a name of a folder in the identity of the data."""
    _, kind, write = case
    written = write(tmp_path / "here")
    suffix = written.place.suffix
    copy = tmp_path / "another mount" / f"renamed{suffix}"
    copy.parent.mkdir()
    (shutil.copy if written.place.is_file() else shutil.copytree)(written.place, copy)
    for path in (copy, *copy.rglob("*")):
        os.utime(path, (5, 5))
    link = tmp_path / f"link{suffix}"
    link.symlink_to(written.place)
    monkeypatch.chdir(written.place.parent)
    places = [str(written.place), written.place.name, f"./{written.place.name}", str(copy), str(link)]
    found = [names.data_name(f"{kind}:{place}", datasets.get(f"{kind}:{place}").fingerprint) for place in places]
    assert len(set(map(names.data_identity, found))) == 1
    assert [names.data_label(name) for name in found] == [
        *[f"{kind}:{written.place.name}"] * 3,
        f"{kind}:renamed{suffix}",
        f"{kind}:link{suffix}",
    ]


def test_no_description_has_the_path_of_the_users_data(case, tmp_path):
    """Notices a path in what results keep of a data set."""
    _, kind, write = case
    data = datasets.get(f"{kind}:{write(tmp_path).place}")
    assert str(tmp_path) not in "".join([data.name, data.title, data.source, data.licence, data.fingerprint])


@pytest.mark.parametrize("kind", PREPARED)
def test_prepared_data_are_described_without_their_records(kind, tmp_path, monkeypatch):
    """Notices that 150 GB are read to list a data set."""
    written = PREPARED[kind](tmp_path)
    monkeypatch.setattr(contents, "digest_of", lambda files: pytest.fail("contents are read"))
    assert datasets.get(kind, written.place).train_examples
    with pytest.raises(pytest.fail.Exception):
        _ = datasets.get(kind, written.place).fingerprint


def test_another_division_into_splits_is_another_data_set(tmp_path):
    """Notices a digest over the bytes of all files together."""
    whole = "sentence\tlabel\n" + "".join(f"a good film {n}\t{n % 2}\n" for n in range(40))
    folder = tmp_path / "texts"
    prints = []
    for lines in (20, 22):
        folder.mkdir(exist_ok=True)
        first = "".join(whole.splitlines(keepends=True)[:lines])
        (folder / "train.tsv").write_text(first)
        (folder / "dev.tsv").write_text("sentence\tlabel\n" + whole[len(first) :])
        prints.append(datasets.get(f"tsv:{folder}").fingerprint)
    whole = (folder / "train.tsv").read_text() + (folder / "dev.tsv").read_text()
    (tmp_path / "one.tsv").write_text(whole)
    prints.append(datasets.get(f"tsv:{tmp_path / 'one.tsv'}").fingerprint)
    assert len(set(prints)) == 3


def test_names_of_classes_belong_to_the_data(tmp_path):
    """Notices a fingerprint that does not see which label means which class."""
    written = hdf5(tmp_path)
    prints = []
    for text in ("chair\nsofa\n", "sofa\nchair\n"):
        (written.place / "shape_names.txt").write_text(text)
        prints.append(datasets.get(f"point_folder:{written.place}").fingerprint)
    cifar = PREPARED["cifar10"](tmp_path)
    for text in ("cat\ndog\n", "dog\ncat\n"):
        (cifar.file.parent / "label.labels.txt").write_text(text)
        prints.append(datasets.get("cifar10", cifar.place).fingerprint)
    assert len(set(prints)) == 4


def test_prepared_again_in_one_process_is_read_again(tmp_path):
    """Notices decoded examples that are kept for the same paths."""
    import tensorflow as tf

    written = PREPARED["cifar10"](tmp_path)
    seen = []
    for level in (10, 20):
        for split in ("train", "test"):
            with tf.io.TFRecordWriter(str(written.file).replace("-test.", f"-{split}.")) as writer:
                for _ in range(10):
                    encoded = tf.io.encode_png(np.full((32, 32, 3), level, np.uint8)).numpy()
                    feature = {
                        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
                    }
                    writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
        seen.append(datasets.get("cifar10", written.place))
        assert seen[-1].splits.train_images.mean() == level
    assert seen[0].fingerprint != seen[1].fingerprint


def test_examples_of_changed_files_are_not_kept(tmp_path):
    """Notices arrays of other contents under the old fingerprint, after the files are as they were."""
    written = wav_folder(tmp_path)
    data = datasets.get(f"wav_folder:{written.place}")
    _ = data.fingerprint
    flip(written, restore_time=True)
    with pytest.raises(BibenchError, match="have changed"):
        _ = data.examples
    flip(written, restore_time=True)
    samples = data.examples.train_inputs
    np.testing.assert_array_equal(samples, datasets.get(f"wav_folder:{written.place}").examples.train_inputs)


@pytest.mark.parametrize("name", [name for name in datasets.names() if datasets.describe(name).embedded])
@pytest.mark.parametrize("folder", ["/any/folder", ".", "x"])
def test_a_data_set_inside_the_package_has_no_folder(name, folder):
    """Notices that the user's folder is ignored and the package's data are taken."""
    with pytest.raises(InvalidOption, match=f"^'{name}' is not read from a folder, so that {folder} would have no"):
        datasets.get(f"{name}:{folder}")


@pytest.mark.parametrize("name", ["fashion_mini", "cifar10", "tsv", "wav_folder"])
def test_a_colon_needs_a_folder(name, tmp_path, monkeypatch):
    """Notices that nothing after the colon means the working directory."""
    tsv(tmp_path / "train.tsv"), tsv(tmp_path / "dev.tsv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption, match="names no folder"):
        datasets.get(f"{name}:")


def test_a_plugin_that_ignores_its_folder_is_refused(registered_data):
    """Notices that only data sets of the package are checked; one that hands its options on is not refused."""

    def made(options):
        return datasets.get("fashion_mini")

    def from_folder(options):
        return datasets.get(f"tsv:{options.data_dir}")

    with registered_data("made", made, "image_classification"), registered_data("from", from_folder, "texts"):
        assert datasets.get("made", "folder").name == "fashion_mini"
        with pytest.raises(InvalidOption, match="'made' is not read from a folder"):
            datasets.get("made:folder")
        with pytest.raises(BibenchError, match="neither a file nor a folder"):
            datasets.get("from:folder")


def test_a_data_set_of_ones_own_can_be_watched(tmp_path):
    """Notices that `contents` of a plug-in's data set are not checked when its arrays are loaded."""
    file = tmp_path / "images.npz"
    file.write_bytes(b"one")
    found = Contents([file])
    arrays = datasets.Splits(noise(4, 2, 2, 1), np.arange(4) % 2, noise(4, 2, 2, 1), np.arange(4) % 2)
    data = datasets.ArrayImages(
        name="mine", title="Mine", source="", licence="", class_names=("a", "b"), train_examples=4, test_examples=4,
        input_shape=(2, 2, 1), mean=(0.0,), std=(1.0,), load=lambda: arrays, contents=found,
        fingerprint=lambda: found.digest,
    )  # fmt: skip
    assert data.fingerprint == found.digest
    file.write_bytes(b"two")
    with pytest.raises(BibenchError, match="The data of 'mine' have changed"):
        _ = data.splits


def test_a_data_set_needs_a_fingerprint():
    """Notices a data set without one, whose runs would all have the same id."""
    with pytest.raises(TypeError, match="fingerprint"):
        datasets.ArrayImages(
            name="mine", title="Mine", source="", licence="", class_names=("a", "b"), train_examples=4,
            test_examples=4, input_shape=(2, 2, 1), mean=(0.0,), std=(1.0,), load=lambda: None,
        )  # fmt: skip
