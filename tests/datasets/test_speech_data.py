"""`keywords_mini`, `wav_folder` and `speech_commands`: what is in them, which split it is in, and broken data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import scipy.io.wavfile

from bibench_tf import datasets
from bibench_tf.datasets import keywords_mini
from bibench_tf.datasets.kinds import speech
from bibench_tf.datasets.making import keywords_mini as make_keywords_mini
from bibench_tf.errors import BibenchError

SYNTHESIZERS = all(shutil.which(program) for program in ("espeak-ng", "flite"))


def test_a_description_needs_no_tensorflow():
    code = """
import sys
from bibench_tf import datasets
data = datasets.get("keywords_mini")
assert data.network_options == {"input_shape": (32, 32, 1), "num_classes": 10}
assert not {"tensorflow", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keywords_mini():
    data = datasets.get("keywords_mini")
    examples = data.examples
    assert examples.train_inputs.shape == (1600, 16_000) and examples.test_inputs.shape == (400, 16_000)
    assert np.bincount(examples.train_labels).tolist() == [160] * 10
    assert np.bincount(examples.test_labels).tolist() == [40] * 10
    assert data.task == "keyword_spotting" and data.class_names == (
        *("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"),
    )
    assert not {clip.tobytes() for clip in examples.train_inputs} & {clip.tobytes() for clip in examples.test_inputs}
    peaks = np.abs(examples.test_inputs.astype(np.int32)).max(axis=1) / 32768
    assert peaks.min() > 0.09 and peaks.max() < 0.91
    # Every clip has noise to its ends, and a word that is louder than it in the middle.
    power = examples.test_inputs.astype(np.float64) ** 2
    ends = power[:, [*range(1000), *range(15_000, 16_000)]].mean(axis=1)
    assert ends.min() > 0 and np.median(power[:, 6000:10_000].mean(axis=1) / ends) > 10
    assert keywords_mini.FILE.stat().st_size < 4e6
    notice = keywords_mini.FILE.with_suffix(".LICENSE").read_text()
    assert "eSpeak NG" in notice and "Flite" in notice and "synthetic" in notice


def test_keywords_mini_are_the_same_every_time():
    first, second = keywords_mini.load(), keywords_mini.load()
    for ours, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, again)


def test_compression_keeps_what_is_loud_and_what_is_soft():
    samples = np.concatenate([np.linspace(-1, 1, 999), np.geomspace(1e-3, 1, 99)])
    kept = keywords_mini.expanded(keywords_mini.compressed(samples))
    # A step is a factor of 256^(1/31), so half of one is 9 %, and 1/31 of the curve's slope near zero.
    np.testing.assert_allclose(kept, samples, rtol=0.1, atol=5e-4)


def test_no_voice_is_in_both_splits():
    variants = {split: set(names.split()) for split, names in make_keywords_mini.VARIANTS.items()}
    assert not variants["train"] & variants["test"]
    assert not set(make_keywords_mini.FLITE_VOICES["train"]) & set(make_keywords_mini.FLITE_VOICES["test"])


@pytest.mark.skipif(not SYNTHESIZERS, reason="espeak-ng and flite are not installed")
def test_the_first_clips_are_spoken_again(tmp_path):
    random = np.random.default_rng(make_keywords_mini.SEED)
    with np.load(keywords_mini.FILE) as stored:
        ends = np.cumsum(stored["train_lengths"]).tolist()
        samples, labels = stored["train_samples"], stored["train_labels"]
    for number, (label, spoken) in enumerate(islice(make_keywords_mini.spoken("train", random, tmp_path), 12)):
        begin = ends[number] - len(spoken)
        assert label == labels[number]
        np.testing.assert_array_equal(keywords_mini.compressed(spoken), samples[begin : ends[number]])


