"""Files of shapes: OFF meshes, points sampled on them, and HDF5 files of point clouds."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bibench_tf.datasets.formats import user_files

# Colours and normals after the coordinates are left out.
_HEADER = re.compile(r"[CN]{0,2}OFF")
_SEED = 2023


class Clouds(NamedTuple):
    """Point clouds of one HDF5 file: float32 [N, M, 3], labels int64 [N], and parts int64 [N, M] where it has any."""

    points: np.ndarray
    labels: np.ndarray
    parts: np.ndarray | None


def read_off(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (float64 [V, 3]) and triangles (int64 [T, 3]) of an OFF mesh.

    Faces with more corners are cut into triangles at their first corner. The counts may follow the word OFF in the same
    line, even without a space, as in some files of ModelNet40. Raises ValueError for a file that is not OFF, ends
    too early or has words in place of numbers.
    """
    lines = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
    header = _HEADER.match(lines[0]) if lines else None
    if header is None:
        raise ValueError("it does not begin with OFF")
    rest = lines[0][header.end() :].strip()
    lines = [rest, *lines[1:]] if rest else lines[1:]
    try:
        vertex_count, face_count = (int(word) for word in lines[0].split()[:2])
    except (IndexError, ValueError):
        raise ValueError("it has no numbers of vertices and faces") from None
    faces_begin, faces_end = 1 + vertex_count, 1 + vertex_count + face_count
    if min(vertex_count, face_count) < 1 or len(lines) < faces_end:
        raise ValueError("it has no faces" if min(vertex_count, face_count) < 1 else "it ends too early")
    vertices = _table(lines[1:faces_begin], range(3), np.float64)
    triangles = _triangles(lines[faces_begin:faces_end])
    if not np.isfinite(vertices).all():
        raise ValueError("it has coordinates that are not finite")
    if len(triangles) and (triangles.min() < 0 or triangles.max() >= vertex_count):
        raise ValueError("it has faces with vertices that are not there")
    return vertices, triangles


def sample_surface(vertices: np.ndarray, triangles: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` points (float64 [count, 3]) drawn evenly from the surface of a mesh.

    Triangles are drawn by their area, then places in them: a corner plus u and v times two sides, u and v even in 0..1
    and mirrored where u + v > 1. Raises ValueError for a mesh without any area.
    """
    corner, first, second = (vertices[triangles[:, index]] for index in range(3))
    first, second = first - corner, second - corner
    areas = np.cumsum(np.linalg.norm(np.cross(first, second), axis=1))
    if not len(areas) or not areas[-1] > 0:
        raise ValueError("its surface has no area")
    chosen = np.searchsorted(areas, random.random(count) * areas[-1], side="right").clip(max=len(areas) - 1)
    u, v = random.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return corner[chosen] + u * first[chosen] + v * second[chosen]


def cloud_of_mesh(content: bytes, name: str, count: int) -> np.ndarray:
    """`count` points (float32 [count, 3]) on the mesh in the bytes of an OFF file.

    The mesh is centred at the mean of its vertices and scaled to a largest coordinate of 1 first, as BiBench does
    (NormalizeScale of PyTorch Geometric). The points depend on the content and on `name` alone. Raises ValueError for a
    mesh that cannot be used.
    """
    vertices, triangles = read_off(content.decode("utf-8", errors="replace"))
    vertices = vertices - vertices.mean(axis=0)
    largest = np.abs(vertices).max()
    if not largest > 0:
        raise ValueError("its surface has no area")
    return sample_surface(vertices / largest, triangles, count, _random(name)).astype(np.float32)


def pool_of(available: int, count: int, name: str) -> np.ndarray:
    """`count` of the points 0..available-1 (int64), each at most once where there are enough; `name` is the seed."""
    order = _random(name).permutation(available)
    return np.resize(order, count)


def read_hdf5(file: Path) -> Clouds:
    """The clouds in an HDF5 file with `data` (N, M, 3) and `label` (N, 1) or (N), and `pid` (N, M) where it has parts.

    More columns of `data`, such as normals, are left out. Raises ValueError for other files.
    """
    import h5py

    try:
        with h5py.File(file, "r") as content:
            arrays = {key: content[key][()] for key in ("data", "label", "pid") if key in content}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from error
    if not {"data", "label"} <= arrays.keys():
        raise ValueError("it has no 'data' and 'label'")
    points, labels, parts = arrays["data"], np.reshape(arrays["label"], -1), arrays.get("pid")
    if points.ndim != 3 or points.shape[1] < 1 or points.shape[2] < 3 or points.dtype.kind not in "fiu":
        raise ValueError(f"its data are {points.dtype} {list(points.shape)}, not clouds (N, points, 3)")
    if labels.shape != points.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"its labels are {labels.dtype} {list(labels.shape)}, not {len(points)} whole numbers")
    if parts is not None and (parts.shape != points.shape[:2] or parts.dtype.kind not in "iu"):
        raise ValueError(f"its parts are {parts.dtype} {list(parts.shape)}, not whole numbers {list(points.shape[:2])}")
    parts = None if parts is None else parts.astype(np.int64)
    return Clouds(points[:, :, :3].astype(np.float32), labels.astype(np.int64), parts)


def usable(clouds: np.ndarray) -> np.ndarray:
    """Which clouds [N, M, 3] are finite and have an extent (bool [N])."""
    finite = np.isfinite(clouds).all(axis=(1, 2))
    return finite & (np.ptp(np.where(finite[:, np.newaxis, np.newaxis], clouds, 0), axis=1) > 0).any(axis=1)


def listed(file: Path) -> list[str]:
    """The file names in a list with a path in each line, without their folders."""
    return [line.replace("\\", "/").rpartition("/")[2] for line in user_files.lines(file)]


def _random(name: str) -> np.random.Generator:
    """Random numbers that depend on `name` alone."""
    return np.random.default_rng([_SEED, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])


def _table(lines: list[str], columns: range, dtype: type) -> np.ndarray:
    try:
        return np.loadtxt(lines, usecols=columns, ndmin=2, dtype=dtype, comments=None)
    except (ValueError, IndexError) as error:
        raise ValueError("it has lines with too few numbers, or with words") from error


def _triangles(lines: list[str]) -> np.ndarray:
    corners = _table(lines, range(1), np.int64)[:, 0]
    triangles = [np.zeros((0, 3), np.int64)]
    for number in np.unique(corners[corners >= 3]):
        chosen = [lines[index] for index in np.nonzero(corners == number)[0]]
        polygons = _table(chosen, range(1, 1 + number), np.int64)
        for corner in range(1, number - 1):
            triangles.append(polygons[:, [0, corner, corner + 1]])
    return np.concatenate(triangles)
