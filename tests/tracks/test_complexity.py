"""The complexity track: counts kept as records, and scores from them."""

from __future__ import annotations

import json

import pytest

from bibench_tf import complexity as counting
from bibench_tf import datasets, metrics, records
from bibench_tf.benchmark import Benchmark, Session
from bibench_tf.complexity import LayerCost
from bibench_tf.errors import BibenchError
from bibench_tf.runs import RunStore
from bibench_tf.tracks import complexity

BENCHMARK = Benchmark(architecture="resnet20@0.25", algorithms=("bnn", "xnorpp"))


def layer(binary, floats, macs, mac_bits):
    return LayerCost("conv", "Conv2D", 1, mac_bits, macs, binary, floats, 0, binary + 32 * floats)


def write(folder, algorithm, *layers, **changes):
    (key,) = [key for key in complexity._keys(BENCHMARK) if key.algorithm == algorithm]
    record = complexity.Complexity(key, (28, 28, 1), 10, tuple(layers), **changes)
    path = complexity._path(folder, key)
    records.write(path, record)
    return path


@pytest.fixture
def counted(tmp_path):
    write(tmp_path, "full_precision", layer(0, 1000, 50_000, 32))
    write(tmp_path, "bnn", layer(0, 200, 10_000, 32), layer(800, 0, 40_000, 1))
    write(tmp_path, "xnorpp", layer(0, 200, 10_000, 32), layer(800, 100, 40_000, 1))
    return tmp_path


def test_scores_by_hand(counted):
    score = complexity.score(BENCHMARK, RunStore(counted))
    r_s = 50_000 / (10_000 + 40_000 / 64)
    assert score.scores["full_precision"] == 1
    assert score.scores["bnn"] == pytest.approx(metrics.om_comp([1000 / (200 + 800 / 32)], [r_s]))
    # Parameters that an algorithm adds count against it.
    assert score.scores["xnorpp"] == pytest.approx(metrics.om_comp([1000 / (300 + 800 / 32)], [r_s]))
    assert not score.failures
    row = score.table.set_index("algorithm").loc["bnn"]
    assert (row["r_s"], row["size (kbit)"]) == (pytest.approx(r_s), (800 + 32 * 200) / 1000)
    assert score.conditions["input"] == "28 x 28 x 1, 10 classes"


def test_missing_and_failed_counts_are_told(counted):
    write(counted, "bnn", error="Layer 'x' is of type Odd.")
    path = write(counted, "xnorpp", layer(800, 100, 40_000, 1))
    path.write_text(path.read_text().replace("40000", "4"))
    score = complexity.score(BENCHMARK, RunStore(counted))
    assert score.scores == {"full_precision": 1, "bnn": None, "xnorpp": None}
    assert any("bnn: Layer 'x' is of type Odd." in failure for failure in score.failures)
    assert any(str(path) in failure and "xnorpp" in failure for failure in score.failures)


def test_a_count_of_a_newer_version_stops_the_score(counted):
    path = write(counted, "xnorpp", layer(800, 100, 40_000, 1))
    content = json.loads(path.read_text())
    content["schema"] = records.SCHEMA + 1
    path.write_text(json.dumps(content))
    with pytest.raises(records.NewerRecordError, match="update bibench-tf"):
        complexity.score(BENCHMARK, RunStore(counted))


def test_without_a_baseline_there_is_no_score(counted):
    complexity._path(counted, complexity._keys(BENCHMARK)[0]).unlink()
    score = complexity.score(BENCHMARK, RunStore(counted))
    assert set(score.scores.values()) == {None}
    assert "full_precision: not counted yet." in score.failures
    assert len(score.failures) == 3


def test_counts_once(tmp_path, monkeypatch):
    session = Session(tmp_path, quiet=True)
    assert complexity.plan(BENCHMARK) == []
    complexity.measure(BENCHMARK, session)
    score = complexity.score(BENCHMARK, RunStore(tmp_path))
    assert not score.failures
    assert score.scores["full_precision"] == 1 < score.scores["xnorpp"] < score.scores["bnn"]
    data = datasets.get("fashion_mini")
    _, cost = complexity.describe("resnet20@0.25", "bnn", data.input_shape, data.num_classes)
    assert score.table.set_index("algorithm").loc["bnn", "binary MACs (M)"] == cost.macs_binary / 1e6
    monkeypatch.setattr(complexity, "describe", None)
    complexity.measure(BENCHMARK, session)


def test_a_network_that_cannot_be_counted_is_tried_again(tmp_path, monkeypatch):
    session = Session(tmp_path, quiet=True)
    describe = complexity.describe

    def fail(network, algorithm, **shape):
        if algorithm == "bnn":
            raise BibenchError("Layer 'x' is of type Odd.")
        return describe(network, algorithm, **shape)

    monkeypatch.setattr(complexity, "describe", fail)
    complexity.measure(BENCHMARK, session)
    assert complexity.score(BENCHMARK, RunStore(tmp_path)).scores["bnn"] is None
    monkeypatch.setattr(complexity, "describe", describe)
    complexity.measure(BENCHMARK, session)
    assert complexity.score(BENCHMARK, RunStore(tmp_path)).scores["bnn"] > 1


def test_one_network_as_text_and_json():
    arguments = ("vgg_small@0.25", "reactnet", (28, 28, 1), 10)
    table, cost = complexity.describe(*arguments)
    text = complexity.describe_text(*arguments, per_layer=True)
    assert f"deployed parameters: {cost.parameters:,}" in text
    assert all(name in text for name in table["name"])
    assert "1-bit MACs" in text  # Larq's summary
    read = json.loads(complexity.describe_text(*arguments, as_json=True))
    assert read["macs"] == cost.macs
    assert "layers" not in read
    layers = json.loads(complexity.describe_text(*arguments, per_layer=True, as_json=True))["layers"]
    assert sum(row["macs"] for row in layers) == cost.macs
    assert [row["name"] for row in layers if row["binary"]] == ["conv2", "conv3", "conv4", "conv5", "conv6"]


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
        complexity.describe(network, algorithm, shape)


def test_the_table_counts_like_the_module():
    model = complexity._build("resnet20@0.25", "bnn", (28, 28, 1), 10)
    assert complexity.describe("resnet20@0.25", "bnn", (28, 28, 1))[1] == counting.count(model)