def test_batches():
    data = datasets.get("keywords_mini")
    spectrograms, labels = next(iter(data.train_batches(16, seed=1, epoch=0)))
    assert spectrograms.shape == (16, 32, 32, 1) and labels.dtype == np.int32
    again, _ = next(iter(data.train_batches(16, seed=1, epoch=0)))
    np.testing.assert_array_equal(spectrograms, again)
    plain, same = next(iter(data.train_batches(16, seed=1, epoch=0, augment=False)))
    np.testing.assert_array_equal(labels, same)
    assert (spectrograms.numpy() != plain.numpy()).any()
    (tested, _), *_ = data.test_batches(100, limit=8)
    np.testing.assert_allclose(
        tested, speech.log_mel(data.examples.test_inputs[:8].astype(np.float32) / 32768), atol=1e-3
    )


def tone(hertz, rate_hz=8000, seconds=0.5):
    return np.round(9999 * np.sin(2 * np.pi * hertz * np.arange(int(rate_hz * seconds)) / rate_hz)).astype(np.int16)


def write(file, hertz=440, rate_hz=8000):
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.wavfile.write(file, rate_hz, tone(hertz, rate_hz))


def get(folder):
    return datasets.get(f"wav_folder:{folder}")


def test_a_folder_for_each_word(tmp_path):
    for word, hertz in (("yes", 300), ("no", 600)):
        for number in range(10):
            write(tmp_path / word / f"{number}.WAV", hertz)
    write(tmp_path / "_background_noise_" / "hum.wav", 100)
    data = get(tmp_path)
    assert data.class_names == ("no", "yes") and (data.train_examples, data.test_examples) == (16, 4)
    assert data.network_options["num_classes"] == 2
    examples = data.examples
    assert np.bincount(examples.test_labels).tolist() == [2, 2]
    for clip, label in zip(examples.train_inputs, examples.train_labels, strict=True):
        # At 16 kHz, and zeros after half a second.
        loudest = np.abs(np.fft.rfft(clip.astype(np.float64))).argmax()
        assert loudest == (600, 300)[label] and not clip[8100:].any()


def test_the_split_by_hash_depends_on_names_alone(tmp_path):
    for part in ("a", "b"):
        for word in ("yes", "no"):
            for number in range(10):
                write(tmp_path / part / word / f"{number}.wav", 100 if part == "a" else 200)
    # The same positions in the order of the names.
    digits = [get(tmp_path / part).load.args[1] for part in ("a", "b")]
    assert [file.name for file in digits[0]] == [file.name for file in digits[1]]
    assert get(tmp_path / "a").fingerprint != get(tmp_path / "b").fingerprint


def test_spoken_digits_are_split_as_their_authors_do(tmp_path):
    for digit in "01":
        for speaker in ("ann", "bob"):
            for number in range(8):
                write(tmp_path / f"{digit}_{speaker}_{number}.wav")
    data = get(tmp_path)
    assert data.class_names == ("0", "1") and (data.train_examples, data.test_examples) == (12, 20)
    assert {int(file.stem[-1]) for file in data.load.args[0]} == {5, 6, 7}


def test_lists_decide_where_there_are_some(tmp_path):
    for word in ("yes", "no"):
        for number in range(6):
            write(tmp_path / word / f"{number}.wav")
    (tmp_path / "testing_list.txt").write_text("yes/0.wav\nno/3.wav\n\n")
    (tmp_path / "validation_list.txt").write_text("yes/1.wav\n")
    data = get(tmp_path)
    assert (data.train_examples, data.test_examples) == (9, 2)
    train, test = data.load.args[:2]
    assert {file.relative_to(tmp_path).as_posix() for file in test} == {"yes/0.wav", "no/3.wav"}
    assert tmp_path / "yes/1.wav" not in train


