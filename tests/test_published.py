"""The published figures: complete, plausible, and each with its source."""

from __future__ import annotations

import re

from bibench_tf import published, zoo


def test_every_row_says_what_it_is_and_where_it_stands():
    rows = published.device_latency()
    assert len(rows) > 50
    assert len(set(rows)) == len(rows)
    for row in rows:
        assert row.network and row.device and row.library
        assert 0.1 < row.latency_ms < 2000
        assert row.threads is None or row.threads > 0
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{7} \S+", row.source)
        assert re.fullmatch(r"\d+x\d+x\d+", row.input)
        assert row.family is None or row.family in zoo.names()


def test_figures_of_the_sources():
    def one(network, device, library, threads):
        found = [
            row.latency_ms
            for row in published.device_latency()
            if (row.network, row.device, row.library, row.threads) == (network, device, library, threads)
        ]
        return found

    assert one("QuickNet", "Raspberry Pi 4B", "Larq Compute Engine", 4) == [20.8]
    assert one("MeliusNet22", "Pixel 1", "Larq Compute Engine", None) == [110.711]
    assert one("Bi-Real-18", "Pixel 1", "daBNN", 1) == [61.92]
    assert one("Bi-Real-18", "Pixel 1", "BMXNet", None) == [396]


def test_only_the_same_network_on_the_same_input_is_comparable():
    rows = published.device_latency("resnet18", (224, 224, 3))
    assert {row.family for row in rows} == {"resnet18"}
    assert "BiRealNet" in {row.network for row in rows}
    assert published.device_latency("resnet18", (32, 32, 3)) == []
    assert published.device_latency("resnet20", (224, 224, 3)) == []


def test_the_command_lists_them_all():
    from click.testing import CliRunner

    from bibench_tf.deploy.commands import deploy

    lines = CliRunner().invoke(deploy, ["published"]).output.splitlines()
    assert len(lines) == len(published.device_latency()) + 1
    assert any("BMXNet" in line and "396" in line and "JDAI-CV/dabnn" in line for line in lines)
