"""Local checkpoints of BERT: their sizes, and their weights for a network of `bibench_tf.zoo.berts`.

A checkpoint is a folder with config.json and model.safetensors (as Hugging Face's libraries write them), or with
bert_config.json and bert_model.ckpt.* (as BERT's authors published it). PyTorch's pickles can run code and
are refused. The safetensors format is a length, a JSON header and plain numbers, so NumPy reads it.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf.errors import BibenchError

_SAFETENSORS, _TENSORFLOW, _PICKLE = "model.safetensors", "bert_model.ckpt", "pytorch_model.bin"
# The format's own limit of the header, in bytes.
_LARGEST_HEADER = 100_000_000
# The types of the format and their bytes; numbers of the first three are read.
_READABLE = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ITEM_BYTES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2},
    **{"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a BERT network: encoder layers, their channels, attention heads, and the tables of embeddings."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    vocabulary_size: int = 30522
    positions: int = 512
    types: int = 2
    epsilon: float = 1e-12


# The names in the configuration.
_NAMES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "vocabulary_size": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}
# Entries that distinguish other kinds of networks; a missing entry has this value.
_REQUIRED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


def read_sizes(path: str | Path) -> Sizes:
    """The sizes a checkpoint's configuration states.

    Raises BibenchError unless the folder holds a readable checkpoint of a BERT with GELU and learned positions.
    """
    folder = Path(path)
    _weights_file(folder)
    file = next((folder / name for name in ("config.json", "bert_config.json") if (folder / name).is_file()), None)
    if file is None:
        raise BibenchError(f"{folder} has no config.json or bert_config.json, which states the sizes of the network.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise BibenchError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise BibenchError(f"{file} is no configuration: a JSON object is needed.")
    for name, required in _REQUIRED.items():
        if config.get(name, required) != required:
            raise BibenchError(f"{file} has {name} '{config[name]}'; only '{required}' can be loaded.")
    sizes: dict[str, Any] = {ours: config.get(theirs) for ours, theirs in _NAMES.items()}
    for ours, value in sizes.items():
        if type(value) is not int or value < 1:
            raise BibenchError(f"{file} needs a positive whole number for {_NAMES[ours]}, not {value!r}.")
    epsilon = config.get("layer_norm_eps", Sizes.epsilon)
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise BibenchError(f"{file} needs a small positive number for layer_norm_eps, not {epsilon!r}.")
    return Sizes(**sizes, epsilon=epsilon)


def load_checkpoint(model: tf.keras.Model, path: str | Path) -> tuple[str, ...]:
    """Load the weights of a checkpoint into a network of `bert` with the same sizes, binary or not.

    Weights that only the network has, such as learned scales of an algorithm, are left unchanged; so are `pooler` and
    `head` if the checkpoint has none, or a head of another size. Returns which of these two were not loaded.
    Raises BibenchError if the checkpoint cannot be read or does not fit; the network is unchanged then.
    """
    folder = Path(path)
    file = _weights_file(folder)
    tensors = _of_safetensors(file) if file.name == _SAFETENSORS else _of_tensorflow(folder)
    layers = read_sizes(folder).layers
    expected = sum(layer.name.endswith("_attention_norm") for layer in model.layers)
    if layers != expected:
        raise BibenchError(f"{folder} has {layers} encoder layers, the network {expected}: take the same number.")
    values, left = [], []
    for layer, name in _layers(model, layers):
        try:
            values += [(weight, _value(weight, name, tensors, folder)) for weight in _weights(layer)]
        except _Missing as missing:
            if layer.name not in ("pooler", "head"):
                raise BibenchError(str(missing)) from missing
            left.append(layer.name)
    for weight, value in values:
        weight.assign(value)
    return tuple(left)


class _Missing(Exception):
    """A checkpoint has no tensor for a weight, or one of another shape."""


def _layers(model: tf.keras.Model, layers: int) -> Iterator[tuple[tf.keras.layers.Layer, str]]:
    """The layers of a network, and their names in checkpoints."""
    names = {
        "word_embeddings": "embeddings.word_embeddings",
        "position_embeddings": "embeddings.position_embeddings",
        "type_embeddings": "embeddings.token_type_embeddings",
        "embeddings_norm": "embeddings.LayerNorm",
    }
    for number in range(layers):
        ours, theirs = f"layer{number + 1}", f"encoder.layer.{number}"
        names |= {f"{ours}_{part}": f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")}
        names |= {
            f"{ours}_attention_output": f"{theirs}.attention.output.dense",
            f"{ours}_attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"{ours}_intermediate": f"{theirs}.intermediate.dense",
            f"{ours}_output": f"{theirs}.output.dense",
            f"{ours}_output_norm": f"{theirs}.output.LayerNorm",
        }
    names |= {"pooler": "pooler.dense", "head": "classifier"}
    for ours, theirs in names.items():
        yield model.get_layer(ours), theirs


# The weights that checkpoints have, and their names in checkpoints.
_WEIGHTS = {"embeddings": "weight", "kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}


def _weights(layer: tf.keras.layers.Layer) -> list[tf.Variable]:
    return [weight for weight in layer.weights if _short_name(weight) in _WEIGHTS]


def _short_name(weight: tf.Variable) -> str:
    return weight.name.split("/")[-1].split(":")[0]


def _value(weight: tf.Variable, name: str, tensors: Mapping[str, Callable[[], np.ndarray]], folder: Path) -> np.ndarray:
    """The numbers for a weight, in its own shape; checkpoints have kernels as (outputs, inputs)."""
    kind = _short_name(weight)
    key = f"{name}.{_WEIGHTS[kind]}"
    if key not in tensors:
        raise _Missing(f"{folder} has no tensor '{key}', which the network needs.")
    value = tensors[key]()
    if kind == "kernel":
        value = value.T
    # Binary dense layers are convolutions of 1 x 1.
    shape = tuple(weight.shape)[-2:] if kind == "kernel" else tuple(weight.shape)
    if value.shape != shape:
        raise _Missing(f"Tensor '{key}' in {folder} has the shape {value.shape}, the network needs {shape}.")
    if not np.isfinite(value).all():
        raise BibenchError(f"Tensor '{key}' in {folder} has numbers that are not finite.")
    return value.reshape(weight.shape)


def _weights_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise BibenchError(f"{folder} is no folder: name the one with the checkpoint's config.json and {_SAFETENSORS}.")
    if (folder / _SAFETENSORS).is_file():
        return folder / _SAFETENSORS
    if (folder / f"{_TENSORFLOW}.index").is_file():
        return folder / f"{_TENSORFLOW}.index"
    if (folder / _PICKLE).exists():
        raise BibenchError(
            f"{folder} has {_PICKLE} only, a pickle, which can run code and is not read: save it as {_SAFETENSORS}."
        )
    raise BibenchError(f"{folder} has neither {_SAFETENSORS} nor {_TENSORFLOW}.index: it holds no checkpoint to load.")


def _by_their_names(found: Mapping[str, Callable[[], np.ndarray]], folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Tensors by names without the prefix before `embeddings`, the name of the encoder in a larger network."""
    words = [name for name in found if name.endswith("embeddings.word_embeddings.weight")]
    if len(words) != 1:
        raise BibenchError(f"{folder} has no word embeddings, or several: it is not the checkpoint of one BERT.")
    prefix = words[0].removesuffix("embeddings.word_embeddings.weight")
    return {name.removeprefix(prefix): read for name, read in found.items()}


