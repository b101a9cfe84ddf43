"""`tsv:FILE` and `tsv:FOLDER`: sentences, or pairs of sentences, in the user's tab-separated files."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bibench_tf.contents import Contents
from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import unusable
from bibench_tf.datasets.formats.user_files import TEST_SHARE
from bibench_tf.datasets.kinds import texts
from bibench_tf.errors import BibenchError, InvalidOption, MissingData
from bibench_tf.names import own_data

TRAIN = "train.tsv"
TESTS = ("dev.tsv", "test.tsv")
SEQUENCE_LENGTHS = {"sentences": 64, "pairs": 128}


@dataclass(frozen=True)
class _Row:
    texts: tuple[str, ...]
    label: str
    place: str


@register(
    "tsv",
    task="text_classification",
    description="tsv:FILE or tsv:FOLDER, sentences in tab-separated files of your own",
)
def get(options: LoadOptions) -> texts.TextDataset:
    """The sentences in the user's file or folder, in at most 64 word pieces, or 128 for pairs.

    Files are UTF-8; the first line names the columns, there are no quotes. Columns: `sentence`, or `sentence1` and
    `sentence2`, and `label`, whose values are the classes, or `score`, a number; others are ignored, so that some files
    of GLUE can be read unchanged. A folder has `train.tsv` and `dev.tsv`, or `test.tsv` where there is no
    `dev.tsv`. Of a single file, the fifth of each class whose texts have the smallest SHA-256 is the test split.

    Lines with too few or too many columns, without text or label, and test lines with a label that no training line
    has, are left out with a warning. Raises MissingData where files are missing, and BibenchError where columns are
    missing or fewer than two classes are left.
    """
    if options.data_dir is None:
        raise InvalidOption("'tsv' needs your file or folder: write tsv:FILE or tsv:FOLDER.")
    path = options.data_dir.expanduser()
    files = _files(path)
    contents = Contents(files)
    tables = [_rows(file) for file in files]
    if len({(header, is_score) for header, is_score, _ in tables}) > 1:
        raise BibenchError(f"{files[0]} and {files[1]} do not have the same columns.")
    columns, is_score, train = tables[0]
    train, test = _split(train, is_score) if len(files) == 1 else (train, tables[1][2])
    class_names = () if is_score else tuple(sorted({row.label for row in train}, key=_class_order))
    if not is_score:
        unknown = [row.place for row in test if row.label not in class_names]
        unusable.warn(unknown, f"of {len(test)} lines in {files[-1]} have a label that no training line has")
        test = [row for row in test if row.label in class_names]
    if not train or not test or len(class_names) == 1:
        raise BibenchError(
            f"{path} needs training and test lines{'' if is_score else ' of at least two classes'}: there are "
            f"{len(train)} and {len(test)} usable ones{'' if is_score else f' of {len(class_names)}'}."
        )
    return texts.dataset(
        name=own_data("tsv", path),
        title=f"{'Pairs of sentences' if len(columns) > 1 else 'Sentences'}, {len(train):,} / {len(test):,}",
        source="files of the user",
        licence="as the files",
        class_names=class_names,
        train_examples=len(train),
        test_examples=len(test),
        metrics=(texts.SPEARMAN, texts.PEARSON) if is_score else (texts.ACCURACY,),
        vocabulary=options.vocabulary,
        sequence_length=SEQUENCE_LENGTHS["pairs" if len(columns) > 1 else "sentences"],
        fingerprint=lambda: contents.digest,
        contents=contents,
        load=partial(texts.encoded, _texts(train, class_names), _texts(test, class_names)),
    )


def _files(path: Path) -> list[Path]:
    """One file, or the files of the training and the test split."""
    if path.is_file():
        return [path]
    tests = [path / name for name in TESTS if (path / name).is_file()]
    if not (path / TRAIN).is_file() or not tests:
        raise MissingData(f"{path} is neither a file nor a folder with {TRAIN} and {' or '.join(TESTS)}.")
    return [path / TRAIN, tests[0]]


def _rows(file: Path) -> tuple[tuple[str, ...], bool, list[_Row]]:
    """The columns with texts, whether labels are numbers, and the usable lines."""
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise MissingData(f"Cannot read {file} ({error.strerror}).") from error
    header = lines[0].decode("utf-8-sig", "replace").rstrip("\r").split("\t")
    columns = ("sentence",) if "sentence" in header else ("sentence1", "sentence2")
    label = "label" if "label" in header else "score"
    if not {*columns, label} <= set(header):
        raise BibenchError(
            f"The first line of {file} has to name the columns, with tabs between them: 'sentence', or 'sentence1' and "
            f"'sentence2', and 'label' or 'score'; it has '{', '.join(header)[:100]}'."
        )
    is_score = label == "score"
    rows, damaged = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            cells = dict(zip(header, line.decode("utf-8").rstrip("\r").split("\t"), strict=True))
            row = _Row(tuple(cells[name].strip() for name in columns), cells[label].strip(), f"line {number}")
            if not all(row.texts) or not row.label or (is_score and not math.isfinite(float(row.label))):
                raise ValueError
            rows.append(row)
        except ValueError:  # not UTF-8, another number of columns, or a score that is not a number
            damaged.append(f"line {number}")
    unusable.warn(damaged, f"of {len(rows) + len(damaged)} lines in {file} are damaged or have no text or no {label}")
    return columns, is_score, rows


def _split(rows: list[_Row], is_score: bool) -> tuple[list[_Row], list[_Row]]:
    """Training and test lines of one file; lines with the same texts are in the same split."""
    counts = Counter("" if is_score else row.label for row in rows)
    test = set()
    for label, count in counts.items():
        hashes = sorted({_hash(row) for row in rows if is_score or row.label == label})
        test |= set(hashes[: round(TEST_SHARE * count)])
    return [row for row in rows if _hash(row) not in test], [row for row in rows if _hash(row) in test]


def _hash(row: _Row) -> str:
    return hashlib.sha256("\t".join(row.texts).encode()).hexdigest()


def _class_order(label: str) -> tuple:
    """Whole numbers by their value, before words."""
    return (0, int(label), "") if label.isdecimal() else (1, 0, label)


def _texts(rows: list[_Row], class_names: tuple[str, ...]) -> texts.Texts:
    first, *second = zip(*(row.texts for row in rows), strict=True)
    if class_names:
        labels = np.array([class_names.index(row.label) for row in rows], np.int32)
    else:
        labels = np.array([float(row.label) for row in rows], np.float32)
    return texts.Texts(first, second[0] if second else None, labels)
