"""`speech_commands`: Speech Commands with its twelve labels, as TensorFlow Datasets prepares it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from bibench_tf.datasets import speech
from bibench_tf.datasets.base import ArrayDataset, Examples
from bibench_tf.datasets.tfds_prepared import prepared, read
from bibench_tf.errors import BibenchError
from bibench_tf.files import fingerprint_description

SILENCE = "_silence_"
# Silent clips that are added to the training split, as a part of it. Source: BiBench.
SILENT_SHARE = 0.1


def get(data_dir: Path | None = None, download: bool = False) -> ArrayDataset:
    """Speech Commands: ten keywords, `_unknown_` (all other words) and `_silence_`, clips of one second.

    85,511 training and 4,890 test clips in version 0.0.3, held in memory (32 kB each); the validation split is not
    used. As in BiBench, clips of zeros are added to the training split, a tenth of its number, labelled `_silence_`;
    the noise that the augmentation mixes in is that of the prepared training clips with this label. Test clips are as
    prepared. Raises BibenchError when the data are not prepared. Source: Warden 2018, arXiv 1804.03209.
    """
    found = prepared("speech_commands", ("train", "test"), data_dir, download)
    if SILENCE not in found.class_names:
        raise BibenchError(f"The data in {found.folder} have no label '{SILENCE}': prepare 'speech_commands' again.")
    train, test = found.examples["train"], found.examples["test"]
    added = round(SILENT_SHARE * train)
    silence = found.class_names.index(SILENCE)
    load = partial(_load, found.files["train"], found.files["test"], added, silence)
    return speech.dataset(
        name="speech_commands",
        title="Speech Commands, 12 labels",
        source="https://www.tensorflow.org/datasets/catalog/speech_commands",
        licence="CC BY 4.0",
        class_names=found.class_names,
        train_examples=train + added,
        test_examples=test,
        # Its 4 GB are not read for a digest: version, examples and bytes of every shard stand for them.
        fingerprint=fingerprint_description({key: found.info[key] for key in ("name", "version", "splits")}),
        load=load,
        noise=partial(_noise, load, silence),
    )


def _noise(load: Callable[[], Examples], silence: int) -> np.ndarray:
    """The prepared training clips of silence end to end, or noise of our own where there are none."""
    examples = load()
    found = examples.train_inputs[examples.train_labels == silence]
    found = found[found.any(axis=1)].ravel()
    return found.astype(np.float32) / 32768 if found.size else speech.coloured_noise()


@lru_cache(maxsize=1)
def _load(train: tuple[Path, ...], test: tuple[Path, ...], added: int, silence: int) -> Examples:
    """All clips, silent ones after those of the training split; kept, so that a session decodes them only once."""
    clips, labels = read(train, _clip)
    clips = np.concatenate([clips, np.zeros((added, speech.SAMPLES), np.int16)])
    return Examples(clips, np.append(labels, np.full(added, silence, np.int32)), *read(test, _clip))


def _clip(record):
    """The first second, with zeros after the end where a record is shorter (int16 [16000]), and the label (int32)."""
    import tensorflow as tf

    features = {
        "audio": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    example = tf.io.parse_single_example(record, features)
    samples = example["audio"][: speech.SAMPLES]
    samples = tf.pad(samples, [[0, speech.SAMPLES - tf.size(samples)]])
    return tf.cast(tf.ensure_shape(samples, [speech.SAMPLES]), tf.int16), tf.cast(example["label"], tf.int32)
