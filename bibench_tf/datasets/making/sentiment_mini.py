"""Draw the embedded data set `sentiment_mini` from the source package of vaderSentiment, and its word pieces.

    python -m bibench_tf.datasets.making.sentiment_mini vaderSentiment-3.3.2.tar.gz

The source package comes from the Python Package Index (pip download --no-binary :all: --no-deps vaderSentiment==3.3.2).
It has, among others, 10,605 sentences of film reviews, each with the mean of the scores that readers gave it. The
random draws depend on SEED alone.

Sentences whose score is less than LEAST away from 0 are left out: people disagree on them, and a network small
enough for tests hardly learns from them. Of the others, TEST of each sign are the test split and TRAIN the
training split. No training sentence shares half of its words or more with a test sentence. The word pieces are made
from the training sentences alone.
"""

from __future__ import annotations

import io
import lzma
import re
import sys
import tarfile
from pathlib import Path

import numpy as np

from bibench_tf.datasets.formats.wordpiece import DEFAULT, SPECIAL
from bibench_tf.datasets.sentiment_mini import FILE
from bibench_tf.files import write_atomically

SEED = 2023
LEAST = 1.5
TRAIN = 2000
TEST = 500
PIECES = 3000
# Sentences that share at least this part of all their words are too similar.
COMMON = 0.5
# The first code of a range for private use, far above all letters of the sentences.
_INSIDE = 0xF0000
_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
_SCORES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def scored(package: Path) -> list[tuple[float, str]]:
    """The scores, -4 to 4, and the sentences in the source package; runs of white space are one space."""
    with tarfile.open(package) as outer:
        inner = next(member for member in outer.getmembers() if member.name.endswith(_INNER))
        with tarfile.open(fileobj=io.BytesIO(outer.extractfile(inner).read())) as archive:
            lines = archive.extractfile(_SCORES).read().decode("utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return [(float(score), " ".join(sentence.split())) for _, score, sentence in rows]


def draw(sentences: list[tuple[float, str]]) -> dict[str, list[tuple[int, str]]]:
    """Labels (1 for a positive score) and sentences of each split, shuffled."""
    random = np.random.default_rng(SEED)
    clear = [(int(score > 0), sentence) for score, sentence in sentences if abs(score) >= LEAST]
    by_class = [
        [clear[index] for index in random.permutation(len(clear)) if clear[index][0] == label] for label in (0, 1)
    ]
    test = [row for rows in by_class for row in rows[:TEST]]
    seen = [_words(sentence) for _, sentence in test]
    train = []
    for rows in by_class:
        new = (row for row in rows[TEST:] if not _is_alike(_words(row[1]), seen))
        train += [next(new) for _ in range(TRAIN)]
    return {
        split: [rows[index] for index in random.permutation(len(rows))]
        for split, rows in (("train", train), ("test", test))
    }


def pieces(sentences: list[str]) -> list[str]:
    """The word pieces, made by the trainer of `tokenizers` from sentences as BERT puts them into lower case."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalise = normalizers.BertNormalizer(lowercase=True).normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = [word for sentence in sentences for word, _ in split(normalise(sentence))]
    # Where pairs are equally frequent the trainer takes the one that came first in its list of characters. That list is
    # sorted for characters, but not for those that it marks with ## itself, so letters inside of words get codes.
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=PIECES, special_tokens=list(SPECIAL), continuing_subword_prefix="", show_progress=False
    )
    tokenizer.train_from_iterator(
        [word[0] + "".join(chr(ord(c) + _INSIDE) for c in word[1:]) for word in words], trainer
    )
    found = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [piece if piece in SPECIAL else _marked(piece) for piece, _ in found]


def _marked(piece: str) -> str:
    """The piece as BERT writes it, with ## in front of letters inside of a word."""
    text = "".join(chr(ord(c) - _INSIDE) if ord(c) >= _INSIDE else c for c in piece)
    return f"##{text}" if ord(piece[0]) >= _INSIDE else text


def _words(sentence: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", sentence.lower()))


def _is_alike(words: frozenset[str], others: list[frozenset[str]]) -> bool:
    return any(len(words & other) >= COMMON * len(words | other) for other in others)


def main(package: Path) -> None:
    """Write the data set and its vocabulary drawn from the source package."""
    splits = draw(scored(package))
    lines = [f"{split}\t{label}\t{sentence}\n" for split, rows in splits.items() for label, sentence in rows]
    content = lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    vocabulary = "".join(f"{piece}\n" for piece in pieces([sentence for _, sentence in splits["train"]]))
    write_atomically(FILE, lambda path: path.write_bytes(content))
    write_atomically(DEFAULT, lambda path: path.write_bytes(vocabulary.encode()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
