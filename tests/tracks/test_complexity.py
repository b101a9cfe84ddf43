"""The complexity track: counts kept as records, and scores from them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bibench_tf import complexity, datasets, files
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.complexity import LayerCost, Macs, Weights
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.stats import metrics
from bibench_tf.tracks.theoretical_complexity import counting, plot
from bibench_tf.training.session import Session

ASKED = Benchmark(networks=("resnet20@0.25",), algorithms=("bnn", "xnorpp"))
BENCHMARK = ResolvedBenchmark(ASKED)
TRACK = TRACKS.get("complexity")


def layer(binary, floats, macs, mac_bits):
    weights = tuple(Weights(count, bits) for count, bits in ((binary, 1), (floats, 32)) if count)
    return LayerCost("conv", "Conv2D", "conv", 1, (Macs(macs, mac_bits, mac_bits),), 7, weights)


def write(folder, algorithm, *layers, **changes):
    (key,) = [key for key in counting._keys(BENCHMARK) if key.algorithm == algorithm]
    options = {"input_shape": (28, 28, 1), "num_classes": 10}
    record = counting.Complexity(key, options, tuple(layers), **changes)
    path = counting._path(folder, key)
    records.write(path, record)
    return path


@pytest.fixture
def counted(tmp_path):
    write(tmp_path, "full_precision", layer(0, 1000, 50_000, 32))
    write(tmp_path, "bnn", layer(0, 200, 10_000, 32), layer(800, 0, 40_000, 1))
    write(tmp_path, "xnorpp", layer(0, 200, 10_000, 32), layer(800, 100, 40_000, 1))
    return tmp_path


def test_scores_by_hand(counted):
    score = TRACK.score(BENCHMARK, RunStore(counted))
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
    score = TRACK.score(BENCHMARK, RunStore(counted))
    assert score.scores == {"full_precision": 1, "bnn": None, "xnorpp": None}
    assert any("bnn: Layer 'x' is of type Odd." in failure for failure in score.failures)
    assert any(str(path) in failure and "xnorpp" in failure for failure in score.failures)


def test_a_count_of_a_newer_version_stops_the_score(counted):
    path = write(counted, "xnorpp", layer(800, 100, 40_000, 1))
    content = json.loads(path.read_text())
    content["schema"] = records.SCHEMA + 1
    path.write_text(json.dumps(content))
    with pytest.raises(records.NewerRecordError, match="update bibench-tf"):
        TRACK.score(BENCHMARK, RunStore(counted))


def test_without_a_baseline_there_is_no_score(counted):
    counting._path(counted, counting._keys(BENCHMARK)[0]).unlink()
    score = TRACK.score(BENCHMARK, RunStore(counted))
    assert set(score.scores.values()) == {None}
    assert "full_precision: not counted yet." in score.failures
    assert len(score.failures) == 3


def test_counts_once(tmp_path, monkeypatch):
    session = Session(tmp_path, quiet=True)
    assert TRACK.plan(BENCHMARK) == []
    TRACK.measure(Job(BENCHMARK, session))
    score = TRACK.score(BENCHMARK, RunStore(tmp_path))
    assert not score.failures
    assert score.scores["full_precision"] == 1 < score.scores["xnorpp"] < score.scores["bnn"]
    data = datasets.get("fashion_mini")
    cost = complexity.count_network("resnet20@0.25", "bnn", data.input_shape, data.num_classes)
    assert score.table.set_index("algorithm").loc["bnn", "binary MACs (M)"] == cost.macs_binary / 1e6
    monkeypatch.setattr(complexity, "count_network", None)
    TRACK.measure(Job(BENCHMARK, session))


def test_data_of_another_size_are_counted_again(tmp_path, monkeypatch):
    """Notices that counts are kept by the name of the data set alone, whatever its images have become."""
    session, data = Session(tmp_path, quiet=True), datasets.get("fashion_mini")
    TRACK.measure(Job(BENCHMARK, session))
    before = TRACK.score(BENCHMARK, RunStore(tmp_path))
    larger = dataclasses.replace(data, input_shape=(32, 32, 1))
    monkeypatch.setattr(datasets, "get", lambda *arguments: larger)
    # Interrupted after the full-precision network: the others are of the old size.
    TRACK.measure(Job(ResolvedBenchmark(dataclasses.replace(ASKED, algorithms=())), session))
    said = "counted for other inputs or classes than full_precision: count again."
    assert TRACK.score(BENCHMARK, RunStore(tmp_path)).failures == [f"bnn: {said}", f"xnorpp: {said}"]
    TRACK.measure(Job(BENCHMARK, session))
    after = TRACK.score(BENCHMARK, RunStore(tmp_path))
    assert after.conditions["input"] == "32 x 32 x 1, 10 classes" and not after.failures
    macs = [score.table.set_index("algorithm").loc["bnn", "binary MACs (M)"] for score in (before, after)]
    assert macs[1] == pytest.approx(macs[0] * (32 / 28) ** 2, rel=0.01)


def test_a_network_that_cannot_be_counted_is_tried_again(tmp_path, monkeypatch):
    session = Session(tmp_path, quiet=True)
    count_network = complexity.count_network

    def fail(network, algorithm, **shape):
        if algorithm == "bnn":
            raise BibenchError("Layer 'x' is of type Odd.")
        return count_network(network, algorithm, **shape)

    monkeypatch.setattr(complexity, "count_network", fail)
    TRACK.measure(Job(BENCHMARK, session))
    assert TRACK.score(BENCHMARK, RunStore(tmp_path)).scores["bnn"] is None
    monkeypatch.setattr(complexity, "count_network", count_network)
    TRACK.measure(Job(BENCHMARK, session))
    assert TRACK.score(BENCHMARK, RunStore(tmp_path)).scores["bnn"] > 1


def test_records_of_the_first_version_are_counted_again(counted, monkeypatch):
    score = TRACK.score(BENCHMARK, RunStore(counted))
    assert score.scores["bnn"] is not None
    monkeypatch.setattr(counting.Key.__init__, "__defaults__", (counting.VERSION + 1,))
    stale = TRACK.score(BENCHMARK, RunStore(counted))
    assert set(stale.scores.values()) == {None}
    assert stale.failures[0] == "full_precision: not counted yet."


def test_a_record_with_layers_of_the_first_version_is_refused(counted):
    path = counting._path(counted, counting._keys(BENCHMARK)[1])
    content = records.read_envelope(path)
    for old in content["data"]["layers"]:
        for name in ("role", "mac_pairs", "other", "weights"):
            del old[name]
        old |= {"macs": 1, "mac_bits": 1, "weights_binary": 1, "weights_float": 0, "bits": 1}
    content["sha256"] = files.digest({name: value for name, value in content.items() if name != "sha256"})
    path.write_text(json.dumps(content))
    failures = TRACK.score(BENCHMARK, RunStore(counted)).failures
    assert any("does not fit Complexity" in failure or "KeyError" in failure for failure in failures)


def test_records_keep_raw_counts(counted):
    (key,) = [key for key in counting._keys(BENCHMARK) if key.algorithm == "bnn"]
    record = counting._counted(counted, key)
    assert record.layers == (layer(0, 200, 10_000, 32), layer(800, 0, 40_000, 1))
    assert record.cost.other == 14


def test_front_is_what_no_other_point_beats():
    points = [(3, 70), (1, 50), (2, 60), (2, 55), (4, 65), (1, 49)]
    assert plot.front(points) == [(1, 50), (2, 60), (3, 70)]


def test_an_accuracy_that_is_not_a_number_is_no_point(counted):
    """Notices NaN in the front, to which every comparison is false."""
    store = RunStore(counted)
    for accuracy, spec in zip((float("nan"), 0.8), BENCHMARK.specs(BENCHMARK.first).values(), strict=False):
        result = RunResult(spec.id, spec, "completed", accuracy=accuracy)
        records.write(store.folder(spec) / "result.json", result)
    assert [point.name for point in plot.measured_points(BENCHMARK, counted)] == ["bnn"]


def test_measured_points_are_filled_and_published_ones_hollow(counted, tmp_path):
    store = RunStore(counted)
    for algorithm, spec in BENCHMARK.specs(BENCHMARK.first).items():
        if algorithm != "xnorpp":  # counted, not trained
            accuracy = {"full_precision": 0.9, "bnn": 0.8}[algorithm]
            result = RunResult(spec.id, spec, "completed", accuracy=accuracy)
            records.write(store.folder(spec) / "result.json", result)
    measured = plot.measured_points(BENCHMARK, counted)
    assert [(point.name, point.top1_percent) for point in measured] == [("full_precision", 90), ("bnn", 80)]
    charts = TRACK.score(BENCHMARK, store).charts[1:]
    assert [chart.kind for chart in charts] == ["points", "points"]
    assert charts[0].series["bnn"] == [((10_000 + 40_000 / 64) / 1e6, 80)]
    assert charts[1].series["bnn"] == [((800 + 32 * 200) / 1000, 80)]
    assert measured[1].operations == 10_000 + 40_000 / 64
    assert measured[1].size_mib == (800 + 32 * 200) / 8 / 2**20
    figure = plot.draw(plot.published_points(), measured, "some_task")
    for axes in figure.axes:
        known, front, own, own_front = axes.lines
        assert known.get_markerfacecolor() == "white" != own.get_markerfacecolor()
        assert len(own.get_xdata()) == 2
        assert 3 < len(front.get_xdata()) < len(known.get_xdata())
    plot.write(tmp_path / "pareto.svg", BENCHMARK, counted)
    assert (tmp_path / "pareto.svg").read_text().startswith("<?xml")
    with pytest.raises(BibenchError, match="Cannot write the plot"):
        plot.write(tmp_path / "pareto.abc", BENCHMARK, counted)
