"""`sentiment_mini` and `tsv`: the texts that ship with the package, and those of the user."""

from __future__ import annotations

import lzma
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from bibench_tf import datasets
from bibench_tf.datasets import sentiment_mini
from bibench_tf.datasets.formats import embedded, unusable, wordpiece
from bibench_tf.datasets.making import sentiment_mini as make_sentiment_mini
from bibench_tf.errors import BibenchError


@pytest.fixture(autouse=True)
def warn_again():
    unusable._print.cache_clear()


@pytest.fixture
def vocabulary(tmp_path):
    pieces = [*wordpiece.SPECIAL, *(f"w{number}" for number in range(40)), "good", "bad", "film"]
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(pieces), encoding="utf-8")
    return file


def words(dataset):
    """The inputs of all test examples, and the pieces of each."""
    inputs, _ = next(iter(dataset.test_batches(dataset.test_examples).as_numpy_iterator()))
    return inputs, [ids[mask > 0].tolist() for ids, mask in zip(inputs["token_ids"], inputs["mask"], strict=True)]


def test_sentiment_mini_is_described_without_its_examples():
    code = (
        "import sys; from bibench_tf import datasets; d = datasets.get('sentiment_mini'); "
        "assert d.network_options == {'sequence_length': 32, 'vocabulary_size': 3000, 'num_classes': 2}; "
        "assert not {'tensorflow', 'tokenizers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sentiment_mini_is_balanced_and_fits_what_is_said_of_it():
    data = datasets.get("sentiment_mini")
    assert data.task == datasets.task_of("sentiment_mini") == "text_classification" and data.metrics == ("accuracy",)
    assert np.bincount(data.examples.train_labels).tolist() == [2000, 2000]
    assert np.bincount(data.examples.test_labels).tolist() == [500, 500]
    # Any first part is nearly balanced, too.
    assert 0.4 < data.examples.train_labels[:500].mean() < 0.6 and 0.4 < data.examples.test_labels[:250].mean() < 0.6


def test_sentences_with_words_of_praise_are_called_positive():
    """The names of the classes belong to their labels: the other way round, praise would be negative."""
    data = datasets.get("sentiment_mini")
    for words_of, name in (
        (("wonderful", "excellent", "superb", "delightful"), "positive"),
        (("awful", "worst", "stupid", "boring"), "negative"),
    ):
        found = [
            data.class_names[label]
            for part in sentiment_mini.load()
            for sentence, label in zip(part.first, part.labels, strict=True)
            if set(words_of) & set(re.findall(r"\w+", sentence.lower()))
        ]
        assert len(found) > 50 and found.count(name) / len(found) > 0.9


def test_no_test_sentence_is_like_a_training_sentence():
    numbers = {}
    splits = []
    for split in sentiment_mini.load():
        rows = [
            [*{numbers.setdefault(word, len(numbers)) for word in re.findall(r"\w+", text.lower())}]
            for text in split.first
        ]
        splits.append(rows)
    train, test = (
        sparse.csr_array(
            (np.ones(sum(map(len, rows))), np.concatenate(rows).astype(int), np.cumsum([0, *map(len, rows)])),
            (len(rows), len(numbers)),
        )
        for rows in splits
    )
    common = (test @ train.T).toarray()
    both = test.sum(axis=1)[:, np.newaxis] + train.sum(axis=1) - common
    assert common.max() > 5 and (common / both).max() < 0.5


def test_the_classes_say_what_they_are_called():
    train, _ = sentiment_mini.load()
    good = np.array([bool(re.search(r"\b(best|wonderful|delightful|moving)\b", text.lower())) for text in train.first])
    bad = np.array([bool(re.search(r"\b(worst|dull|boring|bad)\b", text.lower())) for text in train.first])
    assert train.labels[good].mean() > 0.8 and train.labels[bad].mean() < 0.2


def test_shipped_texts_are_small_and_have_their_notice():
    files = [sentiment_mini.FILE, wordpiece.DEFAULT]
    assert sum(file.stat().st_size for file in files) < 500_000
    notice = (embedded.FOLDER / "sentiment_mini.LICENSE").read_text(encoding="utf-8")
    assert "Copyright (c) 2016 C.J. Hutto" in notice and "Permission is hereby granted" in notice


def test_a_changed_file_is_refused(tmp_path):
    content = bytearray(sentiment_mini.FILE.read_bytes())
    content[1000] ^= 1
    changed = tmp_path / "sentiment_mini.tsv.xz"
    changed.write_bytes(content)
    with pytest.raises(BibenchError, match="damaged or was changed"):
        sentiment_mini.load(changed)
    with pytest.raises(BibenchError, match="Cannot read"):
        sentiment_mini.load(tmp_path / "absent")


def test_the_shipped_vocabulary_is_made_of_the_training_sentences():
    train, _ = sentiment_mini.load()
    assert tuple(make_sentiment_mini.pieces(list(train.first))) == wordpiece.read().pieces


def test_drawing_leaves_out_lukewarm_and_similar_sentences(monkeypatch):
    monkeypatch.setattr(make_sentiment_mini, "TRAIN", 10)
    monkeypatch.setattr(make_sentiment_mini, "TEST", 5)
    sentences = [(sign * 2.0, f"w{sign}x{number} a{number}") for sign in (-1, 1) for number in range(40)]
    sentences += [(0.5, f"lukewarm {number}") for number in range(100)]
    # Every sentence twice, the second time with another end.
    sentences += [(score, text + "!") for score, text in sentences]
    drawn = make_sentiment_mini.draw(sentences)
    assert drawn == make_sentiment_mini.draw(sentences)
    assert {split: sum(label for label, _ in rows) for split, rows in drawn.items()} == {"train": 10, "test": 5}
    train, test = ({text.rstrip("!") for _, text in drawn[split]} for split in ("train", "test"))
    assert not train & test and not any("lukewarm" in text for text in train | test)
    assert all(label == ("w1x" in text) for rows in drawn.values() for label, text in rows)


def test_an_epoch_has_every_text_with_its_label():
    data = datasets.get("sentiment_mini")
    seen = {}
    for inputs, labels in data.train_batches(500, seed=0, epoch=1).as_numpy_iterator():
        seen |= {ids.tobytes(): label for ids, label in zip(inputs["token_ids"], labels, strict=True)}
    tokens = data.examples.train_inputs["token_ids"].astype(np.int32)
    expected = {ids.tobytes(): label for ids, label in zip(tokens, data.examples.train_labels, strict=True)}
    assert seen == expected


def test_inputs_of_pairs(tmp_path, vocabulary):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("sentence1\tsentence2\tlabel\nw1 w2\tw3\tyes\nw4\tw5 w6 w7\tno\n")
    data = datasets.get(f"tsv:{tmp_path}", vocabulary=vocabulary)
    inputs, labels = next(iter(data.test_batches(2)))
    assert {name: (value.dtype.name, value.shape[1]) for name, value in inputs.items()} == {
        "token_ids": ("int32", 128),
        "segment_ids": ("int32", 128),
        "mask": ("float32", 128),
    }
    assert inputs["token_ids"].numpy()[:, :8].tolist() == [[2, 5, 6, 3, 7, 3, 0, 0], [2, 8, 3, 9, 10, 11, 3, 0]]
    assert inputs["segment_ids"].numpy()[:, :8].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0]]
    assert inputs["mask"].numpy()[:, :8].tolist() == [[1] * 6 + [0] * 2, [1] * 7 + [0]]
    assert not inputs["mask"].numpy()[:, 8:].any() and not inputs["segment_ids"].numpy()[:, 8:].any()
    assert labels.dtype == "int32" and [data.class_names[label] for label in labels] == ["yes", "no"]


