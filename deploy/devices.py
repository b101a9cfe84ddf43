"""The chips of the benchmark, and how a device is matched to one of them."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import msgspec

# Prints a description of the device, in the shell language of Android and of any Unix; parse() reads the output. Values
# that a device does not have stay empty.
SCRIPT = r"""
for key in ro.product.manufacturer ro.product.model ro.product.cpu.abi ro.build.version.release ro.soc.model \
    ro.board.platform ro.hardware ro.mediatek.platform ro.chipname ro.kernel.qemu ro.boot.qemu; do
  echo "$key=$(getprop $key 2>/dev/null)"
done
echo "machine=$(uname -m)"
echo "kernel=$(uname -sr)"
echo "tree.model=$(tr '\0' '\n' </proc/device-tree/model 2>/dev/null)"
tr '\0' '\n' </proc/device-tree/compatible 2>/dev/null | while read -r name; do echo "tree.compatible=$name"; done
echo "brand=$(sysctl -n machdep.cpu.brand_string 2>/dev/null)"
for path in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do
  [ -r "$path" ] && echo "khz=$(cat "$path" 2>/dev/null)"
done
[ -r /etc/os-release ] && grep '^PRETTY_NAME=' /etc/os-release
sed 's/^/cpuinfo=/' /proc/cpuinfo 2>/dev/null
ls -d /sys/devices/system/cpu/cpu[0-9]* 2>/dev/null
true
"""

_ABIS = {"aarch64": "arm64-v8a", "arm64": "arm64-v8a", "armv7l": "armeabi-v7a", "armv8l": "armeabi-v7a", "i686": "x86"}
_IDENTIFIERS = ("ro.soc.model", "ro.board.platform", "ro.hardware", "ro.mediatek.platform", "ro.chipname", "brand")


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind; `ghz` is their highest clock, None where products differ."""

    cores: int
    architecture: str
    ghz: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A row of devices.toml, whose head explains the fields."""

    key: str = ""
    name: str
    clusters: tuple[Cluster, ...]
    identifiers: tuple[str, ...]
    models: tuple[str, ...] = ()
    top_mhz: float | None = None
    note: str = ""

    @property
    def cores(self) -> int:
        """Number of cores."""
        return sum(cluster.cores for cluster in self.clusters)


@dataclass(frozen=True)
class Facts:
    """The description that a device gives of itself.

    Attributes:
        abi: The ABI that the device claims.
        machine: The machine its kernel runs on, as `uname -m` prints.
        identifiers: Names of the chip.
        top_mhz: The highest clock of any core, None when it cannot be read.
        emulation: Why the device is taken for an emulator; empty for a real device.
    """

    model: str
    abi: str
    machine: str
    system: str
    cores: int
    identifiers: tuple[str, ...] = ()
    top_mhz: float | None = None
    emulation: str = ""


@functools.cache
def chips() -> Mapping[str, Chip]:
    """The chips of devices.toml by key."""
    content = resources.files(__package__).joinpath("devices.toml").read_bytes()
    table = msgspec.toml.decode(content, type=dict[str, Chip])
    return {key: dataclasses.replace(chip, key=key) for key, chip in table.items()}


def parse(answer: str) -> Facts:
    """The facts in the output of SCRIPT."""
    values: dict[str, list[str]] = {}
    for line in answer.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and value.strip():
            values.setdefault(key, []).append(value.strip())

    def first(*keys: str) -> str:
        return next((_clean(values[key][0]) for key in keys if key in values), "")

    def processor(field: str) -> list[str]:
        lines = [line.partition(":") for line in values.get("cpuinfo", [])]
        return [_clean(value) for key, _, value in lines if key.strip() == field]

    machine = first("machine")
    clocks = [float(value) / 1e3 for value in values.get("khz", []) if value.isdecimal()]
    listed = len(re.findall(r"^/sys/devices/system/cpu/cpu\d+\s*$", answer, re.MULTILINE))
    android = first("ro.build.version.release")
    maker, model = first("ro.product.manufacturer"), first("ro.product.model", "tree.model", "brand")
    named = f"{maker} {model}" if maker and not model.lower().startswith(maker.lower()) else model
    return Facts(
        model=named or next(iter(processor("model name")), "unknown"),
        abi=first("ro.product.cpu.abi") or _ABIS.get(machine, machine) or "unknown",
        machine=machine,
        system=f"Android {android}" if android else first("PRETTY_NAME").strip('"') or first("kernel") or "unknown",
        cores=listed or len(processor("processor")) or 1,
        identifiers=tuple(_clean(name) for key in (*_IDENTIFIERS, "tree.compatible") for name in values.get(key, []))
        + tuple(processor("Hardware")),
        top_mhz=max(clocks, default=None),
        emulation=_emulation(values),
    )


def recognise(facts: Facts) -> Chip | None:
    """The chip of a device; None when the table has no such chip, or several that match."""
    names = {name.casefold() for name in facts.identifiers}
    found = [
        chip
        for chip in chips().values()
        if (names & {name.casefold() for name in chip.identifiers} or facts.model.startswith(chip.models))
        and (chip.top_mhz is None or (facts.top_mhz is not None and abs(facts.top_mhz / chip.top_mhz - 1) <= 0.01))
    ]
    return found[0] if len(found) == 1 else None


def emulation(target: str, facts: Facts) -> str:
    """Why the device behind `target` is taken for an emulator; empty for a real one."""
    if target.startswith("adb:emulator-"):
        return "its serial number is one that adb gives to Android's emulator"
    return facts.emulation


def _emulation(values: Mapping[str, list[str]]) -> str:
    machine, abi = (values.get(key, [""])[0] for key in ("machine", "ro.product.cpu.abi"))
    if abi.startswith("arm") and machine in ("x86_64", "i686"):
        return f"it claims {_clean(abi)} on {machine}"
    if "1" in values.get("ro.kernel.qemu", []) + values.get("ro.boot.qemu", []):
        return "it reports that it runs in QEMU"
    if {"goldfish", "ranchu"} & set(values.get("ro.hardware", [])):
        return "its hardware is Android's emulator"
    tree = values.get("tree.model", []) + values.get("tree.compatible", [])
    if any("qemu" in text.lower() for text in values.get("cpuinfo", [])) or "linux,dummy-virt" in tree:
        return "its processor is QEMU's"
    return ""


def _clean(text: str) -> str:
    """A name from a device, for a line of a table: at most 80 printable characters."""
    return "".join(c for c in text if c.isprintable()).strip()[:80]
