"""`bibench corrupt`: folders of images, data sets, resumption and faults."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from bibench_tf import corruptions, datasets
from bibench_tf.corruptions import export
from bibench_tf.errors import BibenchError, InvalidOption, StorageError


@pytest.fixture
def photos(tmp_path, colour, grey):
    """A folder of PNG and JPEG, grey and colour, upright and turned, at several depths."""
    folder = tmp_path / "photos"
    (folder / "pets" / "cats").mkdir(parents=True)
    Image.fromarray(colour[0]).save(folder / "a.png")
    Image.fromarray(grey[1, :, :28, 0]).save(folder / "pets" / "grey.PNG")
    Image.fromarray(colour[2]).save(folder / "pets" / "cats" / "c.jpg", quality=95)
    Image.fromarray(np.dstack([colour[3], grey[3]])).save(folder / "pets" / "clear.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    Image.fromarray(colour[4, :20]).save(folder / "turned.jpeg", exif=turned)
    (folder / "notes.txt").write_text("not an image")
    return folder


def image(path):
    with Image.open(path) as opened:
        return np.asarray(opened)


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_a_folder_keeps_its_names_and_its_images_their_noise(photos, tmp_path):
    outcome = export.corrupt_folder(photos, tmp_path / "out", ["fog", "impulse_noise"], [1, 4], workers=2)
    assert (outcome.written, outcome.present, outcome.unreadable) == (20, 0, {})
    expected = sorted(["a.png", "pets/grey.png", "pets/cats/c.png", "pets/clear.png", "turned.png"])
    for name in ("fog", "impulse_noise"):
        for severity in ("1", "4"):
            assert names_in(tmp_path / "out" / name / severity) == expected
    found = tmp_path / "out" / "impulse_noise" / "4"
    assert image(found / "pets" / "grey.png").shape == (32, 28)
    assert image(found / "pets" / "clear.png").shape == (32, 32, 3)
    assert image(found / "turned.png").shape == (32, 20, 3)
    # What is not hit by the noise is the image itself: the file is lossless.
    clean, noisy = image(photos / "a.png"), image(found / "a.png")
    hit = (noisy == 0) | (noisy == 255)
    np.testing.assert_array_equal(noisy[~hit], clean[~hit])
    # An image alone, in another folder under the same name, gets the same noise; under another name another.
    (tmp_path / "other").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(clean).save(tmp_path / "other" / name)
    export.corrupt_folder(tmp_path / "other", tmp_path / "out2", ["impulse_noise"], [4])
    again = tmp_path / "out2" / "impulse_noise" / "4"
    np.testing.assert_array_equal(image(again / "a.png"), noisy)
    assert not np.array_equal(image(again / "b.png"), noisy)


def test_what_is_there_is_not_made_again(photos, tmp_path):
    out = tmp_path / "out"
    export.corrupt_folder(photos, out, ["contrast"], [1, 2])
    kept, lost = out / "contrast" / "1" / "a.png", out / "contrast" / "2" / "a.png"
    before = lost.read_bytes()
    kept.write_bytes(b"mine")
    lost.unlink()
    outcome = export.corrupt_folder(photos, out, ["contrast", "fog"], [1, 2])
    assert (outcome.written, outcome.present) == (11, 9)
    assert kept.read_bytes() == b"mine" and lost.read_bytes() == before
    for change in ({"seed": 1}, {"table": "imagenet"}):
        with pytest.raises(BibenchError, match="another folder"):
            export.corrupt_folder(photos, out, ["contrast"], [1], **change)


@pytest.mark.parametrize("age_s", [0, -1000, 1000])
def test_an_image_that_changed_is_corrupted_again(photos, tmp_path, colour, age_s):
    """Notices that the corrupted copies of an earlier image are kept, also where the new file has an older time."""
    out = tmp_path / "out"
    export.corrupt_folder(photos, out, ["contrast"], [1, 2])
    before = {name: (out / name).read_bytes() for name in names_in(out)}
    time.sleep(0.02)  # longer than the resolution of the times of files
    Image.fromarray(colour[5]).save(tmp_path / "new.png")
    os.utime(tmp_path / "new.png", (time.time() + age_s,) * 2)
    (tmp_path / "new.png").replace(photos / "a.png")
    outcome = export.corrupt_folder(photos, out, ["contrast"], [1, 2])
    assert (outcome.written, outcome.present) == (2, 8)
    changed = {name for name in names_in(out) if (out / name).read_bytes() != before[name]}
    assert changed == {"contrast/1/a.png", "contrast/2/a.png"}


@pytest.mark.parametrize("source", ["folder", "data"])
def test_a_folder_with_other_files_is_refused(photos, tmp_path, source):
    """Notices that the authors' arrays are taken for images made here, and get labels in another order."""
    target = tmp_path / "CIFAR-10-C"
    target.mkdir()
    np.save(target / "fog.npy", np.zeros(3))
    with pytest.raises(InvalidOption, match="has files of another origin"):
        if source == "folder":
            export.corrupt_folder(photos, target, ["contrast"], [1])
        else:
            export.corrupt_dataset(datasets.get("fashion_mini"), target, ["fog"])
    assert [path.name for path in target.iterdir()] == ["fog.npy"]


