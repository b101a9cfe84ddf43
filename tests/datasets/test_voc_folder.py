"""A folder in the layout of VOC, sound and broken."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bibench_tf import datasets
from bibench_tf.datasets import voc_folder
from bibench_tf.errors import BibenchError

BOMB = '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>'


def xml(*objects, head=""):
    """An annotation of objects (name, (xmin, ymin, xmax, ymax), difficult)."""
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box, difficult in objects
    ]
    return f"{head}<annotation><filename>../../etc/passwd</filename>{''.join(parts)}</annotation>"


def get(folder):
    return datasets.get(f"voc_folder:{folder}")


def write(root, content, lists, missing=()):
    """`content` maps names to the text of their XML file; images are 40 x 30 (width x height)."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
        if name not in missing:
            Image.new("RGB", (40, 30), (200, 100, 50)).save(root / "JPEGImages" / f"{name}.jpg")
    for name, names in lists.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(names) + "\n")
    return root


GOOD = xml(("knob", (1, 1, 20, 10), 0))


def test_corners_count_pixels_from_one(tmp_path):
    write(
        tmp_path,
        {"a": xml(("knob", (1, 1, 40, 30), 0), ("bolt", (5, 3, 6, 4), 1)), "b": GOOD},
        {"train": "a", "val": "b"},
    )
    data = datasets.get(f"voc_folder:{tmp_path}")
    assert data.class_names == ("bolt", "knob") and data.task == "detection" and data.protocol == "voc2007"
    np.testing.assert_array_equal(data.splits.train.objects[0], [[0, 0, 30, 40, 1, 0, 1200], [2, 4, 4, 6, 0, 1, 4]])
    images, truth = next(iter(data.test_batches(1)))
    assert images.shape == (1, 300, 300, 3)
    np.testing.assert_allclose(truth[0, 0], [0, 0, 100, 150, 1, 0, 200, 10, 7.5, 300, 300], rtol=1e-5)


def test_what_cannot_be_used_is_counted_and_named(tmp_path, capsys):
    content = {
        "good": GOOD,
        "cut": GOOD[:40],
        "bomb": xml(("knob", (1, 1, 9, 9), 0), head=BOMB),
        "words": xml(("knob", ("a", 1, 9, 9), 0)),
        "gone": GOOD,
        "torn": GOOD,
        "text": GOOD,
        "empty": xml(),
        "over": xml(("knob", (30, 20, 60, 50), 0), ("knob", (50, 50, 60, 60), 0), ("knob", (9, 9, 4, 20), 0)),
        "zero": xml(("knob", (0, 0, 9, 9), 0)),
        "test": xml(("knob", (1, 1, 9, 9), 0), ("gnome", (1, 1, 9, 9), 0)),
    }
    write(
        tmp_path, content, {"trainval": [*content][:-1] + ["nowhere", "../good"], "test": ["test"]}, missing=("gone",)
    )
    torn = tmp_path / "JPEGImages" / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:-12])
    (tmp_path / "JPEGImages" / "text.jpg").write_text("no image")
    data = get(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert data.train_examples == 4 and data.test_examples == 1
    assert [file.stem for file in data.splits.train.images] == ["good", "empty", "over", "zero"]
    np.testing.assert_array_equal(data.splits.train.objects[2], [[19, 29, 30, 40, 0, 0, 121]])
    assert data.splits.train.objects[1].shape == (0, 7) and len(data.splits.test.objects[0]) == 1

    def line(what):
        (found,) = [one for one in lines if what in one]
        return found

    broken = line("annotations in")
    assert broken.startswith("5 of 13") and "cut.xml" in broken and "bomb.xml (it declares" in broken
    assert "words.xml ('knob' without a box)" in broken and "nowhere.xml (missing)" in broken and "../good" in broken
    unreadable = line("not readable")
    assert unreadable.startswith("3 of 8") and "gone (missing)" in unreadable and "torn (cut off)" in unreadable
    assert "text (not an image)" in unreadable
    assert line("unknown classes").startswith("1 of") and "gnome in test" in line("unknown classes")
    assert line("no area").startswith("2 of") and "in over" in line("no area")
    assert line("clipped").startswith("1 of") and "over" in line("clipped")
    assert line("kept").startswith("1 of") and line("kept").endswith(": empty.")
    # What is left trains: every image can be decoded.
    assert sum(len(images) for images, _ in data.train_batches(2, seed=0, epoch=0)) == 4


@pytest.mark.parametrize("head", [BOMB, "<!DOCTYPE annotation>"])
def test_declarations_are_refused_in_any_encoding(head):
    for encoding in ("utf-8", "utf-16"):
        with pytest.raises(ValueError, match="declares entities"):
            voc_folder.read(xml(head=head).encode(encoding))


def test_classes_are_vocs_own_where_there_are_no_others(tmp_path):
    text = xml(("person", (1, 1, 9, 9), 0))
    data = get(write(tmp_path, {"a": text, "b": text}, {"train": "a", "test": "b"}))
    assert data.class_names == voc_folder.CLASSES and len(data.class_names) == 20
    assert data.splits.train.objects[0][0, 4] == voc_folder.CLASSES.index("person")


def test_the_names_of_voc_are_those_of_the_challenge_in_the_order_of_the_alphabet():
    """Labels are positions in this list; two exchanged names would exchange two classes."""
    assert " ".join(voc_folder.CLASSES) == (
        "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
        "sheep sofa train tvmonitor"
    )


def test_without_lists_a_fifth_is_tested_on(tmp_path):
    data = get(write(tmp_path, {f"image{number}": GOOD for number in range(10)}, {}))
    assert (data.train_examples, data.test_examples) == (8, 2)
    assert not set(data.splits.train.images) & set(data.splits.test.images)


def test_the_fingerprint_follows_boxes(tmp_path):
    lists = {"train": "a", "test": "b"}
    prints = [get(write(tmp_path, {"a": GOOD, "b": GOOD}, lists)).fingerprint for _ in range(2)]
    prints.append(get(write(tmp_path, {"a": GOOD.replace(">20<", ">21<"), "b": GOOD}, lists)).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(BibenchError, match="voc_folder:FOLDER"):
        datasets.get("voc_folder")
    with pytest.raises(BibenchError, match="no folders JPEGImages"):
        get(tmp_path)
    with pytest.raises(BibenchError, match="both splits"):
        get(write(tmp_path / "1", {"a": GOOD}, {"train": "a", "test": "a"}))
    with pytest.raises(BibenchError, match="no usable training"):
        get(write(tmp_path / "2", {"a": "x", "b": GOOD}, {"train": "a", "test": "b"}))
    with pytest.raises(BibenchError, match="usable object"):
        get(write(tmp_path / "3", {"a": xml(), "b": xml()}, {"train": "a", "test": "b"}))
    with pytest.raises(BibenchError, match="no test images"):
        get(write(tmp_path / "4", {"a": GOOD}, {"train": "a"}))


def test_real_photos(shared):
    data = datasets.get(f"voc_folder:{shared / 'data' / 'bccd_voc' / 'BCCD'}")
    assert data.class_names == ("Platelets", "RBC", "WBC")
    assert (data.train_examples, data.test_examples) == (205 + 87, 72)
    objects = np.concatenate([*data.splits.train.objects, *data.splits.test.objects])
    assert np.bincount(objects[:, 4].astype(int)).tolist() == [361, 4155, 372]
    images, truth = next(iter(data.train_batches(4, seed=0, epoch=0)))
    assert images.shape == (4, 300, 300, 3) and np.isfinite(images).all() and (truth.numpy()[..., 4] >= 0).any()
