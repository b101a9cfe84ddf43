"""The metrics of the robustness track in every resample of the images: intervals, ranks and worst corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bibench_tf.names import BASELINE
from bibench_tf.stats import arrays, bootstrap, metrics
from bibench_tf.stats.bootstrap import Interval

CORRUPTED, GAP = "corrupted accuracy", "mean gap"
OM, MCE, RELATIVE_MCE = metrics.OM_ROBUST.name, metrics.MCE.name, metrics.RELATIVE_MCE.name
# A corruption is among the worst of a network if it is the worst in more than this share of the resamples.
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
        """The gap of every corruption [..., A, C]; NaN where the clean accuracy is 0."""
        return arrays.gap(self.by_corruption / np.where(self.clean > 0, self.clean, np.nan)[..., None])

    def om_robust(self, baseline: int) -> np.ndarray:
        """OM_robust against the network of index `baseline` [..., A]; infinite or NaN where undefined."""
        gaps = _columns(self.gaps)
        return arrays.om_robust(_reference(gaps, baseline), gaps)

    def mean_corruption_error(self, baseline: int) -> np.ndarray:
        """The mCE against the network of index `baseline` [..., A]; infinite or NaN where undefined."""
        errors = _columns(1 - self.by_corruption)
        return arrays.mean_corruption_error(errors, _reference(errors, baseline))

    def relative_mean_corruption_error(self, baseline: int) -> np.ndarray:
        """The relative mCE against the network of index `baseline` [..., A]; NaN where undefined."""
        errors, clean = _columns(1 - self.by_corruption), 1 - self.clean
        reference = _reference(errors, baseline)
        return arrays.relative_mean_corruption_error(clean, errors, clean[..., baseline, None], reference)


def _columns(values: np.ndarray) -> np.ndarray:
    """The values [..., A, C] by corruption: [C, ..., A, 1], one value in place of those of the severities."""
    return np.moveaxis(values, -1, 0)[..., None]


def _reference(columns: np.ndarray, baseline: int) -> np.ndarray:
    return columns[..., baseline : baseline + 1, :]


@dataclass(frozen=True)
class Certainty:
    """The results of the bootstrap, each by algorithm; empty without a bootstrap.

    `intervals` are by metric (`CORRUPTED`, `GAP`, `OM`, `MCE`, `RELATIVE_MCE`) and then by algorithm; a metric that is
    undefined in a resample has no interval. `by_severity` holds the intervals of the accuracy on clean images and at
    severities 1 to 5. `ranks` are by metric (`CORRUPTED`, `GAP`, `OM`): the first and the last possible rank.
    `against_baseline` is `smaller` or `larger` for an algorithm whose mean gap differs significantly from that of full
    precision. `worst` lists the corruptions that may hurt an algorithm most, the worst in the data first.
    """

    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    by_severity: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    ranks: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    against_baseline: Mapping[str, str] = field(default_factory=dict)
    worst: Mapping[str, Sequence[str]] = field(default_factory=dict)


def means(clean: np.ndarray, corrupted: np.ndarray) -> Means:
    """The accuracies from answers: bool [N, A] on clean images, [N, A, C, S] on corrupted ones."""
    return Means(clean.mean(axis=0), corrupted.mean(axis=(0, 3)), corrupted.mean(axis=(0, 2)))


def resampled(clean: np.ndarray, corrupted: np.ndarray, *, paired: bool, seed: int, resamples: int) -> Means:
    """As `means`, in each of `resamples` draws of images; `paired`: row i is the same image in both arrays."""
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

    Metrics that compare with full precision are left out if it is not among `algorithms`. OM_robust, a ratio that may
    be infinite in a resample, is ranked by OM / (1 + OM).
    """
    observed = means(clean, corrupted)
    samples = resampled(clean, corrupted, paired=paired, seed=seed, resamples=resamples)
    pairs = {
        CORRUPTED: (observed.corrupted, samples.corrupted),
        GAP: (observed.gaps.mean(axis=-1), samples.gaps.mean(axis=-1)),
    }
    ranked = {CORRUPTED: pairs[CORRUPTED], GAP: (-pairs[GAP][0], -pairs[GAP][1])}
    if BASELINE in algorithms:
        index = algorithms.index(BASELINE)
        for name, method in (
            (OM, Means.om_robust),
            (MCE, Means.mean_corruption_error),
            (RELATIVE_MCE, Means.relative_mean_corruption_error),
        ):
            pairs[name] = method(observed, index), method(samples, index)
        value, drawn = pairs[OM]
        ranked[OM] = (_bounded(np.where(np.isfinite(value), value, np.nan)), _bounded(drawn))
    larger = {name: bootstrap.better(value, drawn) for name, (value, drawn) in ranked.items()}
    by_severity = np.concatenate([samples.clean[..., None], samples.by_severity], axis=-1)
    return Certainty(
        intervals={
            name: {
                algorithm: bootstrap.interval(drawn[:, index])
                for index, algorithm in enumerate(algorithms)
                if not np.isnan(drawn[:, index]).any()
            }
            for name, (_, drawn) in pairs.items()
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
