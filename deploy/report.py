"""Measurements and devices for people (tables), for programs (JSON) and for the results folder (records)."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bibench_tf.deploy import devices
from bibench_tf.deploy.target import Device, Measurement, open_target
from bibench_tf.errors import BibenchError
from bibench_tf.results import records

NOT_A_DEVICE = "emulated: not a device figure"


def table(measured: Mapping[str, Measurement]) -> str:
    """The measurements as text; figures of an emulator or a stub are withheld."""
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


def to_json(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """The measurements as plain data; `latency_ms` is null where the provenance is `emulated`."""
    return {
        name: {
            "provenance": one.provenance,
            "latency_ms": None if one.provenance == "emulated" else one.latency_ms,
            **one.to_dict(),
        }
        for name, one in measured.items()
    }


def store(folder: Path, measured: Mapping[str, Measurement], flatbuffers: Mapping[str, bytes]) -> list[Path]:
    """Write each measurement as a record below `folder`/devices, with its provenance and the file's SHA-256."""
    paths = []
    for name, one in measured.items():
        digest = hashlib.sha256(flatbuffers[name]).hexdigest()
        target = re.sub(r"[^A-Za-z0-9.-]+", "-", one.device.target)
        path = folder / "devices" / target / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', Path(name).stem)}-{digest[:12]}.json"
        environment = {"file": Path(name).name, "sha256": digest, "size_bytes": len(flatbuffers[name])}
        records.write(path, one, environment=environment, provenance=one.provenance)
        paths.append(path)
    return paths


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


def describe_all(targets: Sequence[str], ssh_config: Path | None = None) -> list[Device | tuple[str, str]]:
    """Each target as it describes itself; a pair of name and reason for one that cannot be used."""
    found: list[Device | tuple[str, str]] = []
    for name in targets:
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
    """Devices as text; a pair is a device that cannot be used, with the reason."""
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
