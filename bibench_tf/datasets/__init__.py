"""Data sets, by name.

`get` describes a data set without reading its examples and without importing TensorFlow. A data set of your
own is a function (data_dir, download) -> Dataset, made known by `register` or by an entry point of the
group `bibench_tf.datasets`; see docs/data.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from bibench_tf.datasets import (
    canvas_mini,
    coco2017,
    coco_folder,
    fashion_mini,
    glue,
    keywords_mini,
    modelnet40,
    point_folder,
    sentiment_mini,
    shapenet_part,
    shapes_mini,
    speech_commands,
    tfds_images,
    tsv,
    voc,
    voc_folder,
    wav_folder,
)
from bibench_tf.datasets.base import ArrayDataset, ArrayImages, Dataset, Examples, ImageDataset, RecordImages, Splits
from bibench_tf.errors import BibenchError, UnknownName
from bibench_tf.files import fingerprint_arrays, fingerprint_files

__all__ = [
    "ArrayDataset",
    "ArrayImages",
    "Dataset",
    "Entry",
    "Examples",
    "ImageDataset",
    "RecordImages",
    "Splits",
    "describe",
    "fingerprint_arrays",
    "fingerprint_files",
    "get",
    "names",
    "register",
    "task_of",
]

Factory = Callable[..., Dataset]

_BOXES = "detection"
_IMAGES = "image_classification"
_PARTS = "part_segmentation"
_POINTS = "point_classification"
_SPEECH = "keyword_spotting"
_TEXTS = "text_classification"


@dataclass(frozen=True)
class Entry:
    """A data set by name: the function that makes it, the task it belongs to, and one line about it.

    Data sets of texts are made by functions that take a `vocabulary`, too.
    """

    factory: Factory
    task: str
    description: str


_ENTRIES: dict[str, Entry] = {
    "canvas_mini": Entry(
        canvas_mini.get, _BOXES, "generated canvases with garments, 1,600 / 400, 10 classes; nothing to fetch"
    ),
    "cifar10": Entry(tfds_images.cifar10, _IMAGES, "CIFAR-10: 50,000 / 10,000 images of 32x32, 10 classes"),
    "coco2017": Entry(coco2017.get, _BOXES, "COCO 2017: 118,287 / 5,000 images with boxes, 80 classes"),
    "coco_folder": Entry(
        coco_folder.get, _BOXES, "coco_folder:FOLDER, images of your own with boxes in COCO's json files"
    ),
    "fashion_mini": Entry(
        fashion_mini.get, _IMAGES, "Fashion-MNIST, 8,000 / 2,000 images of 28x28, 10 classes; comes with the package"
    ),
    "imagenet2012": Entry(tfds_images.imagenet2012, _IMAGES, "ImageNet: 1,281,167 / 50,000 images, 1,000 classes"),
    **{
        name: Entry(partial(glue.get, name), _TEXTS, f"GLUE {task.title} {task.size}")
        for name, task in glue.TASKS.items()
    },
    "keywords_mini": Entry(
        keywords_mini.get, _SPEECH, "synthesised words in noise, 1,600 / 400 clips, 10 words; comes with the package"
    ),
    "modelnet40": Entry(modelnet40.get, _POINTS, "ModelNet40: 9,843 / 2,468 point clouds, 40 classes"),
    "point_folder": Entry(
        point_folder.get, _POINTS, "point_folder:FOLDER, HDF5 point clouds or OFF meshes of your own"
    ),
    "sentiment_mini": Entry(
        sentiment_mini.get, _TEXTS, "sentences of film reviews, 4,000 / 1,000, 2 classes; comes with the package"
    ),
    "shapenet_part": Entry(
        shapenet_part.get, _PARTS, "ShapeNetPart: 14,007 / 2,874 point clouds, 16 categories with 50 parts"
    ),
    "shapes_mini": Entry(
        shapes_mini.get, _POINTS, "generated furniture, 1,600 / 400 clouds of 256 points, 10 classes; nothing to fetch"
    ),
    "shapes_mini_parts": Entry(
        shapes_mini.get_parts, _PARTS, "the clouds of shapes_mini, the part of each point, 26 parts; nothing to fetch"
    ),
    "speech_commands": Entry(speech_commands.get, _SPEECH, "Speech Commands: 85,511 / 4,890 clips, 12 labels"),
    "tsv": Entry(tsv.get, _TEXTS, "tsv:FILE or tsv:FOLDER, sentences in tab-separated files of your own"),
    "voc0712": Entry(voc.voc0712, _BOXES, "PASCAL VOC 07+12: 16,551 / 4,952 images with boxes, 20 classes"),
    "voc2007": Entry(voc.voc2007, _BOXES, "PASCAL VOC 2007: 5,011 / 4,952 images with boxes, 20 classes"),
    "voc2012": Entry(voc.voc2012, _BOXES, "PASCAL VOC 2012: 5,717 / 5,823 images with boxes, 20 classes"),
    "voc_folder": Entry(voc_folder.get, _BOXES, "voc_folder:FOLDER, images of your own with boxes in VOC's XML files"),
    "wav_folder": Entry(wav_folder.get, _SPEECH, "wav_folder:FOLDER, words in wav files of your own"),
}


def names() -> list[str]:
    """The names of all data sets, those of installed entry points included."""
    return sorted({*_ENTRIES, *entry_points(group="bibench_tf.datasets").names})


def describe(name: str) -> Entry:
    """What is known of the data set called `name`, or `name:folder`, without its data.

    An entry point is a factory; its attributes `task` and `description` say what it makes, by default images.
    Raises BibenchError for an unknown name.
    """
    name, _, _ = name.partition(":")
    if name in _ENTRIES:
        return _ENTRIES[name]
    found = tuple(entry_points(group="bibench_tf.datasets", name=name))
    if not found:
        raise UnknownName("data set", name, names())
    factory = found[0].load()
    return Entry(factory, getattr(factory, "task", _IMAGES), getattr(factory, "description", found[0].value))


def task_of(name: str) -> str:
    """The key of the task (`bibench_tf.tasks`) that a data set belongs to. Raises BibenchError for an unknown name."""
    return describe(name).task


def get(
    name: str, data_dir: Path | str | None = None, download: bool = False, vocabulary: Path | str | None = None
) -> Dataset:
    """The data set called `name`.

    `data_dir` is where TensorFlow Datasets keeps prepared data; by default TFDS_DATA_DIR or
    ~/tensorflow_datasets. A data set in a folder of your own is `name:folder`. Nothing is fetched from the network
    unless `download` is true. `vocabulary` is the file of word pieces by which texts are cut. Raises BibenchError for
    an unknown name and for data that are missing.
    """
    entry = describe(name)
    _, colon, folder = name.partition(":")
    data_dir = folder if colon else data_dir
    options = {"vocabulary": vocabulary and Path(vocabulary)} if entry.task == "text_classification" else {}
    return entry.factory(None if data_dir is None else Path(data_dir), download, **options)


def register(name: str, factory: Factory, task: str = _IMAGES, description: str = "") -> None:
    """Make a data set known under `name`; `factory` gets (data_dir, download) of `get`.

    Raises BibenchError when the name is taken.
    """
    if name in names():
        raise BibenchError(f"There is already a data set called '{name}'.")
    _ENTRIES[name] = Entry(factory, task, description)
