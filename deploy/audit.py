"""What a converted network runs on bits, layer by layer, and why the rest does not.

The layers of a Keras model are found in the flatbuffer by their kernels: the signs of a binary convolution's, or the
directions of a float operation's filters, into which a batch norm may be folded. Where a kernel is no constant, or a
layer has none, the names of tensors decide.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.deploy import fallbacks, flatbuffer
from bibench_tf.deploy.fallbacks import Origins, Reason
from bibench_tf.deploy.flatbuffer import BINARY_CONVOLUTION, Graph, Operation
from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import tensorflow as tf

VERSION = 1
# A quantizer that gives +s and -s exactly leaves rounding only.
_ROUNDING = 1e-5
_SAME_DIRECTION = 1 - 1e-4
_KERNELS = {
    "kernel": "kernel_quantizer",
    "depthwise_kernel": "depthwise_quantizer",
    "pointwise_kernel": "pointwise_quantizer",
}


@dataclass(frozen=True)
class LayerAudit:
    """One layer, or one operation of no known layer.

    `name` is that of the Keras layer (`outer/inner`), or of the operation's output where no layer is known; `kind`
    the class of the layer, else the operation. `intended` says that bits were meant: the layer has a quantizer, or
    the operation looks like it. `binary` says that all its `operations` run on bits. `macs` are for one sample.
    `theory_bits` are those of the layer's deployed parameters (None where they cannot be counted), `file_bytes` those
    of its constants in the file. `reasons` are for an intended layer that is not binary, or not exactly.
    """

    name: str
    kind: str
    intended: bool
    binary: bool
    operations: tuple[str, ...]
    macs: int
    macs_binary: int
    theory_bits: int | None
    file_bytes: int
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def fell_back(self) -> bool:
        """Whether bits were meant and floats computed, or other bits than the layer's weights say."""
        return self.intended and bool(self.reasons)


@dataclass(frozen=True)
class SizePart:
    """Some bytes of the file, and what they are."""

    name: str
    size_bytes: int
    explanation: str


@dataclass(frozen=True)
class Audit:
    """What runs on bits in a flatbuffer.

    `parts` add up to `file_bytes`. `theory_bits`, of which `theory_binary_bits` are in binary weights, are those of the
    parameters of the Keras model, as the complexity track counts them, None where there is no model; `uncounted` are
    its layers that this leaves out, with the reason.
    """

    layers: tuple[LayerAudit, ...]
    operations: dict[str, int]
    file_bytes: int
    parts: tuple[SizePart, ...]
    theory_bits: int | None
    theory_binary_bits: int | None = None
    uncounted: dict[str, str] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """All multiply-accumulates of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def macs_binary(self) -> int:
        """Those of bits with bits."""
        return sum(layer.macs_binary for layer in self.layers)

    @property
    def binary_share(self) -> float | None:
        """The share of multiply-accumulates that run on bits, 0 to 1; None without any."""
        return self.macs_binary / self.macs if self.macs else None

    @property
    def fallbacks(self) -> tuple[LayerAudit, ...]:
        """The layers that were meant to be binary and are not, or not exactly."""
        return tuple(layer for layer in self.layers if layer.fell_back)

    @property
    def difference(self) -> tuple[SizePart, ...]:
        """What makes the file larger or smaller than theory, which together is the difference; empty without theory."""
        if self.theory_bits is None:
            return ()
        sizes = {part.name: part.size_bytes for part in self.parts}
        in_theory = {"bits": self.theory_binary_bits // 8, "floats": (self.theory_bits - self.theory_binary_bits) // 8}
        rows = [
            (
                _title("bits"),
                sizes.pop(_title("bits"), 0) - in_theory["bits"],
                "binary weights that are stored as floats",
            ),
            (
                "floats",
                sum(sizes.pop(_title(name), 0) for name in ("floats", "stages", "others")) - in_theory["floats"],
                "folded batch norms save some, weights stored as floats cost more",
            ),
        ]
        rows += [(name, size, explanation) for _, name, explanation in _PARTS if (size := sizes.get(name))]
        return tuple(SizePart(*row) for row in rows if row[1])

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON; docs/deploy.md describes the fields."""
        totals = {"macs": self.macs, "macs_binary": self.macs_binary, "binary_share": self.binary_share}
        found = {
            "fallbacks": [layer.name for layer in self.fallbacks],
            "difference": [dataclasses.asdict(part) for part in self.difference],
        }
        return {"kind": "deploy_audit", "version": VERSION, **totals, **found, **dataclasses.asdict(self)}


