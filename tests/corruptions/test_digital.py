"""Pixelation, JPEG and elastic distortion against other programs and slow definitions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bibench_tf import corruptions
from bibench_tf.corruptions import digital, linear
from bibench_tf.corruptions.base import as_levels

GOLDEN = Path(__file__).parent / "golden"
EVERY = [(table, severity) for table in corruptions.TABLES for severity in corruptions.SEVERITIES]


def means(size, cells):
    """The matrix that averages a line of `size` pixels in `cells` cells, and the cell that each pixel shows.

    A pixel belongs to the cell its centre lies in; on the line between two cells it is counted for the first and
    shows the second.
    """
    centre = (np.arange(size) + 0.5) * cells / size
    inside = (np.round(np.ceil(centre - 1e-9)) - 1 == np.arange(cells)[:, None]).astype(float)
    return inside / inside.sum(axis=1, keepdims=True), np.floor(centre + 1e-9).astype(int)


@pytest.mark.parametrize(("table", "severity"), EVERY)
@pytest.mark.parametrize("size", [(32, 32), (28, 32)])
def test_pixelate_joins_pixels_into_cells(table, severity, size, colour):
    factor = corruptions.get("pixelate").severities[table][severity - 1]
    image = np.ascontiguousarray(colour[:1, : size[0], : size[1]])
    (rows, row), (columns, column) = (means(side, int(side * factor)) for side in size)
    cells = np.einsum("yh,xw,hwc->yxc", rows, columns, image[0])
    result = corruptions.apply("pixelate", image, severity, table=table)[0]
    # Pillow rounds twice, along rows and along columns.
    np.testing.assert_allclose(result, cells[row][:, column], atol=1.01)


@pytest.mark.parametrize(("table", "severity"), EVERY)
def test_jpeg_compression_is_that_of_the_stated_quality(table, severity, grey, colour):
    quality = corruptions.get("jpeg_compression").severities[table][severity - 1]
    for images in (grey, colour):
        stream = io.BytesIO()
        Image.fromarray(images[0].squeeze()).save(stream, "JPEG", quality=quality)
        expected = np.asarray(Image.open(stream)).reshape(images[0].shape)
        found = corruptions.apply("jpeg_compression", images[:1], severity, table=table)[0]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("table", "severity"), EVERY)
@pytest.mark.parametrize("size", [(32, 32), (24, 30)])
def test_elastic_transform_maps_three_points_and_displaces(table, severity, size, colour, fixed):
    strength, smoothness, reach = (
        share * min(size) for share in corruptions.get("elastic_transform").severities[table][severity - 1]
    )
    image = np.ascontiguousarray(colour[0, : size[0], : size[1]])
    random = np.random.default_rng(severity)
    corners, noise = random.random((1, 3, 2)), random.random((1, 2, *size)).astype(np.float32)
    # The affine map, in homogeneous coordinates: where the three points go.
    side = min(size) // 3
    x, y = size[1] // 2, size[0] // 2
    points = np.array([[x + side, y + side, 1], [x + side, y - side, 1], [x - side, y - side, 1]], float).T
    moved = points.copy()
    moved[:2] += reach * (2 * corners[0].T - 1)
    back = points @ np.linalg.inv(moved)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    source = np.tensordot(back, np.stack([columns, rows, np.ones(size)]), axes=1)
    expected = []
    for channel in image.transpose(2, 0, 1).astype(float):
        warped = ndimage.map_coordinates(channel, [source[1], source[0]], order=1, mode="mirror")
        if strength:
            across, along = (
                strength * ndimage.gaussian_filter(2.0 * part - 1, smoothness, mode="reflect", truncate=3)
                for part in noise[0]
            )
            warped = ndimage.map_coordinates(warped, [rows + along, columns + across], order=1, mode="reflect")
        expected.append(warped)
    result = digital.elastic_transform(
        image[None], corruptions.get("elastic_transform").severities[table][severity - 1], fixed(corners, noise)
    )
    np.testing.assert_allclose(result[0], np.stack(expected, axis=-1), atol=0.02)


def test_the_affine_map_is_that_of_opencv():
    with np.load(GOLDEN / "opencv.npz", allow_pickle=False) as golden:
        y, x = digital.affine_positions(32, 32, golden["moves"])
        warped = linear.interpolate(golden["images"].astype(np.float32), y, x, repeat_edge=False)
        # OpenCV rounds positions to 1/32 of a pixel.
        difference = np.abs(warped - golden["warped"])
        assert difference.mean() < 0.3 and difference.max() < 255 / 32


def test_no_displacement_is_no_change(colour):
    y, x = np.mgrid[:32, :32]
    y, x = (np.broadcast_to(part, (2, 32, 32)) for part in (y, x))
    for repeat_edge in (False, True):
        moved = linear.interpolate(colour[:2].astype(np.float32), y, x, repeat_edge=repeat_edge)
        np.testing.assert_array_equal(as_levels(moved), colour[:2])
