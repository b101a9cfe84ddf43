"""The audit of a converted network: which layers run on bits, and why the others do not.

The layers of a Keras model are found in the flatbuffer by their kernels: the signs of a binary kernel, or the
directions of a float operation's filters, into which a batch norm may be folded. Where a kernel is no constant, or a
layer has no kernel, the names of tensors decide.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.deploy import conversion, fallbacks, flatbuffer
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

    Attributes:
        name: The name of the Keras layer (`outer/inner`), or of the operation's output where no layer is known.
        kind: The class of the layer, else the operation.
        intended: Whether the layer was meant to be binary: it has a quantizer, or its operation has signs.
        binary: Whether all its `operations` run on bits.
        macs: Multiply-accumulates of one sample.
        theory_bits: Bits of the layer's deployed parameters; None where they cannot be counted.
        file_bytes: Bytes of its constants in the file.
        reasons: Why an intended layer is not binary, or not exactly.
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
        """Whether a layer that was meant to be binary runs on floats, or on other bits than those of its weights."""
        return self.intended and bool(self.reasons)


@dataclass(frozen=True)
class SizePart:
    """A part of the file's bytes, with its explanation."""

    name: str
    size_bytes: int
    explanation: str


@dataclass(frozen=True)
class Audit:
    """The audit of a flatbuffer.

    Attributes:
        parts: The parts of the file; they add up to `file_bytes`.
        theory_bits: Bits of the parameters of the Keras model, as the complexity track counts them; None without it.
        theory_binary_bits: The bits of binary weights among them.
        uncounted: The layers that `theory_bits` leaves out, with the reason.
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
        """The parts of the difference between the file and theory, in bytes; empty without theory."""
        if self.theory_bits is None or self.theory_binary_bits is None:
            return ()
        sizes = {part.name: part.size_bytes for part in self.parts}
        bits, *floats = (sizes.pop(_PARTS[key][0], 0) for key in ("bits", "floats", "stages", "others"))
        bits -= self.theory_binary_bits // 8
        floats_more = sum(floats) - (self.theory_bits - self.theory_binary_bits) // 8
        rows = [
            SizePart(_PARTS["bits"][0], bits, "binary weights that are stored as floats"),
            SizePart("floats", floats_more, "folded batch norms save some, weights stored as floats cost more"),
            *(part for part in self.parts if part.name in sizes),
        ]
        return tuple(row for row in rows if row.size_bytes)

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain data for JSON; docs/deploy.md describes the fields."""
        return {
            "kind": "deploy_audit",
            "version": VERSION,
            "macs": self.macs,
            "macs_binary": self.macs_binary,
            "binary_share": self.binary_share,
            "fallbacks": [layer.name for layer in self.fallbacks],
            "difference": [dataclasses.asdict(part) for part in self.difference],
            **dataclasses.asdict(self),
        }


def audit(
    subject: tf.keras.Model | bytes | str | Path,
    model: tf.keras.Model | Path | None = None,
    *,
    timeout_s: float = 600,
    **options: Any,
) -> Audit:
    """The audit of a model, or of a flatbuffer: by Keras layer where its `model` is known, else by operation.

    `subject` is a Keras model, the content of a flatbuffer, the path of a .tflite file, or a source that
    `model_files.load` reads with `options`. A `model` that is the path of a SavedModel has no layers. Models are
    converted for LCE within `timeout_s` seconds. Raises ConversionError, and BibenchError for a
    subject that is neither a model nor a TensorFlow Lite file.
    """
    if isinstance(subject, (str, Path)) and Path(subject).suffix == ".tflite" and Path(subject).is_file():
        subject = Path(subject).read_bytes()
    if isinstance(subject, bytes):
        content = subject
    else:
        model = conversion.load(subject, **options) if isinstance(subject, (str, Path)) else subject
        content = conversion.convert(model, timeout_s=timeout_s)
    if isinstance(model, Path):
        model = None
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
    # In the order of computation; a layer without an operation stays behind the one before it.
    rows: list[tuple[int, int, LayerAudit]] = []
    position = -1
    for layer in known:
        matched, named = ([each for each in products if owners.get(id(each)) == (layer, has)] for has in (True, False))
        if matched or named or layer.kernels:
            position = positions[id((matched + named)[0])] if matched or named else position
            rows.append((position, len(rows), _row(origins, layer, matched, named, sizes)))
    for operation in products:
        if id(operation) not in owners:
            row = _row(origins, _Layer(operation.name, operation.kind), [operation], [], sizes)
            rows.append((positions[id(operation)], len(rows), row))
    counted = model is not None and model.name not in unknown
    return Audit(
        layers=tuple(row for *_, row in sorted(rows, key=lambda each: each[:2])),
        operations=dict(Counter(operation.kind for operation in graph.operations)),
        file_bytes=len(content),
        parts=tuple(sizes.parts(len(content), products)),
        theory_bits=sum(layer.theory_bits or 0 for layer in known) if counted else None,
        theory_binary_bits=sum(layer.theory_binary_bits for layer in known) if counted else None,
        uncounted=unknown,
    )


@dataclass(frozen=True, eq=False)
class _Layer:
    """A Keras layer, its kernels quantized and as filters (output channels, height, width, input channels).

    An operation of no known layer stands for itself, by its own name and kind.
    """

    name: str
    kind: str
    intended: bool = False
    kernels: tuple[np.ndarray, ...] = ()
    theory_bits: int | None = None
    theory_binary_bits: int = 0


