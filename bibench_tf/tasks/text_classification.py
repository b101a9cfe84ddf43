"""Classification of sentences and of pairs of sentences, and regression for the one data set of GLUE with numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bibench_tf.datasets.kinds.texts import ACCURACY, ACCURACY_F1, F1, MATTHEWS, PEARSON, SPEARMAN
from bibench_tf.tasks.base import Evaluation, register
from bibench_tf.tasks.classification import Classification, answers, log_softmax

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from bibench_tf.datasets.kinds.texts import TextDataset


@register
class TextClassification(Classification):
    """A class or a number for each sentence or pair of sentences: GLUE.

    Networks give logits [B, classes] for labels int32 [B], or, for a data set without classes, numbers [B, 1] for
    labels float32 [B]. Loss: softmax cross-entropy, or the mean squared error. Metrics: those of the data set
    (`TextDataset.metrics`), the main one first.
    """

    key = "text_classification"
    title = "Text classification"
    group = "transformer"
    network = "bert_tiny2@0.5"
    default_data = "sentiment_mini"
    takes_vocabulary = True

    def metric(self, data: TextDataset) -> str:
        """The first metric of the data set."""
        return data.metrics[0]

    def loss(self, data: TextDataset) -> tf.keras.losses.Loss:
        """Softmax cross-entropy of logits, or the mean squared error of numbers."""
        import tensorflow as tf

        return super().loss(data) if data.class_names else tf.keras.losses.MeanSquaredError()

    def distillation_loss(self, data: TextDataset, teacher: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The cross-entropy of softmax distributions, or the mean squared difference of numbers."""
        import tensorflow as tf

        if data.class_names:
            return super().distillation_loss(data, teacher, outputs)
        return tf.reduce_mean(tf.math.squared_difference(teacher, outputs))

    def evaluation(self, data: TextDataset) -> Evaluation:
        """The loss, and the metrics of the data set."""
        return TextEvaluation(data.num_classes, data.metrics) if data.class_names else NumberEvaluation(data.metrics)

    def predictions(self, data: TextDataset, outputs: np.ndarray) -> pd.DataFrame:
        """The most probable class, its name and its probability; or the number as `score`."""
        import pandas as pd

        return super().predictions(data, outputs) if data.class_names else pd.DataFrame({"score": outputs[:, 0]})


class TextEvaluation(Evaluation):
    """Cross-entropy of logits, and metrics of the chosen classes."""

    def __init__(self, num_classes: int, metrics: tuple[str, ...]) -> None:
        """Start with no examples."""
        self._metrics = metrics
        self._loss = 0.0
        # The last row and column are those of -1, no class.
        self._confusion = np.zeros((num_classes + 1, num_classes + 1), np.int64)

    def update(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Add labels [B] and logits [B, classes]."""
        self._loss -= float(log_softmax(outputs)[np.arange(len(labels)), labels].sum())
        np.add.at(self._confusion, (labels, answers(outputs)), 1)

    def metrics(self) -> dict[str, float]:
        """Mean cross-entropy, and the metrics of the data set."""
        return {"loss": self._loss / int(self._confusion.sum())} | {
            name: _OF_CLASSES[name](self._confusion) for name in self._metrics
        }


class NumberEvaluation(Evaluation):
    """Mean squared error and correlations of numbers."""

    def __init__(self, metrics: tuple[str, ...]) -> None:
        """Start with no examples."""
        self._metrics = metrics
        self._labels: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []

    def update(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Add labels [B] and numbers [B, 1]."""
        self._labels.append(np.asarray(labels, np.float64))
        self._outputs.append(outputs[:, 0].astype(np.float64))

    def metrics(self) -> dict[str, float]:
        """Mean squared error, and the metrics of the data set."""
        labels, outputs = np.concatenate(self._labels), np.concatenate(self._outputs)
        return {"loss": float(np.mean((labels - outputs) ** 2))} | {
            name: _OF_NUMBERS[name](labels, outputs) for name in self._metrics
        }


def accuracy(confusion: np.ndarray) -> float:
    """The share of right answers; `confusion` [classes, classes] counts labels by row and answers by column."""
    return float(np.trace(confusion) / confusion.sum())


def f1(confusion: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN) of class 1 among two; 0 where class 1 is neither a label nor an answer."""
    both = confusion[1].sum() + confusion[:, 1].sum()
    return float(2 * confusion[1, 1] / both) if both else 0.0


def matthews(confusion: np.ndarray) -> float:
    """Matthews' correlation of labels and answers, in its form for any number of classes.

    (c s - sum_k t_k p_k) / sqrt((s^2 - sum_k t_k^2) (s^2 - sum_k p_k^2)), with s examples, c right answers, t_k
    labels and p_k answers of class k. 0 where all labels or all answers are the same. Source: Gorodkin 2004,
    "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    # As floats: the products of large test splits have more than 64 bits.
    labels, answers = confusion.sum(axis=1).astype(np.float64), confusion.sum(axis=0).astype(np.float64)
    examples = labels.sum()
    spread = np.sqrt((examples**2 - labels @ labels) * (examples**2 - answers @ answers))
    return float((np.trace(confusion) * examples - labels @ answers) / spread) if spread else 0.0


def pearson(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Pearson's correlation of two series; 0 where one is constant or not finite."""
    from scipy.stats import pearsonr

    return float(pearsonr(labels, outputs).statistic) if _vary(labels, outputs) else 0.0


def spearman(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Spearman's rank correlation of two series, ties share their mean rank; 0 as in `pearson`."""
    from scipy.stats import spearmanr

    return float(spearmanr(labels, outputs).statistic) if _vary(labels, outputs) else 0.0


def _vary(*series: np.ndarray) -> bool:
    return all(np.isfinite(values).all() and np.ptp(values) > 0 for values in series)


_OF_CLASSES = {
    ACCURACY: accuracy,
    F1: f1,
    ACCURACY_F1: lambda confusion: (accuracy(confusion) + f1(confusion)) / 2,
    MATTHEWS: matthews,
}
_OF_NUMBERS = {PEARSON: pearson, SPEARMAN: spearman}
