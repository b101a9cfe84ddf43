"""The tasks of GLUE, as TensorFlow Datasets prepares them.

The labels of GLUE's test splits are not public; the test split here is the development (validation) split, as in
BiBench. Source: Wang et al. 2018, arXiv 1804.07461.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bibench_tf.datasets.base import DATASETS, Entry, LoadOptions
from bibench_tf.datasets.formats.tfds_prepared import prepared, read_columns
from bibench_tf.datasets.formats.wordpiece import Vocabulary
from bibench_tf.datasets.kinds import texts
from bibench_tf.datasets.kinds.arrays import Examples
from bibench_tf.errors import BibenchError

_OFFICIAL = ("train", "validation")


@dataclass(frozen=True)
class GlueTask:
    """A task of GLUE: its configuration in TFDS and its texts.

    `columns` are the features with the first and, for pairs, the second text. `metrics` are GLUE's own, the main one
    first. `sequence_length` is BiBench's for CoLA, MNLI and MRPC; BiBench states none for the others. Without `classes`
    labels are numbers.
    """

    config: str
    title: str
    size: str
    columns: tuple[str, ...]
    sequence_length: int
    metrics: tuple[str, ...] = (texts.ACCURACY,)
    splits: tuple[str, str] = _OFFICIAL
    classes: bool = True


_BOTH = (texts.ACCURACY, texts.F1, texts.ACCURACY_F1)
_SENTENCES = ("sentence1", "sentence2")
_MNLI = ("premise", "hypothesis")

TASKS: dict[str, GlueTask] = {
    "glue_cola": GlueTask(
        "cola", "CoLA, is it a sentence?", "8,551 / 1,043", ("sentence",), 64, (texts.MATTHEWS, texts.ACCURACY)
    ),
    "glue_mnli": GlueTask(
        "mnli", "MNLI, does it follow?", "392,702 / 9,815", _MNLI, 128, splits=("train", "validation_matched")
    ),
    "glue_mnli_mismatched": GlueTask(
        "mnli", "MNLI, tested on other genres", "392,702 / 9,832", _MNLI, 128, splits=("train", "validation_mismatched")
    ),
    "glue_mrpc": GlueTask("mrpc", "MRPC, is it a paraphrase?", "3,668 / 408", _SENTENCES, 128, _BOTH),
    "glue_qnli": GlueTask("qnli", "QNLI, is it the answer?", "104,743 / 5,463", ("question", "sentence"), 128),
    "glue_qqp": GlueTask(
        "qqp", "QQP, is it the same question?", "363,846 / 40,430", ("question1", "question2"), 128, _BOTH
    ),
    "glue_rte": GlueTask("rte", "RTE, does it follow?", "2,490 / 277", _SENTENCES, 128),
    "glue_sst2": GlueTask("sst2", "SST-2, is the review positive?", "67,349 / 872", ("sentence",), 64),
    "glue_stsb": GlueTask(
        "stsb",
        "STS-B, how similar from 0 to 5?",
        "5,749 / 1,500",
        _SENTENCES,
        128,
        (texts.SPEARMAN, texts.PEARSON),
        classes=False,
    ),
}


def get(name: str, options: LoadOptions) -> texts.TextDataset:
    """The task of GLUE called `name`, a key of `TASKS`.

    Raises MissingData when the data are not prepared. Batches raise BibenchError for labels that are missing.
    """
    task = TASKS[name]
    found = prepared(f"glue/{task.config}", task.splits, options, classes=task.classes)
    train, test = (found.files[split] for split in task.splits)
    return texts.dataset(
        name=name,
        title=f"GLUE {task.title}",
        source="https://gluebenchmark.com",
        licence="those of GLUE's sources, see gluebenchmark.com",
        class_names=found.class_names,
        train_examples=found.examples[task.splits[0]],
        test_examples=found.examples[task.splits[1]],
        metrics=task.metrics,
        vocabulary=options.vocabulary,
        sequence_length=task.sequence_length,
        fingerprint=found.fingerprint,
        contents=found.contents,
        load=lambda pieces, length: _examples(name, train, test, len(found.class_names), pieces, length),
    )


def _examples(
    name: str, train: tuple[Path, ...], test: tuple[Path, ...], classes: int, vocabulary: Vocabulary, length: int
) -> Examples:
    return texts.encoded(_texts(name, train, classes), _texts(name, test, classes), vocabulary, length)


def _texts(name: str, files: tuple[Path, ...], classes: int) -> texts.Texts:
    task = TASKS[name]
    features = {column: ((), "string") for column in task.columns} | {"label": ((), "int64" if classes else "float32")}
    *columns, labels = read_columns(files, features)
    first, *second = ([text.decode("utf-8", "replace") for text in column] for column in columns)
    # The labels of splits that are not public are -1.
    missing = np.count_nonzero((labels < 0) | (labels >= classes if classes else False))
    if missing:
        raise BibenchError(
            f"{missing} of {len(labels)} examples in {files[0].parent} have no label that '{name}' knows: prepare "
            f"glue/{task.config} again."
        )
    return texts.Texts(first, second[0] if second else None, labels.astype(np.int32 if classes else np.float32))


for _name, _task in TASKS.items():
    _entry = Entry(partial(get, _name), "text_classification", f"GLUE {_task.title} {_task.size}")
    DATASETS.register(_name, _entry, origin=__name__)
