"""What a task is: the loss, the figures and the form of predictions, stated once for every data set of its kind."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from bibench_tf.datasets import Dataset


class Evaluation(abc.ABC):
    """The figures of a network on a test split, gathered batch by batch."""

    @abc.abstractmethod
    def update(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Take in a batch: the labels of the data set and what the network gives for its inputs (float32)."""

    @abc.abstractmethod
    def figures(self) -> dict[str, float]:
        """The figures over all batches by name, `loss` and the task's main figure among them."""


class Task(abc.ABC):
    """What is learnt from a kind of data.

    `group` is the group of networks BiBench counts its networks to: `cnn`, `transformer` or `mlp`.
    `network` is what `bibench` takes where none is named, NAME or NAME@WIDTH.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    group: ClassVar[str]
    network: ClassVar[str]

    @abc.abstractmethod
    def metric(self, data: Dataset) -> str:
        """The name of the main figure, the one BiBench calls accuracy; at most 1, and more is better."""

    def loss(self, data: Dataset) -> tf.keras.losses.Loss:
        """The training loss, of labels and of what the network gives: the softmax cross-entropy of logits.

        It is averaged over examples, or over all points of them.
        """
        import tensorflow as tf

        return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def distillation_loss(self, data: Dataset, teacher: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """How far logits are from those of the teacher: the cross-entropy of their softmax distributions.

        -softmax(teacher) log softmax(outputs), averaged over examples and classes, as BiBench does (its GLUE code).
        """
        import tensorflow as tf

        return -tf.reduce_mean(tf.nn.softmax(teacher) * tf.nn.log_softmax(outputs))

    @abc.abstractmethod
    def evaluation(self, data: Dataset) -> Evaluation:
        """An empty evaluation."""

    @abc.abstractmethod
    def predictions(self, data: Dataset, outputs: np.ndarray) -> pd.DataFrame:
        """What the outputs of a network say, a row for each example."""
