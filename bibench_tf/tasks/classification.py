"""Classification of images, point clouds and sounds: one class for each example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bibench_tf.tasks.base import Evaluation, Task

if TYPE_CHECKING:
    import pandas as pd

    from bibench_tf.datasets import Dataset

TOP1 = "top-1 accuracy"


class Classification(Task):
    """One of the data set's classes for each example; networks give logits [B, classes], labels are int32 [B].

    Loss: softmax cross-entropy. Main figure: top-1 accuracy; top-5 where there are more than five classes.
    """

    def metric(self, data: Dataset) -> str:
        """Top-1 accuracy."""
        return TOP1

    def evaluation(self, data: Dataset) -> ClassificationEvaluation:
        """Cross-entropy, top-1 and top-5 accuracy."""
        return ClassificationEvaluation(data.num_classes)

    def predictions(self, data: Dataset, outputs: np.ndarray) -> pd.DataFrame:
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


class ImageClassification(Classification):
    """Images (B, H, W, C): Fashion-MNIST, CIFAR-10, ImageNet."""

    key = "image_classification"
    title = "Image classification"
    group = "cnn"
    network = "resnet20@0.5"


class PointClassification(Classification):
    """Point clouds (B, N, C): ModelNet40."""

    key = "point_classification"
    title = "Point-cloud classification"
    group = "mlp"
    network = "pointnet_vanilla@0.25"


class KeywordSpotting(Classification):
    """Spoken words as log-mel spectrograms (B, T, F, 1): Speech Commands."""

    key = "keyword_spotting"
    title = "Keyword spotting"
    group = "mlp"
    network = "dfsmn_small@0.5"


class ClassificationEvaluation(Evaluation):
    """Cross-entropy and accuracies of logits."""

    def __init__(self, num_classes: int):
        """Start with no examples."""
        self._top5 = num_classes > 5
        self._examples = 0
        self._loss = 0.0
        self._correct = {1: 0, 5: 0}

    def update(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Take in labels [B] and logits [B, classes]."""
        self._examples += len(labels)
        rows = np.arange(len(labels))
        self._loss -= float(log_softmax(outputs)[rows, labels].sum())
        self._correct[1] += int((outputs.argmax(axis=1) == labels).sum())
        # Among equals the label counts as the last, so that a network which says nothing is not right.
        better = (outputs >= outputs[rows, labels][:, np.newaxis]).sum(axis=1) - 1
        self._correct[5] += int((better < 5).sum())

    def metrics(self) -> dict[str, float]:
        """Mean cross-entropy, and accuracies from 0 to 1."""
        figures = {"loss": self._loss / self._examples, TOP1: self._correct[1] / self._examples}
        return figures | ({"top-5 accuracy": self._correct[5] / self._examples} if self._top5 else {})


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the probabilities that logits (..., classes) stand for, float64."""
    from scipy.special import log_softmax as scipy_log_softmax

    return scipy_log_softmax(logits.astype(np.float64), axis=-1)
