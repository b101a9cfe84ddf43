"""Checks for authors of plug-ins: whether an algorithm, network, data set or recipe keeps what the benchmark relies on.

Each check raises AssertionError with one sentence about the first fault that it finds, and returns nothing otherwise.

    from bibench_tf import testing

    def test_steep():
        testing.check_algorithm("steep")
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf import networks, recipes, tasks
from bibench_tf.names import BASELINE
from bibench_tf.recipes import Recipe
from bibench_tf.results import records

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.algorithms import Algorithm
    from bibench_tf.datasets import Dataset

_OPEN_SIZE = 32  # stands for an input axis of any length
_KERAS_OR_LARQ = re.compile(r"((tf_)?keras|larq)\b")


def check_algorithm(algorithm: str | Algorithm) -> None:
    """Check the layers that an algorithm makes: a key, or an `Algorithm` with its options.

    Layers of all three kinds are built and called. Their outputs and gradients are finite, gradients reach inputs and
    kernels, a quantized input of zero is +1 or -1 in inference, all schedules can be set, and the layers compute the
    same when they are saved as .keras and loaded, under names that carry a package.
    """
    import tensorflow as tf

    from bibench_tf import algorithms

    chosen = algorithms.get(algorithm)
    key = getattr(chosen, "key", type(chosen).__name__)
    _require(key in algorithms.ALGORITHMS, f"Algorithm '{key}' is not registered: decorate it with @register.")
    for field in ("title", "paper", "activation"):
        _require(isinstance(getattr(chosen, field), str), f"'{field}' of algorithm '{key}' is not a text.")
    layers = {
        "conv2d": ((6, 7, 8), chosen.conv2d(4, 3, strides=2, use_bias=True, name="conv2d")),
        "conv1d": ((9, 8), chosen.conv1d(4, 3, use_bias=True, name="conv1d")),
        "dense": ((5, 8), chosen.dense(4, name="dense")),
    }
    shapes = [shape for shape, _ in layers.values()]
    data = [np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32) for shape in shapes]
    inputs = [tf.keras.Input(shape) for shape in shapes]
    model = tf.keras.Model(inputs, [layer(x) for x, (_, layer) in zip(inputs, layers.values(), strict=True)])
    for x, (kind, (_, layer)) in zip(data, layers.items(), strict=True):
        _check_gradients(f"The {kind} of algorithm '{key}'", layer, tf.constant(x))
        _check_input_quantizer(f"The input quantizer of the {kind} of algorithm '{key}'", layer)
        for quantizer in (layer, *layer.submodules):
            _check_name(quantizer)
    for epoch in (0, 4, 9):
        algorithms.update_schedules(model, epoch, 10)
        for weight in model.non_trainable_weights:
            finite = np.isfinite(weight.numpy()).all()
            _require(finite, f"'{weight.name}' of algorithm '{key}' is not finite in epoch {epoch} of 10.")
        _check_outputs(f"Algorithm '{key}' in epoch {epoch} of 10", model, data)
    _check_saving(f"The layers of algorithm '{key}'", model, data)


def check_network(network: str | Callable[..., Any], *, algorithm: str = "bnn", **options: Any) -> None:
    """Check a registered network, by its name or its builder; `options`, such as a small `width`, go to the builder.

    Its task is known, it builds in full precision and with `algorithm`, every layer with weights has the same name in
    both, its outputs are finite, its layers misspell no declaration, and it computes the same when it is saved as
    .keras and loaded.
    """
    import tensorflow as tf

    from bibench_tf.operations import check_declarations

    name = network if isinstance(network, str) else network.__name__
    _require(name in networks.NETWORKS, f"Network '{name}' is not registered: decorate its builder with @register().")
    task = networks.task_of(name)
    _require(task in tasks.names(), f"Network '{name}' serves the task '{task}', which is not known.")
    built = {key: networks.build(name, algorithm=key, **options) for key in (BASELINE, algorithm)}
    layers = {key: {layer.name for layer in model.layers} for key, model in built.items()}
    for layer in built[BASELINE].layers:
        has_twin = not layer.weights or layer.name in layers[algorithm]
        _require(has_twin, f"Layer '{layer.name}' of network '{name}' has another name with algorithm '{algorithm}'.")
    rng = np.random.default_rng(0)
    for key, model in built.items():
        subject = f"Network '{name}' with algorithm '{key}'"
        for layer in model.layers:
            try:
                check_declarations(layer.__class__)
            except ValueError as error:
                raise AssertionError(f"{subject}: {error}") from error
        data = tf.nest.map_structure(lambda tensor: _example(tensor, rng), model.input)
        _check_outputs(subject, model, data)
        _check_saving(subject, model, data)


def check_dataset(dataset: str | Dataset, *, batch_size: int = 4) -> None:
    """Check a data set, by name or as an object: its description, and its first batches of `batch_size` examples.

    Texts and sizes are there, the fingerprint is hexadecimal, the task is known. The batches of a seed and epoch and
    those of the test split are the same each time, another seed gives others, and class numbers are those of
    `class_names`.
    """
    from bibench_tf import datasets

    data = datasets.get(dataset) if isinstance(dataset, str) else dataset
    subject = f"Data set '{data.name}'"
    for field in ("name", "title", "source", "licence"):
        value = getattr(data, field)
        _require(isinstance(value, str) and value != "", f"'{field}' of {subject} is empty.")
    _require(data.task in tasks.names(), f"The task '{data.task}' of {subject} is not known.")
    digest = re.fullmatch(r"[0-9a-f]{8,}", data.fingerprint)
    _require(digest is not None, f"The fingerprint of {subject} is no hexadecimal digest: {data.fingerprint!r}.")
    _require(len(set(data.class_names)) == len(data.class_names), f"{subject} has two classes of one name.")
    for split, count in (("training", data.train_examples), ("test", data.test_examples)):
        _require(count >= batch_size, f"{subject} has {count} {split} examples, fewer than a batch of {batch_size}.")

    def training(seed: int, epoch: int) -> list[Any]:
        return _first(data.train_batches(batch_size, seed=seed, epoch=epoch))

    def test() -> list[Any]:
        return _first(data.test_batches(batch_size, limit=2 * batch_size))

    batches, tests = training(0, 0), test()
    _require(
        _same(batches, training(0, 0)), f"{subject} gives other training batches each time, at one seed and epoch."
    )
    _require(not _same(batches, training(1, 0)), f"The training batches of {subject} do not depend on the seed.")
    _require(not _same(batches, training(0, 1)), f"The training batches of {subject} do not depend on the epoch.")
    _require(_same(tests, test()), f"The test examples of {subject} come in another order each time.")
    for split, (inputs, labels) in [("training", batches[0]), ("test", tests[0])]:
        for array in _arrays((inputs, labels)):
            size, finite = len(array), array.dtype.kind != "f" or np.isfinite(array).all()
            _require(size == batch_size, f"A {split} batch of {subject} has {size} examples, not {batch_size}.")
            _require(finite, f"A {split} batch of {subject} has numbers that are not finite.")
        if data.class_names and isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
            fits = labels.min() >= 0 and labels.max() < data.num_classes
            _require(fits, f"A {split} label of {subject} is not a class number below {data.num_classes}.")


def check_recipe(recipe: str | Recipe) -> None:
    """Check a recipe, by name or as an object, and the recipe that it starts from.

    Its learning rate is finite over the whole training, never negative and positive at the start of every epoch, and
    it is the same when it is written to a record and read again.
    """
    chosen = recipes.get(recipe) if isinstance(recipe, str) else recipe
    subject = f"Recipe '{chosen.name}'"
    steps = 20
    for number in range(steps * chosen.epochs):
        epoch = number / steps
        rate = recipes.learning_rate(chosen, epoch)
        fits = math.isfinite(rate) and (rate > 0 or rate == 0 and epoch < 1)  # a warm-up may start at 0
        _require(fits, f"The learning rate of {subject} is {rate} in epoch {epoch:g} of {chosen.epochs}.")
    is_kept = records.structure(records.unstructure(chosen), Recipe) == chosen
    _require(is_kept, f"{subject} is another one when it is written to a record and read again.")
    if chosen.start is not None:
        check_recipe(chosen.start)


def _require(condition: object, sentence: str) -> None:
    if not condition:  # not an assert statement, which python -O leaves out
        raise AssertionError(sentence)


def _check_gradients(subject: str, layer: tf.keras.layers.Layer, x: tf.Tensor) -> None:
    import tensorflow as tf

    weights = [("input", x), ("kernel", layer.kernel)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True) ** 2)
    for (name, _), gradient in zip(weights, tape.gradient(loss, [value for _, value in weights]), strict=True):
        _require(gradient is not None, f"{subject} has no gradient to its {name}.")
        gradient = tf.convert_to_tensor(gradient).numpy()
        _require(np.isfinite(gradient).all(), f"{subject} has a gradient to its {name} that is not finite.")
        _require(gradient.any(), f"{subject} has a gradient of zero to its {name}.")


def _check_input_quantizer(subject: str, layer: tf.keras.layers.Layer) -> None:
    import tensorflow as tf

    from bibench_tf.algorithms.capabilities import capabilities_of
    from bibench_tf.algorithms.layers import BinaryConv2D

    if not isinstance(layer, BinaryConv2D) or not capabilities_of(layer.input_quantizer).signs_in_inference:
        return
    # Zero may lie beside a threshold that is shifted, and has then the sign of its neighbours.
    near = np.array([0.0, -1e-6, 1e-6], np.float32)
    signs = layer.input_quantizer(tf.constant(np.tile(near[:, None, None, None], (1, 2, 2, 8)))).numpy()
    _require(set(np.unique(signs)) <= {-1.0, 1.0}, f"{subject} declares signs, but gives other values in inference.")
    zero, below, above = signs
    is_sign = np.all((zero == 1) | (below == above))
    _require(is_sign, f"{subject} gives sign(0) = -1, which has to be +1 (larq.math.sign).")


def _check_name(part: tf.Module) -> None:
    import tensorflow as tf

    owner = type(part)
    if not isinstance(part, tf.keras.layers.Layer) or _KERAS_OR_LARQ.match(owner.__module__):
        return
    _require(
        ">" in tf.keras.utils.get_registered_name(owner),
        f"{owner.__name__} is saved under a name without a package: decorate it with "
        "@tf.keras.utils.register_keras_serializable('my_package').",
    )


def _check_outputs(subject: str, model: tf.keras.Model, data: Any) -> None:
    for training in (False, True):
        for output in _arrays(model(data, training=training)):
            finite = np.isfinite(output).all()
            _require(finite, f"{subject} has outputs that are not finite in {'training' if training else 'inference'}.")


def _check_saving(subject: str, model: tf.keras.Model, data: Any) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
            loaded = tf.keras.models.load_model(path, compile=False)
        except Exception as error:  # Keras has no error of its own for what it cannot save or load
            reason = " ".join(str(error).split())[-300:]  # where Keras names the cause
            raise AssertionError(f"{subject} cannot be saved as .keras and loaded: {reason}") from error
    _require(_same(model(data), loaded(data)), f"{subject} computes something else when it is saved and loaded.")


def _example(tensor: tf.Tensor, rng: np.random.Generator) -> np.ndarray:
    """Two inputs of a network: noise, or zeros where it takes integers."""
    shape = (2, *(_OPEN_SIZE if size is None else size for size in tensor.shape[1:]))
    if tensor.dtype.is_floating:
        return rng.normal(size=shape).astype(tensor.dtype.as_numpy_dtype)
    return np.zeros(shape, tensor.dtype.as_numpy_dtype)


def _first(batches: tf.data.Dataset) -> list[Any]:
    return list(batches.take(2).as_numpy_iterator())


def _arrays(value: Any) -> Iterator[np.ndarray]:
    import tensorflow as tf

    yield from (np.asarray(part) for part in tf.nest.flatten(value))


def _same(one: Any, other: Any) -> bool:
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(_arrays(one), _arrays(other), strict=True))
