"""Counting a Keras model layer by layer and call by call, and a network of the zoo without its weights."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bibench_tf import networks
from bibench_tf.complexity import functions
from bibench_tf.complexity.costs import LayerCost, ModelCost, Weights, joined, weights_of
from bibench_tf.complexity.rules import TRAINING_ONLY_PREFIXES, bits_of, role_of, short_name, tally
from bibench_tf.complexity.tallies import Call
from bibench_tf.errors import BibenchError
from bibench_tf.names import PAPER
from bibench_tf.operations import CountsSamples, CountsWeights

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.algorithms import Algorithm


def count(model: tf.keras.Model, *, unknown: dict[str, str] | None = None) -> ModelCost:
    """The cost of a functional or built sequential Keras model for one sample.

    Models inside of it are opened up, their layers named `outer/inner`. A layer called more than once has its
    weights counted once and its operations at every call. A custom layer declares its cost as `bibench_tf.operations`
    describes. Raises BibenchError for a layer of an unknown type (with its name and type), for one whose
    work depends on an unknown size, and for a model without a graph; with a dictionary `unknown`, such layers are left
    out and put there, with the reason.
    """
    costs = []
    for name, layer, calls in _gathered(model):
        try:
            costs.append(_layer_cost(name, layer, calls))
        except BibenchError as error:
            if unknown is None:
                raise
            unknown[name] = str(error)
    return ModelCost(tuple(costs))


def count_network(name: str, *args: Any, **options: Any) -> ModelCost:
    """The cost of a network of the zoo, built without memory for its weights; the arguments are those of `unallocated`.

    Raises the errors of `networks.build` and `count`.
    """
    with unallocated(name, *args, **options) as model:
        return count(model)


@contextlib.contextmanager
def unallocated(
    name: str,
    algorithm: str | Algorithm = PAPER,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> Iterator[tf.keras.Model]:
    """A network (`resnet20`, `resnet20@0.5`) in its own graph: its variables have shapes and no values.

    `algorithm` and `options` are those of `networks.build`. `input_shape` and `num_classes` default to those of the
    builder, 224 x 224 x 3 and 1000 for the networks of ImageNet. Inside the context the network can be counted and
    inspected, but not run. Raises the errors of `networks.build`.
    """
    name, width = networks.parse(name)
    given = {"input_shape": input_shape and tuple(input_shape), "num_classes": num_classes, **options}
    if width != 1.0:
        given["width"] = width
    with without_memory():
        yield networks.build(name, algorithm, **{key: value for key, value in given.items() if value is not None})


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Models built inside this context, in a graph of their own, have weights with shapes and no values."""
    import tensorflow as tf

    try:
        with tf.Graph().as_default():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # Without it every batch norm is traced twice, for training and for inference.
                tf.keras.backend.set_learning_phase(0)
            yield
    finally:
        _back_to_eager(tf.keras.layers.Layer)


def _back_to_eager(kind: Any) -> None:
    """Undo what Keras does to the classes of layers that are made inside a graph.

    Keras gives them the base class of TensorFlow 1, also for layers that exist, so that earlier models no longer run
    until a layer of the same class is made outside of a graph. This function makes one of each such class.
    """
    for subclass in kind.__subclasses__():
        _back_to_eager(subclass)
        bases = [base.__module__ for base in subclass.__mro__]
        if not bases[0].endswith("_v1") and any(module.endswith("_v1") for module in bases):
            subclass.__new__(subclass)


def layers(model: tf.keras.Model) -> dict[str, tf.keras.layers.Layer]:
    """The layers of a model under the names `count` gives them; raises BibenchError for a model without a graph."""
    return {name: layer for name, layer, _ in _gathered(model)}


