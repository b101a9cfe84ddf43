"""The operations of one call of a layer for one sample: a rule for each kind of layer (see docs/complexity.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from bibench_tf.complexity import functions
from bibench_tf.complexity.costs import Macs, Role
from bibench_tf.complexity.tallies import Call, Refused, Shape, Tally, elements, known
from bibench_tf.errors import BibenchError
from bibench_tf.operations import CountsOperations, check_declarations

if TYPE_CHECKING:
    import tensorflow as tf

# A `tf.keras.layers.Layer` whose attributes depend on its type.
_Layer = Any

# FDA's noise modules, which inference leaves out.
TRAINING_ONLY_PREFIXES = ("weight_noise_", "input_noise_")

_FLOAT = 32
_KERNELS = ("kernel", "depthwise_kernel")


def tally(name: str, layer: _Layer, call: Call) -> Tally:
    """The operations of a call; raises BibenchError, naming the layer, without a rule and for an unknown size."""
    try:
        kind: Any = type(layer)
        check_declarations(kind)
        if isinstance(layer, CountsOperations):
            operations = layer.count_operations(call.input_shapes, call.output_shapes)
            macs = tuple(Macs(number, bits, bits) for bits, number in operations.macs.items())
            return Tally(macs, operations.other)
        rule = _rule(kind)
        if rule is None:
            raise BibenchError(
                f"Layer '{name}' is of type {kind.__name__}, whose operations cannot be counted; give it a "
                "method count_operations (bibench_tf.operations), or take a known type (docs/complexity.md)."
            )
        return rule(layer, call)
    except Refused as refusal:
        raise BibenchError(f"Layer '{name}' of type {type(layer).__name__} {refusal}") from refusal


def role_of(layer: _Layer) -> Role:
    """The kind of the multiply-accumulates of a layer."""
    from bibench_tf.algorithms.layers import BinaryDense

    if isinstance(layer, (*_keras("Dense"), BinaryDense)):
        return "dense"
    if isinstance(layer, _keras(*_CONVOLUTIONS)):
        return "conv"
    if isinstance(layer, _keras(*_RECURRENT, "Bidirectional")):
        return "recurrent"
    if isinstance(layer, _keras(*_MATMULS)) or functions.multiplies(layer):
        return "matmul"
    return role_of(layer.layer) if isinstance(layer, _keras("TimeDistributed")) else "other"


def short_name(weight: tf.Variable) -> str:
    """The last part of a variable's name."""
    return weight.name.split("/")[-1].split(":")[0]


def bits_of(weight: tf.Variable) -> int:
    """Bits of a deployed weight: the precision of its quantizer, 32 without one."""
    return getattr(weight, "precision", None) or _FLOAT


@cache
def _keras(*names: str) -> tuple[Any, ...]:
    import tensorflow as tf

    return tuple(getattr(tf.keras.layers, name) for name in names)


def _quantizer_bits(layer: _Layer, attribute: str) -> int:
    from bibench_tf.algorithms.capabilities import capabilities_of

    return capabilities_of(getattr(layer, attribute, None)).precision or _FLOAT


