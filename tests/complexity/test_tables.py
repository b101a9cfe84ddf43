"""Counts of single networks and model files as text, JSON and CSV, and what is refused."""

from __future__ import annotations

import pandas as pd
import pytest

from bibench_tf import complexity, zoo
from bibench_tf.complexity import tables
from bibench_tf.errors import BibenchError

NETWORK = ("vgg_small@0.25", "reactnet", (28, 28, 1), 10)


def test_one_network_as_text_and_json():
    cost = complexity.count_network(*NETWORK)
    counted = tables.of_network(*NETWORK, larq_summary=True)
    text = tables.to_text([counted], ["bibench"], per_layer=True)
    assert f"deployed parameters: {cost.parameters:,}" in text
    assert all(layer.name in text for layer in cost.layers)
    assert "1-bit MACs" in text  # Larq's summary
    assert "om_comp" in text and "ace" not in text
    read = tables.to_json([counted], ["ops64", "hpi"])
    assert read["macs"] == cost.macs and list(read["conventions"]) == ["ops64", "hpi"]
    assert read["conventions"]["ops64"]["operations"] == cost.macs_binary / 64 + cost.macs_float
    assert "layers" not in read
    layers = tables.to_json([counted], [], per_layer=True)["layers"]
    assert sum(row["macs"] for row in layers) == cost.macs
    assert [row["name"] for row in layers if row["binary"]] == ["conv2", "conv3", "conv4", "conv5", "conv6"]


def test_several_networks_as_a_table_and_rows():
    shape = ((28, 28, 1), 10)
    both = [tables.of_network("resnet20@0.25", name, *shape) for name in ("bnn", "xnor")]
    text = tables.to_text(both, ["hpi"])
    assert text.count("resnet20@0.25") == 2 and "hpi.size_mib" in text
    rows = pd.DataFrame(tables.rows(both, ["hpi"]))
    assert list(rows["macs"]) == [both[0].cost.macs, both[1].cost.macs]
    layers = pd.DataFrame(tables.rows(both, [], per_layer=True))
    assert layers["macs"].sum() == rows["macs"].sum() and set(layers["network"]) == {"resnet20@0.25"}


def test_a_model_file_is_counted(tmp_path):
    model = zoo.resnet20("reactnet", (28, 28, 1), 10, width=0.25)
    model.save(tmp_path / "mine.keras")
    counted = tables.of_file(tmp_path / "mine.keras")
    assert counted.cost == complexity.count(model)
    assert list(tables.values_of(counted, ["bibench", "ops64"])) == ["ops64"]
    with pytest.raises(BibenchError, match="no full-precision twin"):
        tables.values_of(counted, ["bibench"])


def test_the_binarization_of_the_paper_is_the_default():
    assert tables.of_network("meliusnet22@0.25", None, (32, 32, 3), 10).algorithm == "paper"
    assert tables.of_network("resnet20@0.25").algorithm == "bnn"


def test_conventions_by_name():
    assert tables.chosen_conventions(["hpi", "hpi"]) == ("hpi",)
    assert set(tables.chosen_conventions(["hpi", "all"])) == set(complexity.CONVENTIONS)
    with pytest.raises(BibenchError, match="Unknown convention 'hpl'. Did you mean 'hpi'"):
        tables.chosen_conventions(["hpl"])


@pytest.mark.parametrize(
    ("network", "algorithm", "shape", "message"),
    [
        ("resnet21", "bnn", (32, 32, 3), "Unknown network 'resnet21'. Did you mean 'resnet20'"),
        ("resnet20@wide", "bnn", (32, 32, 3), "resnet20@wide"),
        ("resnet20", "bnnn", (32, 32, 3), "Unknown algorithm 'bnnn'. Did you mean 'bnn'"),
        ("resnet20", "bnn", (4, 4, 3), "at least"),
    ],
)
def test_what_there_is_not(network, algorithm, shape, message):
    with pytest.raises(BibenchError, match=message):
        complexity.count_network(network, algorithm, shape)


def test_the_table_counts_like_the_module():
    model = zoo.resnet20("bnn", (28, 28, 1), 10, width=0.25)
    assert complexity.count_network("resnet20@0.25", "bnn", (28, 28, 1)) == complexity.count(model)
