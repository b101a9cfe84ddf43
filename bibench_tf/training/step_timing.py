"""The time of a training step of several networks, which take turns, so that other work falls on all of them alike.

Steps that are timed one run after the other compare the state of the computer as much as the networks. Here every
network makes a few steps in each round, in one process, and what is compared are times of the same round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf import networks
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import Dataset

WARM_UP_STEPS = 3
_STEPS_IN_TURN = 2
_RATES = {"adam": 1e-3, "bert_adam": 5e-5, "radam": 1e-3, "sgd": 1e-1}


@dataclass(frozen=True)
class StepTimes:
    """Step times by algorithm, in milliseconds; entry r of all algorithms belongs to the same round.

    `network` may carry a width multiplier, as in `resnet20@0.5`; `options` are the others of its builder, such as the
    size of its inputs. `precision` is one of a recipe's.
    """

    network: str
    options: Mapping[str, Any]
    batch_size: int
    optimizer: str
    rounds_ms: dict[str, tuple[float, ...]]
    precision: str = "float32"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepTimes:
        """The inverse of `dataclasses.asdict`, also for records of earlier versions, which were of images alone."""
        data = dict(data)
        images = {name: data.pop(name) for name in ("input_shape", "num_classes") if name in data}
        options = images or data["options"]
        data["options"] = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        data["rounds_ms"] = {name: tuple(found) for name, found in data["rounds_ms"].items()}
        return cls(**data)


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and their quartiles."""

    median: float
    low: float
    high: float


def measure(
    networks: Sequence[str],
    *,
    network: str,
    data: Dataset,
    batch_size: int,
    optimizer: str = "adam",
    rounds: int = 11,
    seed: int = 0,
    precision: str = "float32",
    progress: Callable[[range], Iterable[int]] = iter,
) -> StepTimes:
    """Time a training step of `network` on `data` under each of the algorithms `networks`, in turns.

    A step is forward, backward and update of one batch that is in memory already, the first of the training split: the
    input pipeline, metrics, callbacks and evaluation are left out. Weights are random, which does not change the time.
    `progress` gets the rounds and yields them, as `tqdm` does. Raises BibenchError for unknown names and for a batch
    larger than the data.
    """
    import tensorflow as tf

    from bibench_tf import tasks

    task = tasks.get(data.task)
    inputs, labels = next(iter(task.training_batches(data.train_batches(batch_size, seed=seed, epoch=0))))
    steps = {}
    for algorithm in networks:
        tf.keras.utils.set_random_seed(seed)
        model = trained_graph(network, algorithm, data, precision)
        steps[algorithm] = keras_step(model, inputs, labels, optimizer, precision, task.loss(data))
    rounds_ms = measure_steps(steps, rounds, progress)
    return StepTimes(network, dict(data.network_options), batch_size, optimizer, rounds_ms, precision)


def trained_graph(network: str, algorithm: str, data: Dataset, precision: str = "float32") -> tf.keras.Model:
    """What a training of a new network on `data` goes through: from a batch to what the loss of the task takes."""
    import tensorflow as tf

    from bibench_tf import tasks, zoo
    from bibench_tf.training import loop

    name, width = networks.parse(network)
    build = partial(zoo.build, name, algorithm=algorithm, width=width, **data.network_options)
    return tf.keras.Model(*tasks.get(data.task).training_graph(loop.in_precision(build, precision)))


def random_batch(
    input_shape: tuple[int, int, int], num_classes: int, batch_size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Images of standard normal numbers, float32 [B, H, W, C], and labels, int64 [B]."""
    random = np.random.default_rng(seed)
    images = random.standard_normal((batch_size, *input_shape), dtype=np.float32)
    return images, random.integers(0, num_classes, batch_size)


def keras_step(
    model: tf.keras.Model,
    inputs: Any,
    labels: np.ndarray | tf.Tensor,
    optimizer: str = "adam",
    precision: str = "float32",
    loss: tf.keras.losses.Loss | None = None,
) -> Callable[[], float]:
    """A function that makes one training step of a network on this batch; otherwise as `training_function`."""
    import tensorflow as tf

    train = training_function(model, optimizer, precision, loss)
    x, y = tf.nest.map_structure(tf.convert_to_tensor, (inputs, labels))
    return lambda: train(x, y)


def training_function(
    model: tf.keras.Model,
    optimizer: str = "adam",
    precision: str = "float32",
    loss: tf.keras.losses.Loss | None = None,
) -> Callable[[Any, tf.Tensor], float]:
    """A function of inputs and labels that makes one training step and returns the loss, once the step is done.

    Inputs are a tensor, or tensors by the name of the network's input. `precision` is the one the network was built
    at. Without `loss` it is the cross-entropy of logits. Raises BibenchError for an unknown optimizer.
    """
    import tensorflow as tf

    from bibench_tf.training import optimizers

    if optimizer not in _RATES:
        raise BibenchError(f"Unknown optimizer '{optimizer}'. Known: {', '.join(_RATES)}.")
    update = optimizers.new(optimizer, _RATES[optimizer], precision=precision)
    loss_of = loss or tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(reduce_retracing=True)  # a batch of boxes has as many rows as its fullest image
    def step(x, y):
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
    """Milliseconds of each step function, a figure for each round.

    In its turn a function is called once to warm the caches that the others have filled, and then twice; the faster
    call counts. Every other round goes through the functions backwards.
    """
    if rounds < 1:
        raise BibenchError(f"Timing needs at least one round, not {rounds}.")
    for step in steps.values():
        for _ in range(WARM_UP_STEPS):
            step()
    times_ms = {name: [] for name in steps}
    for number in progress(range(rounds)):
        for name in steps if number % 2 else reversed(steps):
            times_ms[name].append(_turn_ms(steps[name], clock))
    return {name: tuple(found) for name, found in times_ms.items()}


def _turn_ms(step, clock) -> float:
    step()
    times_ms = []
    for _ in range(_STEPS_IN_TURN):
        start = clock()
        step()
        times_ms.append(1e3 * (clock() - start))
    return round(min(times_ms), 3)


def ratio(times: StepTimes, algorithm: str, baseline: str = BASELINE) -> Ratio:
    """How many times as long as the baseline's the step of an algorithm takes, round by round.

    Raises BibenchError when one of them was not timed.
    """
    return ratio_of(times.rounds_ms, algorithm, baseline)


def ratio_of(rounds_ms: Mapping[str, Sequence[float]], name: str, baseline: str) -> Ratio:
    """`ratio` of times by name, as `measure_steps` returns them."""
    for each in (name, baseline):
        if each not in rounds_ms:
            raise BibenchError(f"The step of '{each}' was not timed, only those of {', '.join(rounds_ms)}.")
    low, median, high = np.quantile(np.divide(rounds_ms[name], rounds_ms[baseline]), [0.25, 0.5, 0.75])
    return Ratio(float(median), float(low), float(high))
