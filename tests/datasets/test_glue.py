from __future__ import annotations

import json

import numpy as np
import pytest

from bibench_tf import datasets
from bibench_tf.datasets import glue
from bibench_tf.datasets.formats import wordpiece
from bibench_tf.errors import BibenchError

LABELS = {
    "cola": ("unacceptable", "acceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qnli": ("entailment", "not_entailment"),
    "qqp": ("not_duplicate", "duplicate"),
    "rte": ("entailment", "not_entailment"),
    "sst2": ("negative", "positive"),
    "stsb": (),
}


def write_prepared(root, config, splits, columns):
    """A task as TFDS leaves it: `splits` maps a split to rows of (texts..., label)."""
    import tensorflow as tf

    folder = root / "glue" / config / "2.0.0"
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        with tf.io.TFRecordWriter(str(folder / f"glue-{split}.tfrecord-00000-of-00001")) as writer:
            for index, (*texts, label) in enumerate(rows):
                features = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
                    for name, text in zip(columns, texts, strict=True)
                }
                if isinstance(label, float):
                    features["label"] = tf.train.Feature(float_list=tf.train.FloatList(value=[label]))
                else:
                    features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
                features["idx"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[index]))
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    info = {
        "name": "glue",
        "configName": config,
        "fileFormat": "tfrecord",
        "splits": [{"name": split, "shardLengths": [str(len(rows))]} for split, rows in splits.items()],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    if LABELS[config]:
        (folder / "label.labels.txt").write_text("\n".join(LABELS[config]) + "\n")
    return folder


@pytest.fixture
def vocabulary(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join([*wordpiece.SPECIAL, "a", "b", "c", "d"]), encoding="utf-8")
    return file


def tokens(inputs):
    return [row[mask > 0].tolist() for row, mask in zip(inputs["token_ids"], inputs["mask"], strict=True)]


def test_a_task_of_sentences(tmp_path, vocabulary):
    splits = {"train": [("a b", 1), ("b", 0)], "validation": [("c", 0), ("d d", 1), ("a", 1)], "test": [("d", -1)]}
    write_prepared(tmp_path, "cola", splits, ["sentence"])
    data = datasets.get("glue_cola", tmp_path, vocabulary=vocabulary)
    assert (data.train_examples, data.test_examples, data.class_names) == (2, 3, LABELS["cola"])
    assert data.network_options == {"sequence_length": 64, "vocabulary_size": 8, "num_classes": 2}
    inputs, labels = next(data.test_batches(3).as_numpy_iterator())
    assert tokens(inputs) == [[2, 6, 3], [2, 7, 7, 3], [2, 4, 3]] and labels.tolist() == [0, 1, 1]
    assert data.examples.train_labels.tolist() == [1, 0] and labels.dtype == np.int32


@pytest.mark.parametrize(
    ("name", "config", "columns", "test"),
    [
        ("glue_mnli", "mnli", ["premise", "hypothesis"], "validation_matched"),
        ("glue_mnli_mismatched", "mnli", ["premise", "hypothesis"], "validation_mismatched"),
        ("glue_mrpc", "mrpc", ["sentence1", "sentence2"], "validation"),
        ("glue_qnli", "qnli", ["question", "sentence"], "validation"),
        ("glue_qqp", "qqp", ["question1", "question2"], "validation"),
        ("glue_rte", "rte", ["sentence1", "sentence2"], "validation"),
    ],
)
def test_tasks_of_pairs(tmp_path, vocabulary, name, config, columns, test):
    others = {"validation_matched", "validation_mismatched"} - {test} if config == "mnli" else set()
    splits = {"train": [("a", "b", 0)], test: [("c d", "a", 1)], **{split: [("d", "d", 0)] for split in others}}
    write_prepared(tmp_path, config, splits, columns)
    data = datasets.get(name, tmp_path, vocabulary=vocabulary)
    inputs, labels = next(data.test_batches(5).as_numpy_iterator())
    assert tokens(inputs) == [[2, 6, 7, 3, 4, 3]] and labels.tolist() == [1]
    assert inputs["segment_ids"][0, :6].tolist() == [0, 0, 0, 0, 1, 1]
    assert data.class_names == LABELS[config] and data.network_options["num_classes"] == len(LABELS[config])


def test_the_task_of_numbers(tmp_path, vocabulary):
    rows = [("a", "b", 4.25), ("c", "d", 0.0)]
    write_prepared(tmp_path, "stsb", {"train": rows, "validation": rows[::-1]}, ["sentence1", "sentence2"])
    data = datasets.get("glue_stsb", tmp_path, vocabulary=vocabulary)
    assert data.class_names == () and data.network_options["num_classes"] == 1
    _, labels = next(data.test_batches(2).as_numpy_iterator())
    assert labels.dtype == np.float32 and labels.tolist() == [0.0, 4.25]


def test_figures_and_lengths_are_those_of_glue_and_bibench():
    main = {name: task.metrics[0] for name, task in glue.TASKS.items()}
    assert {name for name, metric in main.items() if metric != "accuracy"} == {"glue_cola", "glue_stsb"}
    assert main["glue_cola"] == "Matthews correlation" and main["glue_stsb"] == "Spearman correlation"
    assert {name for name, task in glue.TASKS.items() if "F1" in task.metrics} == {"glue_mrpc", "glue_qqp"}
    lengths = {name: task.sequence_length for name, task in glue.TASKS.items()}
    assert (lengths["glue_mnli"], lengths["glue_cola"], lengths["glue_mrpc"]) == (128, 64, 128)
    assert {f"glue_{config}" for config in LABELS} | {"glue_mnli_mismatched"} == {*glue.TASKS} <= {*datasets.names()}


@pytest.mark.parametrize(("label", "config"), [(-1, "sst2"), (2, "sst2"), (-1.0, "stsb")])
def test_labels_that_are_missing_are_counted_and_refused(tmp_path, vocabulary, label, config):
    columns = ["sentence"] if config == "sst2" else ["sentence1", "sentence2"]
    texts, kind = ["a"] * len(columns), type(label)
    rows = [(*texts, kind(1)), (*texts, label), (*texts, label)]
    write_prepared(tmp_path, config, {"train": rows[:1], "validation": rows}, columns)
    data = datasets.get(f"glue_{config}", tmp_path, vocabulary=vocabulary)
    with pytest.raises(BibenchError, match="2 of 3 examples .* have no label"):
        data.test_batches(1)


def test_damaged_records_are_refused(tmp_path):
    rows = {"train": [("a", 1)], "validation": [("a", 0)] * 50}
    file = write_prepared(tmp_path, "rte", rows, ["sentence1"]) / "glue-validation.tfrecord-00000-of-00001"
    with pytest.raises(BibenchError, match="Cannot read the records in .*: prepare the data set again"):
        datasets.get("glue_rte", tmp_path).test_batches(1)  # without the second sentence
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BibenchError, match="prepare the data set again"):
        datasets.get("glue_rte", tmp_path).test_batches(1)


