"""`sentiment_mini`: sentences of film reviews, positive or negative, which ships with the package."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np

from bibench_tf.datasets import embedded, texts
from bibench_tf.datasets.base import Examples
from bibench_tf.datasets.wordpiece import Vocabulary

FILE = embedded.FOLDER / "sentiment_mini.tsv.xz"
SHA256 = "1b71c75e836fd79d8cb88f7d5d698112592ab82a13368c8adc384325fc0f2183"
SEQUENCE_LENGTH = 32
CLASSES = ("negative", "positive")


def load(file: Path = FILE) -> tuple[texts.Texts, texts.Texts]:
    """The training and the test sentences in `file`; label 0 is negative, 1 positive.

    Raises BibenchError when the file is missing or is not, byte for byte, the one this version was released with.
    """
    lines = lzma.decompress(embedded.read(file, SHA256)).decode().splitlines()
    rows = [line.split("\t") for line in lines]
    splits = []
    for wanted in ("train", "test"):
        labels, sentences = zip(*((label, sentence) for split, label, sentence in rows if split == wanted), strict=True)
        splits.append(texts.Texts(sentences, None, np.array(labels).astype(np.int32)))
    return tuple(splits)


def get(data_dir: Path | None = None, download: bool = False, vocabulary: Path | None = None) -> texts.TextDataset:
    """4,000 training and 1,000 test sentences of film reviews, half of them positive, in at most 32 word pieces.

    Each was scored by 15 to 29 people from -4 to 4; a sentence is here if the mean is at least 1.5 away from 0, see
    `bibench_tf.datasets.make_sentiment_mini`. `data_dir` and `download` do not matter here. Source: Hutto and Gilbert
    2014, "VADER: A parsimonious rule-based model for sentiment analysis of social media text", ICWSM.
    """
    del data_dir, download
    return texts.dataset(
        name="sentiment_mini",
        title="Sentences of film reviews, 4,000 / 1,000",
        source="https://github.com/cjhutto/vaderSentiment",
        licence="MIT, copyright 2016 C.J. Hutto",
        class_names=CLASSES,
        train_examples=4000,
        test_examples=1000,
        vocabulary=vocabulary,
        sequence_length=SEQUENCE_LENGTH,
        fingerprint=SHA256,
        load=_examples,
    )


def _examples(vocabulary: Vocabulary, sequence_length: int) -> Examples:
    return texts.encoded(*load(), vocabulary, sequence_length)