def audit(content: bytes, model: tf.keras.Model | None = None) -> Audit:
    """The audit of a flatbuffer: by Keras layer with the `model` it was made of, else by operation.

    Raises BibenchError for what is no TensorFlow Lite file.
    """
    graph = flatbuffer.graph(content)
    origins = Origins(graph)
    products = [
        operation for operation in graph.operations if operation.kind in (BINARY_CONVOLUTION, *fallbacks.PRODUCTS)
    ]
    positions = {id(operation): number for number, operation in enumerate(graph.operations)}
    unknown: dict[str, str] = {}
    known = [] if model is None else _layers(model, unknown)
    owners = _assign(graph, products, known)
    sizes = _Sizes(graph)
    rows = []
    for layer in known:
        own = {matched: [] for matched in (True, False)}
        for operation in products:
            owner, matched = owners.get(id(operation), (None, False))
            if owner is layer:
                own[matched].append(operation)
        if own[True] or own[False] or layer.kernels:
            first = next(iter(own[True] + own[False]), None)
            rows.append((positions.get(id(first)), _row(origins, layer, own[True], own[False], sizes)))
    for operation in products:
        if id(operation) not in owners:
            rows.append((positions[id(operation)], _bare_row(origins, operation, sizes)))
    counted = model is not None and model.name not in unknown
    return Audit(
        layers=tuple(row for _, row in _in_order(rows)),
        operations=dict(Counter(operation.kind for operation in graph.operations)),
        file_bytes=len(content),
        parts=tuple(sizes.parts(len(content), products)),
        theory_bits=sum(layer.theory_bits or 0 for layer in known) if counted else None,
        theory_binary_bits=sum(layer.theory_binary_bits for layer in known) if counted else None,
        uncounted=unknown,
    )


@dataclass(frozen=True, eq=False)
class _Layer:
    """A Keras layer, its kernels quantized and as filters (output channels, height, width, input channels)."""

    name: str
    kind: str
    intended: bool
    kernels: tuple[np.ndarray, ...]
    theory_bits: int | None
    theory_binary_bits: int


def _layers(model: tf.keras.Model, unknown: dict[str, str]) -> list[_Layer]:
    import larq as lq

    from bibench_tf import complexity

    try:
        costs = {layer.name: layer for layer in complexity.count(model, unknown=unknown).layers}
        layers = complexity.layers(model)
    except BibenchError as error:  # a subclassed model: its layers are known, their calls are not
        unknown[model.name] = str(error)
        costs, layers = {}, _layers_of_subclass(model)
    with lq.context.quantized_scope(True):
        return [
            _Layer(
                name=name,
                kind=type(layer).__name__,
                intended=_intended(layer),
                kernels=tuple(_kernels(layer)),
                theory_bits=costs[name].bits if name in costs else None,
                theory_binary_bits=costs[name].weights_binary if name in costs else 0,
            )
            for name, layer in layers.items()
        ]


def _layers_of_subclass(model: tf.keras.Model) -> dict[str, Any]:
    import tensorflow as tf

    inside = [layer for layer in model.submodules if isinstance(layer, tf.keras.layers.Layer)]
    return {layer.name: layer for layer in inside if not isinstance(layer, tf.keras.Model)}


def _intended(layer) -> bool:
    return any(getattr(layer, name, None) is not None for name in ("input_quantizer", *_KERNELS.values()))


def _kernels(layer) -> Iterator[np.ndarray]:
    import tensorflow as tf

    named = [name for name in _KERNELS if getattr(layer, name, None) is not None]
    for name in named:
        value = tf.convert_to_tensor(getattr(layer, name)).numpy()
        if name == "depthwise_kernel":
            yield _depthwise(value)
        else:
            yield from _as_filters(value, isinstance(layer, tf.keras.layers.Conv2DTranspose))
    if not named and not isinstance(layer, (tf.keras.layers.Embedding, tf.keras.Model)):
        for weight in getattr(layer, "_trainable_weights", []):  # a layer of the user's own
            yield from _as_filters(tf.convert_to_tensor(weight).numpy(), transposed=False)


