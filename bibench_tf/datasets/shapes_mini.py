"""`shapes_mini` and `shapes_mini_parts`: point clouds of simple furniture, drawn from a fixed seed.

The clouds are the same on every machine: the random numbers are stable,
and all operations on them are additions, multiplications, divisions and square roots in float64, which IEEE 754 defines
to the last bit (no sine, whose last bit differs between machines). The points are rounded to 1/8192 at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats.stable_random import StableRandom
from bibench_tf.datasets.kinds import points
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples
from bibench_tf.errors import BibenchError
from bibench_tf.files import fingerprint_arrays

POINTS = 256
TRAIN, TEST = 1600, 400
SHA256 = "b135b84e235c6c7549921b4169be131a1cd66a4e5eacf59bd229b27d23568c13"
_SEED = 2023
_GRID = 8192
# Three things make classes similar: the share of parts other than the first that are missing, the largest factor by
# which each axis is stretched or shrunk, and the standard deviation of the noise, the largest coordinate being 1.
MISSING = 0.15
STRETCH = 1.3
NOISE = 0.03

# The parts of each class, the one that is never missing first.
PARTS = {
    "bed": ("mattress", "headboard", "legs"),
    "bench": ("seat", "legs", "back"),
    "chair": ("seat", "back", "legs", "arms"),
    "lamp": ("shade", "pole", "base"),
    "mug": ("body", "handle"),
    "plant": ("leaves", "pot"),
    "shelf": ("boards", "sides"),
    "sofa": ("seat", "back", "arms"),
    "stool": ("seat", "legs"),
    "table": ("top", "legs"),
}

# Of both data sets.
_DESCRIPTION: dict[str, Any] = {
    "source": "generated",
    "licence": "Apache-2.0, as the package",
    "train_examples": TRAIN,
    "test_examples": TEST,
    "points": POINTS,
    "fingerprint": SHA256,
}

# Draws of one number or of an array.
Uniform = Callable[..., Any]


class Piece(NamedTuple):
    """A surface that belongs to a part: a box, or the side of an upright cone or cylinder.

    `bottom` is the middle (x, y, z) of its bottom, z being up. `size` is (width, depth, height) of a box, and (radius
    at the bottom, radius at the top, height) of a `round` piece.
    """

    part: int
    bottom: tuple[float, float, float]
    size: tuple[float, float, float]
    round: bool = False


class Clouds(NamedTuple):
    """Points in units of 1/8192 (int16 [N, 256, 3]), the class of each cloud (int8 [N]), parts (int8 [N, 256]).

    Parts count from 0 over all classes.
    """

    points: np.ndarray
    classes: np.ndarray
    parts: np.ndarray


@register(
    "shapes_mini",
    task="point_classification",
    description="generated furniture, 1,600 / 400 clouds of 256 points, 10 classes; nothing to fetch",
    embedded=True,
)
def get(options: LoadOptions) -> ArrayDataset:
    """Ten classes of furniture, 1,600 training and 400 test clouds of 256 points.

    `fingerprint` is the SHA-256 of the generated arrays. The options are not used.
    """
    return points.classification(
        name="shapes_mini",
        title="Parametric furniture, 1,600 / 400 clouds",
        class_names=tuple(PARTS),
        load=_classified,
        **_DESCRIPTION,
    )


@register(
    "shapes_mini_parts",
    task="part_segmentation",
    description="the clouds of shapes_mini, the part of each point, 26 parts; nothing to fetch",
    embedded=True,
)
def get_parts(options: LoadOptions) -> ArrayDataset:
    """The clouds of `shapes_mini`, with the part that each point belongs to. The options are not used."""
    return points.segmentation(
        name="shapes_mini_parts",
        title="Parts of parametric furniture, 1,600 / 400 clouds",
        class_names=tuple(f"{category}/{part}" for category, parts in PARTS.items() for part in parts),
        load=_segmented,
        **_DESCRIPTION,
    )


@cache
def generate() -> tuple[Clouds, Clouds]:
    """The training and the test clouds, classes in equal numbers and mixed.

    Raises BibenchError when their SHA-256 differs.
    """
    clouds = _clouds(TRAIN, _SEED), _clouds(TEST, _SEED + 1)
    if fingerprint_arrays([*clouds[0], *clouds[1]]) != SHA256:
        raise BibenchError(
            "The clouds of 'shapes_mini' differ on this machine (wrong SHA-256): please report it with your processor "
            "and version of NumPy."
        )
    return clouds


def _classified() -> Examples:
    train, test = generate()
    return Examples(_metric(train), train.classes.astype(np.int32), _metric(test), test.classes.astype(np.int32))


def _segmented() -> Examples:
    arrays: list[Any] = []
    for clouds in generate():
        inputs = {"points": _metric(clouds), "category": clouds.classes.astype(np.int32)}
        arrays += [inputs, clouds.parts.astype(np.int32)]
    return Examples(*arrays)


def _metric(clouds: Clouds) -> np.ndarray:
    return clouds.points.astype(np.float32) / _GRID


def _clouds(count: int, seed: int) -> Clouds:
    uniform = StableRandom(seed).uniform
    classes = np.argsort(uniform(size=count), kind="stable") % len(PARTS)
    first_part = np.cumsum([0, *map(len, PARTS.values())])
    coordinates, parts = [], []
    for label in classes:
        pieces = _with_missing(_SHAPES[label](uniform), uniform)
        cloud, part = _surface_points(pieces, uniform)
        coordinates.append(_posed(cloud, uniform))
        parts.append(first_part[label] + part)
    return Clouds(
        np.round(np.stack(coordinates) * _GRID).astype(np.int16),
        classes.astype(np.int8),
        np.stack(parts).astype(np.int8),
    )


def _circle(turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of about 2 pi `turn`, by divisions only: exactly on the circle, and nearly even along it.

    In a quarter of the circle the tangent of half the angle goes from 0 to 1.
    """
    quarter = np.floor(4 * turn)
    along = 4 * turn - quarter
    tangent = along * (0.79 + 0.21 * (along * along))
    scale = 1 + tangent * tangent
    cosine, sine = (1 - tangent * tangent) / scale, 2 * tangent / scale
    flipped, back = quarter % 2 == 1, quarter >= 2
    cosine, sine = np.where(flipped, -sine, cosine), np.where(flipped, cosine, sine)
    return np.where(back, -cosine, cosine), np.where(back, -sine, sine)