def test_missing_data_are_told_in_one_sentence(tmp_path):
    with pytest.raises(BibenchError, match="'glue/mnli' is not prepared in .*--download.*holds glue/mnli/"):
        datasets.get("glue_mnli", tmp_path)
    write_prepared(tmp_path, "mnli", {"train": [("a", "b", 0)], "test": []}, ["premise", "hypothesis"])
    with pytest.raises(BibenchError, match="validation_matched.*prepare 'glue/mnli' again"):
        datasets.get("glue_mnli", tmp_path)
    write_prepared(tmp_path, "rte", {"train": [], "validation": []}, []).joinpath("label.labels.txt").unlink()
    with pytest.raises(BibenchError, match="prepare 'glue/rte' again"):
        datasets.get("glue_rte", tmp_path)


def test_the_fingerprint_follows_texts_and_vocabulary(tmp_path, vocabulary):
    folder = write_prepared(tmp_path, "sst2", {"train": [("a", 1)], "validation": [("b", 0)]}, ["sentence"])
    data = datasets.get("glue_sst2", tmp_path, vocabulary=vocabulary)
    assert data.fingerprint == datasets.get("glue_sst2", tmp_path, vocabulary=vocabulary).fingerprint
    assert data.fingerprint != datasets.get("glue_sst2", tmp_path).fingerprint
    file = folder / "glue-train.tfrecord-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert data.fingerprint != datasets.get("glue_sst2", tmp_path, vocabulary=vocabulary).fingerprint


def test_sst2_in_full(shared):
    data_dir = shared / "data" / "tensorflow_datasets"
    if not (data_dir / "glue" / "sst2").is_dir():
        pytest.skip("no prepared SST-2 in the folder 'shared'")
    data = datasets.get("glue_sst2", data_dir)
    assert data.class_names == ("negative", "positive")
    assert np.bincount(data.examples.train_labels).tolist() == [3310, 3610]
    assert np.bincount(data.examples.test_labels).tolist() == [428, 444]
    lengths = data.examples.train_inputs["length"]
    assert lengths.max() == 64 and (lengths == 64).mean() < 0.03
