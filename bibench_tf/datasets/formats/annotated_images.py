"""Checks of a user's images and boxes: unusable ones are counted and named, the others become splits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bibench_tf.datasets.formats import unusable
from bibench_tf.datasets.formats.boxes import STORED_COLUMNS

# The last bytes of a complete file.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
# Some cameras append a few bytes; further back, the end of a thumbnail could match.
_TAIL_BYTES = 4096

Box = tuple[float, float, float, float]


class Thing(NamedTuple):
    """An object as a user's files describe it: `box` is (y0, x0, y1, x1) in pixels; `area` is by default the box's."""

    class_name: str
    box: Box
    ignored: bool = False
    area: float | None = None


class Picture(NamedTuple):
    """An image as a user's files describe it; `name` is its name in messages, `file` is None if it is missing."""

    name: str
    file: Path | None
    things: tuple[Thing, ...]


class Usable(NamedTuple):
    """A usable image: the file, and its objects as in `boxes.Annotated`."""

    file: Path
    objects: np.ndarray


def check(
    folder: Path, pictures: Sequence[Picture], class_names: Sequence[str], slack_px: float = 0.0
) -> dict[str, Usable]:
    """The usable ones of `pictures` by name, with messages on stderr about the others.

    Left out are images that are missing or not complete JPEG or PNG files, objects of other classes than `class_names`,
    and boxes without an area in the image. Boxes that reach outside are clipped, without a message for up to `slack_px`
    pixels. Images without objects are kept.
    """
    usable = {}
    unreadable, unknown, outside, nowhere, empty = [], [], [], [], []
    for picture in pictures:
        try:
            height, width = _measured(picture.file)
        except (OSError, ValueError) as error:
            unreadable.append(f"{picture.name} ({error})")
            continue
        rows = []
        for thing in picture.things:
            if thing.class_name not in class_names:
                unknown.append(f"{thing.class_name} in {picture.name}")
                continue
            box = _clipped(thing.box, height, width)
            if box is None:
                nowhere.append(f"{_numbers(thing.box)} in {picture.name}")
                continue
            if max(abs(one - other) for one, other in zip(box, thing.box, strict=True)) > slack_px:
                outside.append(f"{_numbers(thing.box)} in {picture.name}")
            area = (box[2] - box[0]) * (box[3] - box[1]) if thing.area is None else thing.area
            rows.append((*box, class_names.index(thing.class_name), thing.ignored, area))
        if not rows:
            empty.append(picture.name)
        objects = np.array(rows, np.float32).reshape(-1, STORED_COLUMNS)
        usable[picture.name] = Usable(picture.file, objects)
    boxes = sum(len(picture.things) for picture in pictures)
    unusable.warn(unreadable, f"of {len(pictures)} images in {folder} are missing or not readable")
    unusable.warn(unknown, f"of {boxes} objects in {folder} are of unknown classes")
    unusable.warn(nowhere, f"of {boxes} boxes in {folder} have no area inside their image")
    unusable.note(outside, f"of {boxes} boxes in {folder} reach outside their image and are clipped")
    unusable.note(empty, f"of {len(usable)} images in {folder} have no objects and are kept as such")
    return usable


def _measured(file: Path | None) -> tuple[int, int]:
    """Height and width of an image. Raises OSError, or ValueError unless it is a complete JPEG or PNG file."""
    if file is None or not file.is_file():
        raise ValueError("missing")
    with open(file, "rb") as stream:
        try:
            with Image.open(stream) as image:
                width, height = image.size
                kind = image.format
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError("not an image") from error
        size_bytes = stream.seek(0, 2)
        stream.seek(max(0, size_bytes - _TAIL_BYTES))
        tail = stream.read()
    if kind not in _ENDS:
        raise ValueError(f"{kind}, not JPEG or PNG")
    if _ENDS[kind] not in tail:
        raise ValueError("cut off")
    return height, width


def _clipped(box: Box, height: int, width: int) -> Box | None:
    """The part of a box inside the image, None if it has no area."""
    if not all(map(math.isfinite, box)):
        return None
    y0, x0 = max(box[0], 0.0), max(box[1], 0.0)
    y1, x1 = min(box[2], float(height)), min(box[3], float(width))
    return (y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None


def _numbers(box: Box) -> str:
    return f"[{', '.join(f'{side:g}' for side in box)}]"