def test_a_folder_of_other_data_is_not_continued(tmp_path):
    """Notices that corruptions of two data sets come together in one folder."""
    data = datasets.get("fashion_mini")
    export.corrupt_dataset(data, tmp_path / "out", ["brightness"])
    other = dataclasses.replace(data, fingerprint="0" * 64)
    with pytest.raises(InvalidOption, match="choose another folder"):
        export.corrupt_dataset(other, tmp_path / "out", ["contrast"])
    assert json.loads((tmp_path / "out" / "corruptions.json").read_text())["fingerprint"] == data.fingerprint


def test_unreadable_images_are_named_and_the_others_made(photos, tmp_path, colour):
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:200])
    (photos / "text.jpg").write_text("no image")
    Image.fromarray(colour[0]).save(photos / "disguised.png", "TIFF")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(photos / "deep.png")
    outcome = export.corrupt_folder(photos, tmp_path / "out", ["brightness"], [3])
    assert set(outcome.unreadable) == {"broken.png", "text.jpg", "disguised.png", "deep.png"}
    assert "8 bits" in outcome.unreadable["deep.png"]
    assert outcome.written == 5 and len(names_in(tmp_path / "out")) == 5


def test_grey_images_are_left_out_where_colour_is_needed(photos, tmp_path):
    outcome = export.corrupt_folder(photos, tmp_path / "out", ["saturate"], [1, 2])
    assert outcome.written == 8 and list(outcome.refused.values()) == [2]
    assert "colour" in next(iter(outcome.refused))


