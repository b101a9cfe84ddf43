"""Energy of the processor packages, as Intel and AMD processors count it themselves (RAPL).

Linux shows the counters under /sys/class/powercap, on most systems to the administrator alone. They count the whole
machine: every program, not only this one; memory, disks and graphics cards are not in them. Where they cannot be read
there is no figure: nothing is estimated.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds up the energy between `start` and `stop`, over as many intervals as there are.

    `joules` is None where the platform does not tell. An interval must be shorter than a counter takes to wrap around,
    which is some minutes at least.
    """

    def __init__(self, powercap: Path = POWERCAP):
        self._counters = _package_counters(powercap)
        self._before: list[int] | None = None
        self.joules: float | None = None
        self.clear()

    def clear(self) -> None:
        """Begin again at 0."""
        self.joules = 0.0 if self._counters else None

    def start(self) -> None:
        """An interval begins."""
        self._before = self._read()

    def stop(self) -> None:
        """An interval ends."""
        after = self._read()
        if self.joules is None or self._before is None or after is None:
            return
        for before, now, (_, range_uj) in zip(self._before, after, self._counters, strict=True):
            self.joules += 1e-6 * (now - before if now >= before else now - before + range_uj)

    def _read(self) -> list[int] | None:
        try:
            return [int(file.read_text()) for file, _ in self._counters]
        except (OSError, ValueError):
            # A sum without one of its intervals would be wrong, so there is none any more.
            self._counters, self.joules = [], None
            return None


def _package_counters(powercap: Path) -> list[tuple[Path, int]]:
    """The file and the range in microjoules of each package's counter; none if one of them cannot be read."""
    counters = []
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            # Zones inside a package, such as its cores, are a part of it; psys would count it twice.
            if (zone / "name").read_text().startswith("package"):
                file = zone / "energy_uj"
                int(file.read_text())
                counters.append((file, int((zone / "max_energy_range_uj").read_text())))
    except (OSError, ValueError):
        return []
    return counters
