"""Wav files, log-mel spectrograms and the augmentation, against independent computations."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
import tensorflow as tf

from bibench_tf.datasets.kinds import speech

RNG = np.random.default_rng(0)


def wav(samples, width, rate_hz=16_000, channels=1):
    """The bytes of a PCM wav file by the standard library; `samples` in -1..1, interleaved."""
    full = 2 ** (8 * width - 1)
    numbers = np.round(np.asarray(samples) * (full - 1)).astype(np.int64)
    numbers = numbers + 128 if width == 1 else numbers
    content = b"".join(int(number).to_bytes(width, "little", signed=width > 1) for number in numbers)
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(channels)
        target.setsampwidth(width)
        target.setframerate(rate_hz)
        target.writeframes(content)
    return file.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integers_of_all_widths(width):
    samples = RNG.uniform(-1, 1, 200)
    rate_hz, read = speech.read_wav(wav(samples, width, rate_hz=11_025))
    assert rate_hz == 11_025 and read.dtype == np.float32
    np.testing.assert_allclose(read, samples, atol=2.0 ** (2 - 8 * width) + 1e-6)


def test_floats_and_channels():
    samples = RNG.uniform(-1, 1, (100, 2)).astype(np.float32)
    file = io.BytesIO()
    scipy.io.wavfile.write(file, 16_000, samples)
    np.testing.assert_allclose(speech.read_wav(file.getvalue())[1], samples.mean(axis=1), atol=1e-6)
    stereo = speech.read_wav(wav(samples.ravel(), 2, channels=2))[1]
    np.testing.assert_allclose(stereo, samples.mean(axis=1), atol=1e-4)


def test_unknown_chunks_do_no_harm():
    content = wav(np.zeros(50), 2)
    other = b"LISTx" + b"\0" * 3
    content = content + b"note" + (8).to_bytes(4, "little") + other
    assert len(speech.read_wav(content)[1]) == 50


@pytest.mark.parametrize("change", [lambda c: b"", lambda c: c[:30], lambda c: c[:-20], lambda c: b"text" * 50])
def test_broken_files_are_refused(change, recwarn):
    with pytest.raises(ValueError):
        speech.read_wav(change(wav(RNG.uniform(-1, 1, 100), 2)))
    assert not recwarn.list


def test_files_without_samples_or_with_impossible_ones_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        speech.read_wav(wav([], 2))
    file = io.BytesIO()
    scipy.io.wavfile.write(file, 16_000, np.array([0.0, np.nan], np.float32))
    with pytest.raises(ValueError, match="not finite"):
        speech.read_wav(file.getvalue())


def test_a_clip_is_a_second():
    np.testing.assert_array_equal(speech.clip(np.array([0.5, -1.0, 2.0]))[:4], [16384, -32768, 32767, 0])
    assert speech.clip(np.zeros(3)).shape == speech.clip(np.zeros(20_000)).shape == (16_000,)


def test_resampling_keeps_a_tone():
    time = np.arange(8000) / 8000
    tone = speech.at_16_khz(np.sin(2 * np.pi * 440 * time), 8000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(tone[500:-500], expected[500:-500], atol=2e-3)


def hertz(mel):
    return 700 * (10 ** (mel / 2595) - 1)


def reference_log_mel(samples):
    """Frame by frame and band by band, with SciPy's window and a plain DFT; [32 (time), 32 (mel)]."""
    window = scipy.signal.get_window("hann", 2048, fftbins=True)
    mirrored = np.concatenate([samples[1024:0:-1], samples, samples[-2:-1026:-1]])
    highest = 2595 * np.log10(1 + 8000 / 700)
    result = np.zeros((32, 32))
    for frame in range(32):
        part = mirrored[512 * frame : 512 * frame + 2048]
        power = np.abs(np.fft.fft(part * window))[:1025] ** 2 / np.sum(window**2)
        for band in range(32):
            low, middle, high = (hertz(highest * (band + corner) / 33) for corner in range(3))
            total = 0.0
            for index in range(1025):
                frequency = index * 16_000 / 2048
                if low < frequency <= middle:
                    total += power[index] * (frequency - low) / (middle - low)
                elif middle < frequency < high:
                    total += power[index] * (high - frequency) / (high - middle)
            result[frame, band] = 10 * np.log10(max(total, 1e-10))
    return result


def test_log_mel():
    time = np.arange(16_000) / 16_000
    noise = RNG.standard_normal(16_000)
    # Without a little noise the bands a tone leaves empty would hold nothing but the rounding of 32 bits.
    waves = np.stack([0.1 * noise, 0.9 * np.sin(2 * np.pi * (200 + 3000 * time) * time) + 1e-3 * noise])
    ours = speech.log_mel(tf.constant(waves, tf.float32)).numpy()
    assert ours.shape == (2, *speech.INPUT_SHAPE)
    for samples, spectrogram in zip(waves, ours, strict=True):
        np.testing.assert_allclose(spectrogram[..., 0], reference_log_mel(samples), atol=2e-3)


