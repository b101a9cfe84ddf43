"""A folder in the layout of COCO, sound and broken."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from bibench_tf import datasets
from bibench_tf.errors import BibenchError

CATEGORIES = [{"id": 9, "name": "nut"}, {"id": 3, "name": "bolt"}]


def get(folder):
    return datasets.get(f"coco_folder:{folder}")


def write(root, train, test):
    """`train` and `test` are annotations of the images 1 and 2, which are 40 x 30 (width x height)."""
    (root / "annotations").mkdir(parents=True)
    for split, entries in (("train2017", train), ("val2017", test)):
        (root / split).mkdir()
        for number in (1, 2):
            Image.new("RGB", (40, 30), (9, 99, 199)).save(root / split / f"{number}.png")
        content = {
            "images": [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)],
            "annotations": entries,
            "categories": CATEGORIES,
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def entry(image=1, category=3, box=(10, 5, 20, 10), **more):
    return {"image_id": image, "category_id": category, "bbox": box, **more}


def test_boxes_areas_and_crowds(tmp_path):
    data = datasets.get(f"coco_folder:{write(tmp_path, [entry(area=77.5), entry(2, 9, iscrowd=1)], [entry()])}")
    assert data.class_names == ("bolt", "nut") and data.protocol == "coco"
    assert (data.train_examples, data.test_examples) == (2, 2)
    first, second = data.splits.train.objects
    np.testing.assert_array_equal(first, [[5, 10, 15, 30, 0, 0, 77.5]])
    np.testing.assert_array_equal(second, [[5, 10, 15, 30, 1, 1, 200]])
    view = datasets.View((800, 1333), keep_ratio=True, divisor=32, augmentation="flip")
    images, truth = next(iter(dataclasses.replace(data, view=view).test_batches(2)))
    # 800 on the short side, 1066.67 on the long one, to multiples of 32.
    assert images.shape == (2, 800, 1088, 3) and truth.shape == (2, 1, 11)
    scale = 800 / 30, 1067 / 40
    np.testing.assert_allclose(truth[0, 0, :4], np.array([5, 10, 15, 30]) * np.tile(scale, 2), rtol=1e-5)
    np.testing.assert_allclose(truth[0, 0, 4:], [0, 0, 200, *scale, 800, 1067], rtol=1e-5)
    assert truth[1, 0, 4] == -1


def test_what_cannot_be_used_is_counted_and_named(tmp_path, capsys):
    train = [
        entry(),
        entry(category=5),
        entry(image=7),
        entry(box=(1, 2)),
        {"image_id": 1},
        entry(box=(30, 20, 30, 30)),
        entry(box=(3, 3, 0, 5)),
        entry(box=(3, 3, float("nan"), 5)),
    ]
    write(tmp_path, train, [entry(), entry(2)])
    (tmp_path / "train2017" / "2.png").unlink()
    file = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"].append({"id": 4, "file_name": "../val2017/1.png"})
    file.write_text(json.dumps(content))
    data = get(tmp_path)
    told = capsys.readouterr().err
    assert data.train_examples == 1
    np.testing.assert_array_equal(
        data.splits.train.objects[0], [[5, 10, 15, 30, 0, 0, 200], [20, 30, 30, 40, 0, 0, 100]]
    )
    assert "3 of 8 annotations" in told and "number 2 (KeyError: 7)" in told and "number 4" in told
    assert "1 of 7 objects" in told and "category 5 in train2017/1.png" in told
    assert "2 of 7 boxes" in told and "[3, 3, 8, 3]" in told
    assert "1 of 7 boxes" in told and "are clipped" in told
    assert "2 of 5 images" in told and "train2017/2.png (missing)" in told and "../val2017/1.png (missing)" in told


def test_images_may_lie_in_a_folder_of_images(tmp_path):
    write(tmp_path, [entry()], [entry()])
    (tmp_path / "images").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).rename(tmp_path / "images" / split)
    assert get(tmp_path).train_examples == 2


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"images": 3, "categories": [], "annotations": []}', '{"categories": [{}]}']
)
def test_files_that_are_none(tmp_path, text):
    write(tmp_path, [entry()], [entry()])
    (tmp_path / "annotations" / "instances_train2017.json").write_text(text)
    with pytest.raises(BibenchError, match="not a file of COCO annotations"):
        get(tmp_path)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(BibenchError, match="coco_folder:FOLDER"):
        datasets.get("coco_folder")
    with pytest.raises(BibenchError, match="no file instances_train"):
        get(tmp_path)
    write(tmp_path, [entry()], [entry()])
    (tmp_path / "annotations" / "instances_train2.json").write_text("{}")
    with pytest.raises(BibenchError, match="several"):
        get(tmp_path)
