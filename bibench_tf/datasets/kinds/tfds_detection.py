"""Data sets of detection in the records of TensorFlow Datasets (TFDS), such as VOC and COCO."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from bibench_tf.contents import Contents
from bibench_tf.datasets.base import LoadOptions
from bibench_tf.datasets.formats.boxes import DetectionSplits, Recorded
from bibench_tf.datasets.formats.tfds_prepared import Prepared, prepared
from bibench_tf.datasets.kinds.detection import DetectionDataset
from bibench_tf.errors import BibenchError
from bibench_tf.files import fingerprint_description

if TYPE_CHECKING:
    import tensorflow as tf


class Part(NamedTuple):
    """Splits of a data set of TFDS, in the order in which they are read."""

    name: str
    splits: tuple[str, ...]


class Marks(NamedTuple):
    """The names in TFDS of two features of an object: whether it is ignored, and its area if there is one.

    With `from_one` the corners of boxes count pixels from 1, both included.
    """

    ignored: str
    area: str | None = None
    from_one: bool = False


def dataset(
    *, train: Sequence[Part], test: Part, marks: Marks, options: LoadOptions, **description: Any
) -> DetectionDataset:
    """The data set of these parts; `description` are the other fields of `DetectionDataset`.

    Raises MissingData for missing parts, BibenchError if their classes differ.
    """
    parts = (*train, test)
    found = [prepared(part.name, part.splits, options, classes=False) for part in parts]
    class_names = {_class_names(one) for one in found}
    if len(class_names) != 1:
        raise BibenchError(
            f"{' and '.join(part.name for part in train)} do not have the same classes: prepare them again."
        )
    read = partial(parse, marks)
    files = [
        tuple(file for split in part.splits for file in one.files[split])
        for part, one in zip(parts, found, strict=True)
    ]
    counts = [sum(one.examples[split] for split in part.splits) for part, one in zip(parts, found, strict=True)]
    train_files = tuple(file for some in files[:-1] for file in some)
    (classes,) = class_names
    contents = Contents(file for some in files for file in some)
    return DetectionDataset(
        class_names=classes,
        train_examples=sum(counts[:-1]),
        test_examples=counts[-1],
        fingerprint=lambda: fingerprint_description({"files": contents.digest, "examples": counts, "classes": classes}),
        contents=contents,
        load=lambda: DetectionSplits(Recorded(train_files, read), Recorded(files[-1], read)),
        **description,
    )


def parse(marks: Marks, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The encoded image and the objects of a record, as in `boxes.Recorded`.

    Boxes are clipped to the image. Objects whose box has no area are left out.
    """
    import tensorflow as tf

    def numbers(kind, *shape):
        return tf.io.FixedLenSequenceFeature(shape, kind, allow_missing=True)

    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "objects/bbox": numbers(tf.float32, 4),
        "objects/label": numbers(tf.int64),
        f"objects/{marks.ignored}": numbers(tf.int64),
    }
    if marks.area:
        features[f"objects/{marks.area}"] = numbers(tf.int64)
    example = tf.io.parse_single_example(record, features)
    boxes = example["objects/bbox"]
    if marks.from_one:
        size = tf.cast(tf.io.extract_jpeg_shape(example["image"])[:2], tf.float32)
        boxes -= tf.concat([1.0 / size, [0.0, 0.0]], 0)
    boxes = tf.clip_by_value(boxes, 0.0, 1.0)
    label = tf.cast(example["objects/label"], tf.float32)
    ignored = tf.cast(example[f"objects/{marks.ignored}"], tf.float32)
    area = tf.cast(example[f"objects/{marks.area}"], tf.float32) if marks.area else tf.zeros_like(label)
    objects = tf.concat([boxes, tf.stack([label, ignored, area], 1)], 1)
    return example["image"], tf.boolean_mask(objects, tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1))


def _class_names(found: Prepared) -> tuple[str, ...]:
    file = found.folder / "objects-label.labels.txt"
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise BibenchError(f"Cannot read the names of the classes in {file}: prepare the data set again.") from error
