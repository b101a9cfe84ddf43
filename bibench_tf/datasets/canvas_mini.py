"""`canvas_mini`: garments on canvases with boxes, drawn from a fixed seed out of `fashion_mini`.

The canvases are the same on every machine: the random numbers are stable, and images are enlarged by Pillow, which
computes with integers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from bibench_tf.datasets import fashion_mini
from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats.boxes import STORED_COLUMNS, Annotated, DetectionSplits, View
from bibench_tf.datasets.formats.stable_random import StableRandom
from bibench_tf.datasets.kinds.detection import DetectionDataset
from bibench_tf.files import fingerprint_description

SIDE = 128
TRAIN, TEST = 1600, 400
MOST_ITEMS = 5
# Height and width of an item's picture, in pixels; the garment on it is mostly smaller.
SIZES = (24, 64)
# The share of the smaller of two boxes that may be covered, and how many scraps of garments lie behind the items.
COVERED = 0.25
SCRAPS = (3, 9)
# Standard deviation of the noise on top, in grey levels.
NOISE = 8.0
_SEED = 2024
_VERSION = 1
# From here on a grey level of an item is garment, not background.
_OPAQUE = 40


@register(
    "canvas_mini",
    task="detection",
    description="generated canvases with garments, 1,600 / 400, 10 classes; nothing to fetch",
    embedded=True,
)
def get(options: LoadOptions) -> DetectionDataset:
    """1,600 training and 400 test canvases of 128 x 128 in colour, with one to five garments of ten classes on each.

    Garments are tinted and 24 to 64 pixels in size; they may cover a quarter of each other. Behind them lie coloured
    clouds and scraps of other garments, over them noise. Training canvases have training images of `fashion_mini` on
    them, test canvases test images. Metrics are those of VOC 2007. The options are not used.
    """
    garments = fashion_mini.get(options)
    return DetectionDataset(
        name="canvas_mini",
        title=f"Fashion-MNIST items on canvases, {TRAIN:,} / {TEST:,}",
        source=garments.source,
        licence=garments.licence,
        class_names=garments.class_names,
        train_examples=TRAIN,
        test_examples=TEST,
        fingerprint=fingerprint_description(
            {
                "version": _VERSION,
                "items": garments.fingerprint,
                "seed": _SEED,
                "numbers": [SIDE, TRAIN, TEST, MOST_ITEMS, *SIZES, COVERED, *SCRAPS, NOISE, _OPAQUE],
            }
        ),
        load=load,
        view=View((SIDE, SIDE), augmentation="flip"),
        protocol="voc2007",
    )


@lru_cache(maxsize=1)
def load() -> DetectionSplits:
    """The canvases; drawn once."""
    items = fashion_mini.load()
    return DetectionSplits(
        draw(items.train_images, items.train_labels, TRAIN, _SEED),
        draw(items.test_images, items.test_labels, TEST, _SEED + 1),
    )


def draw(items: np.ndarray, labels: np.ndarray, count: int, seed: int) -> Annotated:
    """`count` canvases with `items` (uint8 [N, 28, 28, 1]) of classes `labels` [N]."""
    random = StableRandom(seed)
    canvases, objects = zip(*(_canvas(items[..., 0], labels, random) for _ in range(count)), strict=True)
    return Annotated(np.stack(canvases), objects)


def _canvas(items: np.ndarray, labels: np.ndarray, random: StableRandom) -> tuple[np.ndarray, np.ndarray]:
    """A canvas (uint8 [128, 128, 3]) and its objects (float32 [n, 7])."""
    canvas = _enlarged(random.uniform(20, 200, (4, 4, 3)).astype(np.uint8), SIDE).astype(np.float64)
    for _ in range(SCRAPS[0] + random.below(SCRAPS[1] - SCRAPS[0] + 1)):
        picture = _enlarged(items[random.below(len(items))], SIZES[0] + random.below(SIZES[1] - SIZES[0] + 1))
        side = 6 + random.below(9)
        top, left = random.below(len(picture) - side), random.below(len(picture) - side)
        scrap = picture[top : top + side, left : left + side]
        _paste(canvas, scrap, random.below(SIDE - side), random.below(SIDE - side), _tint(random))
    rows: list[tuple[Any, ...]] = []
    for _ in range(1 + random.below(MOST_ITEMS)):
        index = random.below(len(items))
        picture = _enlarged(items[index], SIZES[0] + random.below(SIZES[1] - SIZES[0] + 1))
        place = (random.uniform(), random.uniform())
        tint = _tint(random)
        down, across = (np.flatnonzero((picture >= _OPAQUE).any(axis)) for axis in (1, 0))
        if not len(down):
            continue
        # Only the garment itself has to be on the canvas.
        picture = picture[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
        height, width = picture.shape
        top, left = int(place[0] * (SIDE - height + 1)), int(place[1] * (SIDE - width + 1))
        box = (top, left, top + height, left + width)
        if any(_covered(box, other) > COVERED for other in rows):
            continue
        _paste(canvas, picture, top, left, tint)
        rows.append((*box, labels[index], 0, height * width))
    noise = NOISE * random.nearly_normal((SIDE, SIDE, 3))
    pixels = np.clip(np.rint(canvas + noise), 0, 255).astype(np.uint8)
    return pixels, np.array(rows, np.float32).reshape(-1, STORED_COLUMNS)


def _enlarged(picture: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def _tint(random: StableRandom) -> np.ndarray:
    return random.uniform(0.4, 1.0, (3,))


def _paste(canvas: np.ndarray, picture: np.ndarray, top: int, left: int, tint: np.ndarray) -> None:
    part = canvas[top : top + picture.shape[0], left : left + picture.shape[1]]
    opaque = (picture >= _OPAQUE)[..., None]
    part[...] = np.where(opaque, picture[..., None] * tint, part)


def _covered(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The shared area of two boxes by that of the smaller."""
    height = min(box[2], other[2]) - max(box[0], other[0])
    width = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (box, other)]
    return max(height, 0) * max(width, 0) / min(areas)
