"""The base classes of tasks and of their evaluations, and the registry of the tasks."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from bibench_tf.errors import InvalidOption
from bibench_tf.registry import Registry
from bibench_tf.stats import differences

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf
    from PIL import Image


class Evaluation(abc.ABC):
    """The metrics of a network on a test split, computed batch by batch."""

    @abc.abstractmethod
    def update(self, labels: np.ndarray, outputs: Any) -> None:
        """Add a batch: the labels of the data set, and the outputs of the network for its inputs."""

    @abc.abstractmethod
    def metrics(self) -> dict[str, float]:
        """The metrics of all batches by name, among them the task's main metric, and `loss` where there is one."""


class Task(abc.ABC):
    """A kind of learning, with all that tracks, reports and commands need of a task.

    In the methods `data` is a data set of the task, `outputs` are those of a network for a batch: a float32 array, or
    arrays by the name of the network's output.

    key, title: the name in the registry, and in reports.
    group: the group of networks in which BiBench counts those of the task: `cnn`, `transformer` or `mlp`.
    network: the default network, NAME or NAME@WIDTH.
    default_data: the data set inside the package for which the key of the task stands on the command line, if any.
    zoo_options: options of a network that is built without a data set, as in `zoo:NAME`.
    is_of_images: whether examples are single images (`ImageDataset`), which the robustness track can corrupt.
    takes_vocabulary: whether inputs are cut by a vocabulary, and networks may start from a BERT checkpoint.
    has_pictures: whether `draw_labels` and `draw_outputs` draw examples.
    unit: the word for an example in reports, such as `image`.
    class_metric: the beginning of the names of metrics of single classes, before the name of the class; empty if none.
    gives_logits: whether networks have a logit for each class.
    test_batch: the batch size of tests.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    group: ClassVar[str]
    network: ClassVar[str]
    default_data: ClassVar[str | None] = None
    zoo_options: ClassVar[Mapping[str, Any]] = {}
    is_of_images: ClassVar[bool] = False
    takes_vocabulary: ClassVar[bool] = False
    has_pictures: ClassVar[bool] = False
    unit: ClassVar[str] = "example"
    class_metric: ClassVar[str] = ""
    gives_logits: ClassVar[bool] = True
    test_batch: ClassVar[int] = 256

    @abc.abstractmethod
    def metric(self, data: Any) -> str:
        """The name of the main metric, the one BiBench calls accuracy; at most 1, and more is better."""

    def loss(self, data: Any) -> tf.keras.losses.Loss:
        """The training loss of labels and the output of the training graph: the softmax cross-entropy of logits.

        It is averaged over examples, or over all their points.
        """
        import tensorflow as tf

        return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def training_graph(self, model: tf.keras.Model) -> tuple[Any, tf.Tensor]:
        """The Keras inputs and the output of the training graph, by default those of the network itself."""
        return model.input, model.outputs[0]

    def training_batches(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches (inputs, labels) of a data set in the form that the training graph takes."""
        return batches

    def distillation_loss(self, data: Any, teacher: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The loss of logits against those of the teacher: the cross-entropy of their softmax distributions.

        -softmax(teacher) log softmax(outputs), averaged over examples and classes, as BiBench does (its GLUE code).
        """
        import tensorflow as tf

        return -tf.reduce_mean(tf.nn.softmax(teacher) * tf.nn.log_softmax(outputs))

    def differences(self, expected: Any, given: Any) -> np.ndarray:
        """The differences between the outputs of two forms of a network: float [B], one for each example.

        The largest difference in the example, relative to the spread of the expected outputs over the examples
        (`stats.differences.relative`); infinite where an output is not a finite number.
        """
        return differences.relative(expected, given)

    def agreement(self, expected: Any, given: Any) -> float | None:
        """The share of equal answers of two forms of a network, from 0 to 1; None where answers are numbers.

        Outputs that are not finite numbers give no answer, which is equal to none.
        """
        if expected.shape[-1] == 1:
            return None
        answered = np.isfinite(expected).all(axis=-1) & np.isfinite(given).all(axis=-1)
        return float(np.mean(answered & (expected.argmax(axis=-1) == given.argmax(axis=-1))))

    @abc.abstractmethod
    def evaluation(self, data: Any) -> Evaluation:
        """An empty evaluation."""

    @abc.abstractmethod
    def predictions(self, data: Any, outputs: Any) -> pd.DataFrame:
        """The answers of a network in its outputs, a row for each example."""

    def draw_labels(self, inputs: np.ndarray, labels: np.ndarray, data: Any) -> Image.Image:
        """The first example of a batch with its labels. Raises InvalidOption for tasks without pictures."""
        raise InvalidOption(f"{self.title} has no pictures.")

    def draw_outputs(self, inputs: np.ndarray, model: tf.keras.Model, data: Any) -> Image.Image:
        """The first example of a batch with the answers of `model`. Raises InvalidOption as `draw_labels` does."""
        raise InvalidOption(f"{self.title} has no pictures.")


TaskClass = TypeVar("TaskClass", bound=type[Task])
TASKS: Registry[Task] = Registry("task", "bibench_tf.tasks", Task)


def register(kind: TaskClass) -> TaskClass:
    """A class decorator that registers a task under its key. Raises InvalidOption where the key is taken."""
    TASKS.register(kind.key, kind(), origin=kind.__module__)
    return kind
