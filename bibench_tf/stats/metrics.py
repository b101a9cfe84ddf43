"""The overall metrics of BiBench, and the corruption errors that stand beside its robustness metric.

Every metric compares a binarized network (`bi`) with its full-precision counterpart (`fp`): full precision
against itself scores exactly 1, which reports print as 100 %. More is better, but for the corruption errors.

The formulas are given as recalled from the papers (Qin et al., BiBench, ICML 2023, arXiv 2301.11233; for the
corruption errors Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261); they are not verified word for word. They
stand in this one module so that a correction is made in one place.

A part that has no value (a division by zero, nothing to average, a negative, infinite or missing number)
raises `Undefined`: no function of this module returns a number that leaves something out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

ARCHITECTURE_GROUPS = ("cnn", "transformer", "mlp")


class Undefined(ValueError):
    """A metric that has no value for these numbers; the message says which part and why."""


def quadratic_mean(values: Iterable[float]) -> float:
    """The quadratic mean sqrt( 1/N * sum_i v_i^2 ), by which BiBench joins parts.

    From memory of arXiv 2301.11233, not verified word for word. Raises Undefined for no values and for a
    value that is negative or not finite.
    """
    numbers = _numbers(values, "the quadratic mean")
    # Scaled by the largest, so that squares neither overflow nor vanish.
    largest = max(numbers)
    if largest == 0:
        return 0.0
    return largest * math.sqrt(_mean([(number / largest) ** 2 for number in numbers]))


def relative_accuracy(binary: float, full_precision: float) -> float:
    """The relative accuracy A_bi / A_fp of one result.

    From memory of arXiv 2301.11233, not verified word for word. Any quality figure for which more is better
    will do, in the same unit on both sides. Raises Undefined when A_fp is 0 or a figure is negative or not
    finite.
    """
    return _ratio(binary, full_precision, "the relative accuracy")


def om_task(accuracies_bi: Mapping[str, Sequence[float]], accuracies_fp: Mapping[str, Sequence[float]]) -> float:
    """Learning task: OM_task = sqrt( 1/N * sum_i mean( A_bi_i / A_fp_i )^2 ), i over the N tasks.

    From memory of arXiv 2301.11233, not verified word for word. Both map a task to its results (one per
    network), in the same order. Raises Undefined when the tasks or their numbers of results differ, a task
    has no result, or an A_fp is 0.
    """
    _same_keys(accuracies_bi, accuracies_fp, "task")
    return quadratic_mean(
        _mean_ratio(accuracies_bi[task], accuracies_fp[task], f"the accuracies of task {task}")
        for task in accuracies_fp
    )


def architecture_group_mean(relative: Sequence[float]) -> float:
    """The mean relative accuracy m_x of one group of architectures, the part of OM_arch a single group gives.

    From memory of arXiv 2301.11233, not verified word for word. It is not OM_arch: show it under its own
    name. Raises Undefined for no values and for a value that is negative or not finite.
    """
    return _mean(_numbers(relative, "the mean relative accuracy of a group"))


def om_arch(relative: Mapping[str, Sequence[float]]) -> float:
    """Neural architecture: OM_arch = sqrt( 1/3 * ( m_CNN^2 + m_Transformer^2 + m_MLP^2 ) ).

    From memory of arXiv 2301.11233, not verified word for word. `relative` maps each of "cnn",
    "transformer" and "mlp" to the relative accuracies of its networks; m_x is their mean. Raises Undefined
    when a group is missing, unknown or empty: with fewer groups, use `architecture_group_mean`.
    """
    _same_keys(relative, dict.fromkeys(ARCHITECTURE_GROUPS), "group of architectures")
    return quadratic_mean(architecture_group_mean(relative[group]) for group in ARCHITECTURE_GROUPS)


def generalization_gap(clean_accuracy: float, corrupted_accuracy: float) -> float:
    """The gap G = max( 0, 1 - A_corrupted / A_clean ) that a corruption opens, between 0 and 1.

    From memory of arXiv 2301.11233, not verified word for word. Raises Undefined when A_clean is 0 or an
    accuracy is negative or not finite.
    """
    return max(0.0, 1.0 - _ratio(corrupted_accuracy, clean_accuracy, "the generalization gap"))


def om_robust(gaps_fp: Mapping[str, float | Sequence[float]], gaps_bi: Mapping[str, float | Sequence[float]]) -> float:
    """Corruption robustness: OM_robust = sqrt( 1/C * sum_c mean( G_fp_c / G_bi_c )^2 ), c over corruptions.

    From memory of arXiv 2301.11233, not verified word for word. Both map a corruption to its gap, or to
    several (one per severity or network, in the same order). The ratio is inverted, so that a smaller gap
    of the binary network scores higher. Where both gaps are 0, neither network loses anything and the ratio
    counts as 1, so that full precision against itself is 1 also under a corruption that does no harm.
    Raises Undefined when only G_bi is 0 (no finite ratio exists), or when the corruptions or their numbers
    of gaps differ.
    """
    _same_keys(gaps_bi, gaps_fp, "corruption")
    parts = []
    for corruption in gaps_fp:
        what = f"the gaps under {corruption}"
        pairs = _pairs(_as_sequence(gaps_fp[corruption]), _as_sequence(gaps_bi[corruption]), what)
        parts.append(_mean([1.0 if fp == bi == 0 else _ratio(fp, bi, what) for fp, bi in pairs]))
    return quadratic_mean(parts)


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], errors_baseline: Mapping[str, Sequence[float]]
) -> float:
    """The mean corruption error mCE = 1/C * sum_c ( sum_s E_sc / sum_s B_sc ); less is better.

    From memory of arXiv 1903.12261, section 4, not verified word for word. Both map a corruption c to its error rates
    by severity s: E of the network, B of the baseline. The paper's baseline is AlexNet; a figure says nothing
    without its baseline. Raises Undefined when the corruptions or their numbers of severities differ, or the baseline
    makes no error under one of them.
    """
    _same_keys(errors, errors_baseline, "corruption")
    parts = []
    for corruption in errors_baseline:
        what = f"the errors under {corruption}"
        own, baseline = zip(*_pairs(errors[corruption], errors_baseline[corruption], what), strict=True)
        parts.append(_ratio(math.fsum(own), math.fsum(baseline), what))
    return _mean(parts)


def relative_mean_corruption_error(
    clean_error: float,
    errors: Mapping[str, Sequence[float]],
    clean_error_baseline: float,
    errors_baseline: Mapping[str, Sequence[float]],
) -> float:
    """The relative mCE = 1/C * sum_c ( sum_s (E_sc - E_clean) / sum_s (B_sc - B_clean) ); less is better.

    From memory of arXiv 1903.12261, section 4, not verified word for word. As `mean_corruption_error`, with the error
    rate on clean images taken off, so that it asks for what corruption adds. A corruption that helps the
    network counts as negative. Raises Undefined where corruption does not harm the baseline, and for what
    `mean_corruption_error` refuses.
    """
    _same_keys(errors, errors_baseline, "corruption")
    clean, clean_baseline = (_number(value, "the clean error") for value in (clean_error, clean_error_baseline))
    parts = []
    for corruption in errors_baseline:
        what = f"the errors under {corruption}"
        pairs = _pairs(errors[corruption], errors_baseline[corruption], what)
        added = math.fsum(own - clean for own, _ in pairs)
        added_baseline = math.fsum(baseline - clean_baseline for _, baseline in pairs)
        if added_baseline <= 0:
            raise Undefined(f"{corruption} does not harm the baseline, so there is nothing to compare with.")
        parts.append(added / added_baseline)
    return _mean(parts)


def om_train(
    time_fp: Sequence[float],
    time_bi: Sequence[float],
    accuracies_fp: Sequence[float],
    accuracies_bi: Sequence[float],
) -> float:
    """Training: OM_train = sqrt( 1/2 * ( mean( T_fp / T_bi )^2 + ( std(A_fp) / std(A_bi) )^2 ) ).

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
    """Theoretical complexity: OM_comp = sqrt( 1/2 * ( mean(r_c)^2 + mean(r_s)^2 ) ), means over networks.

    From memory of arXiv 2301.11233, not verified word for word. Raises Undefined when the numbers of networks
    differ or there is none.
    """
    compressions, speedups = zip(*_pairs(r_c, r_s, "the complexity of the networks"), strict=True)
    return quadratic_mean([_mean(compressions), _mean(speedups)])


