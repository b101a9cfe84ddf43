"""The training loop: epochs of a network on data by a recipe, from the last checkpoint to the end."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from bibench_tf import tasks, terminal
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

# The first steps of a process trace the graph and fill caches; they are not timed.
WARM_UP_STEPS = 5
_RECORD = "progress.json"
_TEMPORARY = ".tmp-"
# The weight of the loss on labels beside a teacher (BiBench's GLUE code).
_LABELS_SHARE = 0.5


@dataclass(frozen=True)
class Progress:
    """The record of a checkpoint: the number of completed epochs, and the metrics of each.

    `history` has a row for each epoch: `epoch`, `train_loss` (of the labels, without penalties and teachers),
    `train_accuracy` (where there are classes), `test_loss`, `accuracy` (the task's main metric on the test split), the
    task's further metrics by their names, times and memory. `metrics` are all test metrics of the last epoch.
    """

    epochs_completed: int
    checkpoint: str
    history: list[dict[str, int | float | None]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


class Diverged(Exception):
    """Raised when the training loss becomes NaN or infinite."""


@dataclass(frozen=True)
class Trainee:
    """The network that is trained, and the networks that take part in its training.

    `twin` is the same network in the recipe's precision where that is mixed: it makes the steps, and `model` gets its
    weights after every epoch, so that the network that is evaluated is the one that is saved. `teacher` is the frozen
    network that a distilling recipe learns from. With devices there is a twin at every precision, and both come from
    `Devices.replicated` or its scope.
    """

    model: tf.keras.Model
    twin: tf.keras.Model | None = None
    teacher: tf.keras.Model | None = None

    @property
    def stepped(self) -> tf.keras.Model:
        """The network whose weights the steps change."""
        return self.model if self.twin is None else self.twin

    def update_model(self) -> None:
        """Give `model` the weights of its twin, if there is one."""
        if self.twin is not None:
            self.model.set_weights(self.twin.get_weights())


@dataclass(frozen=True)
class Execution:
    """How training steps are executed; the options change times, and nothing that is learnt but rounding.

    `devices` share every batch. `xla` compiles the steps. Keras makes `steps_per_execution` steps before it returns to
    Python, except for a recipe whose learning rate changes from step to step.
    """

    devices: Devices | None = None
    xla: bool = False
    steps_per_execution: int = 1


@dataclass(frozen=True)
class Hooks:
    """Functions called after every step and every epoch, a folder for TensorBoard's logs, and the clock of the steps.

    A training that starts from a checkpoint calls `on_step` for the steps of that checkpoint too.
    """

    on_step: Callable[[], object] = lambda: None
    on_epoch: Callable[[Progress], None] = lambda progress: None
    logs: Path | None = None
    clock: Callable[[], float] = time.perf_counter


HERE = Execution()
NO_HOOKS = Hooks()


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
    trainee: Trainee,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    execution: Execution = HERE,
    hooks: Hooks = NO_HOOKS,
) -> Progress:
    """Train a network in place, from the checkpoint in `folder` if it has one, to the last epoch of the recipe.

    The loss, and the test metrics after every epoch, are those of the data's task. After every epoch the state is
    written to `folder`: the rest of the training depends on that state, the seed and the data alone. Raises Diverged
    when the loss is not finite, StorageError when the state cannot be written, and BibenchError when the data have
    changed while an epoch read them; that epoch is not kept.
    """
    model, devices, task = trainee.model, execution.devices, tasks.get(data.task)
    if trainee.twin is not None:
        trainee.twin.set_weights(model.get_weights())
    with scope(devices):
        trainer = _compiled(trainee, data, recipe, execution)
    predict = inference(model, data)
    checkpoint = tf.train.Checkpoint(model=trainee.stepped, optimizer=trainer.optimizer)
    progress = _restore(checkpoint, folder, epochs=recipe.epochs)
    trainee.update_model()
    steps_per_epoch = data.train_examples // recipe.batch_size
    for _ in range(progress.epochs_completed * steps_per_epoch):
        hooks.on_step()
    epoch_logs = None if hooks.logs is None else EpochLogs(hooks.logs, recipe, progress.history)
    timer = _StepTimer(hooks)
    at_random = any(map(_draws_at_random, trainer.submodules))
    for epoch in range(progress.epochs_completed, recipe.epochs):
        if at_random:
            # Random layers count their calls. The count starts here, so that an epoch after a checkpoint equals one
            # without a break. Not for other networks: TensorFlow then prepares its functions again, for about a second.
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
        ).history
        if not np.isfinite(fitted["loss"][-1]):
            raise Diverged(f"the loss was not finite in epoch {epoch + 1} of {recipe.epochs}")
        if devices is not None:
            correct_variances(trainee.stepped, model, recipe.batch_size, steps_per_epoch)
        trainee.update_model()
        metrics = evaluate(predict, data)
        data.check_unchanged()
        further = dict(metrics)
        row = {
            "epoch": epoch + 1,
            "train_loss": float(fitted["label_loss"][-1]),
            **({"train_accuracy": float(fitted["accuracy"][-1])} if "accuracy" in fitted else {}),
            "test_loss": further.pop("loss", None),
            "accuracy": further.pop(task.metric(data)),
            **further,
            **timer.take(),
        }
        if epoch_logs is not None:
            # Before the checkpoint: an epoch with a checkpoint is in the logs, and a repeated epoch repeats its values.
            epoch_logs.write(row)
        progress = _save(checkpoint, folder, Progress(epoch + 1, "", [*progress.history, row], metrics))
        hooks.on_epoch(progress)
    return progress


def _draws_at_random(layer: tf.Module) -> bool:
    """Whether a layer is a dropout with a rate above 0, or declares `draws_at_random`."""
    if isinstance(layer, tf.keras.layers.Dropout):
        return layer.rate > 0
    return isinstance(layer, DrawsAtRandom) and layer.draws_at_random


def _train_batches(
    task: Task, data: Dataset, recipe: Recipe, devices: Devices | None, **order: int
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """The batches of an epoch in the form that the training graph takes, divided among the devices, if any."""
    if devices is None:
        return task.training_batches(data.train_batches(recipe.batch_size, augment=recipe.augment, **order))

    def parts(part: int, count: int) -> tf.data.Dataset:
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
    return {name: float(value) for name, value in evaluation.metrics().items()}


def _compiled(trainee: Trainee, data: Dataset, recipe: Recipe, execution: Execution) -> tf.keras.Model:
    """A second model on the same layers with optimizer and metrics, so that the network is saved without them."""
    task, model, teacher = tasks.get(data.task), trainee.stepped, trainee.teacher
    inputs, outputs = task.training_graph(model)
    if outputs.dtype != tf.float32:
        # Sixteen bits are too few for the loss, a logarithm of sums of exponentials.
        outputs = tf.keras.layers.Activation("linear", dtype="float32", name="float32_outputs")(outputs)
    if teacher is not None:
        teacher.trainable = False
        outputs = _Distillation(task, data)([teacher(model.input, training=False), outputs])
    trainer = tf.keras.Model(inputs, outputs)
    if recipe.weight_decay and recipe.optimizer not in optimizers.DECOUPLED:
        # The penalty is on latent weights: outside a layer's call Larq's variables have their latent values.
        trainer.add_loss(lambda: recipe.weight_decay * tf.add_n([tf.nn.l2_loss(w) for w in model.trainable_weights]))
    loss = task.loss(data)

    def label_loss(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
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
        jit_compile=execution.xla,
        steps_per_execution=1 if recipe.changes_every_step else execution.steps_per_execution,
    )
    if isinstance(trainer.optimizer, tf.keras.optimizers.Optimizer):  # those of Addons cannot be built
        trainer.optimizer.build(trainer.trainable_variables)
    return trainer


class _Distillation(tf.keras.layers.Layer):
    """Adds the distance of the outputs from those of a teacher to the loss; returns the outputs unchanged."""

    def __init__(self, task: Task, data: Dataset) -> None:
        super().__init__(name="distillation", dtype="float32")
        self._loss_of = lambda teacher, outputs: task.distillation_loss(data, teacher, outputs)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        teacher, outputs = inputs
        self.add_loss(self._loss_of(teacher, outputs))
        return outputs


def _restore(checkpoint: tf.train.Checkpoint, folder: Path, epochs: int) -> Progress:
    """Restore the newest checkpoint that passes its checksums; the others are named on stderr.

    A start from an earlier checkpoint, or without one, takes longer and gives the same numbers.
    """
    for left in folder.glob(f"{_TEMPORARY}*"):  # left by a process that was killed
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
        terminal.message(f"bibench: {path} is damaged and not used; trying to {then}.")
    return Progress(epochs_completed=0, checkpoint="")


def _is_readable(state: str) -> bool:
    """Read all tensors once, which checks their checksums, so that no network is restored in part."""
    try:
        reader = tf.train.load_checkpoint(state)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError):
        return False
    return True


def _save(checkpoint: tf.train.Checkpoint, folder: Path, progress: Progress) -> Progress:
    """Write weights and record to a temporary folder, rename it, then delete all but the newest two checkpoints.

    Raises StorageError.
    """
    name = checkpoints.name_of(progress.epochs_completed)
    progress = dataclasses.replace(progress, checkpoint=name)
    temporary = None
    try:
        temporary = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        temporary.mkdir()
        checkpoint.write(str(temporary / "state"))
        records.write(temporary / _RECORD, progress, environment=environment.describe())
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

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        super().__init__()
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch
        self._set(epoch)

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if self._recipe.changes_every_step and batch:
            self._set(self._epoch + batch / self._steps_per_epoch)

    def _set(self, epoch: float) -> None:
        tf.keras.backend.set_value(self.model.optimizer.lr, learning_rate(self._recipe, epoch))


class _StepTimer(tf.keras.callbacks.Callback):
    """Times training steps alone, without evaluation, checkpoints, pauses and `on_step`.

    The waiting for the next batch is a part of a step. If Keras makes several steps in one execution, each step counts
    as an equal share of it.
    """

    def __init__(self, hooks: Hooks) -> None:
        super().__init__()
        self._on_step = hooks.on_step
        self._clock = hooks.clock
        self._steps = 0
        self._times_s: list[float] = []
        self._energy = EnergyMeter()
        self._memory = PeakMemory()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._memory.start()

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        self._first = batch
        self._energy.start()
        self._start = self._clock()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
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

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
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
    """A newly initialised network; the same seed gives the same weights, whatever the process did before."""
    forget_networks()
    # A layer of Larq's own leaves its scope open where its call fails, and weights would be read and saved as signs.
    lq.context.quantized_scope(False).__enter__()
    tf.keras.utils.set_random_seed(seed)
    return build()


def in_precision(build: Callable[[], tf.keras.Model], precision: Precision) -> tf.keras.Model:
    """The network that `build` makes, with layers that compute at `precision`; its weights are always float32."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(precision)
    try:
        return build()
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
