"""The values that papers and tools print, derived from the raw counts by the name of the convention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bibench_tf.complexity.costs import LOW_BITS, ModelCost
from bibench_tf.errors import InvalidOption, UnknownName
from bibench_tf.stats import metrics

# Floats are bfloat16 in the paper that defines the effort; with 16 bits ReActNet-A has the 7.9e9 of its abstract.
_ACE_FLOAT_BITS = 16


@dataclass(frozen=True)
class Convention:
    """A way of counting: its source, its formula, and the function from raw counts to named values.

    With `needs_baseline` the function needs the full-precision twin, its second argument.
    """

    title: str
    source: str
    formula: str
    values: Callable[[ModelCost, ModelCost | None], dict[str, float]]
    needs_baseline: bool = False


def derive(convention: str, cost: ModelCost, baseline: ModelCost | None = None) -> dict[str, float]:
    """The values of a convention by name; names of values with a unit end in it.

    `baseline` is the full-precision twin, for `bibench`. Raises UnknownName for an unknown convention, and
    InvalidOption for a missing baseline.
    """
    if convention not in CONVENTIONS:
        raise UnknownName("convention", convention, CONVENTIONS)
    chosen = CONVENTIONS[convention]
    if chosen.needs_baseline and baseline is None:
        raise InvalidOption(f"Convention '{convention}' compares with the full-precision network, which is not given.")
    return chosen.values(cost, baseline)


def ratios(network: ModelCost, baseline: ModelCost) -> tuple[float, float]:
    """Compression r_c and theoretical speed-up r_s of `network` against `baseline`, its full-precision twin.

    These are `metrics.compression_ratio` and `metrics.speedup_ratio`, times the parameters and operations the
    baseline has for each one of the network: a network is not rewarded for the parameters it adds. Weights and
    operations of more than one bit count as full precision, because the formulas have two precisions only. Raises
    metrics.Undefined for a network without parameters or multiply-accumulates.
    """
    r_c = metrics.compression_ratio(network.parameters, network.weights_float)
    r_s = metrics.speedup_ratio(network.macs, network.macs - network.macs_binary)
    return r_c * baseline.parameters / network.parameters, r_s * baseline.macs / network.macs


def _bibench(cost: ModelCost, baseline: ModelCost | None) -> dict[str, float]:
    assert baseline is not None  # `derive` has checked that
    r_c, r_s = ratios(cost, baseline)
    return {"r_c": r_c, "r_s": r_s, "om_comp": metrics.om_comp([r_c], [r_s])}


def _ops64(cost: ModelCost, baseline: ModelCost | None) -> dict[str, float]:
    flops = cost.macs - cost.macs_binary
    operations = cost.macs_binary / 64 + flops
    dense = cost.classifier.macs if cost.classifier and not cost.classifier.binary else 0
    return {
        "bops": cost.macs_binary,
        "flops": flops,
        "operations": operations,
        "operations_without_classifier": operations - dense,
    }


def _hpi(cost: ModelCost, baseline: ModelCost | None) -> dict[str, float]:
    return {"size_mib": cost.bits / 8 / 2**20, "operations": _ops64(cost, None)["operations_without_classifier"]}


def _larq(cost: ModelCost, baseline: ModelCost | None) -> dict[str, float]:
    macs: dict[str, float] = {}
    for pair in cost.mac_pairs:
        key = f"macs_{pair.bits}_bit"
        macs[key] = macs.get(key, 0) + pair.count
    with_bytes = sum(weights.count * (8 if weights.bits > LOW_BITS else weights.bits) for weights in cost.weights)
    return {
        "parameters": cost.parameters,
        "size_kib": cost.bits / 8 / 1024,
        "size_8_bit_floats_kib": with_bytes / 8 / 1024,
        "size_all_floats_kib": 32 * cost.parameters / 8 / 1024,
        "compression_of_memory": cost.bits / (32 * cost.parameters) if cost.parameters else 0.0,
        "macs": cost.macs,
        **macs,
        "binary_share_of_macs": cost.macs_binary / cost.macs if cost.macs else 0.0,
    }


def _ace(cost: ModelCost, baseline: ModelCost | None) -> dict[str, float]:
    def effort(float_bits: int) -> int:
        def bits(own: int) -> int:
            return own if own <= LOW_BITS else float_bits

        return sum(pair.count * bits(pair.input_bits) * bits(pair.kernel_bits) for pair in cost.mac_pairs)

    return {"ace": effort(_ACE_FLOAT_BITS), "ace_32_bit_floats": effort(32)}


CONVENTIONS: Mapping[str, Convention] = {
    "bibench": Convention(
        "BiBench",
        "arXiv 2301.11233, from memory",
        "r_c = |M| / ((|M| - |M^|) / 32 + |M^|), r_s = F / ((F - F^) / 64 + F^), OM = sqrt((r_c^2 + r_s^2) / 2)",
        _bibench,
        needs_baseline=True,
    ),
    "ops64": Convention(
        "OPs = BOPs / 64 + FLOPs",
        "arXiv 2003.03488 (ReActNet), with the classifier; arXiv 2001.05936 (MeliusNet), without",
        "binary MACs / 64 + all other MACs, with and without the last layer",
        _ops64,
    ),
    "larq": Convention(
        "larq.models.summary",
        "larq 0.14, larq/models.py",
        "MACs by the bits of the larger operand; sizes in units of 1024 bytes",
        _larq,
    ),
    "hpi": Convention(
        "MeliusNet and BinaryDenseNet",
        "hpi-xnor/BMXNet-v2-wiki@72da1dc CurrentBestResults.md",
        "MiB with 1 bit a binary weight and two floats a batch norm channel; ops64 without the last layer",
        _hpi,
    ),
    "ace": Convention(
        "Arithmetic computation effort",
        "arXiv 2112.00133 (PokeBNN), section 3",
        "sum of MACs x bits of one operand x bits of the other, floats as 16 bits, and as 32",
        _ace,
    ),
}
