"""Packed weights: binary kernels as bits and all other weights of inference, in an .npz file without Python objects.

The layout, version 1 (see docs/exports.md). The arrays:

- `bibench_tf` uint8: UTF-8 JSON with format, version, network, the kernels (layer: shape) and every other array
  (name: dtype, shape).
- `LAYER/kernel.bits` uint8 [ceil(n / 8)]: the n signs of a binary kernel, 1 for +1 and 0 for -1. Output channels come
  first and input channels change fastest: for images (O, height, width, I). The first sign is the most significant
  bit of the first byte, and the last byte ends in zeros.
- `LAYER/kernel.scale` float32 [O]: the factor of each output channel; left out where all are 1.
- `LAYER/NAME`: any other weight, as Keras has it.

Weights that only training has, and latent weights, are left out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf import complexity
from bibench_tf.errors import BibenchError, MissingData
from bibench_tf.files import write_atomically

FORMAT, VERSION = "bibench-tf weights", 1
_HEADER = "bibench_tf"
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


def save(model: tf.keras.Model, path: str | Path) -> Weights:
    """Write the weights of a model and return them.

    Raises BibenchError as `collect`, and StorageError when the file cannot be written.
    """
    weights, content = collect(model), {}
    for name, kernel in weights.kernels.items():
        content[f"{name}/kernel.bits"] = np.packbits(np.moveaxis(kernel.signs, -1, 0).reshape(-1) > 0)
        if not (kernel.scale == 1).all():
            content[f"{name}/kernel.scale"] = kernel.scale
    content.update(weights.arrays)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "network": weights.network,
        "kernels": {name: list(kernel.signs.shape) for name, kernel in weights.kernels.items()},
        "arrays": {name: [array.dtype.str, list(array.shape)] for name, array in content.items()},
    }
    encoded = np.frombuffer(json.dumps(header, separators=(",", ":")).encode(), np.uint8)
    stream = io.BytesIO()  # a ZIP file that cannot be written prints a traceback when Python deletes it
    np.savez(stream, **{_HEADER: encoded}, **content)
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(stream.getbuffer()))
    return weights


def load(path: str | Path) -> Weights:
    """The weights in a file; nothing in it is run.

    Raises BibenchError for a file that is missing, damaged, of another kind or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingData(f"There is no file {path}.")
    try:
        file = np.load(path, allow_pickle=False)
        content = {} if isinstance(file, np.ndarray) else {name: file[name] for name in file.files}
    except Exception as error:  # zip, NumPy and the file system each have their own
        raise BibenchError(f"{path} is damaged or no .npz file of plain arrays ({type(error).__name__}).") from error
    header = _header(path, content.pop(_HEADER, None))
    found = {name: [array.dtype.str, list(array.shape)] for name, array in content.items()}
    if found != header["arrays"]:
        odd = sorted(name for name in {*found, *header["arrays"]} if found.get(name) != header["arrays"].get(name))
        raise BibenchError(f"{path} is damaged: array '{odd[0]}' does not fit its header.")
    kernels = {name: _unpack(path, name, shape, content) for name, shape in header["kernels"].items()}
    return Weights(header["network"], kernels, content)


def summary(path: Path, weights: Weights) -> str:
    """The size of the file and of its binary kernels, as text."""
    bits = sum(kernel.signs.size for kernel in weights.kernels.values())
    return f"{path}: {path.stat().st_size} bytes, {len(weights.kernels)} binary kernels of {bits} bits."


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


def restore(model: tf.keras.Model, path: str | Path) -> None:
    """Put the weights of a file into a model of the same network, which then infers bit for bit as the saved model.

    Latent weights become signs times scales that quantize to exactly the saved kernel: right for inference and
    conversion, but no state to continue training from. Weights that only training has are unchanged. Raises
    BibenchError as `load`, and, before a change, when the network is another one.
    """
    weights = load(path)
    changes, kernels, arrays = [], dict(weights.kernels), dict(weights.arrays)
    unfit: list[str] = []
    for name, layer in complexity.layers(model).items():
        kernel = kernels.pop(name, None)
        if kernel is not None:
            shape = tuple(getattr(layer, "kernel", np.zeros(0)).shape)
            if shape != kernel.signs.shape or getattr(layer, "kernel_quantizer", None) is None:
                unfit.append(f"{name}/kernel")
            elif not unfit:
                changes.append((layer.kernel, _latent(name, layer, kernel)))
        for key, variable in _variables(name, layer, skip_kernel=kernel is not None):
            array = arrays.pop(key, None)
            if array is None or array.shape != tuple(variable.shape) or array.dtype != variable.dtype.as_numpy_dtype:
                unfit.append(key)
            changes.append((variable, array))
    if unfit := [*unfit, *sorted(kernels), *sorted(arrays)]:
        raise BibenchError(
            f"The weights are of another network ('{weights.network}') than '{model.name}': '{unfit[0]}' does not fit."
        )
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


def _header(path: Path, encoded: np.ndarray | None) -> dict[str, Any]:
    if encoded is None:
        raise BibenchError(f"{path} holds no weights of bibench-tf: it has no array '{_HEADER}'.")
    try:
        header = json.loads(encoded.tobytes())
        if header["format"] != FORMAT:
            raise ValueError(header["format"])
        version = header["version"]
        if version == VERSION and not all(isinstance(header[key], dict) for key in ("kernels", "arrays")):
            raise TypeError("kernels, arrays")
    except (ValueError, KeyError, TypeError) as error:
        raise BibenchError(f"{path} has a header that cannot be read ({type(error).__name__}: {error}).") from error
    if version != VERSION:
        raise BibenchError(f"{path} is of version {version}; this bibench-tf reads version {VERSION}.")
    return header


def _unpack(path: Path, name: str, shape: list[int], content: dict[str, np.ndarray]) -> BinaryKernel:
    """Take a kernel's arrays out of `content`."""
    bits = content.pop(f"{name}/kernel.bits", None)
    channels = shape[-1]
    scale = content.pop(f"{name}/kernel.scale", np.ones(channels, np.float32))
    size = int(np.prod(shape))
    if bits is None or bits.dtype != np.uint8 or bits.shape != (-(-size // 8),) or scale.shape != (channels,):
        raise BibenchError(f"{path} is damaged: the kernel of '{name}' does not have the size {shape}.")
    signs = np.unpackbits(bits, count=size).astype(np.int8) * 2 - 1
    return BinaryKernel(np.ascontiguousarray(np.moveaxis(signs.reshape(channels, *shape[:-1]), 0, -1)), scale)