def test_a_write_that_fails_leaves_no_part_of_a_file(photos, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="No space"):
        export._write_png(tmp_path / "out" / "x.png", np.zeros((4, 4, 3), np.uint8))
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_that_cannot_work_are_refused(photos, tmp_path):
    def corrupt(source, target):
        export.corrupt_folder(source, target, ["fog"], [1])

    with pytest.raises(BibenchError, match="no folder"):
        corrupt(tmp_path / "missing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BibenchError, match="no PNG or JPEG"):
        corrupt(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(BibenchError, match="within the source"):
        corrupt(photos, photos / "out")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(photos / "a.jpg")
    with pytest.raises(BibenchError, match="two images would both become a.png"):
        corrupt(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_data_set_is_written_in_the_layout_of_cifar_10_c(tmp_path):
    outcome = export.corrupt_dataset(datasets.get("fashion_mini"), tmp_path, ["fog", "shot_noise"], seed=2, workers=2)
    assert outcome.written == 2
    splits = datasets.get("fashion_mini").splits
    count = len(splits.test_images)
    labels = np.load(tmp_path / "labels.npy", allow_pickle=False)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.tile(splits.test_labels, 5))
    for name in ("fog", "shot_noise"):
        images = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        assert images.shape == (5 * count, 28, 28, 1) and images.dtype == np.uint8
        for severity in corruptions.SEVERITIES:
            part = images[(severity - 1) * count : severity * count]
            np.testing.assert_array_equal(part, corruptions.apply(name, splits.test_images, severity, seed=2))
    # Again: nothing to do, and the files are not touched.
    before = (tmp_path / "fog.npy").stat().st_mtime_ns
    outcome = export.corrupt_dataset(datasets.get("fashion_mini"), tmp_path, ["fog"], seed=2)
    assert (outcome.written, outcome.present) == (0, 1) and (tmp_path / "fog.npy").stat().st_mtime_ns == before
    with pytest.raises(BibenchError, match="'seed': 2"):
        export.corrupt_dataset(datasets.get("fashion_mini"), tmp_path, ["fog"], seed=3)
    with pytest.raises(BibenchError, match="needs colour"):
        export.corrupt_dataset(datasets.get("fashion_mini"), tmp_path, ["saturate"], seed=2)


def test_an_interrupted_data_set_goes_on_with_the_next_corruption(tmp_path, monkeypatch):
    apply, calls = corruptions.apply, []

    def stop(name, *arguments, **options):
        calls.append(name)
        if name == "contrast":
            raise BibenchError("stopped here")
        return apply(name, *arguments, **options)

    monkeypatch.setattr(corruptions, "apply", stop)
    with pytest.raises(Exception, match="stopped here"):
        export.corrupt_dataset(datasets.get("fashion_mini"), tmp_path, ["brightness", "contrast"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brightness.npy", "corruptions.json", "labels.npy"]
    monkeypatch.setattr(corruptions, "apply", apply)
    outcome = export.corrupt_dataset(datasets.get("fashion_mini"), tmp_path, ["brightness", "contrast"])
    assert (outcome.written, outcome.present) == (1, 1)


def bibench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bibench_tf", "corrupt", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_line(photos, tmp_path):
    out = tmp_path / "out"
    done = bibench(photos, out, "--corruption", "extra,contrast", "--severity", "2,5", "--severity-table", "imagenet")
    assert done.returncode == 1 and "48 files written" in done.stdout
    assert "2 files were not made" in done.stderr and "needs colour" in done.stderr
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(
        [*corruptions.names("extra"), "contrast"]
    )
    done = bibench(photos, out, "--corruption", "contrast", "--severity", "2,5", "--severity-table", "imagenet", "-q")
    assert done.returncode == 0 and "0 files written, 10 existed" in done.stdout and done.stderr == ""
    (photos / "broken.png").write_text("")
    done = bibench(photos, out, "--corruption", "contrast", "--severity-table", "imagenet", "-q")
    assert done.returncode == 1 and "1 images could not be read" in done.stderr and "broken.png" in done.stderr


def test_a_corruption_of_a_plug_in_file(photos, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from bibench_tf import corruptions\n\n\n@corruptions.register(cifar10=(1, 2, 3, 4, 5))\n"
        "def inversion(images, level, draws):\n    return 255 - images\n"
    )
    done = bibench(photos, tmp_path / "out", "--plugin", plugin, "--corruption", "inversion", "--severity", "1", "-q")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(image(tmp_path / "out/inversion/1/a.png"), 255 - image(photos / "a.png"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing", "out"], "no folder missing"),
        (["data:cifar11", "out"], "Did you mean 'cifar10'"),
        (["data:fashion_mini", "out", "--severity", "1"], "all five severities"),
        (["data:fashion_mini", "out", "--corruption", "all"], "needs colour"),
        (["missing", "out", "--corruption", "fogg"], "Did you mean 'fog'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = bibench(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