def om_infer(
    time_fp: Sequence[float], time_bi: Sequence[float], size_fp: Sequence[float], size_bi: Sequence[float]
) -> float:
    """Hardware inference: OM_infer = sqrt( 1/2 * ( mean( T_fp / T_bi )^2 + mean( S_fp / S_bi )^2 ) ).

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


def _pairs(first: Sequence[float], second: Sequence[float], what: str) -> list[tuple[float, float]]:
    left, right = _numbers(first, what), _numbers(second, what)
    if len(left) != len(right):
        raise Undefined(f"There are {len(left)} and {len(right)} values for {what}: they cannot be paired.")
    return list(zip(left, right, strict=True))


def _numbers(values: Iterable[float], what: str) -> list[float]:
    numbers = [_number(value, what) for value in values]
    if not numbers:
        raise Undefined(f"There are no values for {what}.")
    return numbers


def _number(value: float, what: str) -> float:
    # Real also takes NumPy's scalars; None, text and tensors are not numbers here.
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise Undefined(f"{value!r} is not a finite number from 0 up, which {what} needs.")
    return float(value)


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)


def _as_sequence(value: float | Sequence[float]) -> Sequence[float]:
    return [value] if isinstance(value, Real) or value is None else value


def _same_keys(given: Mapping[str, object], expected: Mapping[str, object], kind: str) -> None:
    if not expected:
        raise Undefined(f"There is no {kind}.")
    if set(given) != set(expected):
        odd = ", ".join(sorted(set(given) ^ set(expected)))
        raise Undefined(f"Both sides need the same {kind}; one side lacks: {odd}.")
