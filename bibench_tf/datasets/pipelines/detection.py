"""The tf.data pipelines of detection: images cut and resized together with their boxes.

Expansion, crop and resizing together are one window: a rectangle of the original image, which may reach beyond it, that
becomes the network's image. Every random decision about an image comes from (seed, epoch, its place in the epoch) by
stateless operations.

The augmentation `ssd` is that of Liu et al. 2015, arXiv 1512.02325, section 2.2, as BiBench implements it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from bibench_tf.datasets.base import normalise
from bibench_tf.datasets.formats.boxes import STORED_COLUMNS, Annotated, Recorded, View
from bibench_tf.datasets.pipelines import records
from bibench_tf.datasets.pipelines.arrays import mapped
from bibench_tf.detection import annotations as columns

if TYPE_CHECKING:
    from bibench_tf.datasets.kinds.detection import DetectionDataset

# The canvas around an image is at most this factor higher and wider than the image.
EXPANSION = 4.0
# The least IoU that a crop may have with any object; 0 allows all crops, and 1 stands for the uncropped image.
LEAST_OVERLAPS = (1.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
# The least share of height and width that a crop has, and the bounds of its height by its width.
LEAST_SHARE = 0.3
RATIOS = (0.5, 2.0)
# Crops drawn for one least overlap, and least overlaps drawn, before the image stays uncropped.
TRIALS, ROUNDS = 50, 4
# Distortion of colours: grey levels of brightness, factors of contrast and saturation, degrees of hue.
BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18.0
# After a crop, at least this many pixels of a box remain in height and in width.
_LEAST_SIDE = 1.0

# Records of VOC and COCO have about 100 to 150 kB, so one window takes about 0.15 GB.
_WINDOW = 1024


class Geometry(NamedTuple):
    """Where the network's image comes from, in pixels.

    `window` float32 [4] (y0, x0, y1, x1) of the original image becomes `size` int32 [2] (height, width),
    mirrored left to right where `flip` (bool []).
    """

    window: tf.Tensor
    size: tf.Tensor
    flip: tf.Tensor


def train_batches(data: DetectionDataset, batch_size: int, seed: int, epoch: int, augment: bool) -> tf.data.Dataset:
    """One shuffled epoch, as `Dataset.train_batches` describes it."""
    key = tf.constant([seed, epoch], tf.int64)
    split = data.splits.train
    if isinstance(split, Annotated):
        elements = _taken(split, np.random.default_rng([seed, epoch]).permutation(len(split.images)))
    else:
        elements = records.shuffled(split.files, _WINDOW, seed, epoch).map(split.parse)

    def example(index, element):
        # Even numbers shuffle windows of records.
        own = tf.random.fold_in(key, 2 * index + 1) if augment else None
        return _prepared(data, *element, own, isinstance(split, Recorded))

    prepared = mapped(elements.enumerate(), example)
    return _batched(data.view, prepared, batch_size, data.train_examples // batch_size, drop_remainder=True)


def test_batches(data: DetectionDataset, batch_size: int, limit: int) -> tf.data.Dataset:
    """The first `limit` images in order."""
    split = data.splits.test
    if isinstance(split, Annotated):
        elements = _taken(split, np.arange(limit))
    else:
        elements = records.in_order(split.files).map(split.parse).take(limit)
    prepared = mapped(
        elements, lambda image, objects: _prepared(data, image, objects, None, isinstance(split, Recorded))
    )
    return _batched(data.view, prepared, batch_size, -(-limit // batch_size), drop_remainder=False)


def place(height: tf.Tensor, width: tf.Tensor, objects: tf.Tensor, view: View, key: tf.Tensor | None) -> Geometry:
    """Where the network's image comes from, for an image of `height` x `width` pixels (float32 []).

    `objects` float32 [N, 7]; `key` is the seed (int64 [2]) of the augmentation, None for none.
    """
    window = tf.stack([0.0, 0.0, height, width])
    flip = tf.constant(False)
    if key is not None:
        flip_key, expand_key, crop_key = tf.unstack(tf.random.split(key, 3))
        flip = tf.random.stateless_uniform([], flip_key) < 0.5
        if view.augmentation == "ssd":
            window = cropped(expanded(window, expand_key), objects, crop_key)
    return Geometry(window, resized(window, view), flip)


def expanded(window: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """With probability 0.5 a window 1 to 4 times as high and wide, with the given one anywhere in it."""
    draws = tf.random.stateless_uniform([4], key)
    extent = window[2:] - window[:2]
    ratio = tf.where(draws[0] < 0.5, 1.0 + (EXPANSION - 1.0) * draws[1], 1.0)
    corner = window[:2] - tf.floor(draws[2:] * extent * (ratio - 1.0))
    return tf.concat([corner, corner + extent * ratio], 0)


def cropped(window: tf.Tensor, objects: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """A random part of `window` that holds the centre of an object, or all of it.

    A least overlap is drawn; the part has 30 to 100 % of height and width, its height is half to twice its width, and
    its IoU with every object is at least that overlap. Ignored objects do not count; without other objects any part is
    accepted.
    """
    mode_key, draw_key = tf.unstack(tf.random.split(key))
    choice = tf.random.stateless_uniform([ROUNDS], mode_key, 0, len(LEAST_OVERLAPS), tf.int32)
    least = tf.repeat(tf.gather(tf.constant(LEAST_OVERLAPS), choice), TRIALS)
    draws = tf.random.stateless_uniform([ROUNDS * TRIALS, 4], draw_key)
    extent = window[2:] - window[:2]
    size = extent * (LEAST_SHARE + (1.0 - LEAST_SHARE) * draws[:, :2])
    corner = window[:2] + tf.floor(draws[:, 2:] * (extent - size))
    parts = tf.concat([corner, corner + size], 1)
    whole = least >= 1.0
    parts = tf.where(whole[:, None], window, parts)

    boxes = tf.boolean_mask(objects[:, columns.BOX], objects[:, columns.IGNORED] == 0.0)
    held = tf.reduce_any(_holds_centre(parts[:, None], boxes), axis=1) | (tf.shape(boxes)[0] == 0)
    # Without objects the minimum is infinite.
    overlap = tf.reduce_min(_iou(parts[:, None], boxes), axis=1)
    ratio = size[:, 0] / size[:, 1]
    fits = held & (overlap >= least) & (ratio >= RATIOS[0]) & (ratio <= RATIOS[1])
    # The whole window comes last, for the case that no part fits.
    fits = tf.concat([fits | whole, [True]], 0)
    return tf.concat([parts, window[None]], 0)[tf.argmax(tf.cast(fits, tf.int32))]


def resized(window: tf.Tensor, view: View) -> tf.Tensor:
    """The height and width (int32 [2]) that `window` gets by the rule of `view`, before it is padded."""
    if not view.keep_ratio:
        return tf.constant(view.size, tf.int32)
    extent = window[2:] - window[:2]
    scale = tf.minimum(view.size[0] / tf.reduce_min(extent), view.size[1] / tf.reduce_max(extent))
    return tf.maximum(tf.cast(tf.floor(extent * scale + 0.5), tf.int32), 1)


def cut(image: tf.Tensor, geometry: Geometry, fill: tuple[float, ...]) -> tf.Tensor:
    """The network's image, float32 [h, w, C] of 0..255, by bilinear interpolation between centres of pixels.

    `image` is [H, W, C]; pixels of the window outside of the image are `fill`, one number per channel.
    """
    # The fill becomes zero, and a border of repeated pixels keeps half a pixel at each edge inside of the image.
    shifted = tf.cast(image, tf.float32) - tf.constant(fill)
    shifted = tf.pad(shifted, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    size = tf.cast(geometry.size, tf.float32)
    step = (geometry.window[2:] - geometry.window[:2]) / size
    first = geometry.window[:2] + 0.5 * step + 0.5
    last = first + (size - 1.0) * step
    corners = tf.cast(tf.shape(shifted)[:2] - 1, tf.float32)
    box = tf.concat([first / corners, last / corners], 0)
    result = tf.image.crop_and_resize(shifted[None], box[None], [0], geometry.size)[0] + tf.constant(fill)
    return tf.cond(geometry.flip, lambda: tf.reverse(result, [1]), lambda: result)


def moved(boxes: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Boxes [N, 4] of the original image in pixels of the network's image; they may reach beyond it."""
    scale = _scale(geometry)
    corner = geometry.window[:2]
    moved = (boxes - tf.concat([corner, corner], 0)) * tf.concat([scale, scale], 0)
    width = tf.cast(geometry.size[1], tf.float32)
    mirrored = tf.stack([moved[:, 0], width - moved[:, 3], moved[:, 2], width - moved[:, 1]], 1)
    return tf.where(geometry.flip, mirrored, moved)