def _with_missing(pieces: list[Piece], uniform: Uniform) -> list[Piece]:
    """The pieces without randomly removed parts; all pieces of a part go together."""
    gone = uniform(size=4) < MISSING
    return [piece for piece in pieces if piece.part == 0 or not gone[piece.part]]


def _surface_points(pieces: list[Piece], uniform: Uniform) -> tuple[np.ndarray, np.ndarray]:
    """Points (float64 [256, 3]) even over the surfaces, and the parts they belong to (int64 [256])."""
    part, bottom, size, is_round = (np.array(column) for column in zip(*pieces, strict=True))
    ends = np.cumsum([_area(piece) for piece in pieces])
    chosen = np.searchsorted(ends, uniform(size=POINTS) * ends[-1], side="right").clip(max=len(pieces) - 1)
    first, second, side = uniform(size=(3, POINTS))
    on_box = _on_box(size[chosen], first, second, side)
    on_cone = _on_cone(size[chosen], first, second)
    return bottom[chosen] + np.where(is_round[chosen, np.newaxis], on_cone, on_box), part[chosen]


def _area(piece: Piece) -> float:
    """The area of a surface; for cones an approximation, with 3 for pi."""
    a, b, c = piece.size
    if piece.round:
        return 3.0 * (a + b) * np.sqrt(c * c + (a - b) * (a - b))
    return 2 * (a * b + a * c + b * c)