def _positions(layer: _Layer, shape: Shape) -> int:
    """Positions of an image, a sequence or rows."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return known(shape[2:] if first else shape[1:-1])


def _after_kernel(layer: _Layer, call: Call) -> int:
    """Bias, fused activation and learned scales: one operation each for every output."""
    number = elements(call.outputs)
    times = bool(getattr(layer, "use_bias", False)) + _functions_in(getattr(layer, "activation", None))
    times += {None: 0, "channel": 1, "spatial": 2}[getattr(layer, "output_scale_kind", None)]
    return times * number


def _functions_in(activation: Any) -> int:
    name = str(getattr(activation, "__name__", None) or getattr(activation, "name", ""))
    return 0 if activation is None or name == "linear" else 3 if "softmax" in name else 1


def _binarizing(layer: _Layer, call: Call) -> int:
    """One comparison for each input that is quantized, and the factor XNOR-Net computes from the inputs."""
    from bibench_tf.algorithms.capabilities import capabilities_of

    quantizer = getattr(layer, "input_quantizer", None)
    if quantizer is None or type(quantizer).__name__ == "NoOp":
        return 0
    number = elements(call.inputs)
    declared = capabilities_of(quantizer)
    if not declared.has_output_factor:
        return number
    # |x| and its sum, the product with each output, and the window's mean where the factor has a map.
    factor = 2 * number + elements(call.outputs)
    if not declared.scales_inputs(True):
        factor += _positions(layer, call.outputs[0]) * math.prod(layer.kernel_size)
    return number + factor


def _kernel(layer: _Layer, call: Call, *, per_input: bool = False) -> Tally:
    """The whole kernel once for every position of the output, or of the input."""
    kernels = [weight for weight in layer.weights if short_name(weight) in _KERNELS]
    names = [short_name(weight) for weight in layer.weights if len(weight.shape) > 1]
    odd = [name for name in names if name not in _KERNELS and not name.startswith(TRAINING_ONLY_PREFIXES)]
    if odd:
        raise Refused(f"has the weights {', '.join(odd)}, whose operations cannot be counted.")
    positions = _positions(layer, call.inputs[0] if per_input else call.outputs[0])
    bits = _quantizer_bits(layer, "input_quantizer")
    macs = tuple(Macs(positions * math.prod(kernel.shape), bits, bits_of(kernel)) for kernel in kernels)
    return Tally(macs, _after_kernel(layer, call) + _binarizing(layer, call))


def _separable(layer: _Layer, call: Call) -> Tally:
    """Both kernels for every position of the output: the depthwise one, then the pointwise one."""
    positions = _positions(layer, call.outputs[0])
    by_name = {short_name(weight): weight for weight in layer.weights}
    parts = (("depthwise_kernel", "input_quantizer"), ("pointwise_kernel", "intermediate_quantizer"))
    macs = tuple(
        Macs(positions * math.prod(by_name[kernel].shape), _quantizer_bits(layer, quantizer), bits_of(by_name[kernel]))
        for kernel, quantizer in parts
    )
    return Tally(macs, _after_kernel(layer, call) + _binarizing(layer, call))


# Operations for each unit and step besides products with kernels: sums of both products, gates, the new state.
_STEP = {"SimpleRNN": 2, "LSTM": 4 + 5 + 4, "GRU": 3 + 3 + 5}


def _recurrent(layer: _Layer, call: Call) -> Tally:
    """The kernel and the recurrent kernel at every step."""
    steps = known(call.inputs[0][1:2])
    cell = layer.cell
    kernels = [cell.kernel, cell.recurrent_kernel]
    kind = next(name for name in _STEP if isinstance(layer, _keras(name)))
    biases = math.prod(cell.bias.shape) if cell.use_bias else 0
    macs = tuple(Macs(steps * math.prod(kernel.shape), _FLOAT, bits_of(kernel)) for kernel in kernels)
    return Tally(macs, steps * (_STEP[kind] * cell.units + biases))


def _bidirectional(layer: _Layer, call: Call) -> Tally:
    """Both directions, and the sum, mean or product of their outputs."""
    forward, backward = (tally(part.name, part, call) for part in (layer.forward_layer, layer.backward_layer))
    merging = {"sum": 1, "mul": 1, "ave": 2}.get(layer.merge_mode, 0)
    return forward + backward + Tally(other=merging * elements(call.outputs[:1]))


def _time_distributed(layer: _Layer, call: Call) -> Tally:
    """The layer inside, once for every step."""
    (inputs, *_), (outputs, *_) = call.inputs, call.outputs
    steps = known(inputs[1:2])
    once = tally(layer.layer.name, layer.layer, Call((None, *inputs[2:]), (None, *outputs[2:])))
    return once.times(steps)


def _multi_head_attention(layer: _Layer, call: Call) -> Tally:
    """Four projections, the scores q k^T / sqrt(d), softmax, and the weighted sum of the values."""
    query, value, key = _attention_shapes(layer, call)
    if not len(query) == len(value) == len(key) == 3:
        raise Refused("attends over more than one axis, which is not counted.")
    queries, keys = known(query[1:2]), known(value[1:2])
    options = layer.get_config()
    heads, key_dim, value_dim = options["num_heads"], options["key_dim"], options["value_dim"]
    rows = {"query": queries, "key": keys, "value": keys, "attention_output": queries}
    macs, other = [], queries * heads * key_dim
    for weight in layer.weights:
        projection, kind = weight.name.split(":")[0].split("/")[-2:]
        size = math.prod(weight.shape) * rows[projection]
        if kind == "kernel":
            macs.append(Macs(size, _FLOAT, bits_of(weight)))
        else:
            other += size
    scores = heads * queries * keys
    macs.append(Macs(scores * (key_dim + value_dim), _FLOAT, _FLOAT))
    return Tally(tuple(macs), other + 3 * scores)


def _attention_shapes(layer: _Layer, call: Call) -> list[Shape]:
    given = {**dict(zip(("query", "value", "key"), call.arguments, strict=False)), **call.options}
    if given.get("value") is None:
        raise Refused("is called without a value that could be counted.")
    tensors = [given["query"], given["value"], given.get("key")]
    query, value, *key = [tuple(tensor.shape) for tensor in tensors if tensor is not None]
    return [query, value, *(key or [value])]


def _attention(layer: _Layer, call: Call) -> Tally:
    """The scores q k^T, softmax, and the weighted sum of the values."""
    if getattr(layer, "score_mode", "dot") != "dot":
        raise Refused("has scores that are no products, which are not counted.")
    query, value, *rest = call.inputs
    key = rest[0] if rest else value
    scores = known(query[1:-1]) * known(key[-2:-1])
    macs = Macs(scores * (known(key[-1:]) + known(value[-1:])), _FLOAT, _FLOAT)
    return Tally((macs,), (3 + bool(layer.use_scale)) * scores)


def _dot(layer: _Layer, call: Call) -> Tally:
    """Each output is a sum over the contracted axis."""
    axes = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    size = known(call.inputs[0][axes : axes + 1 or None])
    return Tally((Macs(elements(call.outputs) * size, _FLOAT, _FLOAT),))


def _einsum_dense(layer: _Layer, call: Call) -> Tally:
    """The kernel once for every index of the input that is not an index of the kernel."""
    inputs, kernel = layer.equation.split("->")[0].replace(" ", "").split(",")
    (weight,) = [weight for weight in layer.weights if short_name(weight) == "kernel"]
    free = functions.label_sizes(inputs, call.inputs[0])
    # The batch is one sample.
    rows = known([size for label, size in list(free.items())[1:] if label not in kernel])
    bits = _quantizer_bits(layer, "input_quantizer")
    has_bias = getattr(layer, "bias", None) is not None
    other = (has_bias + _functions_in(layer.activation)) * elements(call.outputs)
    return Tally((Macs(rows * math.prod(weight.shape), bits, bits_of(weight)),), other)


def _per_output(layer: _Layer, call: Call, times: int) -> Tally:
    return Tally(other=times * elements(call.outputs))


def _per_input(layer: _Layer, call: Call) -> Tally:
    return Tally(other=elements(call.inputs))


def _combination(layer: _Layer, call: Call, extra: int = 0) -> Tally:
    return Tally(other=(len(call.inputs) - 1 + extra) * elements(call.outputs))


def _pooling(layer: _Layer, call: Call, less: int) -> Tally:
    size = layer.pool_size if isinstance(layer.pool_size, (tuple, list)) else (layer.pool_size,)
    return Tally(other=(math.prod(size) - less) * elements(call.outputs))


def _global_maximum(layer: _Layer, call: Call) -> Tally:
    return Tally(other=elements(call.inputs) - elements(call.outputs))


def _normalization(layer: _Layer, call: Call) -> Tally:
    """Mean, difference, square, mean and division: five for each element; two more for factor and offset."""
    return Tally(other=(5 + bool(layer.scale) + bool(layer.center)) * elements(call.outputs))


def _activation(layer: _Layer, call: Call) -> Tally:
    return Tally(other=_functions_in(layer.activation) * elements(call.outputs))


def _upsampling(layer: _Layer, call: Call) -> Tally:
    interpolation = getattr(layer, "interpolation", "nearest")
    if interpolation not in ("nearest", "bilinear"):
        raise Refused(f"interpolates by {interpolation}, which is not counted.")
    # Four products and three sums.
    return Tally(other=7 * elements(call.outputs) if interpolation == "bilinear" else 0)


_Rule = Callable[[_Layer, Call], Tally]

_PER_OUTPUT = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense")
# Keras derives these from the plain ones.
_PER_INPUT = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_CONVOLUTIONS = (*_PER_INPUT, *_SEPARABLE, *_PER_OUTPUT[:-1])
_RECURRENT = tuple(_STEP)
_MATMULS = ("MultiHeadAttention", "Attention", "Dot", "EinsumDense")

# Subclasses, such as Larq's layers and those of the algorithms, have the rule of their base; the first match counts.
_BY_BASE: tuple[tuple[tuple[str, ...], _Rule], ...] = (
    (_PER_INPUT, partial(_kernel, per_input=True)),
    (_SEPARABLE, _separable),
    (_PER_OUTPUT, _kernel),
)
# These rules need the exact type: a subclass may compute more.
_EXACT: tuple[tuple[tuple[str, ...], _Rule], ...] = (
    (_RECURRENT, _recurrent),
    (("Bidirectional",), _bidirectional),
    (("TimeDistributed",), _time_distributed),
    (("MultiHeadAttention",), _multi_head_attention),
    (("Attention",), _attention),
    (("Dot",), _dot),
    (("EinsumDense",), _einsum_dense),
    (
        (
            *("InputLayer", "Flatten", "Reshape", "Permute", "RepeatVector", "Masking", "Embedding", "Concatenate"),
            *("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Cropping1D", "Cropping2D", "Cropping3D"),
            *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"),
            *("GaussianDropout", "GaussianNoise", "ActivityRegularization"),
        ),
        partial(_per_output, times=0),
    ),
    (("ReLU", "ELU", "ThresholdedReLU"), partial(_per_output, times=1)),
    (("BatchNormalization", "LeakyReLU", "PReLU", "Rescaling", "Normalization"), partial(_per_output, times=2)),
    (("Softmax",), partial(_per_output, times=3)),
    (("LayerNormalization", "GroupNormalization"), _normalization),
    (("Activation",), _activation),
    (("Add", "Subtract", "Multiply", "Maximum", "Minimum"), _combination),
    (("Average",), partial(_combination, extra=1)),
    (("MaxPooling1D", "MaxPooling2D", "MaxPooling3D"), partial(_pooling, less=1)),
    (("AveragePooling1D", "AveragePooling2D", "AveragePooling3D"), partial(_pooling, less=0)),
    (("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D"), _global_maximum),
    (("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"), _per_input),
    (("UpSampling1D", "UpSampling2D", "UpSampling3D"), _upsampling),
)


@cache
def _rule(kind: Any) -> _Rule | None:
    from larq.quantizers import NoOp, Quantizer

    for names, rule in _BY_BASE:
        if issubclass(kind, _keras(*names)):
            return rule
    for names, rule in _EXACT:
        if kind in _keras(*names):
            return rule
    if issubclass(kind, Quantizer):
        return partial(_per_output, times=0 if kind is NoOp else 1)
    return functions.tally if kind.__name__ in functions.LAYERS else None