def _as_filters(kernel: np.ndarray, transposed: bool) -> Iterator[np.ndarray]:
    if kernel.ndim == 2:
        yield kernel.T[:, np.newaxis, np.newaxis, :]
    elif kernel.ndim == 3:
        yield np.moveaxis(kernel, -1, 0)[:, np.newaxis]
    elif kernel.ndim == 4:
        yield np.moveaxis(kernel, 2 if transposed else 3, 0)


def _depthwise(kernel: np.ndarray) -> np.ndarray:
    kernel = kernel[np.newaxis] if kernel.ndim == 3 else kernel
    height, width, channels, multiplier = kernel.shape
    return np.moveaxis(kernel.reshape(height, width, channels * multiplier, 1), 2, 0)


def _assign(graph: Graph, products: list[Operation], layers: list[_Layer]) -> dict[int, tuple[_Layer, bool]]:
    """Which layer each product belongs to, and whether it has the layer's kernel, by id of the operation."""
    owners: dict[int, tuple[_Layer, bool]] = {}
    taken: Counter[int] = Counter()
    for operation in products:
        kernel = fallbacks.filters(graph, operation)
        matching = [] if kernel is None else [layer for layer in layers if _has_kernel(layer, kernel, operation.kind)]
        named = [layer for layer in matching or layers if _named_after(graph, operation, layer)]
        # Equal kernels: the layer it is named after, else the first one without an operation.
        candidates = named or matching
        if candidates:
            longest = max(len(layer.name) for layer in named) if named and not matching else 0
            owner = min((layer for layer in candidates if len(layer.name) >= longest), key=lambda each: taken[id(each)])
            owners[id(operation)] = (owner, bool(matching))
            taken[id(owner)] += 1
    return owners


def _named_after(graph: Graph, operation: Operation, layer: _Layer) -> bool:
    # The input of a binary operation is named after the layer's own sign, an output of bits after the sign of the next
    # layer.
    packed = operation.kind == BINARY_CONVOLUTION and operation.inputs[2] < 0
    names = [graph.tensors[index].name for index in (*operation.inputs[:1], *(() if packed else operation.outputs))]
    return any(f"/{layer.name}/" in f"/{part}/" for name in names for part in name.split(";"))


def _has_kernel(layer: _Layer, kernel: np.ndarray, kind: str) -> bool:
    return any(_same_kernel(mine, kernel, kind == BINARY_CONVOLUTION) for mine in layer.kernels)


def _same_kernel(mine: np.ndarray, kernel: np.ndarray, binary: bool) -> bool:
    """Whether filters are those of `mine`, or of one of its groups, up to a factor for each filter."""
    count = len(kernel)
    if mine.shape[1:] != kernel.shape[1:] or len(mine) % count:
        return False
    given = kernel.reshape(count, -1)
    for start in range(0, len(mine), count):
        own = mine[start : start + count].reshape(count, -1)
        if binary:
            own = np.where(own >= 0, 1.0, -1.0)
        products = np.abs(np.einsum("ij,ij->i", own, given, dtype=np.float64))
        norms = np.linalg.norm(own, axis=1) * np.linalg.norm(given, axis=1)
        if np.all(products >= _SAME_DIRECTION * norms):
            return bool(np.any(norms)) or not np.any(own)
    return False


def _row(
    origins: Origins, layer: _Layer, matched: list[Operation], named: list[Operation], sizes: _Sizes
) -> LayerAudit:
    """The row of a layer with the products that have its kernel, and others of its name, such as those of a scale."""
    own = matched + named
    main = matched or named
    binary = bool(main) and all(operation.kind == BINARY_CONVOLUTION for operation in main)
    floats = [operation for operation in main if operation.kind != BINARY_CONVOLUTION]
    # A layer without Larq's quantizers may take the signs of another one, or make them itself.
    intended = layer.intended or any(fallbacks.meant_binary(origins, operation) for operation in floats)
    reasons: dict[str, Reason] = {}
    if intended:
        for operation in floats:
            reasons.update({reason.key: reason for reason in fallbacks.explain(origins, operation)})
        if not own:
            reasons["no_operation"] = Reason(
                "no_operation",
                "No operation of the file has its kernel",
                "convert this very model again; if that does not help, please report it",
            )
    if binary:
        reasons.update({reason.key: reason for reason in _inexact(layer)})
    warnings = {warning for operation in own for warning in _warnings(origins.graph, operation)}
    return LayerAudit(
        name=layer.name,
        kind=layer.kind,
        intended=intended or binary,
        binary=binary,
        operations=tuple(operation.kind for operation in own),
        macs=sum(_macs(origins.graph, operation) for operation in own),
        macs_binary=sum(_macs(origins.graph, each) for each in own if each.kind == BINARY_CONVOLUTION),
        theory_bits=layer.theory_bits,
        file_bytes=sum(sizes.claim(operation) for operation in own),
        reasons=tuple(reasons.values()),
        warnings=tuple(sorted(warnings)),
    )


