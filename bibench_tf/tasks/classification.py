"""Base class of the tasks with one class for each example: images, point clouds, sounds and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.tasks.base import Evaluation, Task

if TYPE_CHECKING:
    import pandas as pd

TOP1 = "top-1 accuracy"


class Classification(Task):
    """One of the data set's classes for each example; networks give logits [B, classes], labels are int32 [B].

    Loss: softmax cross-entropy. Main metric: top-1 accuracy; top-5 where there are more than five classes. Classes are
    ranked by their logits, and equal ones by their number, as in `answers`: a network with constant logits has the
    accuracy of a constant answer, and top-5 is never below top-1. An example with a logit NaN is wrong in both.
    """

    def metric(self, data: Any) -> str:
        """Top-1 accuracy."""
        return TOP1

    def evaluation(self, data: Any) -> Evaluation:
        """Cross-entropy, top-1 and top-5 accuracy."""
        return ClassificationEvaluation(data.num_classes)

    def predictions(self, data: Any, outputs: np.ndarray) -> pd.DataFrame:
        """The most probable class, its name and its probability; -1, no name and NaN for logits with a NaN."""
        import pandas as pd

        best = answers(outputs)
        return pd.DataFrame(
            {
                "label": best,
                "class": [data.class_names[label] if label >= 0 else None for label in best],
                "probability": np.exp(log_softmax(outputs))[np.arange(len(best)), best],
            }
        )


class ClassificationEvaluation(Evaluation):
    """Cross-entropy and accuracies of logits."""

    def __init__(self, num_classes: int) -> None:
        """Start with no examples."""
        self._top5 = num_classes > 5
        self._examples = 0
        self._loss = 0.0
        self._correct = {1: 0, 5: 0}

    def update(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Add labels [B] and logits [B, classes]."""
        self._examples += len(labels)
        rows = np.arange(len(labels))
        self._loss -= float(log_softmax(outputs)[rows, labels].sum())
        self._correct[1] += int((answers(outputs) == labels).sum())
        own = outputs[rows, labels][:, np.newaxis]
        equal_before = (outputs == own) & (np.arange(outputs.shape[1]) < labels[:, np.newaxis])
        before = ((outputs > own) | equal_before).sum(axis=1)
        self._correct[5] += int(((before < 5) & ~np.isnan(outputs).any(axis=1)).sum())

    def metrics(self) -> dict[str, float]:
        """Mean cross-entropy, and accuracies from 0 to 1."""
        metrics = {"loss": self._loss / self._examples, TOP1: self._correct[1] / self._examples}
        return metrics | ({"top-5 accuracy": self._correct[5] / self._examples} if self._top5 else {})


def answers(logits: np.ndarray) -> np.ndarray:
    """The class (...) of the largest of logits (..., classes), the first of equals; -1, no class, where one is NaN."""
    return np.where(np.isnan(logits).any(axis=-1), -1, logits.argmax(axis=-1))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the softmax probabilities of logits (..., classes), float64."""
    from scipy.special import log_softmax as scipy_log_softmax

    return scipy_log_softmax(logits.astype(np.float64), axis=-1)
