"""Prefixes of a flatbuffer: the network up to one of its operations.

The interpreters report no time per operation. It is the latency of the network up to and with the operation, minus the
latency of the network before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorflow.lite.python import schema_py_generated as schema

from bibench_tf.deploy import flatbuffer as flatbuffers

_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class Operator:
    """One operation: the name of its first output, and its type, such as CONV_2D or LceBconv2d."""

    name: str
    kind: str


def operators(flatbuffer: bytes) -> list[Operator]:
    """The operations of the main subgraph in the order in which they run."""
    graph = flatbuffers.graph(flatbuffer)
    return [Operator(graph.tensors[each.outputs[0]].name, each.kind) for each in graph.operations]


def cut(flatbuffer: bytes, count: int) -> bytes:
    """The flatbuffer with the first `count` operations of its main subgraph, and without the weights of the others.

    The outputs are the shapes of the computed tensors, one int32 vector for each tensor that a later operation or the
    caller reads. So no computation is dropped as unused, and a run copies no large output.
    """
    import flatbuffers as builders

    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    graph = model.subgraphs[0]
    kept, later = graph.operators[:count], graph.operators[count:]
    read_later = {int(index) for operator in later for index in operator.inputs} | set(map(int, graph.outputs))
    computed = [int(index) for operator in kept for index in operator.outputs]
    results = [index for index in computed or map(int, graph.inputs) if index in read_later]
    needed = {int(index) for operator in kept for index in operator.inputs}
    _forget_weights(model, {graph.tensors[index].buffer for index in needed if index >= 0})
    code = _shape_code(model)
    graph.operators, graph.outputs = list(kept), []
    for index in results:
        graph.outputs.append(len(graph.tensors))
        graph.tensors.append(_shape_tensor(graph.tensors[index]))
        graph.operators.append(_shape_operator(code, index, graph.outputs[-1]))
    model.signatureDefs = model.metadata = model.metadataBuffer = None
    builder = builders.Builder(1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _forget_weights(model: schema.ModelT, needed: set[int]) -> None:
    others = {tensor.buffer for graph in model.subgraphs[1:] for tensor in graph.tensors}
    for index, buffer in enumerate(model.buffers):
        if index not in needed | others:
            buffer.data = None


def _shape_code(model: schema.ModelT) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SHAPE
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _shape_tensor(of: schema.TensorT) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name = of.name + b"/shape"
    tensor.shape = [0 if of.shape is None else len(of.shape)]
    tensor.type = schema.TensorType.INT32
    tensor.buffer = 0
    return tensor


def _shape_operator(code: int, source: int, target: int) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs, operator.outputs = [source], [target]
    operator.builtinOptionsType = schema.BuiltinOptions.ShapeOptions
    operator.builtinOptions = schema.ShapeOptionsT()
    operator.builtinOptions.outType = schema.TensorType.INT32
    return operator
