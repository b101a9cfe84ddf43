"""`voc_folder:FOLDER`: the user's images with boxes, in the layout of PASCAL VOC."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import annotated_images, unusable, user_files
from bibench_tf.datasets.formats.annotated_images import Picture, Thing
from bibench_tf.datasets.kinds.detection import DetectionDataset, annotated_folder
from bibench_tf.errors import BibenchError, MissingData

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_SUFFIXES = (".jpg", ".jpeg", ".png")


@register(
    "voc_folder", task="detection", description="voc_folder:FOLDER, images of your own with boxes in VOC's XML files"
)
def get(options: LoadOptions) -> DetectionDataset:
    """The images and boxes in the user's folder.

    `JPEGImages/NAME.jpg` (or .jpeg, .png), `Annotations/NAME.xml`, and lists of names, one for each line, in
    `ImageSets/Main`. With `test.txt` that is the test split, and `trainval.txt`, or else `train.txt` and `val.txt`, the
    training split; without it these are `val.txt` and `train.txt`. Without any list a fifth of the images, those whose
    names have the smallest SHA-256, is the test split.

    Classes are VOC's twenty where the training images have no others, else those of the training images in alphabetical
    order. Corners in the files count pixels from 1, both included, as VOC does: the box is (ymin - 1, xmin - 1, ymax,
    xmax). `difficult` objects are ignored. Metrics are those of VOC 2007.

    Left out with a warning on stderr are XML files that are broken or have entity declarations, and the images and
    objects that `annotated_images.check` rejects. Raises MissingData where there is no such folder, and BibenchError
    where it holds nothing usable.
    """
    folder = options.own_folder("voc_folder", "images")
    if not (folder / "Annotations").is_dir() or not (folder / "JPEGImages").is_dir():
        raise MissingData(f"There are no folders JPEGImages and Annotations in {folder}.")
    train_names, test_names = _splits(folder)
    images = {file.stem: file for file in sorted((folder / "JPEGImages").iterdir()) if file.suffix.lower() in _SUFFIXES}
    pictures = _pictures(folder, [*train_names, *test_names], images)
    class_names = _class_names([pictures[name] for name in train_names if name in pictures])
    usable = annotated_images.check(folder, [*pictures.values()], class_names, slack_px=1.0)
    return annotated_folder(folder, "VOC", usable, class_names, train_names, test_names, protocol="voc2007")


def read(content: bytes) -> tuple[Thing, ...]:
    """The objects in an XML file. Raises ValueError for other files, and for one that declares a document type."""
    # Entities can blow up a file without bounds and name other files; in UTF-16 the declaration would not be found.
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\0" in content:
        raise ValueError("it declares entities or is not UTF-8")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(f"no XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError("no element 'annotation'")
    return tuple(_thing(element) for element in root.iter("object"))


def _thing(element: ElementTree.Element) -> Thing:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object without a name")
    try:
        y0, x0, y1, x1 = (float(element.findtext(f"bndbox/{side}", "")) for side in ("ymin", "xmin", "ymax", "xmax"))
    except ValueError as error:
        raise ValueError(f"'{name}' without a box") from error
    difficult = element.findtext("difficult", "0").strip() == "1"
    return Thing(name, (y0 - 1.0, x0 - 1.0, y1, x1), ignored=difficult)


def _pictures(folder: Path, names: list[str], images: dict[str, Path]) -> dict[str, Picture]:
    """The images of these names whose annotations can be read."""
    pictures, broken = {}, []
    # A name from a list is looked up, never made a path of: it could lead out of the folder.
    files = {file.stem: file for file in (folder / "Annotations").glob("*.xml")}
    for name in names:
        try:
            if name not in files:
                raise ValueError("missing")
            pictures[name] = Picture(name, images.get(name), read(files[name].read_bytes()))
        except (OSError, ValueError) as error:
            broken.append(f"{name}.xml ({error})")
    unusable.warn(broken, f"of {len(names)} annotations in {folder} are missing or broken")
    return pictures


def _splits(folder: Path) -> tuple[list[str], list[str]]:
    """The names of training and test images."""
    lists = {
        name: _listed(folder / "ImageSets" / "Main" / f"{name}.txt") for name in ("trainval", "train", "val", "test")
    }
    both = lists["train"] + lists["val"]
    if lists["test"] and (lists["trainval"] or both):
        train, test = lists["trainval"] or both, lists["test"]
    elif lists["train"] and lists["val"]:
        train, test = lists["train"], lists["val"]
    elif any(lists.values()):
        raise BibenchError(
            f"The lists in {folder / 'ImageSets' / 'Main'} name no test images beside training images: it needs "
            "trainval.txt and test.txt, or train.txt and val.txt."
        )
    else:
        names = sorted(file.stem for file in (folder / "Annotations").glob("*.xml"))
        test = user_files.test_items(names, str)
        train = [name for name in names if name not in set(test)]
    shared = sorted(set(train) & set(test))
    if shared:
        raise BibenchError(f"{len(shared)} images in {folder} are in both splits, the first is {shared[0]}.")
    return train, test


def _listed(file: Path) -> list[str]:
    """The first word of each line, each once."""
    return [*dict.fromkeys(line.split()[0] for line in user_files.lines(file))]


def _class_names(pictures: list[Picture]) -> tuple[str, ...]:
    found = {thing.class_name for picture in pictures for thing in picture.things}
    return CLASSES if found <= set(CLASSES) else tuple(sorted(found))