def test_silence_is_minus_100_db():
    assert np.unique(speech.log_mel(tf.zeros([1, 16_000])).numpy()) == pytest.approx([-100])


def test_white_noise_has_the_power_of_its_bands():
    """Normalized by the window, a band's power is the variance of the samples times the sum of its weights."""
    waves = tf.constant(0.1 * RNG.standard_normal((40, 16_000)), tf.float32)
    power = 10 ** (speech.log_mel(waves).numpy()[..., 0] / 10)
    np.testing.assert_allclose(power.mean(axis=(0, 1)), 0.01 * speech.mel_filters().sum(axis=0), rtol=0.1)


def augmented(waves, noise=None, keys=range(120)):
    noise = tf.zeros(16_000) if noise is None else noise
    for key in keys:
        yield speech.augmented(waves, noise, tf.constant([7, key], tf.int64)).numpy()


def test_augmentation_depends_on_its_key_alone():
    waves = tf.constant(RNG.standard_normal((4, 16_000)), tf.float32)
    first, again, other = augmented(waves, keys=(1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[0] != first[1]).any()


def test_augmentation_of_silence_is_noise_of_at_most_its_share():
    loudest = np.array([wave.max() for batch in augmented(tf.zeros([20, 16_000]), tf.ones(20_000)) for wave in batch])
    mixed = loudest > 0
    assert mixed.mean() == pytest.approx(0.3, abs=0.03)
    assert loudest.max() == pytest.approx(0.3 * 1.1, abs=0.02)


def test_augmentation_changes_amplitude_speed_and_place():
    """Two impulses tell all three: height, distance and middle."""
    waves = np.zeros((20, 16_000), np.float32)
    # Wide enough that the nearest sample does not miss them.
    waves[:, 6000:6020] = waves[:, 10_000:10_020] = 1.0
    heights, distances, middles = [], [], []
    for batch in augmented(tf.constant(waves)):
        for samples in batch:
            places = np.flatnonzero(samples)
            first, last = places[0], places[-1]
            heights.append(samples.max())
            distances.append((last - first) / 4019)
            middles.append((first + last) / 2)
    heights, distances, middles = map(np.array, (heights, distances, middles))
    louder = (heights > 1.0001).mean()
    # Where no noise, here of zeros, takes its share.
    assert louder == pytest.approx(0.7 * 0.5 * 0.1 / 0.4, abs=0.02) and heights.min() > 0.48 and heights.max() < 1.101
    changed = np.abs(distances - 1) > 1e-3
    assert changed.mean() == pytest.approx(0.5, abs=0.03)
    assert 0.79 < distances.min() < 0.82 and 1.18 < distances.max() < 1.21
    assert distances[changed].mean() == pytest.approx(1, abs=0.02)
    moved = middles[~changed] - 8009.5
    assert (np.abs(moved) > 2).mean() == pytest.approx(0.5, abs=0.05)
    assert 3000 < moved.max() <= 3201 and -3000 > moved.min() >= -3201


def test_a_wave_that_is_moved_leaves_silence():
    ones = tf.ones([20, 16_000])
    waves = np.concatenate(list(augmented(ones)))
    empty = (waves == 0).sum(axis=1)
    # A wave that is 0.2 s early and a quarter faster ends after 0.6 s.
    assert 0 < (empty > 0).mean() < 1 and 5800 < empty.max() <= 6401


def test_features_without_a_key_are_deterministic_and_without_noise():
    def no_noise():
        raise AssertionError("noise is for training")

    clips = tf.constant(RNG.integers(-9999, 9999, (3, 16_000)), tf.int16)
    spectrograms, labels = speech.features(clips, tf.constant([1, 2, 3]), None, noise=no_noise)
    np.testing.assert_allclose(spectrograms, speech.log_mel(tf.cast(clips, tf.float32) / 32768))
    assert labels.numpy().tolist() == [1, 2, 3]


def test_coloured_noise():
    noise = speech.coloured_noise(seconds=9, seed=3)
    assert noise.shape == (9 * 16_000,) and noise.dtype == np.float32
    slopes = []
    for part in np.split(noise, 3):
        assert np.sqrt(np.mean(part**2)) == pytest.approx(0.1, rel=1e-3)
        frequencies, power = scipy.signal.welch(part, 16_000, nperseg=4096)
        middle = (frequencies > 100) & (frequencies < 4000)
        slopes.append(np.polyfit(np.log10(frequencies[middle]), np.log10(power[middle]), 1)[0])
    np.testing.assert_allclose(slopes, [0, -1, -2], atol=0.15)
    assert (speech.coloured_noise(seconds=9, seed=4) != noise).any()
