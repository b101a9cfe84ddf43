"""The published figures: complete, plausible, and each with its source."""

from __future__ import annotations

import re

import pytest

from bibench_tf import complexity, published, zoo


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


def test_the_rows_list_them_all():
    rows = published.device_latency()
    assert any("BMXNet" in row.library and row.latency_ms == 396 and "JDAI-CV/dabnn" in row.source for row in rows)


def test_every_network_says_what_was_published_and_where():
    rows = published.networks()
    assert len(rows) > 40
    assert len({(row.network, row.options, row.source) for row in rows}) == len(rows)
    for row in rows:
        assert 30 < row.top1_percent < 90
        assert row.top5_percent is None or row.top1_percent < row.top5_percent < 100
        assert row.builder is None or row.builder in zoo.names()
        assert row.operations_64 is None or 1e7 < row.operations_64 < 1e9
        assert (row.operations_64 is None) or row.convention in ("hpi", "larq", "ops64", "bnext", "slim")
        assert re.match(r"[\w-]+/[\w-]+@[0-9a-f]{7} ", row.source)
        if row.size_bytes is not None:
            assert row.size_of_parameters_mib == pytest.approx(row.size_mib, abs=0.006)


def test_options_are_what_builders_take():
    (row,) = [row for row in published.networks("mobilenet_v1") if "0.5" in row.network]
    assert row.builder_options == {"width": 0.5}
    assert published.networks("meliusnet42")[0].builder_options == {"stem": "grouped"}


@pytest.mark.parametrize("name", ["ResNetE18", "MeliusNetC"])
def test_our_counts_are_the_published_ones(name):
    for row in (row for row in published.networks() if row.network == name and row.convention == "hpi"):
        cost = complexity.count_network(row.builder, row.algorithm, (224, 224, 3), 1000, **row.builder_options)
        figures = complexity.derive("hpi", cost)
        assert f"{figures['operations']:.2e}" == f"{row.operations:.2e}"
        assert round(figures["size_mib"], 2) == row.size_mib


def test_our_bytes_are_those_of_larq():
    (row,) = [row for row in published.networks() if row.network == "BiRealNet"]
    cost = complexity.count_network(row.builder)
    assert (cost.bits / 8, cost.macs_binary, cost.macs_float) == (row.size_bytes, row.macs_binary, row.macs_float)


def test_reactnet_a_has_the_effort_that_pokebnn_prints():
    effort = complexity.derive("ace", complexity.count_network("reactnet_a"))["ace"]
    assert f"{effort / 1e9:.1f}" == "7.9"  # arXiv 2112.00133, abstract
