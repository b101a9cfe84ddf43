"""Boxes drawn on images, with the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bibench_tf.detection.annotations import BOX, CLASS

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets.kinds.detection import DetectionDataset

Colour = tuple[int, int, int]

_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)
_LINE_PX = 3
_FONT_PX = 14
# Images are enlarged until their long side has this many pixels, so that text is smaller than objects.
_LONG_SIDE_PX = 480
# Detections of lower scores are not drawn.
_FROM_SCORE = 0.3
_GAP_PX = 6


def pixels(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The image (uint8 [H, W, 3]) that a data set has normalised to (pixel - mean) / std (float32 [H, W, 3])."""
    return np.clip(np.rint(image * np.array(std) + np.array(mean)), 0, 255).astype(np.uint8)


def draw(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
) -> Image.Image:
    """An image (uint8 [H, W, 3]) with boxes on it; `.save("name.png")` writes it.

    `boxes` [N, 4] are (y0, x0, y1, x1) in pixels of the image, `classes` [N] numbers of `class_names`; rows of class -1
    are left out. With `scores` [N] each name has its score in per cent behind it, and boxes of higher scores lie above
    the others. A small image is enlarged by a whole number, so that the text can be read.
    """
    zoom = max(1, round(_LONG_SIDE_PX / max(image.shape[:2])))
    picture = Image.fromarray(image).resize((image.shape[1] * zoom, image.shape[0] * zoom), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_FONT_PX)
    by_score = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    order = [index for index in by_score if classes[index] >= 0]
    corners = {index: [round(float(side) * zoom) for side in boxes[index][[1, 0, 3, 2]]] for index in order}
    for index in order:
        _outline(canvas, corners[index], colour(int(classes[index])))
    taken: list[tuple[int, int, int, int]] = []
    for index in reversed(order):
        name = class_names[classes[index]]
        text = name if scores is None else f"{name} {100 * scores[index]:.0f}%"
        plate = _place(corners[index], canvas.textbbox((0, 0), text, font=font), picture.size, taken)
        taken.append(plate)
        fill = colour(int(classes[index]))
        canvas.rectangle(plate, fill=fill, outline=_BLACK)
        middle = ((plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2)
        canvas.text(middle, text, fill=ink(fill), font=font, anchor="mm")
    return picture


def detections(model: tf.keras.Model, images: tf.Tensor, data: DetectionDataset) -> Image.Image:
    """The image of a batch of one of `data`, with a detector's detections of scores of 0.3 and more."""
    found = {name: output[0] for name, output in model.predict_on_batch(images).items()}
    shown = found["scores"] >= _FROM_SCORE
    boxes, classes, scores = (found[name][shown] for name in ("boxes", "classes", "scores"))
    return draw(pixels(images.numpy()[0], data.mean, data.std), boxes, classes, data.class_names, scores)


def objects(image: np.ndarray, truth: np.ndarray, data: DetectionDataset) -> Image.Image:
    """An image of `data` with its labels (`bibench_tf.detection.annotations`)."""
    boxes, classes = truth[:, BOX], truth[:, CLASS].astype(int)
    return draw(pixels(image, data.mean, data.std), boxes, classes, data.class_names)


def in_a_row(images: Sequence[Image.Image], height: int) -> Image.Image:
    """Images side by side, each as high as `height` pixels."""
    images = [image.resize((round(image.width * height / image.height), height)) for image in images]
    row = Image.new("RGB", (sum(image.width + _GAP_PX for image in images) - _GAP_PX, height), _WHITE)
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + _GAP_PX
    return row


@cache
def colour(number: int) -> Colour:
    """The colour of a class: the same for every data set, maximally distinct from the colours of lower class indices.

    The distance is that of the colour space CIELAB. All colours differ from black, white and grey.
    """
    candidates = _candidates()
    places = _lab(candidates)
    chosen = [0]
    distances = np.linalg.norm(places - places[0], axis=1)
    for _ in range(number % len(candidates)):
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(places - places[chosen[-1]], axis=1))
    red, green, blue = candidates[chosen[-1]].tolist()
    return red, green, blue


def ink(background: Colour) -> Colour:
    """Black or white, whichever has more contrast with `background` (WCAG 2.1: always 4.5 or more)."""
    return _BLACK if luminance(background) > 0.179 else _WHITE


def luminance(colour: Colour) -> float:
    """The relative luminance of a colour, from 0 to 1 (WCAG 2.1)."""
    return float(_linear(np.array(colour)) @ (0.2126, 0.7152, 0.0722))


def _linear(colours: np.ndarray) -> np.ndarray:
    """The linear intensities of sRGB values of 0..255, from 0 to 1."""
    parts = colours / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB coordinates of sRGB colours [N, 3], for the white of sRGB (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = _linear(colours) @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@cache
def _candidates() -> np.ndarray:
    """Colours of a regular grid (uint8 [N, 3]) that are visible on black and on white; the first is an orange."""
    grid = np.array([(255, 128, 0), *product(range(0, 256, 17), repeat=3)], np.uint8)
    lab = _lab(grid.astype(float))
    return grid[(lab[:, 0] > 45) & (lab[:, 0] < 88) & (np.hypot(lab[:, 1], lab[:, 2]) > 30)]


def _outline(canvas: ImageDraw.ImageDraw, corners: Sequence[int], fill: Colour) -> None:
    """A coloured line between two black ones, which is visible on any ground."""
    x0, y0, x1, y1 = corners
    x1, y1 = max(x0, x1), max(y0, y1)
    canvas.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_BLACK, width=_LINE_PX + 2)
    canvas.rectangle((x0, y0, x1, y1), outline=fill, width=_LINE_PX)


def _place(
    corners: Sequence[int],
    text: tuple[float, float, float, float],
    size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """The place of a box's name: above the box, in its upper or lower edge, or below, wherever the image has room."""
    x0, y0, _, y1 = corners
    width, height = round(text[2] - text[0]) + 8, _FONT_PX + 6
    left = max(0, min(x0, size[0] - 1 - width))
    tops = [top for top in (y0 - height, y0, y1 - height, y1) if 0 <= top <= size[1] - 1 - height]
    plates = [(left, top, left + width, top + height) for top in tops or [max(0, min(y0, size[1] - 1 - height))]]
    return next((plate for plate in plates if not any(_overlap(plate, other) for other in taken)), plates[0])


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
