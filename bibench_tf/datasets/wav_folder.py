"""`wav_folder:FOLDER`: spoken words in the user's wav files."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from bibench_tf.contents import Contents
from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import unusable, user_files
from bibench_tf.datasets.kinds import speech
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples
from bibench_tf.errors import BibenchError
from bibench_tf.files import fingerprint_description
from bibench_tf.names import own_data

NOISE_FOLDER = "_background_noise_"
TEST_LIST = "testing_list.txt"
VALIDATION_LIST = "validation_list.txt"
# The naming of the Free Spoken Digit Dataset, whose recordings 0 to 4 are the test split.
_NUMBERED = re.compile(r"[^_]+_[^_]+_(\d+)")
_TEST_NUMBERS = 5


@register("wav_folder", task="keyword_spotting", description="wav_folder:FOLDER, words in wav files of your own")
def get(options: LoadOptions) -> ArrayDataset:
    """The words in the user's folder, found by sub-folders or by file names.

    One folder for each word, `FOLDER/word/*.wav`, or all files in one folder, `FOLDER/word_*.wav`, the word being the
    part before the first underscore. Any sampling rate, 8 to 32 bits, one or more channels; longer recordings are cut
    after one second, shorter ones are padded with zeros. `_background_noise_` is not a word: the
    augmentation mixes in its files.

    The test split: the files that `testing_list.txt` names, one path for each line, as in Speech Commands (those of
    `validation_list.txt` are then in neither split); else, where all names are `word_speaker_number.wav`, numbers 0 to
    4, as in the Free Spoken Digit Dataset; else the fifth of the files of each word whose names have the smallest
    SHA-256.

    Files that are not readable wav files are left out with a warning; all files are read once to find them. Raises
    MissingData where there is no folder, and BibenchError where it does not have two words with training and test
    files.
    """
    folder = options.own_folder("wav_folder", "wav files")
    words, noise = _words(folder)
    broken = _broken([*words, *noise])
    unusable.warn(
        [f"{_path(folder, file)} ({reason})" for file, reason in broken.items()],
        f"of {len(words) + len(noise)} files in {folder} are not usable wav files",
    )
    words = {file: word for file, word in words.items() if file not in broken}
    noise = [file for file in noise if file not in broken]
    if not words:
        raise BibenchError(
            f"There are no usable wav files in {folder}: it needs word_*.wav, or a folder for each word."
        )
    class_names = tuple(sorted(set(words.values())))
    train, test = _split(folder, words)
    user_files.check_classes(folder, "wav files", class_names, (words[file] for file in train), bool(test), TEST_LIST)
    contents = Contents([*words, *noise])
    paths = [[_path(folder, file) for file in files] for files in (words, noise, train, test)]
    return speech.dataset(
        name=own_data("wav_folder", folder),
        title=f"{len(class_names)} words in wav files, {len(train):,} / {len(test):,}",
        source="wav files of the user",
        licence="as the files",
        class_names=class_names,
        train_examples=len(train),
        test_examples=len(test),
        fingerprint=lambda: fingerprint_description({"files": contents.digest, "paths": paths}),
        contents=contents,
        load=partial(_load, train, test, class_names, words),
        noise=partial(_background, noise),
    )


def _words(folder: Path) -> tuple[dict[Path, str], list[Path]]:
    """The word of each wav file, and the files of background noise."""
    beside = _wavs(folder)
    folders = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    inside = {entry.name: _wavs(entry) for entry in folders}
    noise = inside.pop(NOISE_FOLDER, [])
    inside = {name: files for name, files in inside.items() if files}
    if beside and inside:
        raise BibenchError(
            f"{folder} has wav files both directly and in sub-folders: keep one folder for each word, or all "
            "files, called word_*.wav, in one folder."
        )
    if inside:
        return {file: name for name, files in inside.items() for file in files}, noise
    nameless = [file.name for file in beside if file.stem.find("_") < 1]
    unusable.warn(nameless, f"of {len(beside)} files in {folder} have no word in their name (word_*.wav)")
    return {file: file.name.partition("_")[0] for file in beside if file.name not in nameless}, noise


def _broken(files: list[Path]) -> dict[Path, str]:
    """The errors of unusable files."""
    broken = {}
    for file in files:
        try:
            speech.read_wav(file.read_bytes())
        except (OSError, ValueError) as error:
            broken[file] = str(error)
    return broken


def _path(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _wavs(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".wav" and file.is_file()]


def _split(folder: Path, words: dict[Path, str]) -> tuple[list[Path], list[Path]]:
    """The files of the training and of the test split."""
    listed = _listed(folder, TEST_LIST)
    if listed:
        test = [file for file in words if file in listed]
        left_out = listed | _listed(folder, VALIDATION_LIST)
        return [file for file in words if file not in left_out], test
    numbers = {file: _NUMBERED.fullmatch(file.stem) for file in words}
    if all(numbers.values()):
        in_test = {file for file, match in numbers.items() if int(match[1]) < _TEST_NUMBERS}
    else:
        in_test = set()
        for word in set(words.values()):
            in_test |= {*user_files.test_items([file for file in words if words[file] == word], lambda file: file.name)}
    return [file for file in words if file not in in_test], [file for file in words if file in in_test]


def _listed(folder: Path, name: str) -> set[Path]:
    return {folder / line for line in user_files.lines(folder / name)}


def _load(train: list[Path], test: list[Path], class_names: tuple[str, ...], words: dict[Path, str]) -> Examples:
    arrays = []
    for files in (train, test):
        arrays.append(np.stack([speech.clip(_samples(file)) for file in files]))
        arrays.append(np.array([class_names.index(words[file]) for file in files], np.int32))
    return Examples(*arrays)


def _samples(file: Path) -> np.ndarray:
    rate_hz, samples = speech.read_wav(file.read_bytes())
    return speech.at_16_khz(samples, rate_hz)


def _background(files: list[Path]) -> np.ndarray:
    """The recordings of background noise concatenated, or generated noise where they are shorter than a second."""
    recordings = [_samples(file) for file in files]
    long_enough = sum(map(len, recordings)) >= speech.SAMPLES
    return np.concatenate(recordings).astype(np.float32) if long_enough else speech.coloured_noise()
