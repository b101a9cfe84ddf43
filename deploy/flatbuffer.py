"""What a TensorFlow Lite flatbuffer holds: its operations, and the order of its inputs and outputs.

Read with the schema that TensorFlow ships, so Larq Compute Engine's custom operations are listed by name.
"""

from __future__ import annotations

from collections import Counter

from tensorflow.lite.python import schema_py_generated as schema

BINARY_CONVOLUTION = "LceBconv2d"

_BUILTIN_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_KNOWN = frozenset(_BUILTIN_NAMES.values())


def operators(flatbuffer: bytes) -> Counter[str]:
    """How often each operation occurs, over all subgraphs; custom operations under their own names."""
    model = schema.Model.GetRootAsModel(flatbuffer, 0)
    codes = [_name(model.OperatorCodes(index)) for index in range(model.OperatorCodesLength())]
    subgraphs = (model.Subgraphs(index) for index in range(model.SubgraphsLength()))
    return Counter(
        codes[subgraph.Operators(index).OpcodeIndex()]
        for subgraph in subgraphs
        for index in range(subgraph.OperatorsLength())
    )


def unknown_operators(flatbuffer: bytes) -> list[str]:
    """The operations that neither TensorFlow Lite nor Larq Compute Engine has; such a file does not run."""
    return sorted(name for name in operators(flatbuffer) if name not in _KNOWN and not name.startswith("Lce"))


def input_order(flatbuffer: bytes) -> list[str]:
    """The names of the inputs in the order of an interpreter, which need not be that of the Keras model."""
    return _order(flatbuffer, "Inputs")


def output_order(flatbuffer: bytes) -> list[str]:
    """The names of the outputs in the order of an interpreter, which need not be that of the Keras model."""
    return _order(flatbuffer, "Outputs")


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
