"""The energy counters, on a made-up tree of /sys/class/powercap."""

import pytest

from bibench_tf.training.energy import EnergyMeter

RANGE_UJ = 262_143_328_850


def make_zone(powercap, zone, name, energy_uj):
    folder = powercap / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    set_energy(powercap, zone, energy_uj)


def set_energy(powercap, zone, energy_uj):
    (powercap / zone / "energy_uj").write_text(f"{energy_uj}\n")


@pytest.fixture
def powercap(tmp_path):
    """Two packages, and zones that are parts of them or count them again."""
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    make_zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    make_zone(tmp_path, "intel-rapl:0:1", "dram", 500_000)
    make_zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000)
    make_zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    make_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def test_packages_are_added_up_and_nothing_is_counted_twice(powercap):
    meter = EnergyMeter(powercap)
    meter.start()
    for zone, energy_uj in (
        ("intel-rapl:0", 4_500_000),
        ("intel-rapl:0:0", 90_000_000),
        ("intel-rapl:0:1", 90_000_000),
        ("intel-rapl:1", 2_250_000),
        ("intel-rapl:2", 90_000_000),
        ("intel-rapl-mmio:0", 4_500_000),
    ):
        set_energy(powercap, zone, energy_uj)
    meter.stop()
    assert meter.joules == pytest.approx(3.5 + 0.25)


def test_only_what_is_used_between_start_and_stop_counts(powercap):
    meter = EnergyMeter(powercap)
    for begin_uj, end_uj in ((1_000_000, 2_000_000), (50_000_000, 50_500_000)):
        set_energy(powercap, "intel-rapl:0", begin_uj)
        meter.start()
        set_energy(powercap, "intel-rapl:0", end_uj)
        meter.stop()
    assert meter.joules == pytest.approx(1.5)
    meter.clear()
    assert meter.joules == 0


def test_a_counter_that_wraps_around(powercap):
    set_energy(powercap, "intel-rapl:0", RANGE_UJ - 2_000_000)
    meter = EnergyMeter(powercap)
    meter.start()
    set_energy(powercap, "intel-rapl:0", 1_000_000)
    meter.stop()
    assert meter.joules == pytest.approx(3.0)


def test_no_counters_no_figure(tmp_path):
    for powercap in (tmp_path, tmp_path / "missing"):
        meter = EnergyMeter(powercap)
        meter.start()
        meter.stop()
        assert meter.joules is None


def test_a_package_that_may_not_be_read_leaves_no_figure_for_the_others_either(powercap, monkeypatch):
    forbid(monkeypatch, powercap / "intel-rapl:1" / "energy_uj")
    meter = EnergyMeter(powercap)
    meter.start()
    set_energy(powercap, "intel-rapl:0", 4_500_000)
    meter.stop()
    assert meter.joules is None


@pytest.mark.parametrize("fault", ["forbidden", "gone", "garbled"])
def test_a_counter_that_fails_while_measuring(powercap, monkeypatch, fault):
    meter = EnergyMeter(powercap)
    meter.start()
    meter.stop()
    assert meter.joules == 0
    meter.start()
    file = powercap / "intel-rapl:0" / "energy_uj"
    if fault == "forbidden":
        forbid(monkeypatch, file)
    elif fault == "gone":
        file.unlink()
    else:
        file.write_text("?")
    meter.stop()
    assert meter.joules is None
    meter.clear()
    assert meter.joules is None  # also for what comes later


def forbid(monkeypatch, file):
    """Reading fails as it does without rights; the tests may run as root, whom the mode of a file does not stop."""
    read_text = type(file).read_text

    def read(path, *arguments, **options):
        if path == file:
            raise PermissionError(13, "Permission denied")
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(type(file), "read_text", read)
