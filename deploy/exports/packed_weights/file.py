"""The file of packed weights: an .npz file of plain NumPy arrays, without Python objects.

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

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf.deploy.exports.packed_weights.kernels import BinaryKernel, Weights, assign, collect
from bibench_tf.errors import BibenchError, MissingData
from bibench_tf.files import write_atomically

FORMAT, VERSION = "bibench-tf weights", 1
_HEADER = "bibench_tf"


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

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            np.savez(stream, **{_HEADER: encoded}, **content)

    write_atomically(Path(path), write)
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


def restore(model: tf.keras.Model, path: str | Path) -> None:
    """Put the weights of a file into a model of the same network. Raises BibenchError as `load` and `assign`."""
    assign(model, load(path))


def summary(path: Path, weights: Weights) -> str:
    """The size of the file and of its binary kernels, as text."""
    bits = sum(kernel.signs.size for kernel in weights.kernels.values())
    return f"{path}: {path.stat().st_size} bytes, {len(weights.kernels)} binary kernels of {bits} bits."


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
