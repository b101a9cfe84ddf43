"""Operations on Keras tensors without a layer: plain arithmetic and products of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bibench_tf.complexity.costs import Macs
from bibench_tf.complexity.tallies import Call, Refused, Tally, elements, known

if TYPE_CHECKING:
    import tensorflow as tf

# The layers in which Keras wraps functions, by name: they are not public.
LAYERS = ("TFOpLambda", "SlicingOpLambda")

_NOTHING = (
    *("reshape", "transpose", "concat", "stack", "unstack", "split", "squeeze", "expand_dims", "pad", "identity"),
    *("cast", "stop_gradient", "tile", "repeat", "gather", "broadcast_to", "reverse", "roll", "getitem", "shape"),
    *("zeros_like", "ones_like", "space_to_depth", "depth_to_space"),
)
_ELEMENTWISE = (
    *("add", "subtract", "sub", "rsub", "radd", "multiply", "mul", "rmul", "divide", "truediv", "rtruediv", "div"),
    *("maximum", "minimum", "negative", "neg", "abs", "square", "sqrt", "rsqrt", "pow", "exp", "log", "sign", "round"),
    *("floor", "ceil", "reciprocal", "sigmoid", "tanh", "erf", "relu", "relu6", "elu", "selu", "softplus", "silu"),
    *("gelu", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "where", "bias_add", "floordiv"),
)
# The number of operations for every output, by the name of the function.
_TIMES = {
    **dict.fromkeys(_ELEMENTWISE, 1),
    **dict.fromkeys(("clip_by_value", "leaky_relu", "squared_difference"), 2),
    **dict.fromkeys(("softmax", "log_softmax"), 3),
}
_REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod")
_PRODUCTS = ("matmul", "einsum", "matvec")


def multiplies(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer is a product of tensors."""
    return type(layer).__name__ in LAYERS and _name(layer) in _PRODUCTS


def tally(layer: tf.keras.layers.Layer, call: Call) -> Tally:
    """The operations of a function of tensors; raises Refused if its name has no rule."""
    name = _name(layer)
    if name in _NOTHING or type(layer).__name__ == "SlicingOpLambda":
        return Tally()
    if name in _TIMES:
        return Tally(other=_TIMES[name] * elements(call.outputs))
    if name in _REDUCTIONS:
        return Tally(other=elements(call.inputs))
    if name == "matmul":
        return _matmul(call)
    if name == "einsum":
        return _einsum(call)
    raise Refused(f"calls '{getattr(layer, 'symbol', name)}', whose operations are not known.")


def label_sizes(labels: str, shape: Sequence[int | None]) -> dict[str, int | None]:
    """The size of each index of one operand of an einsum, with a number for each index of an ellipsis."""
    if "..." not in labels:
        return dict(zip(labels, shape, strict=True))
    before, after = labels.split("...")
    hidden = [f"[{number}]" for number in range(len(shape) - len(before) - len(after))]
    return dict(zip([*before, *hidden, *after], shape, strict=True))


def _name(layer: tf.keras.layers.Layer) -> str:
    return (getattr(layer, "symbol", None) or type(layer).__name__).split(".")[-1].strip("_")


def _matmul(call: Call) -> Tally:
    first = call.inputs[0]
    if call.arguments and hasattr(call.arguments[0], "shape"):
        first = tuple(call.arguments[0].shape)
    contracted = first[-2] if call.options.get("transpose_a") or call.options.get("adjoint_a") else first[-1]
    return Tally((Macs(elements(call.outputs) * known([contracted]), 32, 32),))


def _einsum(call: Call) -> Tally:
    equation, *operands = call.arguments or (call.options["equation"],)
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    if len(operands) != 2:
        raise Refused("multiplies another number of tensors than two, which is not counted.")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int | None] = {}
    for term, operand in zip(terms, operands, strict=True):
        # A size that is unknown in one operand may be known in the other.
        sizes.update({k: v for k, v in label_sizes(term, tuple(operand.shape)).items() if sizes.get(k) is None})
    # The first index of the first operand is the batch: one sample.
    batch = next(iter(sizes))
    return Tally((Macs(known(size for label, size in sizes.items() if label != batch), 32, 32),))
