"""Data sets of texts: sentences and pairs of sentences with a class or a number each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bibench_tf.datasets.formats import wordpiece
from bibench_tf.datasets.formats.wordpiece import Vocabulary
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples
from bibench_tf.files import fingerprint_description

if TYPE_CHECKING:
    import tensorflow as tf

ACCURACY = "accuracy"
F1 = "F1"
ACCURACY_F1 = "mean of accuracy and F1"
MATTHEWS = "Matthews correlation"
PEARSON = "Pearson correlation"
SPEARMAN = "Spearman correlation"


class Texts(NamedTuple):
    """A split: sentences, the second sentences of pairs or None, and labels, int32 or, for numbers, float32."""

    first: Sequence[str]
    second: Sequence[str] | None
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class TextDataset(ArrayDataset):
    """Sentences, or pairs of them, with a class (int32) or, where there are no `class_names`, a number (float32).

    `metrics` are the names of the metrics, the main one first; see `bibench_tf.tasks.text_classification`. Batches
    are ({"token_ids": int32 [B, L], "segment_ids": int32 [B, L], "mask": float32 [B, L]}, labels [B]): segment 1
    is the second sentence of a pair, the mask is 1 for real pieces.
    """

    metrics: tuple[str, ...] = (ACCURACY,)


def dataset(
    *,
    class_names: tuple[str, ...],
    vocabulary: Path | None,
    sequence_length: int,
    fingerprint: Callable[[], str],
    load: Callable[[Vocabulary, int], Examples],
    **description: Any,
) -> TextDataset:
    """A data set of texts cut into the pieces of the file `vocabulary`, by default the embedded one.

    `load` gets the vocabulary and the sequence length, and returns the examples of `encoded`. `fingerprint` computes
    that of the texts; the data set's fingerprint also depends on the pieces and the sequence length. `description` are
    the other fields of `TextDataset`.
    """
    pieces = wordpiece.read(vocabulary)
    return TextDataset(
        task="text_classification",
        class_names=class_names,
        options={
            "sequence_length": sequence_length,
            "vocabulary_size": len(pieces.pieces),
            "num_classes": len(class_names) or 1,
        },
        fingerprint=lambda: fingerprint_description(
            {"texts": fingerprint(), "vocabulary": pieces.fingerprint, "sequence_length": sequence_length}
        ),
        load=lambda: load(pieces, sequence_length),
        transform=inputs,
        **description,
    )


def encoded(train: Texts, test: Texts, vocabulary: Vocabulary, sequence_length: int) -> Examples:
    """Both splits as `wordpiece.Tokens`, by name."""
    arrays: list[Any] = []
    for split in (train, test):
        arrays += [vocabulary.encode(split.first, split.second, sequence_length)._asdict(), split.labels]
    return Examples(*arrays)


def inputs(tokens: dict[str, tf.Tensor], labels: tf.Tensor, key: Any = None) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The inputs of a network for a batch of `wordpiece.Tokens`; texts are not augmented."""
    import tensorflow as tf

    del key
    ids = tf.cast(tokens["token_ids"], tf.int32)
    position = tf.range(ids.shape[1])[tf.newaxis]
    first, length = (tf.cast(tokens[name], tf.int32)[:, tf.newaxis] for name in ("first_length", "length"))
    real = position < length
    return {
        "token_ids": ids,
        "segment_ids": tf.cast(real & (position >= first), tf.int32),
        "mask": tf.cast(real, tf.float32),
    }, labels
