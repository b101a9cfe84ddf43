"""Energy of the processor packages, from the counters of Intel and AMD processors (RAPL).

Linux has the counters under /sys/class/powercap; on most systems only the administrator can read them. They count the
whole machine, with all programs, but not memory, disks and GPUs. If they cannot be read, there is no value; energy is
never estimated.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Sums the energy of the intervals between `start` and `stop`.

    `joules` is None if the counters cannot be read. An interval must be shorter than the time in which a counter wraps
    around, which is at least some minutes.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._counters = _package_counters(powercap)
        self._before: list[int] | None = None
        self.joules: float | None = None
        self.clear()

    def clear(self) -> None:
        """Reset the sum to 0."""
        self.joules = 0.0 if self._counters else None

    def start(self) -> None:
        """Start an interval."""
        self._before = self._read()

    def stop(self) -> None:
        """End the interval and add its energy."""
        after = self._read()
        if self.joules is None or self._before is None or after is None:
            return
        for before, now, (_, range_uj) in zip(self._before, after, self._counters, strict=True):
            self.joules += 1e-6 * (now - before if now >= before else now - before + range_uj)

    def _read(self) -> list[int] | None:
        try:
            return [int(file.read_text()) for file, _ in self._counters]
        except (OSError, ValueError):
            # A sum without one of its intervals would be wrong, so the total is discarded.
            self._counters, self.joules = [], None
            return None


def _package_counters(powercap: Path) -> list[tuple[Path, int]]:
    """The file and the range in microjoules of each package's counter; empty if one of them cannot be read."""
    counters: list[tuple[Path, int]] = []
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            # Zones inside a package, such as its cores, are parts of it; the zone psys contains the packages.
            if (zone / "name").read_text().startswith("package"):
                file = zone / "energy_uj"
                int(file.read_text())
                counters.append((file, int((zone / "max_energy_range_uj").read_text())))
    except (OSError, ValueError):
        return []
    return counters
