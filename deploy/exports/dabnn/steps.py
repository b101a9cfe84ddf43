"""The graph of a network as daBNN computes it: a list of steps, put in a valid order, and written as ONNX.

daBNN overwrites the input of some operations with their output, and reads a tensor's value at the moment of use. An
ONNX file of the same graph has one value per tensor. Both agree on a graph that `arrange` has put in order.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

# Operations whose output takes the memory of their first input, in steps and in ONNX. Source: dabnn/net.cpp.
IN_PLACE = frozenset({"Affine", "BatchNormalization", "Relu", "PRelu", "Add"})
# onnx2bnn reads an attribute `eps` that ONNX does not have, so it always counts with ONNX's default `epsilon`.
EPSILON = 1e-5
# In place of a bias of exactly zero: it moves a zero to one side of the sign, and nothing above 1e-22.
TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Step:
    """One operation: an ONNX operator, or one of two steps that stand for several operators.

    `BinaryConv` binarizes its input, pads -1 and convolves with `weights["kernel"]` of +1 and -1 (O, I, kh, kw).
    `Affine` is x * scale + bias for each channel (float64); with `side` +1 (or -1) an exact zero becomes slightly
    larger (or smaller) than zero, because the sign that follows has no value of its own for it.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    side: int = 0


def merge_affines(steps: list[Step], output: str) -> list[Step]:
    """The same graph with every chain of `Affine` steps, where nothing else reads in between, as one step."""
    readers = _readers(steps)
    kept = {step.output: step for step in steps}
    for step in steps:
        before = kept.get(step.inputs[0]) if step.kind == "Affine" else None
        if before is None or before.kind != "Affine" or len(readers[before.output]) > 1 or before.output == output:
            continue
        scale, bias = step.weights["scale"], step.weights["bias"]
        merged = {"scale": before.weights["scale"] * scale, "bias": before.weights["bias"] * scale + bias}
        kept[step.output] = replace(step, inputs=before.inputs, weights=merged)
        del kept[before.output]
    return list(kept.values())


def arrange(steps: list[Step], output: str) -> list[Step]:
    """The steps in an order in which nothing reads a tensor after daBNN has overwritten it.

    Where no order does that, an average pool of 1x1, which changes nothing, keeps a copy.
    """
    readers = _readers(steps)
    # The sum takes the memory of its first input, which should be a tensor without other readers.
    steps = [
        replace(step, inputs=step.inputs[::-1])
        if step.kind == "Add" and len(readers[step.inputs[0]]) > 1 and len(readers[step.inputs[1]]) == 1
        else step
        for step in steps
    ]
    while True:
        blocked = _blocked(steps, output)
        if blocked is None:
            return _sorted(steps)
        copy = f"{blocked.output}_copy"
        index = steps.index(blocked)
        pool = Step("AveragePool", blocked.inputs[:1], copy, attributes={"kernel_shape": [1, 1], "strides": [1, 1]})
        steps[index : index + 1] = [pool, replace(blocked, inputs=(copy, *blocked.inputs[1:]))]


def _readers(steps: list[Step]) -> dict[str, list[Step]]:
    readers = defaultdict(list)
    for step in steps:
        for name in dict.fromkeys(step.inputs):
            readers[name].append(step)
    return readers


def _blocked(steps: list[Step], output: str) -> Step | None:
    """A step that cannot take the memory of its input, or None."""
    for name, reading in _readers(steps).items():
        writing = [step for step in reading if step.kind in IN_PLACE and step.inputs[0] == name]
        if len(writing) > 1 or (writing and name == output):
            return writing[0]
    done = {step.output for step in _sorted(steps)}
    waiting = [step for step in steps if step.output not in done]
    readers = _readers(steps)
    return next((step for step in waiting if step.kind in IN_PLACE and len(readers[step.inputs[0]]) > 1), None)


def _sorted(steps: list[Step]) -> list[Step]:
    """The steps that can run, each after its inputs and after all other readers of the tensor that it overwrites."""
    readers = _readers(steps)
    position = {step.output: index for index, step in enumerate(steps)}
    after = {
        step.output: {name for name in step.inputs if name in position}
        | ({other.output for other in readers[step.inputs[0]] if other is not step} if step.kind in IN_PLACE else set())
        for step in steps
    }
    ordered: list[Step] = []
    done: set[str] = set()
    rest = list(steps)
    while ready := next((step for step in rest if after[step.output] <= done), None):
        ordered.append(ready)
        done.add(ready.output)
        rest.remove(ready)
    return ordered


def to_onnx(
    steps: list[Step], image: dict[str, list[int]], output: dict[str, list[int]], signs: bool
) -> onnx.ModelProto:
    """The ONNX model (opset 9) of arranged steps; `image` and `output` are shapes (NCHW, batch 1) by name.

    With `signs`, binarization stands in the file as Sign, of inputs and kernels; without it daBNN recognises binary
    convolutions by their kernels alone and binarizes by itself.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, initializers = [], []

    def constant(name: str, value: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind, inputs, result, **attributes):
        nodes.append(helper.make_node(kind, list(inputs), [result], name=f"{result}/{kind}", **attributes))
        return result

    for step in steps:
        name = step.output
        if step.kind == "Affine":
            scale, bias = affine_in_float32(step)
            ones = np.ones_like(scale)
            parameters = {"scale": scale, "bias": bias, "mean": 0 * ones, "variance": ones - np.float32(EPSILON)}
            inputs = [constant(f"{name}/{key}", value) for key, value in parameters.items()]
            node("BatchNormalization", [*step.inputs, *inputs], name, epsilon=EPSILON)
        elif step.kind == "BinaryConv":
            attributes = dict(step.attributes)
            high, wide = attributes.pop("padding")
            x, kernel = step.inputs[0], constant(f"{name}/kernel", step.weights["kernel"])
            if signs:
                x, kernel = node("Sign", [x], f"{name}/input_sign"), node("Sign", [kernel], f"{name}/kernel_sign")
            if high or wide:
                pads = [0, 0, high, wide, 0, 0, high, wide]
                x = node("Pad", [x], f"{name}/pad", mode="constant", value=-1.0, pads=pads)
            node("Conv", [x, kernel], name, pads=[0, 0, 0, 0], **attributes)
        else:
            extra = [constant(f"{name}/{key}", value) for key, value in step.weights.items()]
            node(step.kind, [*step.inputs, *extra], name, **step.attributes)

    # Version 3 lists constants among the inputs, as the optimizer passes of 2019 want them.
    constants = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers]
    graph = helper.make_graph(
        nodes,
        "bibench_tf",
        [*(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in image.items()), *constants],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in output.items()],
        initializers,
    )
    opset = [helper.make_opsetid("", 9)]
    return helper.make_model(graph, opset_imports=opset, ir_version=3, producer_name="bibench-tf")


def affine_in_float32(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias of an `Affine` step in float32, moved to its `side` by the smallest step there is."""
    scale, bias = step.weights["scale"].astype(np.float32), step.weights["bias"].astype(np.float32)
    if step.side:
        beside = np.nextafter(bias, np.float32(step.side * np.inf))
        bias = np.where(bias == 0, np.float32(step.side * TINY), beside).astype(np.float32)
    return scale, bias
