"""The time of a training step of several networks, interleaved, so that other work affects all of them alike.

Steps that are timed one run after the other compare the state of the computer as much as the networks. Here every
network makes a few steps in each round, in one process, and times of the same round are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bibench_tf import networks, tasks
from bibench_tf.errors import InvalidOption, UnknownName
from bibench_tf.names import BASELINE
from bibench_tf.recipes import Precision

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import Dataset

WARM_UP_STEPS = 3
_STEPS_PER_TURN = 2
_RATES = {"adam": 1e-3, "bert_adam": 5e-5, "radam": 1e-3, "sgd": 1e-1}

# The values that options of a network's builder can have in a record.
Option = bool | int | float | str | tuple[int | None, ...] | None


@dataclass(frozen=True)
class Steps:
    """The training steps that are timed: of a network, NAME or NAME@WIDTH, on batches of `batch_size` examples."""

    network: str
    batch_size: int
    optimizer: str = "adam"
    precision: Precision = "float32"
    seed: int = 0


@dataclass(frozen=True)
class StepTimes:
    """Step times by algorithm, in milliseconds; entry r of all algorithms belongs to the same round.

    `network` may carry a width multiplier, as in `resnet20@0.5`; `options` are the others of its builder, such as the
    size of its inputs.
    """

    network: str
    options: Mapping[str, Option]
    batch_size: int
    optimizer: str
    rounds_ms: dict[str, tuple[float, ...]]
    precision: Precision


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of all rounds, and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: ArrayLike) -> Ratio:
        """Median and quartiles of ratios."""
        low, median, high = np.asarray(np.quantile(ratios, [0.25, 0.5, 0.75])).tolist()
        return cls(median, low, high)


def measure(
    algorithms: Sequence[str],
    data: Dataset,
    steps: Steps,
    *,
    rounds: int = 11,
    progress: Callable[[range], Iterable[int]] = iter,
) -> StepTimes:
    """Time training steps on `data` under each of the algorithms, interleaved.

    A step is forward, backward and update of one batch in memory, the first of the training split, without input
    pipeline, metrics, callbacks and evaluation. Weights are random, which does not change the time. `progress` takes
    the rounds and yields them, as `tqdm` does. Raises BibenchError for unknown names and for a batch larger than the
    data.
    """
    import tensorflow as tf

    task = tasks.get(data.task)
    batches = data.train_batches(steps.batch_size, seed=steps.seed, epoch=0)
    inputs, labels = next(iter(task.training_batches(batches)))
    functions = {}
    for algorithm in algorithms:
        tf.keras.utils.set_random_seed(steps.seed)
        model = trained_graph(steps.network, algorithm, data, steps.precision)
        train = training_function(model, steps.optimizer, steps.precision, task.loss(data))
        functions[algorithm] = step_on(train, inputs, labels)
    rounds_ms = measure_steps(functions, rounds, progress)
    options = dict(data.network_options)
    return StepTimes(steps.network, options, steps.batch_size, steps.optimizer, rounds_ms, steps.precision)


def trained_graph(network: str, algorithm: str, data: Dataset, precision: Precision = "float32") -> tf.keras.Model:
    """The Keras model that a training of a new network on `data` steps through, from a batch to the loss's inputs."""
    import tensorflow as tf

    from bibench_tf.training import loop

    name, width = networks.parse(network)
    build = partial(networks.build, name, algorithm, width=width, **data.network_options)
    return tf.keras.Model(*tasks.get(data.task).training_graph(loop.in_precision(build, precision)))


def step_on(
    train: Callable[[Any, tf.Tensor], float], inputs: Any, labels: NDArray[Any] | tf.Tensor
) -> Callable[[], float]:
    """A function that makes one training step on this batch by a `training_function`."""
    import tensorflow as tf

    x, y = tf.nest.map_structure(tf.convert_to_tensor, (inputs, labels))
    return lambda: train(x, y)


def training_function(
    model: tf.keras.Model,
    optimizer: str = "adam",
    precision: Precision = "float32",
    loss: tf.keras.losses.Loss | None = None,
) -> Callable[[Any, tf.Tensor], float]:
    """A function of inputs and labels that makes one training step and returns the loss when the step is done.

    Inputs are a tensor, or tensors by the name of the network's input. `precision` is that of the built network.
    `loss=None` is the cross-entropy of logits. Raises UnknownName for an unknown optimizer.
    """
    import tensorflow as tf

    from bibench_tf.training import optimizers

    if optimizer not in _RATES:
        raise UnknownName("optimizer", optimizer, _RATES)
    update = optimizers.new(optimizer, _RATES[optimizer], precision=precision)
    loss_of = loss or tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(reduce_retracing=True)  # the number of rows in a batch of boxes varies
    def step(x: Any, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss_of(y, tf.cast(model(x, training=True), tf.float32))
        update.minimize(value, model.trainable_variables, tape=tape)
        return value

    return lambda x, y: float(step(x, y))


def measure_steps(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[range], Iterable[int]] = iter,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each step function, one value for each round.

    In a round each function is called once to fill the caches with its data, and then twice; the faster call counts.
    Every other round calls the functions in reverse order. Raises InvalidOption for less than one round.
    """
    if rounds < 1:
        raise InvalidOption(f"Timing needs at least one round, not {rounds}.")
    for step in steps.values():
        for _ in range(WARM_UP_STEPS):
            step()
    times_ms: dict[str, list[float]] = {name: [] for name in steps}
    for number in progress(range(rounds)):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            times_ms[name].append(_turn_ms(steps[name], clock))
    return {name: tuple(found) for name, found in times_ms.items()}


def _turn_ms(step: Callable[[], object], clock: Callable[[], float]) -> float:
    step()
    times_ms = []
    for _ in range(_STEPS_PER_TURN):
        start = clock()
        step()
        times_ms.append(1e3 * (clock() - start))
    return round(min(times_ms), 3)


def ratio(rounds_ms: Mapping[str, Sequence[float]], name: str, baseline: str = BASELINE) -> Ratio:
    """The step time of `name` divided by that of the baseline, round by round; `rounds_ms` as in `StepTimes`.

    Raises InvalidOption when one of them was not timed.
    """
    for each in (name, baseline):
        if each not in rounds_ms:
            raise InvalidOption(f"The step of '{each}' was not timed, only those of {', '.join(rounds_ms)}.")
    return Ratio.of(np.divide(rounds_ms[name], rounds_ms[baseline]))
