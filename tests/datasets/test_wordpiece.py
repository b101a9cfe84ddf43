from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bibench_tf.datasets.formats import wordpiece
from bibench_tf.errors import BibenchError

# Positions: 0 to 13, so that every expected number below can be read off.
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "cafe", ",", "a", "##b", "中", "b", "c"]
PAD, UNK, CLS, SEP, UN, AFF, ABLE, CAFE, COMMA, A, XB, ZHONG, B, C = range(14)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def vocabulary(file):
    return wordpiece.read(file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unaffable", [UN, AFF, ABLE]),  # the longest piece that fits, then the longest that goes on
        ("UNaffABLE, Café", [UN, AFF, ABLE, COMMA, CAFE]),  # lower case, punctuation apart, no accents
        ("Cafe\u0301", [CAFE]),  # an accent that is a character of its own
        ("unaffableb", [UN, AFF, ABLE, XB]),
        ("unaffablex", [UNK]),  # a word with an unknown part is unknown as a whole
        ("a,b", [A, COMMA, B]),
        ("b中a", [B, ZHONG, A]),  # Chinese characters are words of their own
        (" a\t\n b\u00a0c ", [A, B, C]),
        ("a\u0000\ufffd\u200bb", [A, XB]),  # control characters vanish
        ("", []),
        ("a" + "b" * 9, [A] + [XB] * 9),
        ("b" + "b" * 100, [UNK]),  # words of more than 100 letters are unknown
        ("[SEP]", [UNK, UNK, UNK]),  # what stands in a text cannot end it
    ],
)
def test_bert_tokenization(vocabulary, text, expected):
    tokens = vocabulary.encode([text], None, 12)
    assert tokens.token_ids[0].tolist() == [CLS, *expected, SEP] + [PAD] * (10 - len(expected))
    assert tokens.length[0] == tokens.first_length[0] == len(expected) + 2


def test_pairs_have_two_separators_and_two_segments(vocabulary):
    tokens = vocabulary.encode(["a b", "c"], ["c", ""], 8)
    assert tokens.token_ids.tolist() == [[CLS, A, B, SEP, C, SEP, PAD, PAD], [CLS, C, SEP, SEP] + [PAD] * 4]
    assert tokens.first_length.tolist() == [4, 3] and tokens.length.tolist() == [6, 4]


def test_single_texts_lose_their_end(vocabulary):
    tokens = vocabulary.encode(["a b c a b c"], None, 5)
    assert tokens.token_ids.tolist() == [[CLS, A, B, C, SEP]] and tokens.length[0] == 5


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(5, 2, (3, 2)), (2, 5, (2, 3)), (1, 9, (1, 4)), (9, 1, (4, 1)), (3, 2, (3, 2)), (0, 9, (0, 5))],
)
def test_of_a_pair_the_longer_text_is_cut_first(vocabulary, first, second, kept):
    tokens = vocabulary.encode(["a " * first], ["b " * second], 8)
    expected = [CLS, *[A] * kept[0], SEP, *[B] * kept[1], SEP]
    assert tokens.token_ids[0].tolist() == expected + [PAD] * (8 - len(expected))


def test_two_long_texts_share_the_place(vocabulary):
    tokens = vocabulary.encode(["a " * 30], ["b " * 40], 9)
    assert tokens.token_ids[0].tolist() == [CLS, A, A, A, SEP, B, B, B, SEP]


def test_a_vocabulary_with_capitals_keeps_them(file):
    file.write_text("\n".join([*PIECES, "Una", "Caf\u00e9"]), encoding="utf-8")
    cased = wordpiece.read(file)
    assert cased.encode(["Una Caf\u00e9 cafe"], None, 5).token_ids.tolist() == [[CLS, 14, 15, CAFE, SEP]]


def test_many_texts_are_cut_as_each_alone(vocabulary, monkeypatch):
    texts = ["a", "a b", "unaffable , c", "", "b"]
    alone = np.concatenate([vocabulary.encode([text], None, 6).token_ids for text in texts])
    monkeypatch.setattr(wordpiece, "_AT_ONCE", 2)
    np.testing.assert_array_equal(vocabulary.encode(texts, None, 6).token_ids, alone)


def test_small_vocabularies_take_two_bytes_and_large_ones_are_right(file):
    assert wordpiece.read(file).encode(["a"], None, 4).token_ids.dtype == np.uint16
    file.write_text("\n".join([*PIECES, *(f"w{number}" for number in range(70_000))]), encoding="utf-8")
    large = wordpiece.read(file).encode(["w69999"], None, 4)
    assert large.token_ids.tolist() == [[CLS, len(PIECES) + 69_999, SEP, PAD]]


def test_lines_end_as_they_may(file):
    unix = wordpiece.read(file)
    file.write_bytes("\r\n".join(PIECES).encode())
    assert wordpiece.read(file) == unix and unix.pieces == tuple(PIECES)
    # Python's own lines would end here, too.
    file.write_text("\n".join([*PIECES, "\u2028", "last"]), encoding="utf-8")
    assert wordpiece.read(file).pieces[-2:] == ("\u2028", "last")


def test_the_fingerprint_follows_the_pieces_and_their_order(file):
    before = wordpiece.read(file).fingerprint
    file.write_text("\n".join([*PIECES[:-2], PIECES[-1], PIECES[-2]]), encoding="utf-8")
    assert wordpiece.read(file).fingerprint != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Cannot read the vocabulary .*No such file"),
        (b"\xff\xfe\x00\x81", "Cannot read the vocabulary .*UTF-8"),
        (b"[PAD]\n[UNK]\na\nb\n", r"has no \[CLS\], \[SEP\]"),
        (b"", r"has no \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
    ],
)
def test_what_is_no_vocabulary_is_refused_in_one_sentence(file, content, message):
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BibenchError, match=message) as caught:
        wordpiece.read(file)
    assert str(caught.value).count(". ") == 0


def test_the_shipped_vocabulary():
    vocabulary = wordpiece.read()
    assert vocabulary.lower_case and len(vocabulary.pieces) == len(set(vocabulary.pieces)) == 3000
    assert vocabulary.pieces[:4] == wordpiece.SPECIAL
    assert {"film", "boring", "##ly"} <= set(vocabulary.pieces)


def test_the_program_can_be_forked_afterwards():
    code = (
        "import subprocess; from bibench_tf.datasets.formats import wordpiece; "
        "wordpiece.read().encode(['good'] * 5000, None, 8); subprocess.run(['true'], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
