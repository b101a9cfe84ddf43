"""Why an operation of a flatbuffer that was meant to be binary computes with floats, found from the graph alone.

Larq Compute Engine makes a convolution binary when its input is a sign, without an operation in between, and its
constant kernel holds +s and -s with one s for each output channel. Each reason is a rule of these that is broken.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import msgspec
import numpy as np

from bibench_tf.deploy.flatbuffer import BINARY_CONVOLUTION, Graph, Operation, same_padding

# The largest relative spread of the magnitudes in a filter that the converter rounds to one magnitude.
CONVERTER_TOLERANCE = 5e-3
_DEAD = 1.2e-7
_FOLDING_LIMIT_MIB = 128
_BITS_OF_A_WORD = 32

PRODUCTS = ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL", "CONV_3D")
_MOVES = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "SPACE_TO_BATCH_ND", "EXPAND_DIMS", "SQUEEZE")
_REASON_OF_KIND = {
    "FULLY_CONNECTED": "dense",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "transposed",
    "CONV_3D": "volume",
}
_COMPARISONS = ("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "CAST", "SELECT", "SELECT_V2")


@dataclass(frozen=True)
class Reason:
    """A rule that an operation breaks: its `key` in reasons.toml, the `cause` and the `remedy` in words."""

    key: str
    cause: str
    remedy: str


class Origins:
    """The producers of the tensors of a graph."""

    def __init__(self, graph: Graph) -> None:
        """Index the operations of `graph` by their outputs."""
        self.graph = graph
        self.producer = {output: operation for operation in graph.operations for output in operation.outputs}

    def moves_before(self, tensor: int) -> tuple[list[Operation], Operation | None]:
        """The operations before `tensor` that only move values, last first, and the operation that computed them."""
        moves = []
        while (operation := self.producer.get(tensor)) is not None and operation.kind in _MOVES:
            moves.append(operation)
            tensor = operation.inputs[0]
        return moves, operation

    def region_before(self, tensor: int) -> list[Operation]:
        """All operations between `tensor` and the nearest signs and products before it, those signs included."""
        return self._before(tensor, beyond=(*PRODUCTS, BINARY_CONVOLUTION), last="LceDequantize")

    def depends_on_input(self, tensor: int) -> bool:
        """Whether a tensor changes with the input of the network."""
        read = {index for operation in self._before(tensor) for index in operation.inputs}
        return not (read | {tensor}).isdisjoint(self.graph.inputs)

    def _before(self, tensor: int, beyond: tuple[str, ...] = (), last: str = "") -> list[Operation]:
        """The operations before `tensor`; the search stops before the kinds `beyond` and after the kind `last`."""
        found, queue = {}, [tensor]
        while queue:
            operation = self.producer.get(queue.pop())
            if operation is None or id(operation) in found or operation.kind in beyond:
                continue
            found[id(operation)] = operation
            if operation.kind != last:
                queue.extend(operation.inputs)
        return list(found.values())


def operands(operation: Operation) -> tuple[int, int]:
    """The tensors a product multiplies: its input and its kernel (or second input)."""
    if operation.kind == "TRANSPOSE_CONV":
        return operation.inputs[2], operation.inputs[1]
    return operation.inputs[0], operation.inputs[1]


def filters(graph: Graph, operation: Operation) -> np.ndarray | None:
    """The constant kernel of a product: output channels, height, width, input channels; a binary one as +1 and -1."""
    if len(operation.inputs) < 2:
        return None
    value = graph.tensors[operands(operation)[1]].value
    if value is None:
        return None
    if operation.kind == BINARY_CONVOLUTION:
        bits = np.unpackbits(np.ascontiguousarray(value).astype("<u4").view(np.uint8), axis=-1, bitorder="little")
        return 1.0 - 2.0 * bits[..., : _input_width(graph, operation, value)].astype(np.float32)
    value = value.astype(np.float32)  # a file of another converter may hold integers
    if operation.kind == "DEPTHWISE_CONV_2D":
        return np.moveaxis(value, -1, 0).reshape(value.shape[-1], *value.shape[1:3], 1)
    if operation.kind in ("BATCH_MATMUL", "CONV_3D"):
        value = np.moveaxis(value, -1, 0)
    return value if value.ndim == 4 else value.reshape(len(value), 1, 1, -1)


def groups(graph: Graph, operation: Operation) -> int:
    """The groups of a convolution."""
    kernel = filters(graph, operation)
    if kernel is None or operation.kind not in (BINARY_CONVOLUTION, "CONV_2D"):
        return 1
    if operation.kind == BINARY_CONVOLUTION:
        return operation.options["channels_in"] // kernel.shape[-1]
    return graph.tensors[operation.inputs[0]].shape[-1] // kernel.shape[-1]


def meant_binary(origins: Origins, operation: Operation) -> bool:
    """Whether a float product looks as if it was meant to be binary: signs before it, or a kernel of +s and -s."""
    kernel = filters(origins.graph, operation)
    if kernel is not None and kernel.min() < 0 < kernel.max() and spread(kernel) < CONVERTER_TOLERANCE:
        return True
    inputs = operation.inputs if operation.kind == "BATCH_MATMUL" else operands(operation)
    kinds = {each.kind for tensor in inputs for each in origins.region_before(tensor)}
    return bool(kinds & {"LceDequantize", "SIGN", "ROUND"})


def spread(kernel: np.ndarray) -> float:
    """The relative spread of the |weights| of a filter, largest over all filters; 1 for a dead filter."""
    magnitudes = np.abs(kernel.reshape(len(kernel), -1))
    top = magnitudes.max(axis=1)
    return float(np.max(1 - magnitudes.min(axis=1) / np.maximum(top, _DEAD))) if len(kernel) else 0.0


def reason(key: str, **values: object) -> Reason:
    """The reason `key` of reasons.toml, with `values` in its cause and remedy."""
    texts = _reasons()[key]
    return Reason(key, texts["cause"].format(**values), texts["remedy"].format(**values))


@functools.cache
def _reasons() -> dict[str, dict[str, str]]:
    return msgspec.toml.decode(resources.files(__package__).joinpath("reasons.toml").read_bytes())


def explain(origins: Origins, operation: Operation) -> tuple[Reason, ...]:
    """Every rule that a float product breaks, at least one reason."""
    first, second = operands(operation)
    graph = origins.graph
    if graph.tensors[second].value is None and origins.depends_on_input(second):
        return (reason("product_of_activations"),)
    kind = _REASON_OF_KIND.get(operation.kind)
    reasons = [] if kind is None else [reason(kind)]
    if operation.kind == "FULLY_CONNECTED" or kind is None:
        reasons += _of_input(origins, first)
    if operation.kind == "CONV_2D":
        reasons += _of_moves(origins, operation)
    reasons += _of_kernel(graph, operation, second)
    return tuple(reasons) or (reason("unknown"),)


def _of_input(origins: Origins, tensor: int) -> Iterator[Reason]:
    _, source = origins.moves_before(tensor)
    if source is not None and source.kind == "LceDequantize":
        return
    region = {operation.kind for operation in origins.region_before(tensor)}
    if "LceDequantize" in region:
        between = sorted(region - {"LceDequantize", *_MOVES, "ABS", "MEAN"}) or sorted(region - {"LceDequantize"})
        yield reason("between_sign_and_product", operations=", ".join(between))
    elif "ROUND" in region:
        yield reason("rounded_input")
    elif "SIGN" in region:
        yield reason("zero_one_input" if "RELU" in region else "tf_sign")
    else:
        yield reason("unrecognised_sign" if region & set(_COMPARISONS) else "input_not_binarized")


def _of_moves(origins: Origins, operation: Operation) -> Iterator[Reason]:
    graph = origins.graph
    moves, _ = origins.moves_before(operation.inputs[0])
    if any(move.kind == "TRANSPOSE" for move in moves):
        yield reason("channels_first")
    if any(len(graph.tensors[move.inputs[0]].shape) == 3 for move in moves if move.kind in ("RESHAPE", "EXPAND_DIMS")):
        yield reason("conv1d")
    for move in moves:
        if move.kind in ("PAD", "PADV2"):
            yield from _of_padding(graph, operation, move)


def _of_padding(graph: Graph, operation: Operation, pad: Operation) -> Iterator[Reason]:
    value = float(graph.tensors[pad.inputs[2]].value) if pad.kind == "PADV2" else 0.0
    if value not in (0.0, 1.0):
        yield reason("padding_value", value=value)
        return
    amounts, shape = graph.tensors[pad.inputs[1]].value, graph.tensors[pad.inputs[0]].shape
    kernel, options = filters(graph, operation), operation.options
    if amounts is None or kernel is None or len(shape) != 4:
        return
    for axis, letter in ((1, "H"), (2, "W")):
        span = (kernel.shape[axis] - 1) * options[f"dilation{letter}Factor"] + 1
        if tuple(amounts[axis]) != same_padding(shape[axis], span, options[f"stride{letter}"]):
            yield reason("padding_amount", before=amounts[axis][0], after=amounts[axis][1])
            return


def _of_kernel(graph: Graph, operation: Operation, second: int) -> Iterator[Reason]:
    kernel = filters(graph, operation)
    if kernel is None:
        size_mib = np.prod(graph.tensors[second].shape, dtype=float) * 4 / 2**20
        beyond = f"; at {size_mib:.0f} MiB it is beyond the {_FOLDING_LIMIT_MIB} MiB that the converter computes ahead"
        yield reason("kernel_at_run_time", beyond=beyond if size_mib > _FOLDING_LIMIT_MIB / 2 else "")
        return
    magnitudes = np.abs(kernel)
    top = magnitudes.reshape(len(kernel), -1).max(axis=1)
    dead = int(np.sum(top <= _DEAD))
    relative = magnitudes[top > _DEAD] / top[top > _DEAD][:, np.newaxis, np.newaxis, np.newaxis]
    if relative.size and relative.min() < 1 - CONVERTER_TOLERANCE:
        yield _of_magnitudes(relative)
    elif dead:
        yield reason("dead_filters", dead=dead, filters=len(kernel))
    number, width = groups(graph, operation), kernel.shape[-1]
    if number > 1 and width % _BITS_OF_A_WORD and operation.kind == "CONV_2D":
        yield reason("group_width", groups=number, width=width, bits=_BITS_OF_A_WORD)


def _of_magnitudes(relative: np.ndarray) -> Reason:
    """The reason for a kernel of these |weights|, relative to the largest of each filter."""
    tolerance = CONVERTER_TOLERANCE
    if np.all((relative < tolerance) | (relative > 1 - tolerance)):
        return reason("ternary_kernel")
    by_channel = relative.reshape(-1, relative.shape[-1])
    if relative.shape[-1] > 1 and np.ptp(by_channel, axis=0).max() < tolerance:
        return reason("scale_of_input_channels")
    levels = len(np.unique(np.round(relative[:64] / tolerance)))
    return reason("kernel_of_several_bits", levels=levels) if levels <= 16 else reason("kernel_not_binarized")


def _input_width(graph: Graph, operation: Operation, packed: np.ndarray) -> int:
    channels = operation.options["channels_in"]
    words = -(-channels // _BITS_OF_A_WORD)
    # A grouped kernel has fewer words than the input, and groups are made of whole words.
    return channels if packed.shape[-1] == words else packed.shape[-1] * _BITS_OF_A_WORD
