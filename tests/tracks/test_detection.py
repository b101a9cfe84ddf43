"""A benchmark of detectors from training to the report, with few small canvases."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner
from PIL import Image

from bibench_tf import datasets
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import ResolvedBenchmark, settle
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.cli import predict
from bibench_tf.datasets import canvas_mini, fashion_mini
from bibench_tf.datasets.kinds.detection import DetectionDataset, DetectionSplits, View
from bibench_tf.results.runs import RunStore
from bibench_tf.tracks.hardware_inference import record as inference_record
from bibench_tf.tracks.learning_task import pictures
from bibench_tf.training.session import Session

TRACKS = ("task", "complexity", "inference")
BENCHMARK = Benchmark(data=("tiny_canvases",), networks=("ssd_lite@0.5",), algorithms=("bnn",), epochs=1)


def resolved_in(results):
    return ResolvedBenchmark(engine.stored_benchmark(results).benchmark)


def main_specs(results):
    resolved = resolved_in(results)
    return resolved.specs(resolved.first)


def canvases(options=None):
    items = fashion_mini.load()
    splits = DetectionSplits(
        canvas_mini.draw(items.train_images, items.train_labels, 32, 1),
        canvas_mini.draw(items.test_images, items.test_labels, 8, 2),
    )
    return DetectionDataset(
        name="tiny_canvases",
        title="A few canvases",
        source="made by the tests",
        licence="none",
        class_names=datasets.get("fashion_mini").class_names,
        train_examples=32,
        test_examples=8,
        fingerprint="c",
        load=lambda: splits,
        view=View((96, 96), augmentation="flip"),
        protocol="voc2007",
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory, registered_data):
    with registered_data("tiny_canvases", canvases, "detection"):
        session = Session(tmp_path_factory.mktemp("results"), quiet=True)
        outcome = engine.run(BENCHMARK, session, TRACKS)
        yield session.results, outcome.scores, outcome.report


@pytest.mark.slow
def test_trained_counted_and_converted(done):
    results, scores, _ = done
    # One epoch finds next to nothing, so the score itself may be undefined.
    assert not [line for name in ("complexity", "inference") for line in scores[name].failures]
    assert scores["complexity"].scores["bnn"] > 1 and scores["inference"].scores["bnn"] > 0
    table = scores["task"].table
    assert "tiny_canvases mAP@0.5 (%)" in table
    assert not [name for name in table if "loss" in name or "AP@0.5 " in name.removeprefix("tiny_canvases mAP@0.5 ")]
    chart = next(chart for chart in scores["task"].charts if chart.kind == "heat")
    assert set(chart.series) == {"full_precision", "bnn"}
    store = RunStore(results)
    for spec in main_specs(results).values():
        record = inference_record.read(store.folder(spec) / inference_record.FILE)
        assert record.parity.same and record.parity.images == 8 and record.parity.metric == "mAP@0.5"
        assert record.parity.deployed_accuracy == pytest.approx(store.result(spec).accuracy, abs=1e-3)
        assert record.binary_operations == record.binary_layers == (8 if spec.algorithm == "bnn" else 0)


@pytest.mark.slow
def test_the_report_shows_what_is_found(done):
    results, scores, report = done
    titles = [picture.title for picture in scores["task"].pictures]
    assert titles == [
        "tiny_canvases: objects of the first 4 test images",
        "tiny_canvases: found by full_precision",
        "tiny_canvases: found by bnn",
    ]
    for number in (1, 2, 3):
        assert Image.open(report.parent / f"task-picture-{number}.jpg").size == (4 * 240 + 3 * 6, 240)
    page = report.read_text()
    assert page.count('src="data:image/jpeg;base64,') == 3 and "img-src data:" in page
    assert "![tiny_canvases: found by bnn](task-picture-3.jpg)" in (report.parent / "report.md").read_text()
    # What is there is not drawn again.
    drawn = RunStore(results).folder(main_specs(results)["bnn"]) / pictures.FOUND
    before = drawn.stat().st_mtime_ns
    pictures.draw(settle(BENCHMARK, Session(results, quiet=True)))
    assert drawn.stat().st_mtime_ns == before
    # A network that was trained since is drawn: its picture would be that of the earlier one.
    os.utime(drawn, (0, 0))
    pictures.draw(settle(BENCHMARK, Session(results, quiet=True)))
    assert drawn.stat().st_mtime_ns > before


@pytest.mark.slow
def test_predictions_are_drawn(done, tmp_path):
    results, *_ = done
    folder = RunStore(results).folder(main_specs(results)["bnn"])
    options = ["--limit", "3", "--csv", str(tmp_path / "found.csv"), "--draw", str(tmp_path / "drawings")]
    run = CliRunner().invoke(predict.predict, [str(folder), *options])
    assert run.exit_code == 0, run.output
    assert "mAP@0.5" in run.output
    assert sorted(path.name for path in (tmp_path / "drawings").iterdir()) == [f"image_{n}.png" for n in range(3)]
    assert Image.open(tmp_path / "drawings" / "image_0.png").size == (480, 480)
    assert (tmp_path / "found.csv").read_text().startswith("image,class,score,y0,x0,y1,x1\n")
