"""The figures of the robustness track over many resamples at once, and what is certain about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bibench_tf.names import BASELINE
from bibench_tf.stats import bootstrap
from bibench_tf.stats.bootstrap import Interval

CORRUPTED, GAP, OM = "corrupted accuracy", "mean gap", "OM_robust"
MCE, RELATIVE_MCE = "mCE", "relative mCE"
# A corruption may hurt a network most when it does so in more than this share of the resamples.
_RARE = 1 - bootstrap.LEVEL


@dataclass(frozen=True)
class Means:
    """Accuracies (0..1) of A networks; leading dimensions are resamples.

    On clean images [..., A], by corruption, over the severities [..., A, C], and by severity, over the
    corruptions [..., A, S].
    """

    clean: np.ndarray
    by_corruption: np.ndarray
    by_severity: np.ndarray

    @property
    def corrupted(self) -> np.ndarray:
        """The mean accuracy over all corruptions and severities [..., A]."""
        return self.by_corruption.mean(axis=-1)

    @property
    def gaps(self) -> np.ndarray:
        """`metrics.generalization_gap` of every corruption [..., A, C]; NaN where the clean accuracy is 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            gaps = 1 - self.by_corruption / self.clean[..., None]
        return np.where(self.clean[..., None] > 0, np.maximum(gaps, 0), np.nan)

    def om_robust(self, baseline: int) -> np.ndarray:
        """`metrics.om_robust` against the network of index `baseline` [..., A]; infinite or NaN where undefined."""
        gaps = self.gaps
        reference = gaps[..., baseline : baseline + 1, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where((gaps == 0) & (reference == 0), 1.0, reference / gaps)
        return np.sqrt(np.mean(ratios**2, axis=-1))

    def mean_corruption_error(self, baseline: int) -> np.ndarray:
        """`metrics.mean_corruption_error` against the network of index `baseline` [..., A]."""
        errors = 1 - self.by_corruption
        return _mean_ratio(errors, errors[..., baseline : baseline + 1, :])

    def relative_mean_corruption_error(self, baseline: int) -> np.ndarray:
        """`metrics.relative_mean_corruption_error` against the network of index `baseline` [..., A]."""
        added = self.clean[..., None] - self.by_corruption
        reference = added[..., baseline : baseline + 1, :]
        return _mean_ratio(added, np.where(reference > 0, reference, np.nan))


def _mean_ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.mean(above / below, axis=-1)


@dataclass(frozen=True)
class Certainty:
    """What the bootstrap says about the figures of the networks, each by algorithm.

    `intervals` are by figure (`CORRUPTED`, `GAP`, `OM`, `MCE`, `RELATIVE_MCE`) and then by algorithm; a figure that
    some resample leaves undefined has none. `by_severity` are those of the accuracy, the first for clean images.
    `ranks` are by figure (`CORRUPTED`, `GAP`, `OM`): the places an algorithm may hold. `against_baseline` says whose
    mean gap is certainly `smaller` or `larger` than full precision's. `worst` are the corruptions that may hurt
    an algorithm most, the likeliest first.
    """

    intervals: Mapping[str, Mapping[str, Interval]]
    by_severity: Mapping[str, Sequence[Interval]]
    ranks: Mapping[str, Mapping[str, tuple[int, int]]]
    against_baseline: Mapping[str, str]
    worst: Mapping[str, Sequence[str]]


def means(clean: np.ndarray, corrupted: np.ndarray) -> Means:
    """The figures of answers: bool [N, A] on clean images, [N, A, C, S] on corrupted ones."""
    return Means(clean.mean(axis=0), corrupted.mean(axis=(0, 3)), corrupted.mean(axis=(0, 2)))


def resampled(clean: np.ndarray, corrupted: np.ndarray, *, paired: bool, seed: int, resamples: int) -> Means:
    """As `means`, in each of `resamples` draws of images; `paired` says that row i is one image in both arrays."""
    count, networks, kinds, severities = corrupted.shape
    columns = np.concatenate(
        [corrupted.mean(axis=3).reshape(count, -1), corrupted.mean(axis=2).reshape(count, -1)], axis=1
    )
    if paired:
        columns = np.concatenate([columns, clean], axis=1)
    drawn = bootstrap.resampled_means(columns, seed=seed, resamples=resamples)
    first, second, last = np.split(drawn, [networks * kinds, networks * (kinds + severities)], axis=1)
    if not paired:
        last = bootstrap.resampled_means(clean, seed=seed + 1, resamples=resamples)
    return Means(last, first.reshape(-1, networks, kinds), second.reshape(-1, networks, severities))


def certainty(
    algorithms: Sequence[str],
    corruptions: Sequence[str],
    clean: np.ndarray,
    corrupted: np.ndarray,
    *,
    paired: bool,
    seed: int = 0,
    resamples: int = bootstrap.RESAMPLES,
) -> Certainty:
    """Intervals, ranks and worst corruptions of networks from their answers, bool [N, A] and [N, A, C, S].

    Without the full-precision network among `algorithms` there is nothing that compares with it. OM_robust, a ratio
    that may be infinite in a resample, is ranked by OM / (1 + OM).
    """
    observed = means(clean, corrupted)
    samples = resampled(clean, corrupted, paired=paired, seed=seed, resamples=resamples)
    figures = {
        CORRUPTED: (observed.corrupted, samples.corrupted),
        GAP: (observed.gaps.mean(axis=-1), samples.gaps.mean(axis=-1)),
    }
    ranked = {CORRUPTED: figures[CORRUPTED], GAP: tuple(-gap for gap in figures[GAP])}
    if BASELINE in algorithms:
        index = algorithms.index(BASELINE)
        figures[OM] = (observed.om_robust(index), samples.om_robust(index))
        figures[MCE] = (observed.mean_corruption_error(index), samples.mean_corruption_error(index))
        figures[RELATIVE_MCE] = (
            observed.relative_mean_corruption_error(index),
            samples.relative_mean_corruption_error(index),
        )
        ranked[OM] = (_bounded(np.where(np.isfinite(figures[OM][0]), figures[OM][0], np.nan)), _bounded(figures[OM][1]))
    larger = {name: bootstrap.better(value, drawn) for name, (value, drawn) in ranked.items()}
    by_severity = np.concatenate([samples.clean[..., None], samples.by_severity], axis=-1)
    return Certainty(
        intervals={
            name: {
                algorithm: bootstrap.interval(drawn[:, index])
                for index, algorithm in enumerate(algorithms)
                if not np.isnan(drawn[:, index]).any()
            }
            for name, (_, drawn) in figures.items()
        },
        by_severity={
            algorithm: [bootstrap.interval(column) for column in by_severity[:, index].T]
            for index, algorithm in enumerate(algorithms)
        },
        ranks={name: dict(zip(algorithms, bootstrap.ranks(found), strict=True)) for name, found in larger.items()},
        against_baseline=_against(algorithms, larger[GAP]) if BASELINE in algorithms else {},
        worst={
            algorithm: _worst(corruptions, observed.by_corruption[index], samples.by_corruption[:, index])
            for index, algorithm in enumerate(algorithms)
        },
    )


def _bounded(ratios: np.ndarray) -> np.ndarray:
    """Ratios from 0 to infinity as shares r / (1 + r) from 0 to 1, in the same order."""
    return 1 - 1 / (1 + ratios)


def _against(algorithms: Sequence[str], better: np.ndarray) -> dict[str, str]:
    baseline = algorithms.index(BASELINE)
    return {
        algorithm: "smaller" if better[index, baseline] else "larger"
        for index, algorithm in enumerate(algorithms)
        if better[index, baseline] or better[baseline, index]
    }


def _worst(corruptions: Sequence[str], observed: np.ndarray, samples: np.ndarray) -> list[str]:
    # The largest gap of a network is its lowest accuracy.
    shares = np.bincount(samples.argmin(axis=1), minlength=len(corruptions)) / len(samples)
    order = sorted(range(len(corruptions)), key=lambda index: (observed[index], index))
    return [corruptions[index] for index in order if shares[index] > _RARE or index == order[0]]