def distorted(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Colours (float32 [H, W, 3] of 0..255) distorted, each step with probability 0.5.

    Brightness plus -32..32, contrast times 0.5..1.5, saturation times 0.5..1.5, hue plus -18..18 degrees, channels in
    another order; contrast comes before saturation or, equally often, after hue. As in BiBench nothing is clipped, so
    that bright images keep their contrast.
    """
    draws = tf.random.stateless_uniform([5], key)
    use = tf.random.stateless_uniform([6], tf.random.fold_in(key, 1)) < 0.5
    image += tf.where(use[0], BRIGHTNESS * (2.0 * draws[0] - 1.0), 0.0)
    contrast = tf.where(use[1], _between(CONTRAST, draws[1]), 1.0)
    image *= tf.where(use[2], contrast, 1.0)
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(image / 255.0), axis=-1)
    saturation *= tf.where(use[3], _between(SATURATION, draws[2]), 1.0)
    hue = tf.math.floormod(hue + tf.where(use[4], HUE / 360.0 * (2.0 * draws[3] - 1.0), 0.0), 1.0)
    image = 255.0 * tf.image.hsv_to_rgb(tf.stack([hue, saturation, value], -1))
    image *= tf.where(use[2], 1.0, contrast)
    order = tf.argsort(tf.random.stateless_uniform([3], tf.random.fold_in(key, 2)))
    return tf.gather(image, tf.where(use[5], order, tf.range(3)), axis=-1)


def _prepared(data, image, objects, key, in_shares) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The network's image, its objects up to AREA, and the scale and size of the image (float32 [4]).

    With `in_shares` the boxes of the objects are shares of the image, as in `Recorded`.
    """
    view = data.view
    if image.dtype == tf.string:
        image = records.decoded(image, 3)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    if in_shares:
        objects = _in_pixels(objects, height, width)
    place_key, colour_key = (None, None) if key is None else tf.unstack(tf.random.split(key))
    geometry = place(height, width, objects, view, place_key)
    seen = cut(image, geometry, data.mean)
    if colour_key is not None and view.augmentation == "ssd":
        seen = distorted(seen, colour_key)
        objects = tf.boolean_mask(objects, _holds_centre(geometry.window, objects[:, columns.BOX]))
    boxes = moved(objects[:, columns.BOX], geometry)
    size = tf.cast(geometry.size, tf.float32)
    boxes = tf.clip_by_value(boxes, 0.0, tf.concat([size, size], 0))
    objects = tf.concat([boxes, objects[:, columns.CLASS :]], 1)
    if colour_key is not None and view.augmentation == "ssd":
        objects = tf.boolean_mask(objects, tf.reduce_min(boxes[:, 2:] - boxes[:, :2], axis=1) >= _LEAST_SIDE)
    seen = normalise(seen, data.mean, data.std)
    missing = tf.math.floormod(-geometry.size, view.divisor)
    seen = tf.pad(seen, [[0, missing[0]], [0, missing[1]], [0, 0]])
    return seen, objects, tf.concat([_scale(geometry), size], 0)


def _batched(view, examples, batch_size, batches, *, drop_remainder) -> tf.data.Dataset:
    sides = [None, None] if view.keep_ratio else [-(-side // view.divisor) * view.divisor for side in view.size]
    blank = tf.one_hot(columns.CLASS, STORED_COLUMNS)

    def from_one(image, objects, of_image):
        """Classes from 1, so that the zeros of rows that pad are no class; at least one row."""
        objects = tf.pad(objects + blank, [[0, tf.maximum(1 - tf.shape(objects)[0], 0)], [0, 0]])
        return tf.ensure_shape(image, [*sides, 3]), tf.ensure_shape(objects, [None, STORED_COLUMNS]), of_image

    def finish(images, objects, of_images):
        rows = tf.shape(objects)[1]
        return images, tf.concat([objects - blank, tf.repeat(of_images[:, None], rows, axis=1)], 2)

    return (
        examples.map(from_one)
        .padded_batch(batch_size, ([*sides, 3], [None, STORED_COLUMNS], [4]), drop_remainder=drop_remainder)
        .map(finish)
        .apply(tf.data.experimental.assert_cardinality(batches))
        .prefetch(2)
    )


def _taken(split: Annotated, order: np.ndarray) -> tf.data.Dataset:
    """Images (encoded, or uint8 [H, W, 3]) and their objects in the given order."""
    in_memory = isinstance(split.images, np.ndarray)
    with tf.device("CPU:0"):
        images = tf.constant(split.images if in_memory else [str(file) for file in split.images])
        objects = tf.constant(np.concatenate([np.zeros((0, STORED_COLUMNS), np.float32), *split.objects]))
        ends = tf.constant(np.cumsum([0, *map(len, split.objects)]))

    def take(index):
        image = images[index] if in_memory else tf.io.read_file(images[index])
        return image, objects[ends[index] : ends[index + 1]]

    numbers = tf.data.Dataset.from_tensor_slices(order.astype(np.int64))
    return mapped(numbers, take)


def _in_pixels(objects: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """The objects of `Recorded`, whose boxes are shares of the image, in pixels."""
    boxes = objects[:, columns.BOX] * tf.stack([height, width, height, width])
    area = objects[:, columns.AREA]
    area = tf.where(area > 0.0, area, tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return tf.concat([boxes, objects[:, columns.CLASS : columns.AREA], area[:, None]], 1)


def _scale(geometry: Geometry) -> tf.Tensor:
    return tf.cast(geometry.size, tf.float32) / (geometry.window[2:] - geometry.window[:2])


def _holds_centre(windows: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Whether the centres of boxes [N, 4] are inside windows [4] or [.., 1, 4]: bool [N] or [.., N]."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    return tf.reduce_all((centres > windows[..., :2]) & (centres < windows[..., 2:]), axis=-1)


def _iou(windows: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """The IoU of windows [.., 1, 4] with boxes [N, 4]: [.., N]."""
    low, high = tf.maximum(windows[..., :2], boxes[:, :2]), tf.minimum(windows[..., 2:], boxes[:, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
    areas = [tf.reduce_prod(box[..., 2:] - box[..., :2], axis=-1) for box in (windows, boxes)]
    return shared / (areas[0] + areas[1] - shared)


def _between(bounds: tuple[float, float], draw: tf.Tensor) -> tf.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draw