def test_broken_files_are_counted_and_named(tmp_path, capsys):
    for word in ("yes", "no"):
        for number in range(5):
            write(tmp_path / f"{word}_{number}.wav")
    (tmp_path / "yes_broken.wav").write_bytes(b"RIFF")
    (tmp_path / "no_cut.wav").write_bytes((tmp_path / "no_0.wav").read_bytes()[:-100])
    write(tmp_path / "nameless.wav")
    (tmp_path / "notes.txt").write_text("no sound")
    data = get(tmp_path)
    assert data.train_examples + data.test_examples == 10
    told = capsys.readouterr().err
    assert "2 of 12 files" in told and "yes_broken.wav" in told and "no_cut.wav" in told
    assert "1 of 13 files" in told and "nameless.wav" in told
    assert len(told.splitlines()) == 2
    get(tmp_path)
    assert not capsys.readouterr().err


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(BibenchError, match="wav_folder:FOLDER"):
        datasets.get("wav_folder")
    with pytest.raises(BibenchError, match="no folder"):
        get(tmp_path / "absent")
    with pytest.raises(BibenchError, match="no usable wav files"):
        get(tmp_path)
    for number in range(6):
        write(tmp_path / f"yes_{number}.wav")
    with pytest.raises(BibenchError, match="one class, 'yes'"):
        get(tmp_path)
    write(tmp_path / "no" / "0.wav")
    with pytest.raises(BibenchError, match="sub-folders"):
        get(tmp_path)
    (tmp_path / "no" / "0.wav").rename(tmp_path / "no_0.wav")
    (tmp_path / "testing_list.txt").write_text("no_0.wav\n")
    with pytest.raises(BibenchError, match="no training wav files of no"):
        get(tmp_path)
    (tmp_path / "testing_list.txt").write_text("other.wav\n")
    with pytest.raises(BibenchError, match="test split"):
        get(tmp_path)


def write_prepared(root, splits, classes=("yes", "_silence_", "_unknown_")):
    """Speech Commands as TensorFlow Datasets leaves it; `splits` maps a split to (samples, label)."""
    import tensorflow as tf

    folder = root / "speech_commands" / "0.0.3"
    folder.mkdir(parents=True)
    for split, clips in splits.items():
        with tf.io.TFRecordWriter(str(folder / f"speech_commands-{split}.tfrecord-00000-of-00001")) as writer:
            for samples, label in clips:
                features = {
                    "audio": tf.train.Feature(int64_list=tf.train.Int64List(value=samples)),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    info = {
        "name": "speech_commands",
        "version": "0.0.3",
        "fileFormat": "tfrecord",
        "splits": [
            {"name": split, "numBytes": "1", "shardLengths": [str(len(clips))]} for split, clips in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("\n".join(classes) + "\n")


def test_speech_commands(tmp_path):
    train = [(np.full(9000, 5), 0), (np.full(17_000, -7), 2), (np.full(16_000, 3), 1)] * 10
    write_prepared(tmp_path, {"train": train, "test": train[:3]})
    data = datasets.get("speech_commands", tmp_path)
    assert (data.train_examples, data.test_examples) == (33, 3)
    examples = data.examples
    np.testing.assert_array_equal(examples.train_inputs[0], [5] * 9000 + [0] * 7000)
    np.testing.assert_array_equal(examples.train_inputs[1], [-7] * 16_000)
    # A tenth more clips, of silence.
    assert not examples.train_inputs[30:].any() and examples.train_labels[30:].tolist() == [1, 1, 1]
    assert examples.test_labels.tolist() == [0, 2, 1]
    noise = data.transform.keywords["noise"]()
    np.testing.assert_array_equal(noise, np.full(10 * 16_000, 3 / 32768, np.float32))


def test_speech_commands_without_silence_are_refused(tmp_path):
    write_prepared(tmp_path, {"train": [([1], 0)], "test": [([1], 0)]}, classes=("yes",))
    with pytest.raises(BibenchError, match="_silence_"):
        datasets.get("speech_commands", tmp_path)


def test_shared_speech_commands(shared):
    data = datasets.get("speech_commands", shared / "data/tensorflow_datasets")
    assert data.num_classes == 12 and (data.train_examples, data.test_examples) == (1056, 180)
    assert np.bincount(data.examples.test_labels).min() > 0


def test_shared_spoken_digits(shared):
    data = get(shared / "data/free_spoken_digits/recordings")
    assert data.class_names == tuple("0123456789") and (data.train_examples, data.test_examples) == (2700, 300)
