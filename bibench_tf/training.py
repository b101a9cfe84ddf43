"""The training of one run: epochs from a checkpoint to the end, and nothing about where runs come from."""

from __future__ import annotations

import gc
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from bibench_tf import environment, records
from bibench_tf.algorithms import ScheduleCallback
from bibench_tf.datasets import ImageDataset
from bibench_tf.energy import EnergyMeter
from bibench_tf.errors import BibenchError
from bibench_tf.memory import PeakMemory
from bibench_tf.recipes import Precision, Recipe

# The first steps of a process trace the graph and warm caches; they say nothing about the cost of a step.
WARM_UP_STEPS = 5


@dataclass(frozen=True)
class Progress:
    """What a checkpoint knows beside the weights: how many epochs are done, and the figures of each."""

    epochs_completed: int
    checkpoint: str
    history: list[dict[str, float | None]] = field(default_factory=list)


class Diverged(Exception):
    """The loss is not a number any more."""


def optimizer_for(recipe: Recipe) -> tf.keras.optimizers.Optimizer:
    """The optimizer a recipe names, at its initial learning rate; weight decay is added to the loss instead."""
    return new_optimizer(recipe.optimizer, recipe.learning_rate, recipe.momentum, recipe.precision)


def new_optimizer(
    name: str, learning_rate: float, momentum: float = 0.9, precision: Precision = "float32"
) -> tf.keras.optimizers.Optimizer:
    """An optimizer of a recipe by name; only SGD has momentum. Raises BibenchError for an unknown name."""
    optimizer = _new_optimizer(name, learning_rate, momentum)
    if precision != "mixed_float16":
        return optimizer
    # Small gradients are 0 in float16 unless the loss is scaled; a step whose gradients overflow is left out.
    return tf.keras.mixed_precision.LossScaleOptimizer(optimizer)


