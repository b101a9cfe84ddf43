"""The image corruptions of CIFAR-10-C and ImageNet-C, made on the fly.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, and the authors' released scripts. docs/corruptions.md lists
the deviations.
"""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.corruptions.base import CORRUPTIONS, SEVERITIES, TABLES, Corruption, as_levels, register
from bibench_tf.corruptions.draws import Draws
from bibench_tf.errors import InvalidOption, UnknownName
from bibench_tf.files import digest

if TYPE_CHECKING:
    import tensorflow as tf

# Raised whenever the same call gives other images, so that values measured with the old ones are measured again.
VERSION = 2
# Pixel values that are worked on at a time: a size that fits into the processor's cache.
_BLOCK_VALUES = 1 << 19
_GROUPS = ("standard", "extra")

get = CORRUPTIONS.get


def names(group: str = "all") -> list[str]:
    """The names of the corruptions of a group: `standard`, `extra`, or `all`, the standard ones first.

    In the order of the authors' list; corruptions of others follow.
    """
    known = sorted(map(get, CORRUPTIONS.names()), key=lambda corruption: corruption.number or math.inf)
    groups = _GROUPS if group == "all" else (group,)
    return [corruption.name for each in groups for corruption in known if corruption.group == each]


def version_of(name: str, table: str) -> str | None:
    """A digest of the code and the severities of a corruption of a plug-in, 16 hexadecimal digits.

    None for the corruptions of this package, whose version is VERSION. The code is the file of the function. Raises
    UnknownName for an unknown name or table.
    """
    check(name, channels=3, table=table)
    corruption = get(name)
    if corruption.function.__module__.startswith(f"{__name__}."):
        return None
    try:
        code = inspect.getsource(sys.modules[corruption.function.__module__])
    except (KeyError, OSError, TypeError):  # typed into an interpreter
        code = corruption.function.__code__.co_code.hex()
    return digest([repr(corruption.severities[table]), code])[:16]


def expand(given: Iterable[str]) -> tuple[str, ...]:
    """Corruptions by name, each once, where `standard`, `extra` and `all` stand for the corruptions of the group."""
    lists = (names(name) if name in (*_GROUPS, "all") else [name] for name in given)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(lists)))


def check(name: str, channels: int, severity: int = 1, table: str = "cifar10") -> None:
    """Check that the corruption called `name` can be applied to images of this number of channels.

    Raises UnknownName for an unknown name or table, and InvalidOption for a severity other than 0 to 5 and for a number
    of channels that the corruption does not work on.
    """
    corruption = get(name)
    if table not in corruption.severities:
        raise UnknownName("table of severities", table, corruption.severities)
    if severity not in (0, *SEVERITIES):
        raise InvalidOption(f"The severity of a corruption is a number from 1 to 5, or 0 for none, not {severity}.")
    if channels not in (1, 3):
        raise InvalidOption(f"Corruptions work on images of 1 or 3 channels, not {channels}.")
    if corruption.needs_colour and channels == 1:
        raise InvalidOption(f"The corruption '{name}' needs colour images, and these have one channel.")


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

    A corrupted image depends on the image, its number, `seed`, corruption, severity and table: not on the other images,
    their order, or the number of threads (`workers`). Severity 0 is the image itself. Grey levels are cut to whole
    numbers, not rounded, as in CIFAR-10-C. Raises UnknownName and InvalidOption as `check` does, and InvalidOption for
    arrays of another type or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InvalidOption(
            f"Corruptions take images as uint8 [N, H, W, C], not {images.dtype} of shape {images.shape}."
        )
    check(name, images.shape[-1], severity, table)
    if severity == 0 or images.size == 0:
        return images.copy()
    corruption = get(name)
    parameter = corruption.severities[table][severity - 1]
    key = (int(seed), name, int(severity), table)
    result = np.empty_like(images)
    step = max(1, min(_BLOCK_VALUES // images[0].size, -(-len(images) // workers)))

    def corrupt(start: int) -> None:
        block = np.ascontiguousarray(images[start : start + step])
        draws = Draws(key, int(first_index) + start, len(block))
        corrupted = corruption.function(block, parameter, draws)
        whole = corrupted.dtype == np.uint8
        result[start : start + step] = corrupted if whole else as_levels(corrupted)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(corrupt, range(0, len(images), step)))
    return result


def transform(
    name: str, severity: int, *, batch_size: int | None = None, seed: int = 0, table: str = "cifar10"
) -> Callable[[tf.Tensor, Any], Any]:
    """A function for `dataset.enumerate().map(...)` of tf.data that corrupts images (uint8) as `apply` does.

    Elements are images, or tuples or dictionaries: the image first, or called "image". Without `batch_size` an
    element is one image [H, W, C], with it a batch [N, H, W, C] of that size (the last may be smaller). Raises
    UnknownName and InvalidOption as `check` does.
    """
    import tensorflow as tf

    check(name, 3, severity, table)

    def corrupt(images: np.ndarray, index: int) -> np.ndarray:
        if batch_size is None:
            return apply(name, images[None], severity, seed=seed, first_index=index, table=table)[0]
        return apply(name, images, severity, seed=seed, first_index=index * batch_size, table=table)

    def mapped(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        if images.shape.rank is not None and images.shape[-1] is not None:
            check(name, images.shape[-1], severity, table)
        corrupted = tf.numpy_function(corrupt, [images, index], tf.uint8, stateful=False)
        return tf.ensure_shape(corrupted, images.shape)

    @tf.autograph.experimental.do_not_convert  # which would replace the errors of `check`
    def change(index: tf.Tensor, element: Any) -> Any:
        if isinstance(element, dict):
            return {**element, "image": mapped(element["image"], index)}
        if isinstance(element, tuple):
            return (mapped(element[0], index), *element[1:])
        return mapped(element, index)

    return change
