"""`sentiment_mini`: sentences of film reviews, positive or negative, inside the package."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import cast

import numpy as np

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import embedded
from bibench_tf.datasets.kinds import texts

FILE = embedded.FOLDER / "sentiment_mini.tsv.xz"
SHA256 = "1b71c75e836fd79d8cb88f7d5d698112592ab82a13368c8adc384325fc0f2183"
SEQUENCE_LENGTH = 32
CLASSES = ("negative", "positive")


def load(file: Path = FILE) -> tuple[texts.Texts, texts.Texts]:
    """The training and the test sentences in `file`; label 0 is negative, 1 positive.

    Raises MissingData when the file is missing, and BibenchError when its SHA-256 differs.
    """
    lines = lzma.decompress(embedded.read(file, SHA256)).decode().splitlines()
    rows = [line.split("\t") for line in lines]
    splits: list[texts.Texts] = []
    for wanted in ("train", "test"):
        labels, sentences = zip(*((label, sentence) for split, label, sentence in rows if split == wanted), strict=True)
        splits.append(texts.Texts(sentences, None, np.array(labels).astype(np.int32)))
    return cast(tuple[texts.Texts, texts.Texts], tuple(splits))


@register(
    "sentiment_mini",
    task="text_classification",
    description="sentences of film reviews, 4,000 / 1,000, 2 classes; comes with the package",
    embedded=True,
)
def get(options: LoadOptions) -> texts.TextDataset:
    """4,000 training and 1,000 test sentences of film reviews, half of them positive, in at most 32 word pieces.

    Each was scored by 15 to 29 people from -4 to 4; a sentence is here if the mean is at least 1.5 away from 0, see
    `bibench_tf.datasets.making.sentiment_mini`. Of the options only the vocabulary is used. Source: Hutto and Gilbert
    2014, "VADER: A parsimonious rule-based model for sentiment analysis of social media text", ICWSM.
    """
    return texts.dataset(
        name="sentiment_mini",
        title="Sentences of film reviews, 4,000 / 1,000",
        source="https://github.com/cjhutto/vaderSentiment",
        licence="MIT, copyright 2016 C.J. Hutto",
        class_names=CLASSES,
        train_examples=4000,
        test_examples=1000,
        vocabulary=options.vocabulary,
        sequence_length=SEQUENCE_LENGTH,
        fingerprint=lambda: SHA256,
        load=lambda vocabulary, length: texts.encoded(*load(), vocabulary, length),
    )
