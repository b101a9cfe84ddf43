"""The training of one run: epochs from a checkpoint to the end, and nothing about where runs come from."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bibench_tf import tasks
from bibench_tf.algorithms import ScheduleCallback
from bibench_tf.datasets import Dataset
from bibench_tf.errors import StorageError
from bibench_tf.operations import DrawsAtRandom
from bibench_tf.recipes import Precision, Recipe, learning_rate
from bibench_tf.results import checkpoints, environment, records
from bibench_tf.tasks import Task
from bibench_tf.training import optimizers
from bibench_tf.training.distribution import Devices, correct_variances, scope
from bibench_tf.training.energy import EnergyMeter
from bibench_tf.training.memory import PeakMemory, forget_networks
from bibench_tf.training.tensorboard import EpochLogs

# The first steps of a process trace the graph and warm caches; they say nothing about the cost of a step.
WARM_UP_STEPS = 5
_RECORD = "progress.json"
_TEMPORARY = ".tmp-"
# The weight of the loss on labels beside a teacher (BiBench's GLUE code).
_LABELS_SHARE = 0.5


@dataclass(frozen=True)
class Progress:
    """What a checkpoint knows beside the weights: how many epochs are done, and the metrics of each.

    `history` has a row for each epoch: `epoch`, `train_loss` (of the labels, without penalties and teachers),
    `train_accuracy` (where there are classes), `test_loss`, `accuracy` (the task's main metric on the test split), the
    task's further metrics by their names, times and memory. `metrics` are all test metrics of the last epoch.
    """

    epochs_completed: int
    checkpoint: str
    history: list[dict[str, float | None]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


class Diverged(Exception):
    """The loss is not a number any more."""


def copy_weights(source: tf.keras.Model, target: tf.keras.Model) -> int:
    """Copy weights between layers of the same name where their names and shapes agree; returns how many.

    Shapes agree as well where they differ in axes of size 1, and kernels where one layer calls its own depthwise: a
    layer of Keras and the binary convolution in its place hold the same numbers in the same order.
    """
    copied = 0
    donors = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        if layer.name not in donors:
            continue
        values = {_name_within(donors[layer.name], weight): weight for weight in donors[layer.name].weights}
        for weight in layer.weights:
            value = values.get(_name_within(layer, weight))
            if value is not None and _without_ones(value.shape) == _without_ones(weight.shape):
                weight.assign(value.numpy().reshape(weight.shape))
                copied += 1
    return copied


def _name_within(layer: tf.keras.layers.Layer, weight: tf.Variable) -> str:
    return weight.name.rpartition(f"{layer.name}/")[2].replace("depthwise_kernel", "kernel")


def _without_ones(shape: tf.TensorShape) -> list[int]:
    return [size for size in shape if size != 1]


def train(
    model: tf.keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    teacher: tf.keras.Model | None = None,
    twin: tf.keras.Model | None = None,
    devices: Devices | None = None,
    logs: Path | None = None,
    xla: bool = False,
    steps_per_execution: int = 1,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Progress:
    """Train `model` in place, from the checkpoint in `folder` if it has one, to the last epoch of the recipe.

    The loss, and the test metrics after every epoch, are those of the data's task. `teacher` is the network that a
    recipe which distils learns from; it is frozen. `twin` is the same network in the recipe's precision where that is
    mixed: it makes the steps, and `model` gets its weights after every epoch, so that what is evaluated is what is
    saved. With `devices` batches are spread over these, and there is a twin at every precision; it and the teacher come
    from `Devices.replicated`. `logs` is a folder for TensorBoard. After every epoch the state is written to `folder`:
    what is trained next is then a function of that state, the seed and the data alone. A recipe whose rate changes from
    step to step is trained step by step whatever `steps_per_execution` says. Raises Diverged when the loss is not
    finite.
    """
    task = tasks.get(data.task)
    trained = model
    if twin is not None:
        twin.set_weights(model.get_weights())
        trained = twin
    with scope(devices):
        trainer = _compiled(
            trained, data, recipe, teacher, xla=xla, steps=1 if recipe.changes_every_step else steps_per_execution
        )
    predict = inference(model, data)
    checkpoint = tf.train.Checkpoint(model=trained, optimizer=trainer.optimizer)
    progress = _restore(checkpoint, folder, epochs=recipe.epochs)
    if twin is not None:
        model.set_weights(twin.get_weights())
    steps_per_epoch = data.train_examples // recipe.batch_size
    for _ in range(progress.epochs_completed * steps_per_epoch):
        on_step()
    epoch_logs = None if logs is None else EpochLogs(logs, recipe, progress.history)
    timer = _StepTimer(on_step, clock)
    at_random = any(map(_draws_at_random, trainer.submodules))
    for epoch in range(progress.epochs_completed, recipe.epochs):
        if at_random:
            # Random layers count their calls: from here, so that an epoch after a checkpoint is as without a break.
            # Other networks are spared this, because TensorFlow then prepares its functions anew, for a second or so.
            tf.random.set_seed(seed if devices is None else seed + devices.worker)
        fitted = trainer.fit(
            _train_batches(task, data, recipe, devices, seed=seed, epoch=epoch),
            steps_per_epoch=None if devices is None else steps_per_epoch,
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[
                ScheduleCallback(epochs=recipe.epochs),
                _LearningRate(recipe, steps_per_epoch),
                tf.keras.callbacks.TerminateOnNaN(),
                timer,
            ],
        )
        train_loss = fitted.history["loss"][-1]
        if not np.isfinite(train_loss):
            raise Diverged(f"the loss was not finite in epoch {epoch + 1} of {recipe.epochs}")
        if devices is not None:
            correct_variances(twin, model, recipe.batch_size, steps_per_epoch)
        if twin is not None:
            model.set_weights(twin.get_weights())
        metrics = evaluate(predict, data)
        further = dict(metrics)
        row = {
            "epoch": epoch + 1,
            "train_loss": float(fitted.history["label_loss"][-1]),
            **({"train_accuracy": float(fitted.history["accuracy"][-1])} if "accuracy" in fitted.history else {}),
            "test_loss": further.pop("loss", None),
            "accuracy": further.pop(task.metric(data)),
            **further,
            **timer.take(),
        }
        if epoch_logs is not None:
            # Before the checkpoint: an epoch that has one is in the logs, and one that is repeated repeats its numbers.
            epoch_logs.write(row)
        progress = _save(checkpoint, folder, Progress(epoch + 1, "", [*progress.history, row], metrics))
        on_epoch(progress)
    return progress


def _draws_at_random(layer: tf.Module) -> bool:
    """Whether a layer is a dropout with a rate above 0, or declares `draws_at_random`."""
    if isinstance(layer, tf.keras.layers.Dropout):
        return layer.rate > 0
    return isinstance(layer, DrawsAtRandom) and layer.draws_at_random


def _train_batches(task, data, recipe, devices, **order):
    """The batches of an epoch, as the training graph takes them, shared out among devices if there are some."""
    if devices is None:
        return task.training_batches(data.train_batches(recipe.batch_size, augment=recipe.augment, **order))

    def parts(part, count):
        batches = data.train_parts(recipe.batch_size, part, count, augment=recipe.augment, **order)
        return task.training_batches(batches)

    return devices.spread(parts, recipe.batch_size)


def inference(model: tf.keras.Model, data: Dataset) -> Callable[[Any], tf.Tensor]:
    """The network as one traced function of batches of the data's inputs: its output, or outputs by name."""
    inputs, _ = data.test_batches(tasks.get(data.task).test_batch).element_spec
    return tf.function(lambda batch: model(batch, training=False), input_signature=[inputs])


def evaluate(predict: Callable[[Any], tf.Tensor], data: Dataset) -> dict[str, float]:
    """The metrics of the data's task on the test split."""
    task = tasks.get(data.task)
    evaluation = task.evaluation(data)
    for inputs, labels in data.test_batches(task.test_batch):
        evaluation.update(labels.numpy(), tf.nest.map_structure(lambda output: output.numpy(), predict(inputs)))
    return {name: float(figure) for name, figure in evaluation.metrics().items()}


def _compiled(
    model: tf.keras.Model,
    data: Dataset,
    recipe: Recipe,
    teacher: tf.keras.Model | None = None,
    *,
    xla: bool,
    steps: int,
) -> tf.keras.Model:
    """A second model on the same layers, which carries optimizer and metrics, so that `model` is saved without."""
    task = tasks.get(data.task)
    inputs, outputs = task.training_graph(model)
    if outputs.dtype != tf.float32:
        # The loss is a logarithm of sums of exponentials, for which 16 bits are too few.
        outputs = tf.keras.layers.Activation("linear", dtype="float32", name="float32_outputs")(outputs)
    if teacher is not None:
        teacher.trainable = False
        outputs = _Distillation(task, data)([teacher(model.input, training=False), outputs])
    trainer = tf.keras.Model(inputs, outputs)
    if recipe.weight_decay and recipe.optimizer not in optimizers.DECOUPLED:
        # The penalty is on latent weights: outside a layer's call Larq's variables read as what they hold.
        trainer.add_loss(lambda: recipe.weight_decay * tf.add_n([tf.nn.l2_loss(w) for w in model.trainable_weights]))
    loss = task.loss(data)

    def label_loss(labels, outputs):
        return loss(labels, outputs)

    # The variables of metrics and optimizer are made here: Keras makes them in the first step, which TensorFlow then
    # traces a second time.
    trainer.compile(
        optimizers.for_recipe(recipe),
        loss=loss,
        loss_weights=None if teacher is None else _LABELS_SHARE,
        metrics=[
            tf.keras.metrics.MeanMetricWrapper(label_loss, name="label_loss"),
            *(
                [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")]
                if task.gives_logits and data.class_names
                else []
            ),
        ],
        jit_compile=xla,
        steps_per_execution=steps,
    )
    if hasattr(trainer.optimizer, "build"):  # those of Addons have none
        trainer.optimizer.build(trainer.trainable_variables)
    return trainer


class _Distillation(tf.keras.layers.Layer):
    """Adds to the loss how far outputs are from those of a teacher, and passes them on."""

    def __init__(self, task: Task, data: Dataset):
        super().__init__(name="distillation", dtype="float32")
        self._loss_of = lambda teacher, outputs: task.distillation_loss(data, teacher, outputs)

    def call(self, inputs):
        teacher, outputs = inputs
        self.add_loss(self._loss_of(teacher, outputs))
        return outputs


def _restore(checkpoint: tf.train.Checkpoint, folder: Path, epochs: int) -> Progress:
    """The newest checkpoint that passes its checksums; one that does not is named on stderr.

    A start from an earlier one, or from none, costs time and never gives a wrong number.
    """
    for left in folder.glob(f"{_TEMPORARY}*"):  # of a process that was killed
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    saved = checkpoints.names(folder)
    for number, name in enumerate(saved):
        path = folder / name
        try:
            progress = records.read(path / _RECORD, Progress)
        except records.RecordError:
            progress = None
        if progress is not None and progress.epochs_completed > epochs:
            continue
        if progress is not None and _is_readable(str(path / "state")):
            checkpoint.read(str(path / "state"))
            return progress
        then = f"go on from {saved[number + 1]}" if number + 1 < len(saved) else "start again"
        print(f"bibench: {path} is damaged and not used; trying to {then}.", file=sys.stderr)
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


def _save(checkpoint: tf.train.Checkpoint, folder: Path, progress: Progress) -> Progress:
    """Write weights and record to a folder beside, rename it, then drop all but this checkpoint and the one before.

    Raises StorageError when it cannot be written.
    """
    name = checkpoints.name_of(progress.epochs_completed)
    progress = dataclasses.replace(progress, checkpoint=name)
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))
        checkpoint.write(str(temporary / "state"))
        records.write(temporary / _RECORD, progress, environment=environment.describe())
        temporary.chmod(0o755)
        shutil.rmtree(folder / name, ignore_errors=True)  # a damaged one
        temporary.rename(folder / name)
    except (OSError, tf.errors.OpError) as error:
        raise StorageError.of(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    checkpoints.keep(folder, 2)
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
        if self._recipe.changes_every_step and batch:
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
        self._values = {"peak_process_memory_mib": self._memory.process_mib()}
        if (gpu_mib := self._memory.gpu_mib()) is not None:
            self._values["peak_gpu_memory_mib"] = gpu_mib

    def take(self) -> dict[str, float | None]:
        """The metrics of the last epoch; None where it had no step after the warm-up."""
        times_s, self._times_s = self._times_s, []
        joules = self._energy.joules
        self._energy.clear()
        return {
            "train_step_time_ms": round(1e3 * statistics.median(times_s), 3) if times_s else None,
            "train_time_s": round(sum(times_s), 3) if times_s else None,
            "energy_j": round(joules, 3) if times_s and joules is not None else None,
            **self._values,
        }


def initial_model(build: Callable[[], tf.keras.Model], seed: int) -> tf.keras.Model:
    """A freshly initialised network; the same seed gives the same weights."""
    forget_networks()
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
