"""Clock and temperature of a device before and after a round, and whether it throttled."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bibench_tf.deploy.targets import Settings

# Throttling: the clock under load fell below this share, or the temperature rose by more than this.
_CLOCK_SHARE = 0.9
_TEMPERATURE_RISE_C = 10.0


@dataclass(frozen=True)
class Reading:
    """The fastest clock, the highest limit of a clock and the processor's temperature; None for unreadable ones."""

    clock_mhz: float | None
    limit_mhz: float | None
    temperature_c: float | None


def script(settings: Settings) -> str:
    """Shell that prints clocks and temperatures for `reading`.

    A short loop before it lets the clock rise, so that a reading of an idle and one of a busy device compare.
    """
    cpus = "/sys/devices/system/cpu/cpu"
    chosen = " ".join(f"{cpus}{core}" for core in settings.cores or ()) or f"{cpus}[0-9]*"
    return (
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; "
        f'for d in {chosen}; do echo "clock=$(cat $d/cpufreq/scaling_cur_freq 2>/dev/null)"; '
        'echo "limit=$(cat $d/cpufreq/scaling_max_freq 2>/dev/null)"; done; '
        "for z in /sys/class/thermal/thermal_zone*; do "
        'echo "zone=$(cat $z/temp 2>/dev/null)=$(cat $z/type 2>/dev/null)"; done'
    )


def reading(text: str) -> Reading:
    """A reading from lines `clock=KHZ`, `limit=KHZ` and `zone=TEMPERATURE=TYPE`.

    Sensors give thousandths, tenths or whole degrees; those of the processor count, where there are any.
    """
    clocks = {
        kind: [float(v) / 1e3 for v in re.findall(rf"^{kind}=(\d+)\s*$", text, re.M)] for kind in ("clock", "limit")
    }
    zones = []
    for value, kind in re.findall(r"^zone=(-?\d+)=(.*)$", text, re.M):
        degrees = float(value) / (1000 if abs(int(value)) >= 1000 else 10 if abs(int(value)) > 150 else 1)
        # A sensor that is off reports 0 or nonsense.
        if 0 < degrees <= 150:
            zones.append((degrees, re.search(r"cpu|soc|tsens|apc", kind, re.I) is not None))
    processor = [degrees for degrees, ours in zones if ours] or [degrees for degrees, _ in zones]
    return Reading(
        clock_mhz=max(clocks["clock"], default=None),
        limit_mhz=max(clocks["limit"], default=None),
        temperature_c=max(processor, default=None),
    )


def throttling(before: Reading, after: Reading) -> str:
    """In words, what shows that the device slowed down; empty when nothing does."""
    for what, was, now in (
        ("the clock", before.clock_mhz, after.clock_mhz),
        ("the limit of the clock", before.limit_mhz, after.limit_mhz),
    ):
        if was and now and now < _CLOCK_SHARE * was:
            return f"{what} fell from {was:.0f} to {now:.0f} MHz"
    was, now = before.temperature_c, after.temperature_c
    if was is not None and now is not None and now - was > _TEMPERATURE_RISE_C:
        return f"the temperature rose from {was:.0f} to {now:.0f} degrees Celsius"
    return ""
