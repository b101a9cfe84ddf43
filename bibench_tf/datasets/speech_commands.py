"""`speech_commands`: Speech Commands with its twelve labels, as TensorFlow Datasets prepares it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats.tfds_prepared import Prepared, prepared, read
from bibench_tf.datasets.kinds import speech
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples
from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import tensorflow as tf

SILENCE = "_silence_"
# Silent clips added to the training split, as a share of its size. Source: BiBench.
SILENT_SHARE = 0.1


@register("speech_commands", task="keyword_spotting", description="Speech Commands: 85,511 / 4,890 clips, 12 labels")
def get(options: LoadOptions) -> ArrayDataset:
    """Speech Commands: ten keywords, `_unknown_` (all other words) and `_silence_`, clips of one second.

    85,511 training and 4,890 test clips in version 0.0.3, held in memory (32 kB each); the validation split is not
    used. As in BiBench, clips of zeros are added to the training split, a tenth of its number, labelled `_silence_`;
    the augmentation mixes in the noise of the prepared training clips with this label. Test clips are used as prepared.
    Raises MissingData when the data are not prepared. Source: Warden 2018, arXiv 1804.03209.
    """
    found = prepared("speech_commands", ("train", "test"), options)
    if SILENCE not in found.class_names:
        raise BibenchError(f"The data in {found.folder} have no label '{SILENCE}': prepare 'speech_commands' again.")
    train, test = found.examples["train"], found.examples["test"]
    added = round(SILENT_SHARE * train)
    silence = found.class_names.index(SILENCE)
    # The noise is taken from the clips, which are decoded once for both.
    load = cache(partial(_load, found, added, silence))
    return speech.dataset(
        name="speech_commands",
        title="Speech Commands, 12 labels",
        source="https://www.tensorflow.org/datasets/catalog/speech_commands",
        licence="CC BY 4.0",
        class_names=found.class_names,
        train_examples=train + added,
        test_examples=test,
        fingerprint=found.fingerprint,
        contents=found.contents,
        load=load,
        noise=partial(_noise, load, silence),
    )


def _noise(load: Callable[[], Examples], silence: int) -> np.ndarray:
    """The prepared training clips of silence concatenated, or generated noise where there are none."""
    examples = load()
    found = examples.train_inputs[examples.train_labels == silence]
    found = found[found.any(axis=1)].ravel()
    return found.astype(np.float32) / 32768 if found.size else speech.coloured_noise()


def _load(found: Prepared, added: int, silence: int) -> Examples:
    """All clips, added silent ones last in the training split."""
    clips, labels = read(found.files["train"], _clip)
    clips = np.concatenate([clips, np.zeros((added, speech.SAMPLES), np.int16)])
    return Examples(clips, np.append(labels, np.full(added, silence, np.int32)), *read(found.files["test"], _clip))


def _clip(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first second, padded with zeros (int16 [16000]), and the label (int32)."""
    import tensorflow as tf

    features = {
        "audio": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    example = tf.io.parse_single_example(record, features)
    samples = example["audio"][: speech.SAMPLES]
    samples = tf.pad(samples, [[0, speech.SAMPLES - tf.size(samples)]])
    return tf.cast(tf.ensure_shape(samples, [speech.SAMPLES]), tf.int16), tf.cast(example["label"], tf.int32)
