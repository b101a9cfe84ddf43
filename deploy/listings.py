"""Audits, measurements, devices and chips as text for people and as plain data for programs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_tf.deploy import devices
from bibench_tf.deploy.targets import TARGETS, Device, Measurement, kind_of, open_target
from bibench_tf.errors import BibenchError, InvalidOption

if TYPE_CHECKING:
    from bibench_tf.deploy.audits import Audit, LayerAudit

NOT_A_DEVICE = "emulated: not a device latency"


def audit_text(result: Audit) -> str:
    """The audit as text: a table, the reasons with their remedies, the size and the share of bits."""
    rows = [
        [
            layer.name,
            layer.kind,
            _operations_text(layer.operations),
            _verdict(layer),
            f"{layer.macs / 1e6:.3f}",
            "" if layer.theory_bits is None else f"{layer.theory_bits:,}",
            f"{layer.file_bytes:,}",
        ]
        for layer in result.layers
    ]
    header = ["layer", "class", "runs as", "", "MMACs", "bits in theory", "bytes in file"]
    table = columns(header, rows, numbers=3)
    return "\n".join([*table, "", *_findings(result), *_size_text(result), *_share_text(result)])


def audit_summary(result: Audit, output: Path) -> str:
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


def text(measured: Mapping[str, Mapping[str, Measurement]]) -> str:
    """The measurements `[target][file]` as text, a table for each target."""
    return "\n\n".join(table(of_files) for of_files in measured.values())


def table(measured: Mapping[str, Measurement]) -> str:
    """The measurements on one target as text; latencies of an emulator or a stub are withheld."""
    rows = []
    for name, one in measured.items():
        if one.provenance == "emulated":
            rows.append([name, NOT_A_DEVICE, "", "", "", ""])
            continue
        values = [r.latency_ms for r in one.rounds]
        p90 = [r.p90_ms for r in one.rounds if r.p90_ms is not None]
        rows.append(
            [
                name,
                f"{one.latency_ms:.3f}",
                f"{min(values):.3f} to {max(values):.3f}",
                f"{max(p90):.3f}" if p90 else "-",
                str(sum(r.count for r in one.rounds)),
                "-" if one.peak_memory_mib is None else f"{one.peak_memory_mib:.1f}",
            ]
        )
    first = next(iter(measured.values()))
    lines = [_device_line(first.device), _settings_line(first), ""]
    lines += columns(["network", "latency ms", "rounds ms", "p90 ms", "inferences", "memory MiB"], rows)
    shared = [note for note in first.notes if all(note in one.notes for one in measured.values())]
    lines += [f"note: {note}" for note in shared]
    lines += [f"note: {name}: {note}" for name, one in measured.items() for note in one.notes if note not in shared]
    for name, one in measured.items():
        if one.operations and one.provenance != "emulated":
            slowest = sorted(one.operations, key=lambda operation: -operation.mean_ms)
            lines += ["", f"operations of {name}, slowest first"]
            lines += columns(["ms", "op", "output"], [[f"{o.mean_ms:.3f}", o.kind, o.name] for o in slowest])
    return "\n".join(lines)


def rows(measured: Mapping[str, Mapping[str, Measurement]], full: bool = False) -> list[dict[str, Any]]:
    """A row of plain data for each target and file; `latency_ms` is None where the provenance is `emulated`.

    `full` adds the device, the settings, all rounds, operations and notes.
    """
    return [
        {
            "target": target,
            "file": name,
            "provenance": one.provenance,
            "latency_ms": None if one.provenance == "emulated" else one.latency_ms,
            **(dataclasses.asdict(one) if full else {"peak_memory_mib": one.peak_memory_mib, "kernel": one.kernel}),
        }
        for target, of_files in measured.items()
        for name, one in of_files.items()
    ]


def chip_table() -> str:
    """The chips of devices.toml as text."""
    rows = [
        [
            chip.key,
            chip.name,
            ", ".join(f"{c.cores}x {c.architecture}" + (f" {c.ghz:.2f} GHz" if c.ghz else "") for c in chip.clusters),
        ]
        for chip in devices.chips().values()
    ]
    return "\n".join(columns(["chip", "name", "cores"], rows))


def chips_json() -> dict[str, Any]:
    """The chips of devices.toml as plain data."""
    return {key: dataclasses.asdict(chip) for key, chip in devices.chips().items()}


def describe_all(targets: Sequence[str] = (), ssh_config: Path | None = None) -> list[Device | tuple[str, str]]:
    """The device of each target, or a pair of name and reason for a target that cannot be used.

    Without names, the targets that can be found by searching, such as attached Android devices. Raises UnknownName and
    InvalidOption for names that are no targets, and BibenchError when the search fails.
    """
    for name in targets:
        kind_of(name)
    names = targets or [name for kind in TARGETS.names() for name in TARGETS.get(kind).attached()]
    found: list[Device | tuple[str, str]] = []
    for name in names:
        try:
            with open_target(name, ssh_config=ssh_config) as target:
                found.append(target.describe())
        except InvalidOption:
            raise
        except BibenchError as error:
            found.append((name, str(error)))
    return found


def devices_json(found: Sequence[Device | tuple[str, str]]) -> list[dict[str, Any]]:
    """Devices as plain data."""
    return [
        dataclasses.asdict(one) if isinstance(one, Device) else {"target": one[0], "error": one[1]} for one in found
    ]


def device_table(found: Sequence[Device | tuple[str, str]]) -> str:
    """Devices as text, and the reason for each target that cannot be used."""
    if not found:
        return "No device is attached."
    rows = [
        [d.target, d.model, d.chip or "unknown", d.abi, str(d.cores), d.system, "yes" if d.emulated else "no"]
        for d in found
        if isinstance(d, Device)
    ]
    lines = columns(["target", "model", "chip", "abi", "cores", "system", "emulated"], rows) if rows else []
    # A sentence would make its column too wide.
    return "\n".join([*lines, *(f"{d[0]}: {d[1]}" for d in found if not isinstance(d, Device))])


def columns(header: list[str], rows: list[list[str]], numbers: int = 0) -> list[str]:
    """Lines of a table whose columns line up: the last `numbers` of them to the right."""
    table = [header, *rows]
    for index, column in enumerate(zip(*table, strict=True)):
        align = str.rjust if index >= len(header) - numbers else str.ljust
        width = max(map(len, column))
        table = [[*row[:index], align(row[index], width), *row[index + 1 :]] for row in table]
    return ["  ".join(row).rstrip() for row in table]


def _device_line(device: Device) -> str:
    chip = devices.chips()[device.chip].name if device.chip else "unknown chip"
    return f"{device.target}: {device.model}, {chip}, {device.abi}, {device.cores} cores, {device.system}"


def _settings_line(one: Measurement) -> str:
    settings = one.settings
    pinned = "cores " + ",".join(map(str, settings.cores)) if settings.cores else "no cores chosen"
    return (
        f"{one.kernel}; {settings.threads} thread{'s' if settings.threads > 1 else ''}, {pinned}, {settings.rounds} "
        f"round{'s' if settings.rounds > 1 else ''} of at least {settings.minimum_runs} inferences and "
        f"{settings.minimum_s:g} s"
    )
