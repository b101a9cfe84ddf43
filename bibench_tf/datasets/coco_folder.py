"""`coco_folder:FOLDER`: the user's images with boxes, in the layout of COCO."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import annotated_images, unusable
from bibench_tf.datasets.formats.annotated_images import Picture, Thing
from bibench_tf.datasets.kinds.detection import DetectionDataset, annotated_folder
from bibench_tf.errors import BibenchError, MissingData

# How the file name of the test split may begin; the first that exists is used.
_TEST = ("instances_val", "instances_test")


@register(
    "coco_folder",
    task="detection",
    description="coco_folder:FOLDER, images of your own with boxes in COCO's json files",
)
def get(options: LoadOptions) -> DetectionDataset:
    """The images and boxes in the user's folder.

    `annotations/instances_trainX.json` and `annotations/instances_valX.json` (or `instances_testX.json`), X being
    anything, and the images in folders named as these files are: `trainX/` and `valX/`, or `images/trainX/` and so on.
    The json files have `images` (`id`, `file_name`), `annotations` (`image_id`, `category_id`, `bbox` [x, y, width,
    height], and, where known, `area` and `iscrowd`) and `categories` (`id`, `name`).

    Classes are the categories of the training file in the order of their ids. Crowds are ignored. Metrics are COCO's.
    Left out with a warning on stderr are the images and objects that `annotated_images.check` rejects, and annotations
    that are not boxes of a listed image. Raises MissingData where there are no such files, and BibenchError where they
    hold nothing usable.
    """
    folder = options.own_folder("coco_folder", "images")
    train_file, test_file = _file(folder, ("instances_train",)), _file(folder, _TEST)
    contents = {file: _content(file) for file in (train_file, test_file)}
    class_names = tuple(_categories(contents[train_file]).values())
    if len(set(class_names)) != len(class_names) or not class_names:
        raise BibenchError(f"{train_file} has no categories, or two of one name.")
    pictures = {file: _pictures(folder, file, content) for file, content in contents.items()}
    usable = annotated_images.check(folder, [*pictures[train_file], *pictures[test_file]], class_names)
    train, test = ([picture.name for picture in found] for found in pictures.values())
    return annotated_folder(folder, "COCO", usable, class_names, train, test, protocol="coco")


def _file(folder: Path, beginnings: tuple[str, ...]) -> Path:
    for beginning in beginnings:
        found = sorted((folder / "annotations").glob(f"{beginning}*.json"))
        if len(found) > 1:
            raise BibenchError(f"There are several files {beginning}*.json in {folder / 'annotations'}: keep one.")
        if found:
            return found[0]
    raise MissingData(f"There is no file {beginnings[0]}*.json in {folder / 'annotations'}.")


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
        _categories(content)
        {(image["id"], image["file_name"]) for image in content["images"]}
        if not isinstance(content["annotations"], list):
            raise TypeError("'annotations' is not a list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BibenchError(f"{file} is not a file of COCO annotations ({type(error).__name__}: {error}).") from error
    return content


def _categories(content: dict[str, Any]) -> dict[int, str]:
    return dict(sorted((int(category["id"]), str(category["name"])) for category in content["categories"]))


def _pictures(folder: Path, file: Path, content: dict[str, Any]) -> list[Picture]:
    """The images of a file; images whose names lead out of their folder count as missing."""
    split = file.stem.removeprefix("instances_")
    root = next((place for place in (folder / split, folder / "images" / split) if place.is_dir()), folder / split)
    categories = _categories(content)
    things: dict[int, list[Thing]] = {image["id"]: [] for image in content["images"]}
    broken = []
    for number, annotation in enumerate(content["annotations"]):
        try:
            things[annotation["image_id"]].append(_thing(annotation, categories))
        except (KeyError, TypeError, ValueError) as error:
            broken.append(f"number {number} ({type(error).__name__}: {error})")
    unusable.warn(broken, f"of {len(content['annotations'])} annotations in {file} are not boxes of a listed image")
    pictures = []
    for image in content["images"]:
        name = PurePosixPath(str(image["file_name"]))
        inside = not name.is_absolute() and ".." not in name.parts
        pictures.append(Picture(f"{split}/{name}", root / name if inside else None, tuple(things[image["id"]])))
    return pictures


def _thing(annotation: dict[str, Any], categories: dict[int, str]) -> Thing:
    x, y, width, height = map(float, annotation["bbox"])
    category = annotation["category_id"]
    area = annotation.get("area")
    return Thing(
        categories.get(category, f"category {category}"),
        (y, x, y + height, x + width),
        ignored=bool(annotation.get("iscrowd", 0)),
        area=None if area is None else float(area),
    )
