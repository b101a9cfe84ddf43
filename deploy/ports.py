"""The inputs and outputs of a flatbuffer: their types, and the numbers that quantized integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from bibench_tf.deploy.flatbuffer import TYPES
from bibench_tf.errors import BibenchError, InvalidOption

# Integers of these types are quantized numbers, which mean nothing without a scale; wider ones are counts or classes.
_NARROW = (np.int8, np.uint8, np.int16)


@dataclass(frozen=True)
class Port:
    """An input or an output of a flatbuffer.

    Attributes:
        name: The name of its tensor.
        kind: The type of its values.
        scale: Where integers are quantized, an integer q stands for the number scale * (q - zero_point). None for
            other types, and for a file without one scale above 0 for the whole tensor.
        zero_point: The integer that stands for 0.
    """

    name: str
    kind: np.dtype
    scale: float | None = None
    zero_point: int = 0

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Numbers as the file takes them: quantized by its own scale, or converted to its type.

        An array of the file's own integer type is taken as quantized already. Quantized numbers are rounded to even and
        cut to the range of the type, as TensorFlow Lite does. Raises InvalidOption for numbers that the file cannot
        take: floats where there is no scale, NaN and infinity as integers, and numbers outside of the type.
        """
        values = np.asarray(values)
        if values.dtype == self.kind:
            return np.ascontiguousarray(values)
        is_integer = np.issubdtype(self.kind, np.integer)
        if is_integer and self.scale is None and self.kind in _NARROW and values.dtype.kind == "f":
            raise InvalidOption(
                f"The input '{self.name}' takes {self.kind}, and the file has no scale for it, so it cannot take "
                f"{values.dtype}: give {self.kind}, or convert the network again with a float32 input."
            )
        if is_integer and self.scale is not None:
            if not np.isfinite(values).all():
                raise InvalidOption(f"The input '{self.name}' takes {self.kind}: NaN and infinity have no such value.")
            limits: np.iinfo[Any] = np.iinfo(self.kind)
            steps = np.rint(values.astype(np.float32) / np.float32(self.scale)) + self.zero_point
            return np.clip(steps, limits.min, limits.max).astype(self.kind)
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.ascontiguousarray(values, self.kind)
        if np.issubdtype(self.kind, np.floating):
            fits = bool((np.isfinite(stored) == np.isfinite(values)).all())
        else:
            fits = np.array_equal(stored, values)
        if not fits:
            raise InvalidOption(f"The input '{self.name}' takes {self.kind}, which cannot hold the numbers given.")
        return stored

    def numbers(self, stored: np.ndarray) -> np.ndarray:
        """The numbers that values of the file stand for: float32 for quantized integers and for float16."""
        if self.scale is not None:
            return (self.scale * (stored.astype(np.float64) - self.zero_point)).astype(np.float32)
        return stored.astype(np.float32) if self.kind == np.float16 else stored


def of(flatbuffer: bytes) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The inputs and the outputs of a flatbuffer, in the order of an interpreter.

    Raises BibenchError for a type that NumPy has not, and InvalidOption for outputs of 8 or 16 bits without a scale.
    """
    main = schema.Model.GetRootAsModel(flatbuffer, 0).Subgraphs(0)
    inputs, outputs = (
        tuple(_port(main.Tensors(int(index))) for index in indices)
        for indices in (main.InputsAsNumpy(), main.OutputsAsNumpy())
    )
    for port in outputs:
        if port.scale is None and port.kind in _NARROW:
            raise InvalidOption(
                f"The output '{port.name}' is {port.kind}, and the file has no scale for it, so its numbers are "
                "unknown: convert the network again with float32 outputs."
            )
    return inputs, outputs


def _port(tensor) -> Port:
    name = (tensor.Name() or b"").decode()
    if tensor.Type() not in TYPES:
        raise BibenchError(f"The tensor '{name}' has a type that is not supported: convert the network to float32.")
    kind = np.dtype(TYPES[tensor.Type()])
    parameters = tensor.Quantization()
    if parameters is None or parameters.ScaleLength() != 1 or not np.issubdtype(kind, np.integer):
        return Port(name, kind)
    scale = float(parameters.Scale(0))
    zero_point = int(parameters.ZeroPoint(0)) if parameters.ZeroPointLength() else 0
    return Port(name, kind, scale, zero_point) if 0 < scale < np.inf else Port(name, kind)