def test_the_vocabulary_of_the_user_is_taken(vocabulary):
    data = datasets.get("sentiment_mini", vocabulary=str(vocabulary))
    assert data.network_options["vocabulary_size"] == 47
    assert data.fingerprint != datasets.get("sentiment_mini").fingerprint
    # "bad" or "film" are rare, but in some of the sentences; most words are unknown.
    found = np.unique(data.examples.test_inputs["token_ids"])
    assert {1, 45, 46} <= set(found.tolist()) <= {0, 1, 2, 3, 44, 45, 46}


def write(file, lines, header="sentence\tlabel"):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes("\n".join([header, *lines]).encode() if isinstance(lines, list) else lines)
    return file


def test_a_folder_of_plain_files(tmp_path, vocabulary):
    folder = tmp_path / "mine"
    write(folder / "train.tsv", ["good film\t10", "bad film\t9", "w1\t9"], header="\ufeffsentence\tlabel")
    write(folder / "dev.tsv", ["9\tbad\tx", "10\tgood\ty", ""], header="label\tsentence\tother")
    write(folder / "test.tsv", ["w2\t9"])
    data = datasets.get(f"tsv:{folder}", vocabulary=vocabulary)
    assert (data.train_examples, data.test_examples, data.class_names) == (3, 2, ("9", "10"))
    inputs, found = words(data)
    assert found == [[2, 45, 3], [2, 44, 3]] and inputs["token_ids"].shape == (2, 64)
    assert data.examples.test_labels.tolist() == [0, 1] and data.examples.train_labels.tolist() == [1, 0, 0]
    assert datasets.get("tsv", folder, vocabulary=vocabulary).fingerprint == data.fingerprint
    write(folder / "train.tsv", ["good film\t10", "bad film\t9", "w2\t9"])
    assert datasets.get(f"tsv:{folder}", vocabulary=vocabulary).fingerprint != data.fingerprint
    (folder / "dev.tsv").unlink()
    assert datasets.get(f"tsv:{folder}", vocabulary=vocabulary).test_examples == 1


