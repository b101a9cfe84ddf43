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
import psutil
import tensorflow as tf

from bibench_tf import environment, records
from bibench_tf.algorithms import ScheduleCallback
from bibench_tf.datasets import ImageDataset
from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe

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
    if recipe.optimizer == "adam":
        # PyTorch's epsilon, as in the reference; Keras' own default is 1e-7.
        return tf.keras.optimizers.Adam(recipe.learning_rate, epsilon=1e-8)
    if recipe.optimizer == "sgd":
        return tf.keras.optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum)
    if recipe.optimizer == "radam":
        from bibench_tf.addons import rectified_adam

        return rectified_adam(recipe.learning_rate)
    raise BibenchError(f"Unknown optimizer '{recipe.optimizer}'. Known: adam, radam, sgd.")


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate in `epoch` (from 0) of a recipe."""
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
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Train `model` in place, from the checkpoint in `folder` if it has one, to the last epoch of the recipe.

    After every epoch the state is written to `folder`: what is trained next is then a function of that state, the
    seed and the data alone. Raises Diverged when the loss is not finite.
    """
    # A second model on the same layers carries optimizer and metrics, so that `model` is saved without them.
    trainer = tf.keras.Model(model.inputs, model.outputs)
    if recipe.weight_decay:
        # The penalty is on latent weights: outside a layer's call Larq's variables read as what they hold.
        trainer.add_loss(lambda: recipe.weight_decay * tf.add_n([tf.nn.l2_loss(w) for w in model.trainable_weights]))
    optimizer = optimizer_for(recipe)
    trainer.compile(
        optimizer,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            "accuracy",
            tf.keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        ],
    )
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    progress = _restore(checkpoint, folder, epochs=recipe.epochs)
    for _ in range(progress.epochs_completed * (data.train_examples // recipe.batch_size)):
        on_step()
    timer = _StepTimer(on_step)
    for epoch in range(progress.epochs_completed, recipe.epochs):
        fitted = trainer.fit(
            data.train_batches(recipe.batch_size, seed=seed, epoch=epoch, augment=recipe.augment),
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[
                ScheduleCallback(epochs=recipe.epochs),
                tf.keras.callbacks.LearningRateScheduler(lambda epoch: learning_rate(recipe, epoch)),
                tf.keras.callbacks.TerminateOnNaN(),
                timer,
            ],
        )
        train_loss = fitted.history["loss"][-1]
        if not np.isfinite(train_loss):
            raise Diverged(f"the loss was not finite in epoch {epoch + 1} of {recipe.epochs}")
        tested = trainer.evaluate(data.test_batches(256), verbose=0, return_dict=True)
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


class _StepTimer(tf.keras.callbacks.Callback):
    """Times training steps; evaluation, checkpoints and pauses between epochs are outside of them."""

    def __init__(self, on_step):
        super().__init__()
        self._on_step = on_step
        self._process = psutil.Process()
        self._steps = 0
        self._times_s = []
        self._peak_mib = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        elapsed_s = time.perf_counter() - self._start
        self._steps += 1
        if self._steps > WARM_UP_STEPS:
            self._times_s.append(elapsed_s)
        if self._steps % 10 == 0:
            self._peak_mib = max(self._peak_mib, self._process.memory_info().rss / 2**20)
        self._on_step()

    def take(self) -> dict[str, float | None]:
        """The figures since the last call; None where an epoch had no step after the warm-up."""
        times_s, self._times_s = self._times_s, []
        return {
            "train_step_time_ms": round(1e3 * statistics.median(times_s), 3) if times_s else None,
            "train_time_s": round(sum(times_s), 3) if times_s else None,
            "peak_process_memory_mib": round(self._peak_mib, 1) or None,
        }


def initial_model(build: Callable[[], tf.keras.Model], seed: int) -> tf.keras.Model:
    """A freshly initialised network; the same seed gives the same weights."""
    tf.keras.backend.clear_session()
    gc.collect()  # networks of earlier runs hold their graphs in reference cycles
    tf.keras.utils.set_random_seed(seed)
    return build()