def _bare_row(origins: Origins, operation: Operation, sizes: _Sizes) -> LayerAudit:
    binary = operation.kind == BINARY_CONVOLUTION
    intended = binary or fallbacks.meant_binary(origins, operation)
    macs = _macs(origins.graph, operation)
    return LayerAudit(
        name=origins.graph.tensors[operation.outputs[0]].name,
        kind=operation.kind,
        intended=intended,
        binary=binary,
        operations=(operation.kind,),
        macs=macs,
        macs_binary=macs if binary else 0,
        theory_bits=None,
        file_bytes=sizes.claim(operation),
        reasons=fallbacks.explain(origins, operation) if intended and not binary else (),
        warnings=tuple(_warnings(origins.graph, operation)),
    )


def _inexact(layer: _Layer) -> Iterator[Reason]:
    """The converter rounds weights that are almost +s and -s without a word."""
    if not layer.intended:
        return
    spread = max((fallbacks.spread(kernel) for kernel in layer.kernels), default=0.0)
    if spread > _ROUNDING:
        yield Reason(
            "rounded_kernel",
            f"The weights of its quantized kernel differ by up to {100 * spread:.2g} % from +s and -s, and the "
            "converter rounded them: the file does not compute what Keras does",
            "let the kernel quantizer give exactly +s and -s, with one s for each output channel",
        )


def _warnings(graph: Graph, operation: Operation) -> Iterator[str]:
    number = fallbacks.groups(graph, operation)
    if operation.kind == BINARY_CONVOLUTION and number > 1:
        yield (
            f"It is one operation with {number} groups, which Larq Compute Engine's default kernel, that of ARM "
            "devices, does not run; use BinaryConv2D, which splits its groups"
        )


def _macs(graph: Graph, operation: Operation) -> int:
    first, second = fallbacks.operands(operation)
    output, source = graph.tensors[operation.outputs[0]].shape, graph.tensors[first].shape
    kernel = fallbacks.filters(graph, operation)
    if kernel is None:
        # Of two activations, or of a kernel that is computed at run time.
        shape = graph.tensors[second].shape
        summed = np.prod(shape[1:]) if operation.kind == "CONV_2D" else source[-1]
        return int(np.prod(output, dtype=np.int64) * summed)
    positions = source[:-1] if operation.kind == "TRANSPOSE_CONV" else output[:-1]
    return int(np.prod(positions, dtype=np.int64)) * kernel.size


