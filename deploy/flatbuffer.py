"""The content of a TensorFlow Lite flatbuffer: operations and tensors, and the order of inputs and outputs.

Read with the schema that TensorFlow ships; Larq Compute Engine's custom operations are listed by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from bibench_tf.errors import BibenchError

BINARY_CONVOLUTION = "LceBconv2d"

_BUILTIN_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_KNOWN = frozenset(_BUILTIN_NAMES.values())
# NumPy types by the number of a type in a file.
TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.FLOAT64: np.float64,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.BOOL: np.bool_,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a flatbuffer. `value` is the content of a constant, else None; `buffer` is its index in the file."""

    name: str
    shape: tuple[int, ...]
    value: np.ndarray | None
    buffer: int


@dataclass(frozen=True)
class Operation:
    """An operation of a flatbuffer: indices into the tensors of its graph, and its options.

    `kind` is the type, such as CONV_2D or LceBconv2d, and `name` that of the first output. A missing optional input
    is -1. `options` have the names of TensorFlow Lite's schema (`strideH`); those of an LceBconv2d are `channels_in`,
    strides, dilation factors, `padding` (0 same, 1 valid), `pad_values`. Bits are packed 32 to an int32 along the
    channels.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]
    name: str


@dataclass(frozen=True)
class Graph:
    """The main subgraph of a flatbuffer, its operations in the order of computation."""

    operations: tuple[Operation, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    buffer_bytes: Mapping[int, bytes]


def graph(flatbuffer: bytes) -> Graph:
    """The operations and tensors of the main subgraph. Raises BibenchError for other files."""
    if flatbuffer[4:8] != b"TFL3":
        raise BibenchError("This is not a TensorFlow Lite file.")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(flatbuffer, 0))
    except Exception as error:  # the reader does no validation and can raise any exception on malformed input
        raise BibenchError("This TensorFlow Lite file is damaged.") from error
    main = model.subgraphs[0]
    buffers = {
        index: np.asarray(buffer.data, np.uint8).tobytes()
        for index, buffer in enumerate(model.buffers)
        if buffer.data is not None and len(buffer.data)
    }
    tensors = tuple(_tensor(tensor, buffers) for tensor in main.tensors)
    kinds = operator_codes(flatbuffer)
    return Graph(
        operations=tuple(
            Operation(
                kind=kinds[operator.opcodeIndex],
                inputs=_indices(operator.inputs),
                outputs=_indices(operator.outputs),
                options=_options(operator),
                name=tensors[operator.outputs[0]].name,
            )
            for operator in main.operators
        ),
        tensors=tensors,
        inputs=_indices(main.inputs),
        outputs=_indices(main.outputs),
        buffer_bytes=buffers,
    )


def operators(flatbuffer: bytes) -> Counter[str]:
    """The number of operations of each kind, over all subgraphs; custom operations under their own names."""
    model, codes = schema.Model.GetRootAsModel(flatbuffer, 0), operator_codes(flatbuffer)
    subgraphs = (model.Subgraphs(index) for index in range(model.SubgraphsLength()))
    return Counter(
        codes[subgraph.Operators(index).OpcodeIndex()]
        for subgraph in subgraphs
        for index in range(subgraph.OperatorsLength())
    )


def operator_codes(flatbuffer: bytes) -> list[str]:
    """The names of the kinds of operations, in the order in which the file numbers them."""
    model = schema.Model.GetRootAsModel(flatbuffer, 0)
    return [_name(model.OperatorCodes(index)) for index in range(model.OperatorCodesLength())]


def unknown_operators(flatbuffer: bytes) -> list[str]:
    """The kinds of operations that neither TensorFlow Lite nor Larq Compute Engine has; such a file does not run."""
    return sorted(name for name in operators(flatbuffer) if name not in _KNOWN and not name.startswith("Lce"))


def input_order(flatbuffer: bytes) -> list[str]:
    """The names of the inputs in the order of an interpreter, which may differ from the order of the Keras model."""
    return _order(flatbuffer, "Inputs")


def output_order(flatbuffer: bytes) -> list[str]:
    """The names of the outputs in the order of an interpreter, which may differ from the order of the Keras model."""
    return _order(flatbuffer, "Outputs")


def same_padding(size: int, span: int, stride: int) -> tuple[int, int]:
    """The padding `same`, before and after an axis of `size` elements, of a kernel that spans `span` of them."""
    total = max((-(-size // stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


def _order(flatbuffer: bytes, side: str) -> list[str]:
    model = schema.Model.GetRootAsModel(flatbuffer, 0)
    signature, subgraph = model.SignatureDefs(0), model.Subgraphs(0)
    named = [getattr(signature, side)(index) for index in range(getattr(signature, f"{side}Length")())]
    names = {tensor.TensorIndex(): tensor.Name().decode() for tensor in named}
    return [names[index] for index in getattr(subgraph, f"{side}AsNumpy")()]


def _name(code) -> str:
    # Older files keep the code in the deprecated byte, newer ones in the full field; the other one is 0.
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return code.CustomCode().decode() if builtin == schema.BuiltinOperator.CUSTOM else _BUILTIN_NAMES[builtin]


def _indices(values: Sequence[int] | None) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)


def _options(operator) -> Mapping[str, Any]:
    custom = operator.customOptions
    if custom is None or not len(custom):
        return {} if operator.builtinOptions is None else vars(operator.builtinOptions)
    try:
        options = flexbuffers.Loads(bytes(custom))
    except Exception:  # another runtime's operation: its options are in a format of its own
        return {}
    return options if isinstance(options, dict) else {}


def _tensor(tensor, buffers: Mapping[int, bytes]) -> Tensor:
    shape, content = _indices(tensor.shape), buffers.get(tensor.buffer)
    value = None
    if content is not None and tensor.type in TYPES:
        value = np.frombuffer(content, TYPES[tensor.type])
        value = value.reshape(shape) if value.size == np.prod(shape, dtype=int) else None
    return Tensor(name=(tensor.name or b"").decode(), shape=shape, value=value, buffer=tensor.buffer)
