"""The overall metrics of BiBench, and the corruption errors of the robustness track: their formulas and functions.

Every metric compares a binarized network (`bi`) with its full-precision counterpart (`fp`): full precision
against itself scores exactly 1, which reports print as 100 %. More is better, except for the corruption errors.

The formulas are given as recalled from the papers (Qin et al., BiBench, ICML 2023, arXiv 2301.11233; for the
corruption errors Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261); they are not verified word for word. Every
formula stands here once (`OM_TASK` and others); means and corruption metrics are computed by `arrays`, which also takes
bootstrap resamples.

A part without a value (a division by zero, nothing to average, a negative, infinite or missing number) raises
`Undefined`: no function of this module returns a number that leaves something out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from bibench_tf.stats import arrays

_Values = float | Iterable[float]

ARCHITECTURE_GROUPS = {"cnn": "CNN", "transformer": "Transformer", "mlp": "MLP"}


@dataclass(frozen=True)
class Metric:
    """The name and the formula of a metric, as reports show them."""

    name: str
    formula: str

    @classmethod
    def of_architectures(cls, groups: Collection[str]) -> Metric:
        """The metric of the neural architecture track over `groups`: OM_arch only where all groups are covered."""
        names = [name for group, name in ARCHITECTURE_GROUPS.items() if group in groups]
        part = "mean over the {} of accuracy / full-precision accuracy"
        if len(names) == 1:
            return cls(f"OM_arch ({names[0]})", part.format(f"{names[0]}s"))
        parts = " + ".join(f"m_{name}^2" for name in names)
        covered = "" if len(names) == len(ARCHITECTURE_GROUPS) else f" ({', '.join(names)})"
        return cls(f"OM_arch{covered}", f"sqrt(1/{len(names)} ({parts})), m the {part.format('networks')}")


OM_TASK = Metric("OM_task", "sqrt(mean over data sets of (accuracy / full-precision accuracy)^2)")
OM_ARCH = Metric.of_architectures(ARCHITECTURE_GROUPS)
OM_ROBUST = Metric(
    "OM_robust",
    "sqrt(mean over corruptions of (G_fp / G_bi)^2), G = max(0, 1 - corrupted accuracy / clean accuracy), "
    "corrupted accuracy averaged over the five severities",
)
MCE = Metric("mCE", "mean over corruptions of (error / error of the baseline)")
RELATIVE_MCE = Metric(
    "relative mCE", "mean over corruptions of ((error - clean error) / (error - clean error) of the baseline)"
)
OM_TRAIN = Metric(
    "OM_train",
    "sqrt(((full-precision step time / step time)^2 + (spread of full-precision accuracy / spread of "
    "accuracy)^2) / 2), spread: standard deviation over the settings",
)
OM_COMP = Metric(
    "OM_comp", "sqrt(1/2 (r_c^2 + r_s^2)), r_c compression in bits, r_s speed-up with 64 binary operations for one"
)
OM_INFER = Metric(
    "OM_infer", "sqrt(1/2 (mean(T_fp / T_bi)^2 + mean(S_fp / S_bi)^2)) over devices, T latency and S file size"
)


class Undefined(ValueError):
    """A metric has no value for these numbers; the message names the part and the reason."""


def quadratic_mean(values: Iterable[float]) -> float:
    """The quadratic mean sqrt( 1/N * sum_i v_i^2 ), by which BiBench combines parts.

    From memory of arXiv 2301.11233, not verified word for word. Raises Undefined for no values and for a
    value that is negative or not finite.
    """
    return float(arrays.quadratic_mean(_numbers(values, "the quadratic mean")))


def relative_accuracy(binary: float, full_precision: float) -> float:
    """The relative accuracy A_bi / A_fp of one result.

    From memory of arXiv 2301.11233, not verified word for word. A is any metric for which more is better,
    in the same unit on both sides. Raises Undefined when A_fp is 0 or a value is negative or not finite.
    """
    return _ratio(binary, full_precision, "the relative accuracy")


def om_task(accuracies_bi: Mapping[str, Sequence[float]], accuracies_fp: Mapping[str, Sequence[float]]) -> float:
    """OM_task of the learning task track; the part of a data set is the mean over its results.

    From memory of arXiv 2301.11233, not verified word for word. Both map a data set to its results (one per
    network), in the same order. Raises Undefined when the data sets or their numbers of results differ, a data
    set has no result, or an A_fp is 0.
    """
    _same_keys(accuracies_bi, accuracies_fp, "data set")
    return quadratic_mean(
        _mean_ratio(accuracies_bi[name], accuracies_fp[name], f"the accuracies of data set {name}")
        for name in accuracies_fp
    )


def architecture_group_mean(relative: Sequence[float]) -> float:
    """The mean relative accuracy m_x of one group of architectures, which is one part of OM_arch.

    From memory of arXiv 2301.11233, not verified word for word. It is not OM_arch and is shown under its own
    name. Raises Undefined for no values and for a value that is negative or not finite.
    """
    return _mean(_numbers(relative, "the mean relative accuracy of a group"))


def om_arch(relative: Mapping[str, Sequence[float]]) -> float:
    """OM_arch of the neural architecture track, of all three groups.

    From memory of arXiv 2301.11233, not verified word for word. `relative` maps each of "cnn",
    "transformer" and "mlp" to the relative accuracies of its networks; m_x is their mean. Raises Undefined
    when a group is missing, unknown or empty: with fewer groups, use `architecture_group_mean`.
    """
    _same_keys(relative, dict.fromkeys(ARCHITECTURE_GROUPS), "group of architectures")
    return quadratic_mean(architecture_group_mean(relative[group]) for group in ARCHITECTURE_GROUPS)


def generalization_gap(clean_accuracy: float, corrupted_accuracy: float) -> float:
    """The gap G = max( 0, 1 - A_corrupted / A_clean ) under a corruption, between 0 and 1.

    From memory of arXiv 2301.11233, not verified word for word. Raises Undefined when A_clean is 0 or an
    accuracy is negative or not finite.
    """
    return float(arrays.gap(_ratio(corrupted_accuracy, clean_accuracy, "the generalization gap")))


def om_robust(gaps_fp: Mapping[str, _Values], gaps_bi: Mapping[str, _Values]) -> float:
    """OM_robust of the corruption robustness track; the part of a corruption is the mean of G_fp / G_bi.

    From memory of arXiv 2301.11233, not verified word for word. Both map a corruption to its gap, or to
    several (one per severity or network, in the same order). The ratio is inverted, so that a smaller gap
    of the binary network scores higher. Where both gaps are 0, neither network loses anything and the ratio
    counts as 1, so that full precision against itself is 1 also under a corruption that does no harm.
    Raises Undefined when only G_bi is 0 (no finite ratio exists), or when the corruptions or their numbers
    of gaps differ.
    """
    return _over_corruptions(arrays.om_robust, gaps_fp, gaps_bi, "gaps")


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], errors_baseline: Mapping[str, Sequence[float]]
) -> float:
    """The mean corruption error mCE = 1/C * sum_c ( sum_s E_sc / sum_s B_sc ); less is better.

    From memory of arXiv 1903.12261, section 4, not verified word for word. Both map a corruption c to its error rates
    by severity s: E of the network, B of the baseline. The paper's baseline is AlexNet; an mCE means nothing
    without its baseline. Raises Undefined when the corruptions or their numbers of severities differ, or the baseline
    makes no error under one of them.
    """
    return _over_corruptions(arrays.mean_corruption_error, errors, errors_baseline, "errors")


def relative_mean_corruption_error(
    clean_error: float,
    errors: Mapping[str, Sequence[float]],
    clean_error_baseline: float,
    errors_baseline: Mapping[str, Sequence[float]],
) -> float:
    """The relative mCE = 1/C * sum_c ( sum_s (E_sc - E_clean) / sum_s (B_sc - B_clean) ); less is better.

    From memory of arXiv 1903.12261, section 4, not verified word for word. As `mean_corruption_error`, with the error
    rate on clean images subtracted: the errors that corruption adds. A corruption that helps the
    network counts as negative. Raises Undefined where corruption does not harm the baseline, and in the
    cases of `mean_corruption_error`.
    """
    clean, clean_baseline = (_number(value, "the clean error") for value in (clean_error, clean_error_baseline))
    return _over_corruptions(
        lambda own, baseline: arrays.relative_mean_corruption_error(clean, own, clean_baseline, baseline),
        errors,
        errors_baseline,
        "errors",
        reason="{} does not harm the baseline, so there is nothing to compare with.",
    )


def om_train(
    time_fp: Sequence[float],
    time_bi: Sequence[float],
    accuracies_fp: Sequence[float],
    accuracies_bi: Sequence[float],
) -> float:
    """OM_train of the training track: mean( T_fp / T_bi ) and std(A_fp) / std(A_bi), combined.

    From memory of arXiv 2301.11233, not verified word for word. T are training times in ms, in pairs; A are
    the accuracies over the same hyperparameter settings, at least two. The standard deviation is that of
    the population; as both sides must have the same number of settings, the sample's would give the same
    ratio. Raises Undefined when numbers of values differ, a T_bi is 0, or std(A_bi) is 0.
    """
    speed = _mean_ratio(time_fp, time_bi, "the training times")
    pairs = _pairs(accuracies_fp, accuracies_bi, "the accuracies over hyperparameter settings")
    if len(pairs) < 2:
        raise Undefined("The spread over hyperparameter settings needs at least two settings.")
    spread_fp, spread_bi = (statistics.pstdev(column) for column in zip(*pairs, strict=True))
    return quadratic_mean([speed, _ratio(spread_fp, spread_bi, "the spread over hyperparameter settings")])


def compression_ratio(total_parameters: float, full_precision_parameters: float) -> float:
    """The compression r_c = |M| / ( (|M| - |M^|) / 32 + |M^| ), between 1 and 32.

    From memory of arXiv 2301.11233, not verified word for word. |M| counts all parameters of the network,
    |M^| those that stay in full precision. Raises Undefined unless 0 <= |M^| <= |M| and |M| > 0.
    """
    return _reduction(total_parameters, full_precision_parameters, 32, "the compression ratio")


def speedup_ratio(total_macs: float, full_precision_macs: float) -> float:
    """The theoretical speed-up r_s = F_M / ( (F_M - F_M^) / 64 + F_M^ ), between 1 and 64.

    From memory of arXiv 2301.11233, not verified word for word. F_M counts all multiply-accumulates of one
    inference, F_M^ those in full precision. Raises Undefined unless 0 <= F_M^ <= F_M and F_M > 0.
    """
    return _reduction(total_macs, full_precision_macs, 64, "the speed-up ratio")


def om_comp(r_c: Sequence[float], r_s: Sequence[float]) -> float:
    """OM_comp of the theoretical complexity track; r_c and r_s are means over networks.

    From memory of arXiv 2301.11233, not verified word for word. Raises Undefined when the numbers of networks
    differ or there is none.
    """
    compressions, speedups = zip(*_pairs(r_c, r_s, "the complexity of the networks"), strict=True)
    return quadratic_mean([_mean(compressions), _mean(speedups)])


def om_infer(
    time_fp: Sequence[float], time_bi: Sequence[float], size_fp: Sequence[float], size_bi: Sequence[float]
) -> float:
    """OM_infer of the hardware inference track.

    From memory of arXiv 2301.11233, not verified word for word. T are latencies and S sizes of the stored
    network, in any unit that both sides share; the means are over devices. Raises Undefined when numbers of
    values differ, there is none, or a T_bi or S_bi is 0.
    """
    return quadratic_mean(
        [
            _mean_ratio(time_fp, time_bi, "the inference times"),
            _mean_ratio(size_fp, size_bi, "the model sizes"),
        ]
    )


def _over_corruptions(
    compute: Callable[[Iterable[np.ndarray], Iterable[np.ndarray]], np.ndarray],
    first: Mapping[str, _Values],
    second: Mapping[str, _Values],
    what: str,
    reason: str = "A denominator in the {what} under {} is 0.",
) -> float:
    """`compute` of the values by corruption; where it has no finite value for one corruption, `reason` names that."""
    _same_keys(first, second, "corruption")
    pairs = {}
    for corruption, values in second.items():
        both = _pairs(first[corruption], values, f"the {what} under {corruption}")
        one, other = pairs[corruption] = tuple(map(np.array, zip(*both, strict=True)))
        if not np.isfinite(compute([one], [other])):
            raise Undefined(reason.format(corruption, what=what))
    return float(compute(*zip(*pairs.values(), strict=True)))


def _reduction(total: float, full_precision: float, factor: int, what: str) -> float:
    total, full_precision = _number(total, what), _number(full_precision, what)
    if full_precision > total:
        raise Undefined(f"The full-precision part of {what} is larger than the whole.")
    return _ratio(total, (total - full_precision) / factor + full_precision, what)


def _mean_ratio(numerators: Sequence[float], denominators: Sequence[float], what: str) -> float:
    return _mean([_ratio(above, below, what) for above, below in _pairs(numerators, denominators, what)])


def _ratio(numerator: float, denominator: float, what: str) -> float:
    above, below = _number(numerator, what), _number(denominator, what)
    if below == 0:
        raise Undefined(f"A denominator in {what} is 0.")
    return _number(above / below, what)


def _pairs(first: _Values, second: _Values, what: str) -> list[tuple[float, float]]:
    left, right = _numbers(first, what), _numbers(second, what)
    if len(left) != len(right):
        raise Undefined(f"There are {len(left)} and {len(right)} values for {what}: they cannot be paired.")
    return list(zip(left, right, strict=True))


def _numbers(values: _Values, what: str) -> list[float]:
    numbers = [_number(value, what) for value in (values if isinstance(values, Iterable) else [values])]
    if not numbers:
        raise Undefined(f"There are no values for {what}.")
    return numbers


def _number(value: float, what: str) -> float:
    # Real also takes NumPy's scalars; None, text and tensors are not numbers here.
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise Undefined(f"{value!r} is not a finite number from 0 up, which {what} needs.")
    return float(value)


def _mean(numbers: Sequence[float]) -> float:
    return float(arrays.mean(numbers))


def _same_keys(given: Mapping[str, object], expected: Mapping[str, object], kind: str) -> None:
    if not expected:
        raise Undefined(f"There is no {kind}.")
    if set(given) != set(expected):
        odd = ", ".join(sorted(set(given) ^ set(expected)))
        raise Undefined(f"Both sides need the same {kind}; one side lacks: {odd}.")
