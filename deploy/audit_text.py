"""Audits as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bibench_tf.deploy.audits import Audit, LayerAudit


def text(result: Audit) -> str:
    """The audit as text: a table, the reasons with their remedies, the size and the share of bits."""
    header = ("layer", "class", "runs as", "", "MMACs", "bits in theory", "bytes in file")
    lines = [
        (
            layer.name,
            layer.kind,
            _operations_text(layer.operations),
            _verdict(layer),
            f"{layer.macs / 1e6:.3f}",
            "" if layer.theory_bits is None else f"{layer.theory_bits:,}",
            f"{layer.file_bytes:,}",
        )
        for layer in result.layers
    ]
    widths = [max(len(row[column]) for row in (header, *lines)) for column in range(len(header))]
    shown = [
        "  ".join(
            cell.ljust(width) if column < 4 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *lines)
    ]
    return "\n".join([*shown, "", *_findings(result), *_size_text(result), *_share_text(result)])


def summary(result: Audit, output: Path) -> str:
    """The share of bits and the layers that fell back, for the conversion that was written to `output`."""
    binary = sum(layer.binary for layer in result.layers)
    lines = [f"{binary} layers are binary, with {100 * (result.binary_share or 0):.2f} % of the multiply-accumulates."]
    if result.fallbacks:
        names = ", ".join(layer.name for layer in result.fallbacks)
        lines.append(f"{len(result.fallbacks)} layers were meant to be binary and are not, or not exactly: {names}.")
        lines.append(f"For the reasons: bibench deploy audit {output} (or the model, for its layers).")
    return "\n".join(lines)


def _operations_text(operations: tuple[str, ...]) -> str:
    counted = Counter(operations)
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in counted.items()) or "nothing"


def _verdict(layer: LayerAudit) -> str:
    if layer.binary:
        return "binary, but rounded" if layer.reasons else "binary"
    return "FLOAT, meant binary" if layer.fell_back else "float"


def _findings(result: Audit) -> Iterator[str]:
    for layer in result.layers:
        for reason in layer.reasons if layer.intended else ():
            yield f"{layer.name}: {reason.cause}. Remedy: {reason.remedy}."
        for warning in layer.warnings:
            yield f"{layer.name}: {warning}."
    for name, why in result.uncounted.items():
        yield f"{name}: the theoretical bits of this layer are not counted: {why}"
    if result.fallbacks or result.uncounted or any(layer.warnings for layer in result.layers):
        yield ""


def _size_text(result: Audit) -> Iterator[str]:
    if result.theory_bits is not None:
        yield f"Theoretical size: {result.theory_bits:,} bits ({result.theory_bits / 8:,.0f} bytes)."
    yield f"File size: {result.file_bytes:,} bytes:"
    width = len(f"{result.file_bytes:,}") + 1
    for part in result.parts:
        yield f"  {part.size_bytes:>{width},}  {part.name}: {part.explanation}"
    if result.difference:
        yield "Difference from the theoretical size, in bytes:"
    for part in result.difference:
        yield f"  {part.size_bytes:>+{width},}  {part.name}: {part.explanation}"


def _share_text(result: Audit) -> Iterator[str]:
    if result.binary_share is None:
        yield "The model has no multiply-accumulate operations."
        return
    yield (
        f"{100 * result.binary_share:.2f} % of {result.macs / 1e6:,.3f} million multiply-accumulates run on bits; "
        f"{sum(layer.binary for layer in result.layers)} layers are binary, {len(result.fallbacks)} fell back."
    )
