"""VOC and COCO as TensorFlow Datasets leaves them on the disk, written by its own feature connectors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bibench_tf import datasets
from bibench_tf.errors import BibenchError

CLASSES = ("aeroplane", "bicycle", "bird")


def write(root, name, splits, mark, area=False):
    """`splits` maps a split to its images, each a list of (box in shares, class, ignored)."""
    tfds = pytest.importorskip("tensorflow_datasets")
    thing = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=CLASSES), mark: np.bool_}
    if area:
        thing["area"] = np.int64
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "objects": tfds.features.Sequence(thing),
        }
    )
    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    import tensorflow as tf

    base = name.partition("/")[0]
    for split, images in splits.items():
        with tf.io.TFRecordWriter(str(folder / f"{base}-{split}.tfrecord-00000-of-00001")) as writer:
            for objects in images:
                rows = [
                    {"bbox": tfds.features.BBox(*box), "label": label, mark: ignored, **({"area": 55} if area else {})}
                    for box, label, ignored in objects
                ]
                example = {"image": np.full((60, 80, 3), 128, np.uint8), "objects": rows}
                writer.write(features.serialize_example(features.encode_example(example)))
    info = {"name": base, "version": "1.0.0", "fileFormat": "tfrecord"}
    info["splits"] = [{"name": split, "shardLengths": [str(len(images))]} for split, images in splits.items()]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    features.save_metadata(str(folder))


BOX = (0.25, 0.5, 0.75, 1.0)


def test_07_and_12_train_together_and_07_is_tested_on(tmp_path):
    one = [[(BOX, 1, False), (BOX, 2, True)]]
    write(tmp_path, "voc/2007", {"train": one * 2, "validation": one, "test": [*one, []]}, "is_difficult")
    write(tmp_path, "voc/2012", {"train": one, "validation": one * 3}, "is_difficult")
    data = datasets.get("voc0712", tmp_path)
    assert (data.train_examples, data.test_examples) == (7, 2)
    assert data.class_names == CLASSES and data.protocol == "voc2007"
    ((images, truth),) = list(data.test_batches(2))
    assert images.shape == (2, 300, 300, 3) and truth.shape == (2, 2, 11)
    np.testing.assert_allclose(truth[0, 0], [70, 146.25, 225, 300, 1, 0, 31 * 41, 5, 3.75, 300, 300], rtol=1e-4)
    assert truth[0, 1, 5] == 1 and (truth.numpy()[1, :, 4] == -1).all()
    first, again = ([images.numpy() for images, _ in data.train_batches(3, seed=0, epoch=0)] for _ in range(2))
    assert len(first) == 2
    for image, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(image, other)
    assert datasets.get("voc2007", tmp_path).train_examples == 3
    of_2012 = datasets.get("voc2012", tmp_path)
    assert (of_2012.train_examples, of_2012.test_examples, of_2012.protocol) == (1, 3, "voc2012")


def test_coco_has_areas_of_its_own_and_crowds(tmp_path):
    one = [[(BOX, 0, True), ((0.1, 0.1, 0.2, 0.1), 1, False)]]
    write(tmp_path, "coco/2017", {"train": one, "validation": one}, "is_crowd", area=True)
    data = datasets.get("coco2017", tmp_path)
    assert data.protocol == "coco"
    ((_, truth),) = list(data.test_batches(1))
    # The box without an area is left out.
    assert truth.shape == (1, 1, 11)
    np.testing.assert_allclose(truth[0, 0, 4:7], [0, 1, 55])


def test_data_that_are_not_prepared(tmp_path):
    for name in ("voc2007", "voc2012", "voc0712", "coco2017"):
        with pytest.raises(BibenchError, match="not prepared"):
            datasets.get(name, tmp_path)
