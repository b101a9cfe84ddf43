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


# Written out from the sources: top-1 and top-5 in percent, and operations and MiB or bytes where these are given.
WIKI = """
MeliusNet22 imagenet 62.9 84.3 2.58e8 3.89; MeliusNet22 grouped 63.6 84.7 2.08e8 3.88
MeliusNet29 imagenet 64.9 85.7 2.64e8 5.08; MeliusNet29 grouped 65.8 86.2 2.14e8 5.07
MeliusNet42 grouped 69.2 88.3 3.25e8 10.1; MeliusNet59 grouped 70.7 89.2 5.32e8 17.39
MeliusNetA grouped 63.4 84.2 1.63e8 4.05; MeliusNetB grouped 65.7 85.9 1.96e8 5.0
MeliusNetC grouped 64.1 85.0 1.50e8 4.46
BinaryDenseNet28 imagenet 61.7 83.3 2.58e8 4.04; BinaryDenseNet28 grouped 62.6 84.0 2.09e8 4.03
BinaryDenseNet37 imagenet 63.3 84.4 2.70e8 5.13; BinaryDenseNet37 grouped 64.2 85.1 2.20e8 5.12
ResNetE18 imagenet 60.0 81.9 1.63e8 4.0; ResNetE18 grouped 60.6 82.4 1.14e8 3.98
ResNetE34 imagenet 63.2 84.7 1.92e8 5.23; ResNetE34 grouped 63.7 84.9 1.43e8 5.21
"""
LARQ = """
QuickNetSmall 59.4 81.8 1156055040 15489536 4197152; QuickNet 63.3 84.6 1849688064 28861440 4368032
QuickNetLarge 66.9 87.0 3699376128 28861440 5660320; RealToBinaryNet 65.0 85.7 1676279808 138087936 5378976
BinaryDenseNet45 64.6 85.2 6430556160 244103424 7703968; BinaryDenseNet37Dilated 64.3 85.2 7774470144 452625408 5382304
BinaryDenseNet37 62.9 84.2 4506808320 199738368 5382304; MeliusNet22 62.4 83.9 4624220160 136388608 4065568
BinaryDenseNet28 60.9 82.8 3587383296 202484224 4241312; BinaryResNetE18 58.3 80.8 1676279808 137793536 4189856
BiRealNet 57.5 79.8 1676279808 137793536 4189344; XNORNet 45.0 69.2 1025744896 113379328 23880320
BinaryAlexNet 36.3 61.5 768512000 72855552 7812248; DoReFaNet 53.4 76.5 None None None
"""
OTHERS = """
XNOR-Net ResNet-18: 51.2 None 1.67e8; Bi-Real Net 18: 56.4 79.5 1.63e8; Bi-Real Net 34: 62.2 83.9 None
Real-to-Binary: 65.4 None 1.83e8; ReActNet on Bi-Real-18: 65.9 None 1.63e8; ReActNet-A: 69.5 None 0.87e8
BNext-T: 72.4 None 0.077e9; BNext-S: 76.1 None 0.172e9; BNext-M: 78.3 None 0.317e9; BNext-L: 80.6 None 0.819e9
MobileNetV1 0.5: 63.3 84.9 1.5e8; MobileNetV1 0.75: 68.4 88.2 3.17e8; MobileNetV1 1.0: 70.9 89.9 5.69e8
"""


def cells(text):
    return [line.split() for line in text.replace("\n", ";").split(";") if line]


def numbers(texts):
    return tuple(None if text == "None" else float(text) for text in texts)


