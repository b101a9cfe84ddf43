"""Prefixes of a flatbuffer: the network up to one of its operations.

The interpreters report no time per operation. It is the latency of the network up to and with the operation, minus the
latency of the network before it.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

_IDENTIFIER = b"TFL3"


def cut(flatbuffer: bytes, count: int) -> bytes:
    """The flatbuffer with the first `count` operations of its main subgraph, and without the weights of the others.

    The outputs are the shapes of the computed tensors, one int32 vector for each tensor that a later operation or the
    caller reads. So no computation is dropped as unused, and a run copies no large output.
    """
    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    graph = model.subgraphs[0]
    kept, later = graph.operators[:count], graph.operators[count:]
    read_later = {int(index) for operator in later for index in operator.inputs} | set(map(int, graph.outputs))
    computed = [int(index) for operator in kept for index in operator.outputs]
    results = [index for index in computed or map(int, graph.inputs) if index in read_later]
    needed = {int(index) for operator in kept for index in operator.inputs}
    used = {graph.tensors[index].buffer for index in needed if index >= 0}
    used |= {tensor.buffer for other in model.subgraphs[1:] for tensor in other.tensors}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    shape = schema.BuiltinOperator.SHAPE
    model.operatorCodes.append(_made(schema.OperatorCodeT, builtinCode=shape, deprecatedBuiltinCode=shape, version=1))
    options = _made(schema.ShapeOptionsT, outType=schema.TensorType.INT32)
    graph.operators, graph.outputs = list(kept), []
    for index in results:
        source, target = graph.tensors[index], len(graph.tensors)
        rank = 0 if source.shape is None else len(source.shape)
        graph.tensors.append(
            _made(schema.TensorT, name=source.name + b"/shape", shape=[rank], type=schema.TensorType.INT32, buffer=0)
        )
        graph.operators.append(
            _made(
                schema.OperatorT,
                opcodeIndex=len(model.operatorCodes) - 1,
                inputs=[index],
                outputs=[target],
                builtinOptionsType=schema.BuiltinOptions.ShapeOptions,
                builtinOptions=options,
            )
        )
        graph.outputs.append(target)
    model.signatureDefs = model.metadata = model.metadataBuffer = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _made(kind: type, **fields: Any) -> Any:
    """An object of the schema with these fields; the others have their defaults."""
    made = kind()
    vars(made).update(fields)
    return made