def test_a_fifth_of_one_file_is_held_out_by_class(tmp_path):
    lines = [f"w{number}\tcommon" for number in range(30)] + [f"x{number}\trare" for number in range(10)]
    data = datasets.get(f"tsv:{write(tmp_path / 'all.tsv', lines)}")
    assert (data.train_examples, data.test_examples) == (32, 8)
    assert np.bincount(data.examples.test_labels).tolist() == [6, 2]
    # The order of the lines does not matter, and a sentence that is there twice is in one split.
    again = datasets.get(f"tsv:{write(tmp_path / 'again.tsv', lines[::-1])}")
    assert {row.tobytes() for row in again.examples.test_inputs["token_ids"]} == {
        row.tobytes() for row in data.examples.test_inputs["token_ids"]
    }
    twice = datasets.get(f"tsv:{write(tmp_path / 'twice.tsv', lines * 2)}")
    test, train = (
        {row.tobytes() for row in inputs["token_ids"]}
        for inputs in (twice.examples.test_inputs, twice.examples.train_inputs)
    )
    assert not test & train and len(test | train) == 40


def test_scores_are_numbers(tmp_path, vocabulary):
    lines = ["w1\tw2\t4.5", "w3\tw4\t0", "w5\tw6\tnone", "w5\tw6\tnan", "w7\tw8\t1e0"]
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / name, lines, header="sentence1\tsentence2\tscore")
    data = datasets.get(f"tsv:{tmp_path}", vocabulary=vocabulary)
    assert data.class_names == () and data.network_options["num_classes"] == 1
    assert data.metrics == ("Spearman correlation", "Pearson correlation")
    _, labels = next(iter(data.test_batches(3)))
    assert labels.dtype == "float32" and labels.numpy().tolist() == [4.5, 0, 1]


def test_damaged_lines_are_counted_and_named(tmp_path, vocabulary, capsys):
    folder = tmp_path / "mine"
    lines = b"sentence\tlabel\ngood\tyes\nw1\nw2\tyes\tno\n\xff\xfe\tyes\n\tyes\nw3\t\nbad\tno\n"
    write(folder / "train.tsv", lines)
    write(folder / "dev.tsv", ["good\tyes", "bad\tperhaps", "film\tno"])
    for _ in range(2):
        data = datasets.get(f"tsv:{folder}", vocabulary=vocabulary)
        assert (data.train_examples, data.test_examples) == (2, 2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("5 of 7 lines in ") and told[0].endswith("line 3, line 4, line 5, line 6, line 7.")
    assert "label" in told[1] and told[1].endswith("are left out: line 3.")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither a file nor a folder with train.tsv and dev.tsv or test.tsv"),
        ({"train.tsv": ["a\tb", "c\td"]}, "neither a file nor a folder"),
        ({"train.tsv": ["a\tb", "c\td"], "dev.tsv": b"text\tlabel\na\tb\n"}, "The first line of .*dev.tsv.*'sentence'"),
        ({"train.tsv": ["a\tb", "c\td"], "dev.tsv": b"sentence\tscore\na\t1\n"}, "same columns"),
        ({"train.tsv": ["a\tb", "c\tb"], "dev.tsv": ["a\tb"]}, "at least two classes"),
        ({"train.tsv": ["a\tb", "c\td"], "dev.tsv": []}, "there are 2 and 0 usable ones"),
        ({"train.tsv": ["a\tb", "c\td"], "dev.tsv": ["a\tx"]}, "there are 2 and 0 usable ones"),
        ({"train.tsv": b"", "dev.tsv": ["a\tx"]}, "has to name the columns"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(tmp_path, files, message):
    for name, lines in files.items():
        write(tmp_path / name, lines)
    with pytest.raises(BibenchError, match=message):
        datasets.get(f"tsv:{tmp_path}")


def test_the_place_of_the_texts_has_to_be_named(tmp_path):
    with pytest.raises(BibenchError, match="tsv:FOLDER"):
        datasets.get("tsv")
    with pytest.raises(BibenchError, match="neither a file"):
        datasets.get(f"tsv:{tmp_path / 'absent'}")


def test_the_stored_form_is_plain(tmp_path):
    lines = lzma.decompress(sentiment_mini.FILE.read_bytes()).decode().splitlines()
    assert len(lines) == 5000 and all(re.fullmatch(r"(train|test)\t[01]\t[^\t]+", line) for line in lines)