def test_accuracies_and_counts_are_those_of_the_sources():
    """One changed digit of any network."""
    rows = published.networks()

    def stem(row):
        return row.options.removeprefix("stem=")

    wiki = [row for row in rows if row.source.startswith("hpi-xnor/BMXNet-v2-wiki@")]
    assert {
        (row.network, stem(row)): (row.top1_percent, row.top5_percent, row.operations, row.size_mib) for row in wiki
    } == {(network, kind): numbers(values) for network, kind, *values in cells(WIKI)}
    larq = [row for row in rows if row.source.startswith("larq/docs@")]
    assert {
        row.network: (row.top1_percent, row.top5_percent, row.macs_binary, row.macs_float, row.size_bytes)
        for row in larq
    } == {network: numbers(values) for network, *values in cells(LARQ)}
    others = [row for row in rows if row not in wiki and row not in larq]
    expected = dict(line.strip().split(": ") for line in OTHERS.replace("\n", ";").split(";") if line)
    assert {row.network: (row.top1_percent, row.top5_percent, row.operations) for row in others} == {
        network: numbers(values.split()) for network, values in expected.items()
    }
    assert len(rows) == len(wiki) + len(larq) + len(others) == 17 + 14 + 13


# Milliseconds, in the order of the table: Larq's zoo on Pixel 1 and Raspberry Pi 4B; Larq Compute Engine with 1 and 4
# threads; daBNN's table and, by convolution, its figure.
ZOO_LATENCIES = """
QuickNetSmall 17.454 31.629; QuickNet 27.397 51.728; QuickNetLarge 45.477 84.345; RealToBinaryNet 48.76 99.374
BinaryDenseNet45 129.337 268.85; BinaryDenseNet37Dilated 174.88 352.28; BinaryDenseNet37 97.092 206.81
MeliusNet22 110.711 252.092; BinaryDenseNet28 84.914 180.977; BinaryResNetE18 41.814 86.148; BiRealNet 41.745 85.445
XNORNet 29.252 54.737; BinaryAlexNet 44.397 109.491
"""
ENGINE_LATENCIES = {
    "QuickNetSmall": [27.7, 12.1, 16.8, 8.9, 4.0, 1.8],
    "QuickNet": [45.0, 20.8, 25.5, 12.6, 5.8, 2.5],
    "QuickNetLarge": [77.0, 31.7, 44.2, 22.8, 9.9, 3.9],
    "Bi-Real-18": [41.6],
}
DABNN_TABLE = [3.662, 1.306, 0.958, 0.975, 0.268, 1.282, 61.92, 43.29]
DABNN_FIGURE = {
    "convolution 3x3 64": [72.5, 28.9, 11.7, 1.28],
    "convolution 3x3 128": [70.7, 17.8, 10.3, 0.95],
    "convolution 3x3 256": [69.8, 12.7, 10.8, 0.97],
    "convolution 3x3 512": [69.8, 9.2, 10.7, 1.25],
    "Bi-Real-18": [1309, 396, 220, 61.3],
}


def latencies(rows):
    found = {}
    for row in rows:
        found.setdefault(row.network, []).append(row.latency_ms)
    return found


def test_latencies_are_those_of_the_sources():
    """One changed digit of any latency, and two networks or devices exchanged."""
    rows = published.device_latency()
    zoo_rows = [row for row in rows if row.source.startswith("larq/docs@")]
    assert latencies(zoo_rows) == {network: list(numbers(values)) for network, *values in cells(ZOO_LATENCIES)}
    assert [row.device for row in zoo_rows] == ["Pixel 1", "Raspberry Pi 4B"] * 13
    engine = [row for row in rows if row.source.startswith("larq/compute-engine@")]
    assert latencies(engine) == ENGINE_LATENCIES
    assert [row.device for row in engine[:6]] == [*["Raspberry Pi 4B"] * 2, *["Pixel 1"] * 2, *["Apple M1"] * 2]
    table = [row for row in rows if row.source.endswith("benchmark_and_comparison.md")]
    assert [row.latency_ms for row in table] == DABNN_TABLE
    figure = [row for row in rows if row.note == "read from the figure"]
    assert latencies(figure) == DABNN_FIGURE
    libraries = ["Caffe, full precision", "BMXNet", "TensorFlow Lite, full precision", "daBNN"]
    assert [row.library for row in figure] == libraries * 5
    assert len(rows) == len(zoo_rows) + len(engine) + len(table) + len(figure)


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
