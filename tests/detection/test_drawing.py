"""Drawings are read back: where the lines are, whether they show, and whether the colours differ."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.signal import correlate

from bibench_tf.detection import drawing

NAMES = ("cat", "dog", "a class with quite a long name")


def ground(value, height=480, width=480):
    return np.full((height, width, 3), value, np.uint8)


def drawn(image, boxes, classes, scores=None):
    scores = None if scores is None else np.array(scores)
    return np.asarray(
        drawing.draw(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, int), NAMES, scores)
    )


def where(picture, colour):
    """The pixels of a colour, as (lowest y, lowest x, highest y, highest x)."""
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return rows.min(), columns.min(), rows.max(), columns.max()


def contrast(one, other):
    """WCAG 2.1, written out anew."""

    def luminance(colour):
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_box_is_where_it_is_said_to_be():
    picture = drawn(ground(127), [(100, 40, 300, 440)], [1])
    colour = drawing.colour(1)
    y0, x0, y1, x1 = where(picture[102:], colour)  # below the name, which stands on the upper edge
    assert (y0 + 102, x0, y1 + 102, x1) == (102, 40, 300, 440)
    assert (picture[200, 41] == colour).all() and (picture[200, 240] == 127).all()


@pytest.mark.parametrize("value", [0, 127, 255])
def test_lines_show_on_any_ground(value):
    """Across each line there are neighbours of a contrast of 3 or more, whatever lies below (WCAG 1.4.11)."""
    for number in range(len(NAMES)):
        row = drawn(ground(value), [(100, 40, 300, 440)], [number])[200, 30:60].tolist()
        assert max(contrast(*pair) for pair in zip(row, row[1:], strict=False)) >= 3


def test_text_can_be_read_on_every_colour():
    colours = [drawing.colour(number) for number in range(80)]
    assert all(contrast(colour, drawing.ink(colour)) >= 4.5 for colour in colours)
    assert {drawing.ink(colour) for colour in colours} == {(0, 0, 0), (255, 255, 255)}


def test_colours_can_be_told_apart():
    """By the simplest distance that weighs the channels as eyes do (redmean, 0 to 765), not by that of CIELAB."""
    colours = np.array([drawing.colour(number) for number in range(80)], float)

    def nearest(count):
        first, second = (colours[index] for index in np.triu_indices(count, 1))
        red = (first[:, 0] + second[:, 0]) / 2
        weights = np.stack([2 + red / 256, np.full(len(red), 4.0), 2 + (255 - red) / 256], axis=1)
        return np.sqrt((weights * (first - second) ** 2).sum(axis=1)).min()

    assert nearest(3) > 200 and nearest(10) > 100 and nearest(20) > 60 and nearest(80) > 20


def test_the_colour_of_a_class_does_not_depend_on_which_others_are_asked_for():
    expected = [drawing.colour(number) for number in range(5)]
    drawing.colour.cache_clear()
    assert drawing.colour(4) == expected[4] and drawing.colour(0) == expected[0]
    assert len(drawing.colour(10_000)) == 3


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 480, 480),
        (0, 470, 10, 480),
        (470, 470, 480, 480),
        (470, 0, 480, 10),
        (-40, -40, 60, 60),
        (400, 400, 900, 900),
        (7.2, 7.2, 7.3, 7.3),
        (600, 600, 700, 700),
    ],
)
def test_names_stay_within_the_image(box):
    """The same plate with the same text is found somewhere, to the pixel, wherever the box is."""
    colour = drawing.colour(2)
    # A box that lies outside leaves nothing but its plate.
    y0, x0, y1, x1 = where(beyond := drawn(ground(127), [(600, 600, 700, 700)], [2]), colour)
    plate = beyond[y0 : y1 + 1, x0 : x1 + 1]
    assert plate.shape[0] >= 16 and plate.shape[1] > 100
    picture = drawn(ground(127), [box], [2])
    same = sum(
        correlate((picture == tone).all(axis=2) * 1.0, (plate == tone).all(axis=2) * 1.0, "valid")
        for tone in (colour, drawing.ink(colour))
    )
    of_two_tones = ((plate == colour).all(axis=2) | (plate == drawing.ink(colour)).all(axis=2)).sum()
    assert round(same.max()) == of_two_tones


def test_names_that_would_cover_each_other_move_apart():
    """Two boxes that begin alike: both plates are whole, one above and one elsewhere."""
    alone = [(drawn(ground(127), [(100, 100, 300, 300)], [number], [0.5])) for number in (0, 1)]
    both = drawn(ground(127), [(100, 100, 300, 300), (104, 100, 296, 260)], [0, 1], [0.5, 0.4])

    def plate(picture, number):
        """How many pixels of the colour there are beyond the lines: in rows that are full of them."""
        mask = (picture == drawing.colour(number)).all(axis=2)
        return int((mask & (np.roll(mask, 4, axis=0) | np.roll(mask, -4, axis=0)))[:, 104:125].sum())

    for number in (0, 1):
        assert plate(both, number) > 0.7 * plate(alone[number], number)


def test_scores_and_their_order():
    """The box of the higher score lies above; the score changes the text."""
    boxes = [(100, 100, 300, 300), (100, 100, 300, 300)]
    for scores, top in (((0.9, 0.3), 0), ((0.3, 0.9), 1)):
        assert (drawn(ground(0), boxes, [0, 1], scores)[200, 101] == drawing.colour(top)).all()
    one, other = (drawn(ground(0), boxes[:1], [0], [score]) for score in (0.11, 0.98))
    assert (one != other).any()
    # The text of a truth is shorter: no score behind the name.
    without = drawn(ground(0), boxes[:1], [0])
    assert (one == drawing.colour(0)).all(axis=2).sum() > (without == drawing.colour(0)).all(axis=2).sum()


def test_rows_without_a_detection_draw_nothing():
    image = np.random.default_rng(0).integers(0, 256, (480, 480, 3)).astype(np.uint8)
    np.testing.assert_array_equal(drawn(image, [(0, 0, 0, 0), (10, 10, 50, 50)], [-1, -1], [0, 0]), image)
    np.testing.assert_array_equal(drawn(image, [], [], []), image)


def test_small_images_are_enlarged_with_their_boxes():
    picture = drawn(ground(127, height=60, width=120), [(20, 30, 50, 90)], [1])
    assert picture.shape == (240, 480, 3)
    y0, x0, y1, x1 = where(picture[85:], drawing.colour(1))
    assert (x0, y1 + 85, x1) == (120, 200, 360)


def test_pixels_come_back_from_normalised_images():
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    normalised = ((image - np.array(mean)) / std).astype(np.float32)
    np.testing.assert_array_equal(drawing.pixels(normalised, mean, std), image)
    # What augmentation has driven beyond the scale does not wrap round.
    beyond = np.array([[[9.0, -9.0, 9.0]]], np.float32)
    assert drawing.pixels(beyond, mean, std).tolist() == [[[255, 0, 255]]]


def test_a_png_is_written_as_it_was_drawn(tmp_path):
    picture = drawing.draw(ground(30), np.array([[100.0, 40, 300, 440]]), np.array([0]), NAMES, np.array([0.5]))
    picture.save(tmp_path / "found.png")
    with Image.open(tmp_path / "found.png") as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read), np.asarray(picture))
