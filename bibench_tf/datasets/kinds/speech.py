"""Data sets of spoken words: wav files, clips of one second, log-mel spectrograms and augmentation.

A clip is one second at 16 kHz, int16 [16000]. Clips are held in memory; the inputs of a network are computed from them
batch by batch, so that the augmentation works on the sound. TensorFlow is imported with the first batch.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.datasets.kinds.arrays import ArrayDataset

if TYPE_CHECKING:
    import tensorflow as tf

RATE_HZ = 16_000
SAMPLES = 16_000
FRAME_SAMPLES = 2048
HOP_SAMPLES = 512
MELS = 32
# Frames are centred on the multiples of the hop, 0 and 15,872 included; each is a row of 32 mel bands.
INPUT_SHAPE = (SAMPLES // HOP_SAMPLES + 1, MELS, 1)
# The power below which a band counts as silent, -100 dB.
SILENCE = 1e-10

Noise = Callable[[], np.ndarray]


def dataset(*, class_names: tuple[str, ...], noise: Noise, **description: Any) -> ArrayDataset:
    """A data set of clips (int16 [N, 16000]) with one word each, its inputs prepared by `features`.

    `noise` returns the background noise for `augmented`; it is called when training begins. `description`
    are the other fields of `ArrayDataset`.
    """
    return ArrayDataset(
        task="keyword_spotting",
        class_names=class_names,
        options={"input_shape": INPUT_SHAPE, "num_classes": len(class_names)},
        transform=partial(features, noise=noise),
        **description,
    )


def read_wav(content: bytes) -> tuple[int, np.ndarray]:
    """Sampling rate and mono samples (float32 in -1..1) of the bytes of a wav file.

    Integers of 8, 16, 24, 32 bits and floats; several channels are averaged. Raises ValueError for other
    files, and for a file that ends too early or has no samples.
    """
    from scipy.io import wavfile

    with warnings.catch_warnings():
        # A file that ends too early would be read as a shorter one. Chunks unknown to SciPy are harmless.
        warnings.filterwarnings("error", message=".*prematurely.*", category=wavfile.WavFileWarning)
        warnings.filterwarnings("ignore", message="(?!.*prematurely)", category=wavfile.WavFileWarning)
        try:
            rate_hz, samples = wavfile.read(io.BytesIO(content))
        except Exception as error:  # SciPy raises any exception on broken bytes.
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if not samples.size or rate_hz <= 0:
        raise ValueError("it has no samples")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    samples = samples.reshape(len(samples), -1).mean(axis=1, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("it has samples that are not finite")
    return rate_hz, samples


def at_16_khz(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Samples [..., N] at 16 kHz, by SciPy's polyphase filter."""
    from scipy.signal import resample_poly

    return samples if rate_hz == RATE_HZ else resample_poly(samples, RATE_HZ, rate_hz, axis=-1)


def clip(samples: np.ndarray) -> np.ndarray:
    """The first second of samples at 16 kHz (floats in -1..1), padded with zeros."""
    second = np.zeros(SAMPLES, np.int16)
    first = samples[:SAMPLES]
    second[: len(first)] = np.clip(np.round(first * 32768.0), -32768, 32767)
    return second


@cache
def coloured_noise(seconds: int = 30, seed: int = 0) -> np.ndarray:
    """White, pink and brown noise, a third each: float32 [seconds * 16000] with a root mean square of 0.1.

    For data sets that come without recordings of background noise. The power falls with f^0, f^-1 and f^-2.
    """
    random = np.random.default_rng(seed)
    length = seconds * RATE_HZ // 3
    frequencies = np.fft.rfftfreq(length, 1 / RATE_HZ)
    parts = []
    for exponent in (0, 1, 2):
        # Frequencies below 20 Hz are inaudible.
        gains = np.where(frequencies < 20, 0, np.maximum(frequencies, 20) ** (-exponent / 2))
        part = np.fft.irfft(np.fft.rfft(random.standard_normal(length)) * gains, length)
        parts.append(0.1 * part / np.sqrt(np.mean(part**2)))
    return np.concatenate(parts).astype(np.float32)


