"""Synthesise the embedded data set `keywords_mini`: ten words spoken by two speech synthesizers.

    python -m bibench_tf.datasets.making.keywords_mini

Needs the programs `espeak-ng` and `flite` (Debian: packages of the same names). The embedded file was made with
eSpeak NG 1.51 and Flite 2.2; other versions speak a little differently. The random draws depend on SEED alone.

Every clip is one word in one voice. Three of four clips are of eSpeak NG, an accent in the voice of a variant, at
130 to 210 words a minute and a pitch of 25 to 75; one of four is of Flite, 0.8 to 1.3 times as long as normal, at a
mean pitch of 90 to 200 Hz. No voice of the test clips is in a training clip; accents are in both.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bibench_tf.datasets.keywords_mini import FILE, STORED_HZ, WORDS, compressed
from bibench_tf.files import write_atomically

SEED = 2023
PER_WORD = {"train": 160, "test": 40}
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc")
VARIANTS = {
    "train": "m1 m2 m3 m4 m5 m6 f1 f2 f3 Alex Andy Annie David Denis Diogo Gene Linda Michael Steph adam anika klatt",
    "test": "m7 m8 f4 f5 Alicia Lee Mike belinda travis victor",
}
FLITE_VOICES = {"train": ("awb", "kal", "slt"), "test": ("rms",)}
LONGEST_S = 0.9
# As a share of the clip's peak: softer samples at the beginning and at the end are silence.
SILENCE = 0.02


def synthesise(word: str, split: str, random: np.random.Generator, file: Path) -> None:
    """Write `word`, spoken in a voice of `split`, to the wav file `file`."""
    if random.random() < 0.75:
        voice = f"{random.choice(ACCENTS)}+{random.choice(VARIANTS[split].split())}"
        manner = ["-s", str(random.integers(130, 211)), "-p", str(random.integers(25, 76))]
        command = ["espeak-ng", "-v", voice, *manner, "-w", str(file), word]
    else:
        stretch, pitch_hz = random.uniform(0.8, 1.3), random.uniform(90, 200)
        settings = ["--setf", f"duration_stretch={stretch:.3f}", "--setf", f"int_f0_target_mean={pitch_hz:.1f}"]
        command = ["flite", "-voice", str(random.choice(FLITE_VOICES[split])), *settings, "-t", word, "-o", str(file)]
    subprocess.run(command, check=True, capture_output=True)


def trimmed(file: Path) -> np.ndarray:
    """The word in a wav file: float32 at 8 kHz with a peak of 1, without the silence around it, at most 0.9 s."""
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    rate, samples = wavfile.read(file)
    samples = resample_poly(samples.astype(np.float64), STORED_HZ, rate)
    loudness = np.abs(samples) / np.abs(samples).max()
    loud = np.flatnonzero(loudness > SILENCE)
    samples = samples[loud[0] : loud[-1] + 1][: round(LONGEST_S * STORED_HZ)]
    return (samples / np.abs(samples).max()).astype(np.float32)


def spoken(split: str, random: np.random.Generator, folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Label and samples of the clips of `split`, in random order; wav files pass through `folder`."""
    for label in random.permutation(np.repeat(np.arange(len(WORDS)), PER_WORD[split])):
        synthesise(WORDS[label], split, random, folder / "clip.wav")
        yield label, trimmed(folder / "clip.wav")


def draw(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, as `keywords_mini.load` expects them: samples end to end, lengths and labels."""
    random = np.random.default_rng(SEED)
    arrays = {}
    for split in PER_WORD:
        labels, clips = zip(*spoken(split, random, folder), strict=True)
        arrays[f"{split}_samples"] = compressed(np.concatenate(clips))
        arrays[f"{split}_lengths"] = np.array([len(clip) for clip in clips], np.uint16)
        arrays[f"{split}_labels"] = np.array(labels, np.uint8)
    return arrays


def main(target: Path) -> None:
    """Write the data set to the .npz file `target`."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = draw(Path(folder))
    write_atomically(target, lambda path: np.savez_compressed(path, **arrays))


if __name__ == "__main__":
    main(FILE)
