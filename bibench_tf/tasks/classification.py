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

    Loss: softmax cross-entropy. Main metric: top-1 accuracy; top-5 where there are more than five classes.
    """

    def metric(self, data: Any) -> str:
        """Top-1 accuracy."""
        return TOP1

    def evaluation(self, data: Any) -> Evaluation:
        """Cross-entropy, top-1 and top-5 accuracy."""
        return ClassificationEvaluation(data.num_classes)

    def predictions(self, data: Any, outputs: np.ndarray) -> pd.DataFrame:
        """The most probable class, its name and its probability."""
        import pandas as pd

        best = outputs.argmax(axis=1)
        return pd.DataFrame(
            {
                "label": best,
                "class": [data.class_names[label] for label in best],
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
        self._correct[1] += int((outputs.argmax(axis=1) == labels).sum())
        # Ties rank the label last, so a constant output scores 0.
        better = (outputs >= outputs[rows, labels][:, np.newaxis]).sum(axis=1) - 1
        self._correct[5] += int((better < 5).sum())

    def metrics(self) -> dict[str, float]:
        """Mean cross-entropy, and accuracies from 0 to 1."""
        metrics = {"loss": self._loss / self._examples, TOP1: self._correct[1] / self._examples}
        return metrics | ({"top-5 accuracy": self._correct[5] / self._examples} if self._top5 else {})


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the softmax probabilities of logits (..., classes), float64."""
    from scipy.special import log_softmax as scipy_log_softmax

    return scipy_log_softmax(logits.astype(np.float64), axis=-1)