def _on_box(size: np.ndarray, first: np.ndarray, second: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Points on boxes that stand on the origin: `side` chooses the face, the others the place on it."""
    width, depth, height = size.T
    flat, front, across = width * depth, width * height, depth * height
    place = side * (flat + front + across)
    lies, faces_front = place < flat, (place >= flat) & (place < flat + front)
    # Half of each area is that of the opposite face.
    far = place - np.where(lies, 0.0, np.where(faces_front, flat, flat + front))
    far = np.where(far < 0.5 * np.where(lies, flat, np.where(faces_front, front, across)), 0.0, 1.0)
    x = np.where(lies | faces_front, first, far)
    y = np.where(lies, second, np.where(faces_front, far, first))
    z = np.where(lies, far, second)
    return np.stack([(x - 0.5) * width, (y - 0.5) * depth, z * height], axis=1)


def _on_cone(size: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Points on the sides of cones that stand on the origin."""
    low, high, height = size.T
    radius = np.sqrt(low * low + first * (high * high - low * low))
    # Even over the surface: the square of the radius is uniform, or for cylinders the height.
    cylinder = low == high
    up = np.where(cylinder, first, (radius - low) / np.where(cylinder, 1.0, high - low))
    cosine, sine = _circle(second)
    return np.stack([radius * cosine, radius * sine, up * height], axis=1)


def _posed(cloud: np.ndarray, uniform: Uniform) -> np.ndarray:
    """Stretched, turned about the vertical, with noise, centred, and scaled to a largest coordinate of 1."""
    cloud = cloud * uniform(1 / STRETCH, STRETCH, size=3)
    cosine, sine = _circle(uniform())
    x, y, z = cloud.T
    cloud = np.stack([cosine * x - sine * y, sine * x + cosine * y, z], axis=1)
    cloud = _largest_is_one(cloud)
    # The sum of three uniform numbers, of standard deviation 1/2, is close enough to normal here.
    noise = uniform(size=(3, *cloud.shape))
    cloud = cloud + 2 * NOISE * (noise[0] + noise[1] + noise[2] - 1.5)
    return _largest_is_one(cloud)


def _largest_is_one(cloud: np.ndarray) -> np.ndarray:
    """Centred by the middle of the box around it, and scaled."""
    low, high = cloud.min(axis=0), cloud.max(axis=0)
    cloud = cloud - 0.5 * (low + high)
    return cloud / np.abs(cloud).max()


def _legs(part: int, width: float, depth: float, height: float, uniform: Uniform) -> list[Piece]:
    """Four legs, two panels, or one pillar with a foot."""
    kind, thick = uniform(), uniform(0.04, 0.16)
    if kind < 0.6:
        x, y = (width - thick) / 2, (depth - thick) / 2
        return [Piece(part, (i * x, j * y, 0.0), (thick, thick, height)) for i in (-1, 1) for j in (-1, 1)]
    if kind < 0.8:
        x = (width - thick) / 2
        return [Piece(part, (i * x, 0.0, 0.0), (thick, depth * uniform(0.6, 1.0), height)) for i in (-1, 1)]
    foot = Piece(part, (0.0, 0.0, 0.0), (0.35 * (width + depth) / 2, thick, 0.05), round=True)
    return [foot, Piece(part, (0.0, 0.0, 0.0), (thick, thick, height), round=True)]


def _slab(part: int, z: float, width: float, depth: float, thick: float, uniform: Uniform) -> list[Piece]:
    """A seat or a table top: rectangular, or sometimes round."""
    if uniform() < 0.7 or width > 1.4 * depth:
        return [Piece(part, (0.0, 0.0, z), (width, depth, thick))]
    radius = (width + depth) / 4
    rim = Piece(part, (0.0, 0.0, z), (radius, radius, thick), round=True)
    return [rim, Piece(part, (0.0, 0.0, z + thick), (radius, 0.0, 0.0), round=True)]


def _back(part: int, z: float, width: float, depth: float, height: float, thick: float) -> list[Piece]:
    return [Piece(part, (0.0, (depth - thick) / 2, z), (width, thick, height))]


def _arms(part: int, z: float, width: float, depth: float, height: float, thick: float) -> list[Piece]:
    return [Piece(part, (side * (width - thick) / 2, 0.0, z), (thick, depth, height)) for side in (-1, 1)]


def _bed(uniform: Uniform) -> list[Piece]:
    width, length, rise, thick = uniform(0.9, 2.0), uniform(1.7, 2.2), uniform(0.1, 0.4), uniform(0.15, 0.5)
    mattress = [Piece(0, (0.0, 0.0, rise), (width, length, thick))]
    head = _back(1, 0.0, width, length, rise + thick + uniform(0.1, 0.7), uniform(0.05, 0.15))
    return mattress + head + _legs(2, width, length, rise, uniform)


def _bench(uniform: Uniform) -> list[Piece]:
    width, depth, height, thick = uniform(1.1, 2.2), uniform(0.4, 0.8), uniform(0.4, 0.8), uniform(0.04, 0.15)
    back = _back(2, height, width, depth, uniform(0.2, 0.6), 0.08) if uniform() < 0.5 else []
    return [Piece(0, (0.0, 0.0, height), (width, depth, thick))] + _legs(1, width, depth, height, uniform) + back


def _chair(uniform: Uniform) -> list[Piece]:
    width, depth, height, thick = uniform(0.7, 1.2), uniform(0.7, 1.1), uniform(0.5, 1.2), uniform(0.05, 0.3)
    back = _back(1, height, width, depth, uniform(0.3, 1.3), uniform(0.05, 0.15))
    arms = _arms(3, height + thick, width, depth, uniform(0.1, 0.4), 0.1) if uniform() < 0.4 else []
    return _slab(0, height, width, depth, thick, uniform) + back + _legs(2, width, depth, height, uniform) + arms


def _lamp(uniform: Uniform) -> list[Piece]:
    height, wide, shade = uniform(0.4, 1.8), uniform(0.3, 0.8), uniform(0.3, 0.8)
    foot, thick = uniform(0.2, 0.6), uniform(0.03, 0.08)
    return [
        Piece(0, (0.0, 0.0, height), (wide, wide * uniform(0.3, 1.0), shade), round=True),
        Piece(1, (0.0, 0.0, 0.0), (thick, thick, height), round=True),
        Piece(2, (0.0, 0.0, 0.0), (foot, foot * uniform(0.2, 1.0), uniform(0.05, 0.3)), round=True),
    ]


def _mug(uniform: Uniform) -> list[Piece]:
    radius, height, thick = uniform(0.3, 0.6), uniform(0.7, 1.3), uniform(0.05, 0.12)
    top, reach, low, high = radius * uniform(0.8, 1.3), uniform(0.2, 0.45), uniform(0.1, 0.3), uniform(0.6, 0.9)
    middle = radius + reach / 2
    return [
        Piece(0, (0.0, 0.0, 0.0), (radius, top, height), round=True),
        Piece(0, (0.0, 0.0, 0.0), (radius, 0.0, 0.0), round=True),
        Piece(1, (middle, 0.0, low * height), (reach, thick, thick)),
        Piece(1, (middle, 0.0, high * height), (reach, thick, thick)),
        Piece(1, (radius + reach, 0.0, low * height), (thick, thick, (high - low) * height)),
    ]


def _plant(uniform: Uniform) -> list[Piece]:
    radius, height, wide = uniform(0.25, 0.5), uniform(0.3, 0.8), uniform(0.15, 0.5)
    pot = [
        Piece(1, (0.0, 0.0, 0.0), (radius * uniform(0.6, 1.0), radius, height), round=True),
        Piece(1, (0.0, 0.0, height), (radius, 0.0, 0.0), round=True),
    ]
    leaves = []
    for _ in range(3 + int(uniform(0, 4))):
        cosine, sine = _circle(uniform())
        out, size = uniform(0.0, wide), uniform(0.15, 0.5)
        place = (float(out * cosine), float(out * sine), height + uniform(0.0, 0.8))
        leaves.append(Piece(0, place, (size, 0.0, uniform(0.1, 0.6)), round=True))
    return leaves + pot


def _shelf(uniform: Uniform) -> list[Piece]:
    width, depth, height, thick = uniform(0.7, 1.6), uniform(0.3, 0.8), uniform(0.8, 2.0), uniform(0.03, 0.1)
    count = 2 + int(uniform(0, 4))
    boards = [Piece(0, (0.0, 0.0, height * board / count), (width, depth, thick)) for board in range(count + 1)]
    return boards + _arms(1, 0.0, width, depth, height, thick)


def _sofa(uniform: Uniform) -> list[Piece]:
    width, depth, height = uniform(1.2, 2.4), uniform(0.8, 1.1), uniform(0.3, 0.7)
    back = _back(1, 0.0, width, depth, height + uniform(0.2, 0.6), uniform(0.12, 0.3))
    arms = _arms(2, 0.0, width, depth, height + uniform(0.05, 0.35), uniform(0.1, 0.3))
    return [Piece(0, (0.0, 0.0, uniform(0.0, 0.2)), (width, depth, height)), *back, *arms]


def _stool(uniform: Uniform) -> list[Piece]:
    width, depth, height = uniform(0.5, 1.0), uniform(0.5, 0.9), uniform(0.7, 1.6)
    return _slab(0, height, width, depth, uniform(0.05, 0.25), uniform) + _legs(1, width, depth, height, uniform)


def _table(uniform: Uniform) -> list[Piece]:
    width, depth, height = uniform(0.9, 2.2), uniform(0.8, 1.4), uniform(0.6, 1.2)
    return _slab(0, height, width, depth, uniform(0.04, 0.15), uniform) + _legs(1, width, depth, height, uniform)


_SHAPES = (_bed, _bench, _chair, _lamp, _mug, _plant, _shelf, _sofa, _stool, _table)