def _layers(model: tf.keras.Model, unknown: dict[str, str]) -> list[_Layer]:
    from bibench_tf import complexity
    from bibench_tf.algorithms.layers import quantized_scope

    try:
        costs = {layer.name: layer for layer in complexity.count(model, unknown=unknown).layers}
        layers = complexity.layers(model)
    except BibenchError as error:  # a subclassed model: its layers are known, their calls are not
        unknown[model.name] = str(error)
        costs, layers = {}, _layers_of_subclass(model)
    with quantized_scope(True):
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


def _intended(layer: Any) -> bool:
    return any(getattr(layer, name, None) is not None for name in ("input_quantizer", *_KERNELS.values()))


def _kernels(layer: Any) -> Iterator[np.ndarray]:
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
    """The layer of each product, and whether the product has the layer's kernel, by id of the operation."""
    owners: dict[int, tuple[_Layer, bool]] = {}
    taken: Counter[int] = Counter()
    for operation in products:
        kernel = fallbacks.filters(graph, operation)
        binary = operation.kind == BINARY_CONVOLUTION
        matching = [layer for layer in layers if any(_same_kernel(own, kernel, binary) for own in layer.kernels)]
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
    # The input of a binary operation is named after the layer's own sign, a packed output after the next layer's sign.
    packed = operation.kind == BINARY_CONVOLUTION and operation.inputs[2] < 0
    names = [graph.tensors[index].name for index in (*operation.inputs[:1], *(() if packed else operation.outputs))]
    return any(f"/{layer.name}/" in f"/{part}/" for name in names for part in name.split(";"))


def _same_kernel(mine: np.ndarray, kernel: np.ndarray | None, binary: bool) -> bool:
    """Whether filters are those of `mine`, or of one of its groups, up to a factor for each filter."""
    if kernel is None:
        return False
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
    floats = [operation for operation in matched or named if operation.kind != BINARY_CONVOLUTION]
    binary = bool(own) and not floats
    # A layer without Larq's quantizers may take the signs of another layer, or compute them itself.
    intended = layer.intended or binary or any(fallbacks.meant_binary(origins, operation) for operation in floats)
    reasons: dict[str, Reason] = {}
    for operation in floats if intended else ():
        reasons.update({each.key: each for each in fallbacks.explain(origins, operation)})
    if intended and not own:
        reasons["no_operation"] = fallbacks.reason("no_operation")
    if binary and layer.intended:
        # The converter silently rounds weights that are almost +s and -s.
        spread = max((fallbacks.spread(kernel) for kernel in layer.kernels), default=0.0)
        if spread > _ROUNDING:
            reasons["rounded_kernel"] = fallbacks.reason("rounded_kernel", percent=100 * spread)
    warnings = {warning for operation in own for warning in _warnings(origins.graph, operation)}
    return LayerAudit(
        name=layer.name,
        kind=layer.kind,
        intended=intended,
        binary=binary,
        operations=tuple(operation.kind for operation in own),
        macs=sum(_macs(origins.graph, operation) for operation in own),
        macs_binary=sum(_macs(origins.graph, each) for each in own if each.kind == BINARY_CONVOLUTION),
        theory_bits=layer.theory_bits,
        file_bytes=sum(sizes.claim(operation) for operation in own),
        reasons=tuple(reasons.values()),
        warnings=tuple(sorted(warnings)),
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
    """The owners of a file's constants: each buffer belongs to the first product that uses it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.claimed: set[int] = set()

    def claim(self, operation: Operation) -> int:
        """The bytes of the constants of an operation that no other operation has claimed yet."""
        buffers = {self.graph.tensors[index].buffer for index in operation.inputs if index >= 0}
        own = (buffers & self.graph.buffer_bytes.keys()) - self.claimed
        self.claimed |= own
        return sum(len(self.graph.buffer_bytes[buffer]) for buffer in own)

    def parts(self, file_bytes: int, products: list[Operation]) -> Iterator[SizePart]:
        """The parts of the file's bytes."""
        names: dict[int, str] = {}
        bits: dict[int, int] = {}
        seen: set[bytes] = set()
        for operation in products:
            kernel = fallbacks.operands(operation)[1]
            of_kernel, of_rest = ("bits", "stages") if operation.kind == BINARY_CONVOLUTION else ("floats", "others")
            for index in operation.inputs[1:]:
                buffer = self.graph.tensors[index].buffer
                if index >= 0 and buffer in self.graph.buffer_bytes:
                    names.setdefault(buffer, of_kernel if index == kernel else of_rest)
                    if index == kernel and of_kernel == "bits":
                        bits[buffer] = fallbacks.filters(self.graph, operation).size
        totals: Counter[str] = Counter()
        for buffer, content in self.graph.buffer_bytes.items():
            name = names.get(buffer, "others")
            if content in seen and len(content) > 4:
                totals["duplicates"] += len(content)
                continue
            seen.add(content)
            used = -(-bits[buffer] // 8) if buffer in bits else len(content)
            totals[name] += used
            totals["padding"] += len(content) - used
        totals["structure"] = file_bytes - sum(totals.values())
        for name, (title, explanation) in _PARTS.items():
            if totals[name]:
                yield SizePart(title, totals[name], explanation)


# The title and the explanation of each part of a file.
_PARTS = {
    "bits": ("binary kernels", "one bit for each weight, as in theory"),
    "padding": ("channel padding", "the input channels of a binary kernel are filled up to a multiple of 32"),
    "stages": (
        "output of binary operations",
        "a multiplier and a bias, or a threshold, for each output channel: scales, biases and folded batch norms",
    ),
    "floats": ("float kernels", "32 bits for each weight of the operations that run on floats"),
    "others": ("other constants", "biases, batch norms that are not folded, shapes and paddings"),
    "duplicates": ("duplicated constants", "the same bytes as another constant, stored again"),
    "structure": ("structure", "operations, tensors, names and alignment"),
}
