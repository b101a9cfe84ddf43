"""The complexity track: counts kept as records, and scores from them."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest

from bibench_tf import complexity as counting
from bibench_tf import datasets, files, zoo
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.complexity import LayerCost, Macs, Weights
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import metrics
from bibench_tf.tracks.base import main_specs
from bibench_tf.tracks.theoretical_complexity import pareto
from bibench_tf.tracks.theoretical_complexity import text as complexity_text
from bibench_tf.tracks.theoretical_complexity import track as complexity
from bibench_tf.training.session import Session

BENCHMARK = Benchmark(networks="resnet20@0.25", algorithms=("bnn", "xnorpp"))


def layer(binary, floats, macs, mac_bits):
    weights = tuple(Weights(count, bits) for count, bits in ((binary, 1), (floats, 32)) if count)
    return LayerCost("conv", "Conv2D", "conv", 1, (Macs(macs, mac_bits, mac_bits),), 7, weights)


def write(folder, algorithm, *layers, **changes):
    (key,) = [key for key in complexity._keys(BENCHMARK) if key.algorithm == algorithm]
    options = {"input_shape": (28, 28, 1), "num_classes": 10}
    record = complexity.Complexity(key, options, tuple(layers), **changes)
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


def test_records_of_the_first_version_are_counted_again(counted, monkeypatch):
    score = complexity.score(BENCHMARK, RunStore(counted))
    assert score.scores["bnn"] is not None
    monkeypatch.setattr(complexity.Key.__init__, "__defaults__", (complexity.VERSION + 1,))
    stale = complexity.score(BENCHMARK, RunStore(counted))
    assert set(stale.scores.values()) == {None}
    assert stale.failures[0] == "full_precision: not counted yet."


def test_a_record_with_layers_of_the_first_version_is_refused(counted):
    path = complexity._path(counted, complexity._keys(BENCHMARK)[1])
    content = records.read_envelope(path)
    for old in content["data"]["layers"]:
        for name in ("role", "mac_pairs", "other", "weights"):
            del old[name]
        old |= {"macs": 1, "mac_bits": 1, "weights_binary": 1, "weights_float": 0, "bits": 1}
    content["sha256"] = files.digest({name: value for name, value in content.items() if name != "sha256"})
    path.write_text(json.dumps(content))
    failures = complexity.score(BENCHMARK, RunStore(counted)).failures
    assert any("does not fit Complexity" in failure or "KeyError" in failure for failure in failures)


def test_records_keep_raw_counts(counted):
    (key,) = [key for key in complexity._keys(BENCHMARK) if key.algorithm == "bnn"]
    record = complexity._counted(counted, key)
    assert record.layers == (layer(0, 200, 10_000, 32), layer(800, 0, 40_000, 1))
    assert record.cost.other == 14


NETWORK = ("vgg_small@0.25", "reactnet", (28, 28, 1), 10)


def test_one_network_as_text_and_json():
    table, cost = complexity.describe(*NETWORK)
    counted = complexity_text.of_network(*NETWORK, larq_summary=True)
    text = complexity_text.to_text([counted], ["bibench"], per_layer=True)
    assert f"deployed parameters: {cost.parameters:,}" in text
    assert all(name in text for name in table["name"])
    assert "1-bit MACs" in text  # Larq's summary
    assert "om_comp" in text and "ace" not in text
    read = json.loads(complexity_text.to_json([counted], ["ops64", "hpi"]))
    assert read["macs"] == cost.macs and list(read["conventions"]) == ["ops64", "hpi"]
    assert read["conventions"]["ops64"]["operations"] == cost.macs_binary / 64 + cost.macs_float
    assert "layers" not in read
    layers = json.loads(complexity_text.to_json([counted], [], per_layer=True))["layers"]
    assert sum(row["macs"] for row in layers) == cost.macs
    assert [row["name"] for row in layers if row["binary"]] == ["conv2", "conv3", "conv4", "conv5", "conv6"]


def test_several_networks_as_a_table_and_csv(tmp_path):
    shape = ((28, 28, 1), 10)
    both = [complexity_text.of_network("resnet20@0.25", name, *shape) for name in ("bnn", "xnor")]
    text = complexity_text.to_text(both, ["hpi"])
    assert text.count("resnet20@0.25") == 2 and "hpi.size_mib" in text
    complexity_text.write_csv(tmp_path / "a.csv", both, ["hpi"])
    rows = pd.read_csv(tmp_path / "a.csv")
    assert list(rows["macs"]) == [both[0].cost.macs, both[1].cost.macs]
    complexity_text.write_csv(tmp_path / "b.csv", both, [], per_layer=True)
    assert pd.read_csv(tmp_path / "b.csv")["macs"].sum() == rows["macs"].sum()
    with pytest.raises(BibenchError, match="Cannot write"):
        complexity_text.write_csv(tmp_path / "none" / "a.csv", both, [])


def test_a_model_file_is_counted(tmp_path):
    model = zoo.resnet20("reactnet", (28, 28, 1), 10, width=0.25)
    model.save(tmp_path / "mine.keras")
    counted = complexity_text.of_file(tmp_path / "mine.keras")
    assert counted.cost == counting.count(model)
    assert list(complexity_text.figures(counted, ["bibench", "ops64"])) == ["ops64"]
    with pytest.raises(BibenchError, match="no full-precision twin"):
        complexity_text.figures(counted, ["bibench"])


def test_the_binarization_of_the_paper_is_the_default():
    assert complexity_text.of_network("meliusnet22@0.25", None, (32, 32, 3), 10).algorithm == "paper"
    assert complexity_text.of_network("resnet20@0.25").algorithm == "bnn"


def test_conventions_by_name():
    assert complexity_text.chosen_conventions(["hpi", "hpi"]) == ("hpi",)
    assert set(complexity_text.chosen_conventions(["hpi", "all"])) == set(counting.CONVENTIONS)
    with pytest.raises(BibenchError, match="Unknown convention 'hpl'. Did you mean 'hpi'"):
        complexity_text.chosen_conventions(["hpl"])


def test_front_is_what_no_other_point_beats():
    points = [(3, 70), (1, 50), (2, 60), (2, 55), (4, 65), (1, 49)]
    assert pareto.front(points) == [(1, 50), (2, 60), (3, 70)]


def test_measured_points_are_filled_and_published_ones_hollow(counted, tmp_path):
    store = RunStore(counted)
    for algorithm, spec in main_specs(BENCHMARK).items():
        if algorithm != "xnorpp":  # counted, not trained
            accuracy = {"full_precision": 0.9, "bnn": 0.8}[algorithm]
            result = RunResult(spec.id, dataclasses.asdict(spec), "completed", accuracy=accuracy)
            records.write(store.folder(spec) / "result.json", result)
    measured = pareto.measured_points(BENCHMARK, counted)
    assert [(point.name, point.top1_percent) for point in measured] == [("full_precision", 90), ("bnn", 80)]
    charts = complexity.score(BENCHMARK, store).charts[1:]
    assert [chart.kind for chart in charts] == ["points", "points"]
    assert charts[0].series["bnn"] == [((10_000 + 40_000 / 64) / 1e6, 80)]
    assert charts[1].series["bnn"] == [((800 + 32 * 200) / 1000, 80)]
    assert measured[1].operations == 10_000 + 40_000 / 64
    assert measured[1].size_mib == (800 + 32 * 200) / 8 / 2**20
    figure = pareto.draw(pareto.published_points(), measured, "some_task")
    for axes in figure.axes:
        known, front, own, own_front = axes.lines
        assert known.get_markerfacecolor() == "white" != own.get_markerfacecolor()
        assert len(own.get_xdata()) == 2
        assert 3 < len(front.get_xdata()) < len(known.get_xdata())
    pareto.write(tmp_path / "pareto.svg", BENCHMARK, counted)
    assert (tmp_path / "pareto.svg").read_text().startswith("<?xml")
    with pytest.raises(BibenchError, match="Cannot write the plot"):
        pareto.write(tmp_path / "pareto.abc", BENCHMARK, counted)


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
    model = zoo.resnet20("bnn", (28, 28, 1), 10, width=0.25)
    assert complexity.describe("resnet20@0.25", "bnn", (28, 28, 1))[1] == counting.count(model)