def summary_text(model: tf.keras.Model) -> str:
    """The table `larq.models.summary` prints, as Larq counts it.

    Raises BibenchError for a kernel quantizer without a `precision`, which Larq cannot count.
    """
    import larq as lq

    lines: list[str] = []
    try:
        lq.models.summary(model, print_fn=lines.append)
    except TypeError as error:
        raise BibenchError("Larq's summary needs a `precision` of every kernel quantizer.") from error
    return "\n".join(lines)


def _gathered(model: tf.keras.Model) -> list[tuple[str, tf.keras.layers.Layer, list[Call]]]:
    """Each layer once, with its name and its calls."""
    gathered: dict[int, tuple[str, tf.keras.layers.Layer, list[Call]]] = {}
    for name, layer, call in _calls(model, ""):
        gathered.setdefault(id(layer), (name, layer, []))[2].append(call)
    return list(gathered.values())


def _calls(model: tf.keras.Model, prefix: str, samples: int = 1) -> Iterator[tuple[str, tf.keras.layers.Layer, Call]]:
    import tensorflow as tf

    # Only these two attributes of Keras know the calls of a graph; `model.layers` has each layer once.
    if not getattr(model, "_is_graph_network", False):
        raise BibenchError(
            f"Model '{prefix or model.name}' has no graph of layers to count: build it with the functional "
            "API or as a Sequential with an input shape."
        )
    samples_of: dict[int, int] = {}
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            name = prefix + node.layer.name
            given = max((samples_of.get(id(tensor), samples) for tensor in node.keras_inputs), default=samples)
            if isinstance(node.layer, CountsSamples):
                given = node.layer.count_samples(node.input_shapes)
            samples_of |= {id(tensor): given for tensor in tf.nest.flatten(node.outputs)}
            if not isinstance(node.layer, tf.keras.Model):
                yield name, node.layer, _call(node, given)
                continue
            if tf.nest.flatten(node.input_shapes) != tf.nest.flatten(node.layer.input_shape):
                raise BibenchError(f"Model '{name}' is called with another input shape than it was built for.")
            yield from _calls(node.layer, name + "/", given)


def _call(node: Any, samples: int) -> Call:
    arguments, options = node.call_args or (), node.call_kwargs or {}
    # The first argument of a function may be another object than a tensor; Keras then has no input shapes.
    function = type(node.layer).__name__ in functions.LAYERS
    shapes = [tuple(tensor.shape) for tensor in node.keras_inputs] if function else node.input_shapes
    return Call(shapes, node.output_shapes, arguments, options, samples)


def _layer_cost(name: str, layer: tf.keras.layers.Layer, calls: Sequence[Call]) -> LayerCost:
    tallies = [tally(name, layer, call).times(call.samples) for call in calls]
    training = [weight for weight in layer.weights if _is_training_only(weight)]
    return LayerCost(
        name=name,
        kind=type(layer).__name__,
        role=role_of(layer),
        calls=len(calls),
        mac_pairs=joined(macs for part in tallies for macs in part.macs),
        other=sum(part.other for part in tallies),
        weights=_deployed(layer),
        weights_training=sum(math.prod(weight.shape) for weight in training),
    )


def _deployed(layer: tf.keras.layers.Layer) -> tuple[Weights, ...]:
    """The deployed weights of a layer, by precision."""
    import tensorflow as tf

    if isinstance(layer, CountsWeights):
        return weights_of(layer.count_weights().items())
    if isinstance(layer, tf.keras.layers.BatchNormalization):
        # Statistics and affine parameters fold into a factor and an offset.
        return (Weights(2 * layer.moving_mean.shape[0], 32),)
    deployed = [weight for weight in layer.weights if not _is_training_only(weight)]
    return weights_of((bits_of(weight), math.prod(weight.shape)) for weight in deployed)


def _is_training_only(weight: tf.Variable) -> bool:
    # A scalar that is not learned is the state of a schedule over the training, such as ReCU's tau.
    scheduled = len(weight.shape) == 0 and not weight.trainable
    return scheduled or short_name(weight).startswith(TRAINING_ONLY_PREFIXES)