@cache
def mel_filters() -> np.ndarray:
    """The weights of the 1,025 frequencies of a frame in the 32 mel bands, float32 [1025, 32].

    Triangles over the frequency in Hz, of height 1, whose 34 corners are equally far apart on HTK's mel scale
    m = 2595 log10(1 + f / 700), from 0 to 8 kHz: the defaults of torchaudio.
    """
    frequencies = np.linspace(0, RATE_HZ / 2, FRAME_SAMPLES // 2 + 1)[:, np.newaxis]
    highest = 2595 * np.log10(1 + RATE_HZ / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, MELS + 2) / 2595) - 1)
    below, peak, above = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies - below) / (peak - below)
    falling = (above - frequencies) / (above - peak)
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def log_mel(waves: tf.Tensor) -> tf.Tensor:
    """Log-mel spectrograms in dB, float32 [B, 32 (time), 32 (mel), 1], of waves [B, 16000] in -1..1.

    Frames of 2,048 samples every 512, centred (the ends are mirrored), with a periodic Hann window h:
    10 log10(max(1e-10, sum_f M(f, m) |STFT(f)|^2 / sum h^2)). Source: BiBench's Speech Commands pipeline, which has
    torchaudio's MelSpectrogram(n_fft=2048, hop_length=512, n_mels=32, normalized=True) and AmplitudeToDB().
    """
    import tensorflow as tf

    middle = FRAME_SAMPLES // 2
    padded = tf.pad(waves, [[0, 0], [middle, middle]], mode="REFLECT")
    window = tf.signal.hann_window(FRAME_SAMPLES, periodic=True)
    frames = tf.signal.frame(padded, FRAME_SAMPLES, HOP_SAMPLES) * (window / tf.norm(window))
    spectra = tf.signal.rfft(frames)
    power = tf.math.real(spectra) ** 2 + tf.math.imag(spectra) ** 2
    bands = tf.tensordot(power, tf.constant(mel_filters()), axes=1)
    decibels = 10 / np.log(10) * tf.math.log(tf.maximum(bands, SILENCE))
    return decibels[..., tf.newaxis]


def augmented(waves: tf.Tensor, noise: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Waves [B, 16000], each changed by its own random draws from the seed `key` (int64 [2]).

    In this order: with probability 0.3 a second of `noise` [L] from a random place is mixed in, x (1 - s) + n s with
    s from U(0, 0.3); with 0.5 the amplitude is multiplied by U(0.7, 1.1); with 0.5 the wave is played at 1 / (1 + u) of
    its speed, u from U(-0.2, 0.2), by the nearest sample, which changes the pitch, too; with 0.5 it is moved by up to
    0.2 s to either side. Zeros fill the gaps. Source: BiBench's Speech Commands pipeline.
    """
    import tensorflow as tf

    draws = tf.unstack(tf.random.stateless_uniform([9, tf.shape(waves)[0], 1], key))

    def sometimes(probability, lowest, highest, otherwise):
        decision, value = draws.pop(), draws.pop()
        return tf.where(decision < probability, lowest + (highest - lowest) * value, otherwise)

    time = tf.range(SAMPLES)
    start = tf.cast(draws.pop() * tf.cast(tf.size(noise) - SAMPLES + 1, tf.float32), tf.int32)
    share = sometimes(0.3, 0.0, 0.3, 0.0)
    waves = waves * (1 - share) + tf.gather(noise, start + time) * share
    waves *= sometimes(0.5, 0.7, 1.1, 1.0)
    speed = 1 / (1 + sometimes(0.5, -0.2, 0.2, 0.0))
    shift = sometimes(0.5, -0.2 * RATE_HZ, 0.2 * RATE_HZ, 0.0)
    source = tf.cast(tf.round((tf.cast(time, tf.float32) - shift) * speed), tf.int32)
    inside = (source >= 0) & (source < SAMPLES)
    return tf.where(inside, tf.gather(waves, tf.clip_by_value(source, 0, SAMPLES - 1), batch_dims=1), 0.0)


def features(
    clips: tf.Tensor, labels: tf.Tensor, key: tf.Tensor | None, *, noise: Noise
) -> tuple[tf.Tensor, tf.Tensor]:
    """The inputs of a network for clips [B, 16000]: log-mel spectrograms, after augmentation if there is a `key`."""
    import tensorflow as tf

    waves = tf.cast(clips, tf.float32) / 32768
    if key is not None:
        with tf.init_scope():  # lifted out of the graph, so that the array is not embedded in it
            background = tf.constant(noise())
        waves = augmented(waves, background, key)
    return log_mel(waves), labels
