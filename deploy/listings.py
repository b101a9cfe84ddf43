"""Measurements, devices and chips as text for people and as plain data for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bibench_tf.deploy import devices
from bibench_tf.deploy.targets import TARGETS, Device, Measurement, open_target
from bibench_tf.errors import BibenchError

NOT_A_DEVICE = "emulated: not a device latency"


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

    Without names, the targets that can be found by searching, such as attached Android devices. Raises BibenchError
    when the search fails.
    """
    names = targets or [name for kind in TARGETS.names() for name in TARGETS.get(kind).attached()]
    found: list[Device | tuple[str, str]] = []
    for name in names:
        try:
            with open_target(name, ssh_config=ssh_config) as target:
                found.append(target.describe())
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


def columns(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table whose columns line up."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


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
