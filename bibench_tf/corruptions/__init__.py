"""The image corruptions of CIFAR-10-C and ImageNet-C, made on the fly.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, and the authors' released scripts. docs/corruptions.md lists
the deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.corruptions import blur, colour, digital, noise, spatter, weather
from bibench_tf.corruptions.draws import Draws
from bibench_tf.corruptions.severities import PARAMETERS, SEVERITIES
from bibench_tf.errors import BibenchError, UnknownName

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["EXTRA", "SEVERITIES", "STANDARD", "TABLES", "VERSION", "apply", "check", "expand", "names", "transform"]

# Raised whenever the same call gives other images, so that what was measured with the old ones is measured
# again.
VERSION = 2
TABLES = tuple(PARAMETERS)
# Pixel values that are worked on at a time: what fits into the processor's cache.
_BLOCK_VALUES = 1 << 19


@dataclass(frozen=True)
class Corruption:
    """One corruption.

    `function` takes images uint8 [N, H, W, C], the parameter of a severity and the images' random numbers, and
    returns grey levels [N, H, W, C], which need be neither whole nor within 0 to 255.
    """

    function: Callable[[np.ndarray, Any, Draws], np.ndarray]
    needs_colour: bool = False


_STANDARD = {
    "gaussian_noise": Corruption(noise.gaussian_noise),
    "shot_noise": Corruption(noise.shot_noise),
    "impulse_noise": Corruption(noise.impulse_noise),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(blur.glass_blur),
    "motion_blur": Corruption(blur.motion_blur),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow),
    "frost": Corruption(weather.frost),
    "fog": Corruption(weather.fog),
    "brightness": Corruption(colour.brightness),
    "contrast": Corruption(colour.contrast),
    "elastic_transform": Corruption(digital.elastic_transform),
    "pixelate": Corruption(digital.pixelate),
    "jpeg_compression": Corruption(digital.jpeg_compression),
}
_EXTRA = {
    "speckle_noise": Corruption(noise.speckle_noise),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(spatter.spatter),
    "saturate": Corruption(colour.saturate, needs_colour=True),
}
_ALL = {**_STANDARD, **_EXTRA}

# The fifteen that a benchmark counts, in the authors' order, and the four they keep for validation.
STANDARD = tuple(_STANDARD)
EXTRA = tuple(_EXTRA)


def names() -> list[str]:
    """The names of all corruptions, the standard ones first."""
    return list(_ALL)


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Corruptions by name, each once, where `standard`, `extra` and `all` stand for 15, 4 and 19 of them."""
    groups = {"standard": STANDARD, "extra": EXTRA, "all": tuple(_ALL)}
    return tuple(dict.fromkeys(name for given in names for name in groups.get(given, (given,))))


def check(name: str, channels: int, severity: int = 1, table: str = "cifar10") -> None:
    """See that the corruption called `name` can be applied to images of so many channels.

    Raises BibenchError for an unknown name or table, a severity other than 0 to 5, and a number of channels it
    cannot work on.
    """
    if name not in _ALL:
        raise UnknownName("corruption", name, _ALL)
    if table not in PARAMETERS:
        raise UnknownName("table of severities", table, PARAMETERS)
    if severity not in (0, *SEVERITIES):
        raise BibenchError(f"The severity of a corruption is a number from 1 to 5, or 0 for none, not {severity}.")
    if channels not in (1, 3):
        raise BibenchError(f"Corruptions work on images of 1 or 3 channels, not {channels}.")
    if _ALL[name].needs_colour and channels == 1:
        raise BibenchError(f"The corruption '{name}' needs colour images, and these have one channel.")


def apply(
    name: str,
    images: np.ndarray,
    severity: int,
    *,
    seed: int = 0,
    first_index: int = 0,
    table: str = "cifar10",
    workers: int = 1,
) -> np.ndarray:
    """`images` (uint8 [N, H, W, C], C 1 or 3) corrupted; the first is number `first_index` of its data set.

    What an image becomes depends on itself, its number, `seed`, corruption, severity and table: not on the other
    images, their order, or the number of threads (`workers`). Severity 0 is the image itself. Grey levels are
    cut to whole numbers, not rounded, as in CIFAR-10-C. Raises BibenchError as `check` does, and for arrays of
    another type or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise BibenchError(
            f"Corruptions take images as uint8 [N, H, W, C], not {images.dtype} of shape {images.shape}."
        )
    check(name, images.shape[-1], severity, table)
    if severity == 0 or images.size == 0:
        return images.copy()
    parameter = PARAMETERS[table][name][severity - 1]
    key = (int(seed), name, int(severity), table)
    result = np.empty_like(images)
    step = max(1, _BLOCK_VALUES // images[0].size)
    if workers > 1:
        step = min(step, -(-len(images) // workers))

    def corrupt(start: int) -> None:
        block = np.ascontiguousarray(images[start : start + step])
        draws = Draws(key, int(first_index) + start, len(block))
        corrupted = _ALL[name].function(block, parameter, draws)
        whole = corrupted.dtype == np.uint8
        result[start : start + step] = corrupted if whole else blur.as_levels(corrupted)

    starts = range(0, len(images), step)
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(corrupt, starts))
    else:
        for start in starts:
            corrupt(start)
    return result


def transform(
    name: str,
    severity: int,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    table: str = "cifar10",
) -> Callable[[tf.Tensor, Any], Any]:
    """A function for `dataset.enumerate().map(...)` of tf.data that corrupts images uint8 as `apply` does.

    Elements are images, or tuples or dictionaries: the image first, or called "image". Without `batch_size` an
    element is one image [H, W, C], with it a batch [N, H, W, C] of that size (the last may be smaller). Raises
    BibenchError as `check` does.
    """
    check(name, 3, severity, table)

    def corrupt(images: np.ndarray, index: np.ndarray) -> np.ndarray:
        if batch_size is None:
            return apply(name, images[None], severity, seed=seed, first_index=index, table=table)[0]
        return apply(name, images, severity, seed=seed, first_index=index * batch_size, table=table)

    def mapped(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        if images.shape.rank is not None and images.shape[-1] is not None:
            check(name, images.shape[-1], severity, table)
        corrupted = tf.numpy_function(corrupt, [images, index], tf.uint8, stateful=False)
        return tf.ensure_shape(corrupted, images.shape)

    def change(index: tf.Tensor, element: Any) -> Any:
        if isinstance(element, dict):
            return {**element, "image": mapped(element["image"], index)}
        if isinstance(element, tuple):
            return (mapped(element[0], index), *element[1:])
        return mapped(element, index)

    return change
