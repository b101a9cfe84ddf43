"""What a task is: the loss, the figures and the form of predictions, stated once for every data set of its kind."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from bibench_tf.datasets import Dataset


# What a network gives for a batch: float32, or arrays by the name of the network's output.
Outputs = np.ndarray | Mapping[str, np.ndarray]


class Evaluation(abc.ABC):
    """The figures of a network on a test split, gathered batch by batch."""

    @abc.abstractmethod
    def update(self, labels: np.ndarray, outputs: Outputs) -> None:
        """Take in a batch: the labels of the data set and what the network gives for its inputs."""

    @abc.abstractmethod
    def metrics(self) -> dict[str, float]:
        """The figures over all batches by name, the task's main metric among them, and `loss` where there is one."""


class Task(abc.ABC):
    """What is learnt from a kind of data.

    `group` is the group of networks BiBench counts its networks to: `cnn`, `transformer` or `mlp`.
    `network` is what `bibench` takes where none is named, NAME or NAME@WIDTH. `gives_logits` says whether networks
    give a logit for each class. Tests are made in batches of `test_batch` examples.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    group: ClassVar[str]
    network: ClassVar[str]
    gives_logits: ClassVar[bool] = True
    test_batch: ClassVar[int] = 256

    @abc.abstractmethod
    def metric(self, data: Dataset) -> str:
        """The name of the main metric, the one BiBench calls accuracy; at most 1, and more is better."""

    def loss(self, data: Dataset) -> tf.keras.losses.Loss:
        """The training loss, of labels and of what the training graph gives: the softmax cross-entropy of logits.

        It is averaged over examples, or over all points of them.
        """
        import tensorflow as tf

        return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def training_graph(self, model: tf.keras.Model) -> tuple[Any, tf.Tensor]:
        """The Keras inputs and the output of what is trained: those of the network itself, unless a task says more."""
        return model.input, model.outputs[0]

    def training_batches(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches (inputs, labels) of a data set in the form that the training graph takes."""
        return batches

    def distillation_loss(self, data: Dataset, teacher: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """How far logits are from those of the teacher: the cross-entropy of their softmax distributions.

        -softmax(teacher) log softmax(outputs), averaged over examples and classes, as BiBench does (its GLUE code).
        """
        import tensorflow as tf

        return -tf.reduce_mean(tf.nn.softmax(teacher) * tf.nn.log_softmax(outputs))

    def differences(self, expected: Any, given: Any) -> np.ndarray:
        """How far outputs of another form of a network are from the expected ones: float [B], one for each example.

        The largest difference in the example, relative to the range of all expected outputs.
        """
        return np.abs(expected - given).reshape(len(expected), -1).max(axis=1) / np.ptp(expected)

    def agreement(self, expected: Any, given: Any) -> float | None:
        """The share of answers of another form of a network that are the expected ones; None for numbers."""
        if expected.shape[-1] == 1:
            return None
        return float(np.mean(expected.argmax(axis=-1) == given.argmax(axis=-1)))

    @abc.abstractmethod
    def evaluation(self, data: Dataset) -> Evaluation:
        """An empty evaluation."""

    @abc.abstractmethod
    def predictions(self, data: Dataset, outputs: Outputs) -> pd.DataFrame:
        """What the outputs of a network say, a row for each example."""
