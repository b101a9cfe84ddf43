"""The files that hold a model, checked before anything of them is unpacked: zip archives, HDF5 and checkpoints."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from bibench_tf.model_files.limits import MAX_CONFIGURATION_BYTES, Refusal, check_length, check_unpacked

_CONFIGURATION, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_NUMBERS = "biufc"


def unpack_keras(path: Path, weights: Path) -> bytes:
    """The JSON of the model in a .keras file; its weights, an HDF5 file, are unpacked to `weights`.

    Raises Refusal for an archive that holds something else, a file of Keras 3, and one that takes too much memory.
    """
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if pickled := next((name for name in entries if name.endswith((".npz", ".npy", ".pkl"))), None):
            raise Refusal(f"it keeps weights in '{pickled}', which can hold code; save it with weights in HDF5.")
        if other := next((name for name in entries if name not in (_CONFIGURATION, _METADATA, _WEIGHTS)), None):
            raise Refusal(f"it holds '{other}', and only the configuration and the weights of a network are read.")
        if len(archive.infolist()) > len(entries):
            raise Refusal("it holds two files of one name, and programs differ in which of them they read.")
        if lacking := next((name for name in (_CONFIGURATION, _WEIGHTS) if name not in entries), None):
            raise Refusal(f"it is a zip file without '{lacking}', so not of Keras.")
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries.values()):
            raise Refusal("it is compressed by a method that Keras does not use; save it again with Keras.")
        check_unpacked("its entries", sum(entry.file_size for entry in entries.values()), path.stat().st_size)
        texts = {}
        for name in entries.keys() & {_CONFIGURATION, _METADATA}:
            check_length(f"'{name}'", entries[name].file_size, MAX_CONFIGURATION_BYTES)
            texts[name] = archive.read(name)
        _check_version(json.loads(texts[_METADATA]).get("keras_version") if _METADATA in texts else None)
        with archive.open(_WEIGHTS) as packed, open(weights, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return texts[_CONFIGURATION]


def hdf5_configuration(path: Path) -> str | bytes:
    """The JSON of the model in a .h5 file, which `hdf5_bytes` has accepted. Raises Refusal where it has none."""
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise Refusal("it holds weights without a model; save the model itself with model.save.")
        _check_version(file.attrs.get("keras_version"))
        config = file.attrs["model_config"]
    if not isinstance(config, (str, bytes)):
        raise Refusal("its configuration is not a text.")
    check_length("its configuration", len(config), MAX_CONFIGURATION_BYTES)
    return config


def hdf5_bytes(path: Path, packed: int) -> int:
    """The bytes of all weights that Keras reads from an HDF5 file, which is or was unpacked from one of `packed` bytes.

    Raises Refusal for values that lie in other files, are no numbers, or take more memory than the file explains.
    """
    with h5py.File(path, "r") as file:
        weights = 0
        for name, item in _items(file):
            for attribute in item.attrs:
                kept = item.attrs.get_id(attribute)
                check_unpacked(f"its values '{attribute}' of '{name}'", _bytes(kept.shape, kept.dtype), packed)
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise Refusal(f"its values '{name}' lie in other files.")
                if item.dtype.kind not in _NUMBERS:
                    raise Refusal(f"its values '{name}' are no numbers.")
                weights += _bytes(item.shape, item.dtype)
                check_unpacked(f"its values '{name}' and those before", weights, packed)
        read = sum(_bytes(item.shape, item.dtype) for item in _weights_by_name(file))
        check_unpacked("its weights by name", read, packed)
    return max(weights, read)


def checkpoint_bytes(prefix: Path) -> int:
    """The bytes of all weights of a TensorFlow checkpoint. Raises Refusal where its index claims more than it has."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    types = reader.get_variable_to_dtype_map()
    claimed = sum(
        _bytes(shape, np.dtype(types[name].as_numpy_dtype))
        for name, shape in reader.get_variable_to_shape_map().items()
        if types[name] != tf.string
    )
    held = sum(file.stat().st_size for file in prefix.parent.glob(f"{prefix.name}.data-*"))
    if claimed > held:
        raise Refusal(f"its index claims {claimed:,} bytes of weights, and its data have {held:,}.")
    return claimed


def _check_version(version: object) -> None:
    text = version.decode() if isinstance(version, bytes) else str(version)
    if text.startswith("3."):
        raise Refusal(
            f"it was saved by Keras {text}, and files of Keras 2 are read; save it with tf_keras, or its graph alone "
            "with model.export."
        )


def _items(file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Every group and data set of a file once, with its path. Raises Refusal for links that leave the file."""
    seen, groups = set(), [("/", file)]
    while groups:
        path, group = groups.pop()
        yield path, group
        for name in group:
            inner = f"{path.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refusal(f"its values '{inner}' are a link, and may lie in other files.")
            item = group[name]
            if (address := h5py.h5o.get_info(item.id).addr) not in seen:
                seen.add(address)
                if isinstance(item, h5py.Group):
                    groups.append((inner, item))
                else:
                    yield inner, item


def _weights_by_name(file: h5py.File) -> Iterator[h5py.Dataset]:
    """The weights in the order in which Keras reads a .h5 file: by lists of names, which may repeat one."""
    root = file if "layer_names" in file.attrs or "model_weights" not in file else file["model_weights"]
    layers = [*_names(root, "layer_names"), *(name for name in ("top_level_model_weights",) if name in root)]
    for layer in layers:
        for name in _names(root[layer], "weight_names"):
            yield root[layer][name]


def _names(group: h5py.Group, attribute: str) -> Iterator[str | bytes]:
    if attribute in group.attrs:
        yield from group.attrs[attribute]
        return
    # A long list is kept in attributes with numbers.
    for number in itertools.takewhile(lambda number: f"{attribute}{number}" in group.attrs, itertools.count()):
        yield from group.attrs[f"{attribute}{number}"]


def _bytes(shape: tuple[int, ...] | None, dtype: np.dtype) -> int:
    return 0 if shape is None else int(np.prod([int(size) for size in shape], dtype=object)) * dtype.itemsize
