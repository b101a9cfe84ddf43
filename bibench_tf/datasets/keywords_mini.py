"""`keywords_mini`: ten words spoken by two speech synthesizers, inside the package."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from bibench_tf.datasets.base import LoadOptions, register
from bibench_tf.datasets.formats import embedded
from bibench_tf.datasets.kinds import speech
from bibench_tf.datasets.kinds.arrays import ArrayDataset, Examples

FILE = embedded.FOLDER / "keywords_mini.npz"
SHA256 = "3c7da3ef5dcdf41351a624451a92c7a818d53f145556ccccf39b2677f3ea2a7a"
WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
# As stored: 8 kHz, and mu-law with 31 levels to either side of zero, which NumPy's compression halves.
STORED_HZ = 8_000
LEVELS = 31
_MU = 255.0
# Range of the signal-to-noise ratio of a clip, in dB.
NOISE_DB = (5.0, 30.0)
# Largest distance of a word from the middle of its second.
OFF_CENTRE_S = 0.1
_SEED = 2023


def compressed(samples: np.ndarray) -> np.ndarray:
    """Samples in -1..1 by mu-law, round(31 sign(x) ln(1 + 255 |x|) / ln 256), as int8."""
    curve = np.sign(samples) * np.log1p(_MU * np.abs(samples)) / np.log1p(_MU)
    return np.round(LEVELS * curve).astype(np.int8)


def expanded(stored: np.ndarray) -> np.ndarray:
    """The inverse of `compressed`, float32."""
    levels = np.arange(-LEVELS, LEVELS + 1)
    values = np.sign(levels) * np.expm1(np.abs(levels) / LEVELS * np.log1p(_MU)) / _MU
    return values.astype(np.float32)[stored.astype(np.intp) + LEVELS]


def load(file: Path = FILE) -> Examples:
    """The clips in `file`: int16 [1600, 16000] and [400, 16000], labels 0..9.

    A word is at most 0.1 s from the middle of its second, has a random loudness, and noise is added; all draws have a
    fixed seed, so that the clips are always the same. Raises MissingData when the file is missing,
    and BibenchError when its SHA-256 differs.
    """
    examples = []
    with np.load(io.BytesIO(embedded.read(file, SHA256)), allow_pickle=False) as content:
        for seed, split in enumerate(("train", "test"), start=_SEED):
            words = np.split(expanded(content[f"{split}_samples"]), np.cumsum(content[f"{split}_lengths"])[:-1])
            examples += [_spoken_in_noise(words, seed), content[f"{split}_labels"].astype(np.int32)]
    return Examples(*examples)


@register(
    "keywords_mini",
    task="keyword_spotting",
    description="synthesised words in noise, 1,600 / 400 clips, 10 words; comes with the package",
    embedded=True,
)
def get(options: LoadOptions) -> ArrayDataset:
    """Ten words in 160 training and 40 test clips each, by eSpeak NG and Flite, in noise.

    No voice of a test clip is in the training split, see `bibench_tf.datasets.making.keywords_mini`. The options
    are not used.
    """
    return speech.dataset(
        name="keywords_mini",
        title="Synthesised keywords in noise, 1,600 / 400",
        source="eSpeak NG 1.51 and Flite 2.2",
        licence="Apache-2.0, as the package; notice beside the file",
        class_names=WORDS,
        train_examples=1600,
        test_examples=400,
        fingerprint=SHA256,
        load=load,
        noise=speech.coloured_noise,
    )


def _spoken_in_noise(words: list[np.ndarray], seed: int) -> np.ndarray:
    """Clips, int16 [N, 16000], of words at 8 kHz with a peak of 1."""
    random = np.random.default_rng(seed)
    noise = speech.coloured_noise(seed=seed)
    longest = max(len(word) for word in words)
    padded = np.stack([np.pad(word, (0, longest - len(word))) for word in words])
    clips = []
    for stored, resampled in zip(words, speech.at_16_khz(padded, STORED_HZ), strict=True):
        word = resampled[: len(stored) * speech.RATE_HZ // STORED_HZ]
        start = random.integers(len(noise) - speech.SAMPLES + 1)
        second = noise[start : start + speech.SAMPLES].copy()
        second *= 10 ** (-random.uniform(*NOISE_DB) / 20) * np.std(word) / np.std(second)
        begin = (speech.SAMPLES - len(word)) // 2 + round(random.uniform(-1, 1) * OFF_CENTRE_S * speech.RATE_HZ)
        begin = min(max(begin, 0), speech.SAMPLES - len(word))
        second[begin : begin + len(word)] += word
        clips.append(speech.clip(random.uniform(0.1, 0.9) * second / np.abs(second).max()))
    return np.stack(clips)