def _new_optimizer(name, learning_rate, momentum):
    if name == "adam":
        # PyTorch's epsilon, as in the reference; Keras' own default is 1e-7.
        return tf.keras.optimizers.Adam(learning_rate, epsilon=1e-8)
    if name == "sgd":
        return tf.keras.optimizers.SGD(learning_rate, momentum=momentum)
    if name == "radam":
        from bibench_tf.addons import rectified_adam

        return rectified_adam(learning_rate)
    raise BibenchError(f"Unknown optimizer '{name}'. Known: adam, radam, sgd.")


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate of a recipe in `epoch` (from 0, 1.5 is in the middle of the second)."""
    done = epoch / recipe.epochs
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** sum(done >= milestone for milestone in recipe.milestones)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    raise BibenchError(f"Unknown schedule '{recipe.schedule}'. Known: constant, cosine, step.")


def copy_weights(source: tf.keras.Model, target: tf.keras.Model) -> int:
    """Copy weights between layers of the same name where their names and shapes agree; returns how many."""
    copied = 0
    donors = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        if layer.name not in donors:
            continue
        values = {_last_name(weight): weight for weight in donors[layer.name].weights}
        for weight in layer.weights:
            value = values.get(_last_name(weight))
            if value is not None and value.shape == weight.shape:
                weight.assign(value.numpy())
                copied += 1
    return copied


def train(
    model: tf.keras.Model,
    data: ImageDataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    twin: tf.keras.Model | None = None,
    xla: bool = False,
    steps_per_execution: int = 1,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Progress:
    """Train `model` in place, from the checkpoint in `folder` if it has one, to the last epoch of the recipe.

    `twin` is the same network in the recipe's precision where that is mixed: it makes the steps, and `model` gets its
    weights after every epoch, so that what is evaluated is what is saved. After every epoch the state is written to
    `folder`: what is trained next is then a function of that state, the seed and the data alone. A recipe whose rate
    changes from step to step is trained step by step whatever `steps_per_execution` says. Raises Diverged when the
    loss is not finite.
    """
    trained = model
    if twin is not None:
        twin.set_weights(model.get_weights())
        trained = twin
    trainer = _compiled(trained, recipe, xla, 1 if recipe.per_step else steps_per_execution)
    evaluator = trainer if twin is None else _compiled(model, recipe, xla, 1)
    checkpoint = tf.train.Checkpoint(model=trained, optimizer=trainer.optimizer)
    progress = _restore(checkpoint, folder, epochs=recipe.epochs)
    if twin is not None:
        model.set_weights(twin.get_weights())
    for _ in range(progress.epochs_completed * (data.train_examples // recipe.batch_size)):
        on_step()
    timer = _StepTimer(on_step, clock)
    for epoch in range(progress.epochs_completed, recipe.epochs):
        fitted = trainer.fit(
            data.train_batches(recipe.batch_size, seed=seed, epoch=epoch, augment=recipe.augment),
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[
                ScheduleCallback(epochs=recipe.epochs),
                _LearningRate(recipe, data.train_examples // recipe.batch_size),
                tf.keras.callbacks.TerminateOnNaN(),
                timer,
            ],
        )
        train_loss = fitted.history["loss"][-1]
        if not np.isfinite(train_loss):
            raise Diverged(f"the loss was not finite in epoch {epoch + 1} of {recipe.epochs}")
        if twin is not None:
            model.set_weights(twin.get_weights())
        tested = evaluator.evaluate(data.test_batches(256), verbose=0, return_dict=True)
        figures = {
            "epoch": epoch + 1,
            "train_loss": float(fitted.history["cross_entropy"][-1]),
            "train_accuracy": float(fitted.history["accuracy"][-1]),
            "test_loss": float(tested["cross_entropy"]),
            "accuracy": float(tested["accuracy"]),
            **timer.take(),
        }
        progress = _save(checkpoint, folder, epoch + 1, [*progress.history, figures])
        on_epoch(progress)
    return progress


def _compiled(model: tf.keras.Model, recipe: Recipe, xla: bool, steps_per_execution: int) -> tf.keras.Model:
    """A second model on the same layers, which carries optimizer and metrics, so that `model` is saved without."""
    logits = model.outputs[0]
    if logits.dtype != tf.float32:
        # The loss is a logarithm of sums of exponentials, for which 16 bits are too few.
        logits = tf.keras.layers.Activation("linear", dtype="float32", name="float32_logits")(logits)
    trainer = tf.keras.Model(model.inputs, logits)
    if recipe.weight_decay:
        # The penalty is on latent weights: outside a layer's call Larq's variables read as what they hold.
        trainer.add_loss(lambda: recipe.weight_decay * tf.add_n([tf.nn.l2_loss(w) for w in model.trainable_weights]))
    trainer.compile(
        optimizer_for(recipe),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            "accuracy",
            tf.keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        ],
        jit_compile=xla,
        steps_per_execution=steps_per_execution,
    )
    return trainer


def _last_name(weight) -> str:
    return weight.name.split("/")[-1]


def _restore(checkpoint: tf.train.Checkpoint, folder: Path, epochs: int) -> Progress:
    path = folder / "progress.json"
    try:
        progress = records.read(path, Progress) if path.exists() else None
    except records.RecordError:
        progress = None  # a new start costs time, never a wrong number
    if progress is not None and progress.epochs_completed <= epochs:
        state = str(folder / progress.checkpoint / "state")
        if _is_readable(state):
            checkpoint.read(state)
            return progress
    return Progress(epochs_completed=0, checkpoint="")


def _is_readable(state: str) -> bool:
    """Read everything once, which checks its checksums, so that no network is restored by half."""
    try:
        reader = tf.train.load_checkpoint(state)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError):
        return False
    return True


def _save(checkpoint, folder, epochs_completed, history) -> Progress:
    """Write the weights to a new folder, then the record that names it, then drop the others."""
    name = f"checkpoint-{epochs_completed}"
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    try:
        checkpoint.write(str(temporary / "state"))
        shutil.rmtree(folder / name, ignore_errors=True)
        temporary.rename(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    progress = Progress(epochs_completed, name, history)
    records.write(folder / "progress.json", progress, environment=environment.describe())
    for other in folder.glob("checkpoint-*"):
        if other.name != name:
            shutil.rmtree(other, ignore_errors=True)
    return progress


class _LearningRate(tf.keras.callbacks.Callback):
    """Sets the rate before an epoch, and before a step of a recipe whose rate changes from step to step."""

    def __init__(self, recipe, steps_per_epoch):
        super().__init__()
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self._recipe.per_step and batch:
            self._set(self._epoch + batch / self._steps_per_epoch)

    def _set(self, epoch):
        tf.keras.backend.set_value(self.model.optimizer.lr, learning_rate(self._recipe, epoch))


class _StepTimer(tf.keras.callbacks.Callback):
    """Times training steps and nothing else: evaluation, checkpoints, pauses and what `on_step` does are outside.

    The waiting for the next batch is a part of a step. Where Keras makes several steps in one execution, each of them
    counts as its equal share.
    """

    def __init__(self, on_step, clock):
        super().__init__()
        self._on_step = on_step
        self._clock = clock
        self._steps = 0
        self._times_s = []
        self._energy = EnergyMeter()
        self._memory = PeakMemory()

    def on_epoch_begin(self, epoch, logs=None):
        self._memory.start()

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch
        self._energy.start()
        self._start = self._clock()

    def on_train_batch_end(self, batch, logs=None):
        # Keras has turned the logs into numbers for this call, so the step is done on every device.
        elapsed_s = self._clock() - self._start
        steps = batch - self._first + 1
        if self._steps >= WARM_UP_STEPS:
            self._energy.stop()
            self._times_s += [elapsed_s / steps] * steps
        if self._steps % 10 == 0:
            self._memory.sample()
        self._steps += steps
        for _ in range(steps):
            self._on_step()

    def on_epoch_end(self, epoch, logs=None):
        self._figures = {"peak_process_memory_mib": self._memory.process_mib()}
        if (gpu_mib := self._memory.gpu_mib()) is not None:
            self._figures["peak_gpu_memory_mib"] = gpu_mib

    def take(self) -> dict[str, float | None]:
        """The figures of the last epoch; None where it had no step after the warm-up."""
        times_s, self._times_s = self._times_s, []
        joules = self._energy.joules
        self._energy.clear()
        return {
            "train_step_time_ms": round(1e3 * statistics.median(times_s), 3) if times_s else None,
            "train_time_s": round(sum(times_s), 3) if times_s else None,
            "energy_j": round(joules, 3) if times_s and joules is not None else None,
            **self._figures,
        }


def initial_model(build: Callable[[], tf.keras.Model], seed: int) -> tf.keras.Model:
    """A freshly initialised network; the same seed gives the same weights."""
    tf.keras.backend.clear_session()
    gc.collect()  # networks of earlier runs hold their graphs in reference cycles
    tf.keras.utils.set_random_seed(seed)
    return build()


def in_precision(build: Callable[[], tf.keras.Model], precision: Precision) -> tf.keras.Model:
    """The network that `build` makes, with layers that compute at `precision`; its weights are float32 always."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(precision)
    try:
        return build()
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