class _Sizes:
    """Whose bytes the constants of a file are: each buffer belongs to the first product that uses it."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.claimed: set[int] = set()

    def claim(self, operation: Operation) -> int:
        """The bytes of the constants of an operation that no other has claimed yet."""
        buffers = {self.graph.tensors[index].buffer for index in operation.inputs if index >= 0}
        own = {buffer for buffer in buffers if buffer in self.graph.buffer_bytes} - self.claimed
        self.claimed |= own
        return sum(len(self.graph.buffer_bytes[buffer]) for buffer in own)

    def parts(self, file_bytes: int, products: list[Operation]) -> Iterator[SizePart]:
        """What the bytes of the file are."""
        names, bits, seen = {}, {}, set()
        for operation in products:
            kernel = fallbacks.operands(operation)[1]
            for index in operation.inputs[1:]:
                if index < 0 or self.graph.tensors[index].buffer not in self.graph.buffer_bytes:
                    continue
                binary = operation.kind == BINARY_CONVOLUTION
                name = ("bits" if binary else "floats") if index == kernel else ("stages" if binary else "others")
                buffer = self.graph.tensors[index].buffer
                names.setdefault(buffer, name)
                if name == "bits":
                    bits[buffer] = fallbacks.filters(self.graph, operation).size
        totals: Counter[str] = Counter()
        for buffer, content in self.graph.buffer_bytes.items():
            name = names.get(buffer, "others")
            if content in seen and len(content) > 4:
                totals["duplicates"] += len(content)
                continue
            seen.add(content)
            used = bits.get(buffer, 8 * len(content)) / 8
            totals[name] += int(np.ceil(used))
            totals["padding"] += len(content) - int(np.ceil(used))
        totals["structure"] = file_bytes - sum(totals.values())
        for name, title, explanation in _PARTS:
            if totals[name]:
                yield SizePart(title, totals[name], explanation)


_PARTS = (
    ("bits", "binary kernels", "one bit for each weight, as in theory"),
    ("padding", "channel padding", "the input channels of a binary kernel are filled up to a multiple of 32"),
    (
        "stages",
        "output of binary operations",
        "a multiplier and a bias, or a threshold, for each output channel: scales, biases and folded batch norms",
    ),
    ("floats", "float kernels", "32 bits for each weight of the operations that run on floats"),
    ("others", "other constants", "biases, batch norms that are not folded, shapes and paddings"),
    ("duplicates", "duplicated constants", "the same bytes as another constant, stored again"),
    ("structure", "structure", "operations, tensors, names and alignment"),
)


def _title(key: str) -> str:
    return next(title for name, title, _ in _PARTS if name == key)


def _in_order(rows: list[tuple[int | None, LayerAudit]]) -> list[tuple[int | None, LayerAudit]]:
    """In the order of computation; a layer without an operation stays behind the one before it."""
    position, keyed = -1, []
    for number, (index, row) in enumerate(rows):
        position = position if index is None else index
        keyed.append(((position, number), (index, row)))
    return [row for _, row in sorted(keyed, key=lambda item: item[0])]


def text(result: Audit) -> str:
    """The audit for a terminal: a table, the reasons with their remedies, the size and the share of bits."""
    header = ("layer", "class", "runs as", "", "MMACs", "bits in theory", "bytes in file")
    lines = [
        (
            layer.name,
            layer.kind,
            _operations_text(layer.operations),
            _verdict(layer),
            f"{layer.macs / 1e6:.3f}",
            "" if layer.theory_bits is None else f"{layer.theory_bits:,}",
            f"{layer.file_bytes:,}",
        )
        for layer in result.layers
    ]
    widths = [max(len(row[column]) for row in (header, *lines)) for column in range(len(header))]
    shown = [
        "  ".join(
            cell.ljust(width) if column < 4 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *lines)
    ]
    return "\n".join([*shown, "", *_findings(result), *_size_text(result), *_share_text(result)])


def _operations_text(operations: tuple[str, ...]) -> str:
    counted = Counter(operations)
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in counted.items()) or "nothing"


def _verdict(layer: LayerAudit) -> str:
    if layer.binary:
        return "binary, but rounded" if layer.reasons else "binary"
    return "FLOAT, meant binary" if layer.fell_back else "float"


def _findings(result: Audit) -> Iterator[str]:
    for layer in result.layers:
        for reason in layer.reasons if layer.intended else ():
            yield f"{layer.name}: {reason.cause}. Remedy: {reason.remedy}."
        for warning in layer.warnings:
            yield f"{layer.name}: {warning}."
    for name, reason in result.uncounted.items():
        yield f"{name}: its bits in theory are not counted: {reason}"
    if result.fallbacks or result.uncounted or any(layer.warnings for layer in result.layers):
        yield ""


def _size_text(result: Audit) -> Iterator[str]:
    if result.theory_bits is not None:
        yield f"In theory {result.theory_bits:,} bits, which are {result.theory_bits / 8:,.0f} bytes."
    yield f"The file has {result.file_bytes:,} bytes:"
    width = len(f"{result.file_bytes:,}") + 1
    for part in result.parts:
        yield f"  {part.size_bytes:>{width},}  {part.name}: {part.explanation}"
    if result.difference:
        yield "Against theory:"
    for part in result.difference:
        yield f"  {part.size_bytes:>+{width},}  {part.name}: {part.explanation}"


def _share_text(result: Audit) -> Iterator[str]:
    if result.binary_share is None:
        yield "It multiplies nothing."
        return
    yield (
        f"{100 * result.binary_share:.2f} % of its {result.macs / 1e6:,.3f} million multiply-accumulates run on bits; "
        f"{sum(layer.binary for layer in result.layers)} layers are binary, {len(result.fallbacks)} fell back."
    )