def _of_safetensors(file: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of the tensors of a safetensors file, by name; raises BibenchError for a damaged file."""
    header, data_bytes, start = _header(file)
    found, spans = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind, shape, begin, end = _entry(file, name, entry)
        spans.append((begin, end))
        # Early networks called weight and bias of a layer normalization gamma and beta.
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        found[name] = partial(_read, file, name, kind, shape, start + begin)
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise BibenchError(
                f"{file} is damaged: its tensors overlap, or leave a gap at byte {position} of the data."
            )
        position = end
    if position != data_bytes:
        raise BibenchError(f"{file} is damaged: its tensors take {position} bytes, the file has {data_bytes} for them.")
    return _by_their_names(found, file.parent)


def _header(file: Path) -> tuple[dict, int, int]:
    """The header, the bytes of data after it, and where these begin."""
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        beginning = stream.read(8)
        length = struct.unpack("<Q", beginning)[0] if len(beginning) == 8 else -1
        if not 2 <= length <= min(_LARGEST_HEADER, size_bytes - 8):
            raise BibenchError(f"{file} is damaged: it does not begin with the size of a header that it could hold.")
        try:
            header = json.loads(stream.read(length).decode("utf-8"), object_pairs_hook=_without_repetition)
        except (ValueError, RecursionError) as error:
            raise BibenchError(f"{file} is damaged: its header is no valid JSON ({error}).") from error
    if not isinstance(header, dict):
        raise BibenchError(f"{file} is damaged: its header is no JSON object.")
    return header, size_bytes - 8 - length, 8 + length


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name is repeated")
    return entries


def _entry(file: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, first byte and byte after the last of a tensor, checked against each other."""
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        fits = whole and end - begin == _ITEM_BYTES[kind] * math.prod(shape)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise BibenchError(f"{file} is damaged: type, shape and offsets of tensor '{name}' do not fit each other.")
    return kind, shape, begin, end


def _read(file: Path, name: str, kind: str, shape: tuple[int, ...], offset: int) -> np.ndarray:
    if kind not in _READABLE:
        raise BibenchError(f"Tensor '{name}' in {file} is of type {kind}; only {', '.join(_READABLE)} are read.")
    values = np.fromfile(file, _READABLE[kind], math.prod(shape), offset=offset).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _of_tensorflow(folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of the tensors of BERT's own checkpoints, with the names and the axis order of safetensors files."""
    try:
        reader = tf.train.load_checkpoint(str(folder / _TENSORFLOW))
        names = list(reader.get_variable_to_shape_map())
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise BibenchError(f"{folder / _TENSORFLOW} cannot be read: {error}.") from error
    found = {_THEIRS.get(name) or _renamed(name): partial(_read_tensorflow, reader, folder, name) for name in names}
    return _by_their_names(found, folder)


# The classifier of BERT's own fine-tuning program.
_THEIRS = {"output_weights": "bert.classifier.weight", "output_bias": "bert.classifier.bias"}
_LAST_PARTS = {"kernel": "weight", "gamma": "weight", "beta": "bias"}


def _renamed(name: str) -> str:
    parts = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).split("/")
    if parts[-1].endswith("_embeddings"):
        parts.append("weight")
    return ".".join([*parts[:-1], _LAST_PARTS.get(parts[-1], parts[-1])])


def _read_tensorflow(reader: Any, folder: Path, name: str) -> np.ndarray:
    try:
        values = np.asarray(reader.get_tensor(name), np.float32)
    except (tf.errors.OpError, ValueError, RuntimeError, TypeError, IndexError) as error:
        raise BibenchError(f"Tensor '{name}' of {folder / _TENSORFLOW} cannot be read: {error}.") from error
    return values.T if name.endswith("/kernel") else values
