"""The weights that inference needs of a network: collected from a model, and put back into one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf import complexity
from bibench_tf.errors import BibenchError

_ROUNDS = 400


@dataclass(frozen=True)
class BinaryKernel:
    """A kernel in inference: `signs` of +1 and -1 (int8) times `scale` (float32 [O]) along the last axis.

    The shape is Keras', (height, width, I, O) for images.
    """

    signs: np.ndarray
    scale: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The float32 kernel that inference multiplies with."""
        return self.signs.astype(np.float32) * self.scale


@dataclass(frozen=True)
class Weights:
    """The content of a file: binary kernels by layer, all other arrays by `LAYER/NAME`."""

    network: str
    kernels: dict[str, BinaryKernel]
    arrays: dict[str, np.ndarray]


def collect(model: tf.keras.Model) -> Weights:
    """The weights that inference needs of a model; layers of inner models are named `outer/inner`.

    Raises BibenchError when a binary kernel cannot be restored exactly from signs and scales.
    """
    kernels, arrays = {}, {}
    for name, layer in complexity.layers(model).items():
        kernel = _binary_kernel(layer)
        if kernel is not None:
            _latent(name, layer, kernel)
            kernels[name] = kernel
        for key, variable in _variables(name, layer, skip_kernel=kernel is not None):
            arrays[key] = variable.numpy()
    return Weights(model.name, kernels, arrays)


def assign(model: tf.keras.Model, weights: Weights) -> None:
    """Put weights into a model of the same network, which then infers bit for bit as the saved model.

    Latent weights become signs times scales that quantize to exactly the saved kernel: right for inference and
    conversion, but no state to continue training from. Weights that only training has are unchanged. Raises
    BibenchError, before a change, when the network is another one.
    """
    layers = complexity.layers(model)
    changes = []
    expected_kernels, expected_arrays = set(), set()
    for name, layer in layers.items():
        kernel = weights.kernels.get(name)
        if kernel is not None:
            expected_kernels.add(name)
            shape = tuple(getattr(layer, "kernel", np.zeros(0)).shape)
            if shape != kernel.signs.shape or getattr(layer, "kernel_quantizer", None) is None:
                raise _other_network(weights, model, f"{name}/kernel")
            changes.append((layer.kernel, _latent(name, layer, kernel)))
        for key, variable in _variables(name, layer, skip_kernel=kernel is not None):
            expected_arrays.add(key)
            array = weights.arrays.get(key)
            if array is None or array.shape != tuple(variable.shape) or array.dtype != variable.dtype.as_numpy_dtype:
                raise _other_network(weights, model, key)
            changes.append((variable, array))
    unused = sorted({*weights.kernels} - expected_kernels) + sorted({*weights.arrays} - expected_arrays)
    if unused:
        raise _other_network(weights, model, unused[0])
    for variable, array in changes:
        variable.assign(array)


def _variables(name: str, layer: Any, *, skip_kernel: bool) -> Iterator[tuple[str, tf.Variable]]:
    """The weights that inference needs, other than a binary kernel."""
    seen = set()
    for variable in layer.weights:
        last = variable.name.split("/")[-1].split(":")[0]
        scheduled = not variable.shape.rank and not variable.trainable
        if scheduled or last.startswith(complexity.TRAINING_ONLY_PREFIXES) or (skip_kernel and last == "kernel"):
            continue
        if last in seen:
            raise BibenchError(f"Layer '{name}' has two weights called '{last}'; a file cannot hold both.")
        seen.add(last)
        yield f"{name}/{last}", variable


def _binary_kernel(layer: Any) -> BinaryKernel | None:
    """The kernel of a layer in inference; None where it is not one scale times +1 or -1 for each output channel."""
    if getattr(layer, "kernel_quantizer", None) is None or not hasattr(layer, "kernel"):
        return None
    values = _quantized(layer, layer.kernel)
    scale = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
    if not (np.abs(values) == scale).all():
        return None
    return BinaryKernel(np.where(values >= 0, 1, -1).astype(np.int8), scale)


def _quantized(layer: Any, kernel: Any) -> np.ndarray:
    return np.asarray(layer.kernel_quantizer(tf.convert_to_tensor(kernel)))


def _latent(name: str, layer: Any, kernel: BinaryKernel) -> np.ndarray:
    """A latent kernel that quantizes to exactly `kernel`.

    Signs alone do where a quantizer has no scale or does not take it from the kernel. Otherwise the scale is the mean
    magnitude, whose last bit depends on the order of a sum: single weights are moved until it is right.
    """
    values = kernel.values
    latent = np.where(kernel.scale, values, kernel.signs.astype(np.float32))
    rows = latent.reshape(-1, latent.shape[-1])
    signs = kernel.signs.reshape(rows.shape)
    for attempt in range(_ROUNDS):
        given = _quantized(layer, latent).reshape(rows.shape)
        if not np.array_equal(np.where(given >= 0, 1, -1), signs):
            break
        error = kernel.scale - np.abs(given[0])
        if not error.any():
            return latent
        # One weight of each channel, another one in every round; its share of the mean is 1 / n. Later rounds
        # move it by less, where the whole step jumps from one side of the scale to the other.
        step = error * len(rows) / (1 + attempt // 20)
        place = attempt % len(rows)
        rows[place] += signs[place] * step
        too_far = rows[place] * signs[place] <= 0
        rows[place, too_far] = (signs[place] * kernel.scale)[too_far]
    channel = int((_quantized(layer, latent) != values).reshape(rows.shape).any(axis=0).argmax())
    raise BibenchError(
        f"Layer '{name}' cannot be written as signs and scales: its quantizer gives another kernel back "
        f"(output channel {channel})."
    )


def _other_network(weights: Weights, model: tf.keras.Model, key: str) -> BibenchError:
    return BibenchError(
        f"The weights are of another network ('{weights.network}') than '{model.name}': '{key}' does not fit."
    )
