"""BERT's WordPiece: texts are cut into the pieces of a vocabulary, by the library `tokenizers`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bibench_tf.datasets.formats import embedded
from bibench_tf.errors import BibenchError, MissingData

if TYPE_CHECKING:
    import tokenizers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# The default vocabulary, made for `sentiment_mini`.
DEFAULT = embedded.FOLDER / "sentiment_mini_vocab.txt"
DEFAULT_SHA256 = "ae10db1442a5cebdb7d7e557fa98ef9adc57c4ea1048a2479d37a180edc9f673"
# A longer word becomes [UNK]. Source: BERT.
LONGEST_WORD = 100
_AT_ONCE = 10_000


class Tokens(NamedTuple):
    """N texts, or pairs of texts, of at most L pieces.

    `token_ids` [N, L] are positions in the vocabulary, filled up with that of [PAD]. `length` [N] counts the pieces
    before the filling, and `first_length` [N] those of the first text with its [CLS] and [SEP]. All are
    uint16 where the vocabulary is small enough, else int32.
    """

    token_ids: np.ndarray
    first_length: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class Vocabulary:
    """Word pieces; the id of a piece is its position. Pieces inside of a word begin with ##."""

    pieces: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the pieces, as 64 hexadecimal digits."""
        return hashlib.sha256("\n".join(self.pieces).encode()).hexdigest()

    @cached_property
    def lower_case(self) -> bool:
        """Whether texts are put into lower case and lose their accents: true without capitals A to Z in the pieces."""
        words = (piece for piece in self.pieces if not (piece.startswith("[") and piece.endswith("]")))
        return not any("A" <= letter <= "Z" for piece in words for letter in piece)

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

        numbers = {piece: number for number, piece in enumerate(self.pieces)}
        model = models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
        tokenizer = Tokenizer(model)
        # Control characters, runs of white space, Chinese characters as words of their own, accents.
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=self.lower_case)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(special, numbers[special]) for special in ("[CLS]", "[SEP]")],
        )
        return tokenizer

    def encode(self, first: Sequence[str], second: Sequence[str] | None, length: int) -> Tokens:
        """The texts, [CLS] first [SEP], or the pairs, [CLS] first [SEP] second [SEP], in `length` pieces.

        Texts that are too long lose their last pieces; of a pair first the longer text, until both are equally long,
        then both. Special pieces in a text, such as [SEP], are ordinary words.
        """
        tokenizer = self._tokenizer
        tokenizer.enable_truncation(length, strategy="longest_first")
        texts = first if second is None else list(zip(first, second, strict=True))
        kind = np.uint16 if max(len(self.pieces), length) < 2**16 else np.int32
        ids = np.full((len(texts), length), self.pieces.index("[PAD]"), kind)
        counts = np.zeros((2, len(texts)), kind)
        for start in range(0, len(texts), _AT_ONCE):
            for row, found in enumerate(tokenizer.encode_batch(texts[start : start + _AT_ONCE]), start):
                ids[row, : len(found.ids)] = found.ids
                counts[:, row] = found.type_ids.count(0), len(found.ids)
        return Tokens(ids, *counts)


def read(file: Path | None = None) -> Vocabulary:
    """The vocabulary in a text file with a piece on each line (`vocab.txt` of a BERT), by default the embedded one.

    Raises MissingData for a file that cannot be read, and BibenchError if it is not UTF-8 or lacks one of [PAD], [UNK],
    [CLS], [SEP].
    """
    if file is None:
        return Vocabulary(tuple(embedded.read(DEFAULT, DEFAULT_SHA256).decode().splitlines()))
    try:
        content = file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        kind, reason = (
            (MissingData, error.strerror) if isinstance(error, OSError) else (BibenchError, "it is not UTF-8")
        )
        raise kind(
            f"Cannot read the vocabulary {file} ({reason}): it is a text file with a word piece on each line."
        ) from error
    # Not splitlines(): a piece can be a character that splitlines() treats as the end of a line.
    pieces = tuple(line.rstrip("\r") for line in content.rstrip("\r\n").split("\n"))
    missing = [special for special in SPECIAL if special not in pieces]
    if missing:
        raise BibenchError(
            f"The vocabulary {file} has no {', '.join(missing)}: take the vocab.txt of a BERT, with a word piece on "
            "each line."
        )
    return Vocabulary(pieces)
