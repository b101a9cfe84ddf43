"""A benchmark of points with two inputs and of images, from training to the report, with tiny data and networks."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bibench_tf import algorithms, datasets, prediction
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, names
from bibench_tf.cli import predict
from bibench_tf.errors import BibenchError
from bibench_tf.networks import NETWORKS, Network
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.tracks.hardware_inference import record
from bibench_tf.training.session import Session

layers = tf.keras.layers
BENCHMARK = Benchmark(
    data=("tiny_points", "tiny_images"),
    networks=("tiny_net", "vgg_small@0.0625"),
    algorithms=("bnn",),
    epochs=1,
    options={
        "architecture": {"networks": ("vgg_small@0.0625", "tiny_net")},
        "robustness": {"corruptions": ("contrast",), "images": 50},
        "training": {"grid": ("adam-2e-3-cosine", "sgd-1e-1-cosine"), "retime": True, "retime_rounds": 3},
    },
)


def tiny_net(algorithm, input_shape, num_classes, width=1.0):
    """A network of points and of a second input."""
    algorithm = algorithms.get(algorithm)
    points, side = tf.keras.Input(input_shape, name="points"), tf.keras.Input((2,), name="side")
    x = algorithm.dense(8, name="dense2")(layers.Dense(int(8 * width), name="dense1")(points))
    x = layers.Concatenate(name="join")([layers.GlobalAveragePooling1D(name="pool")(x), side])
    return tf.keras.Model({"side": side, "points": points}, layers.Dense(num_classes, name="head")(x))


def points(options=None):
    """Clouds around 0 or around 2."""
    rng = np.random.default_rng(0)

    def examples(count):
        labels = np.arange(count, dtype=np.int32) % 2
        clouds = rng.normal(size=(count, 16, 3)) + 2 * labels[:, np.newaxis, np.newaxis]
        return {"points": clouds.astype(np.float32), "side": rng.normal(size=(count, 2)).astype(np.float32)}, labels

    return datasets.ArrayDataset(
        name="tiny_points",
        title="Two clouds",
        source="made by the tests",
        licence="none",
        class_names=("near", "far"),
        train_examples=640,
        test_examples=60,
        fingerprint="p",
        task="point_classification",
        load=lambda: datasets.Examples(*examples(640), *examples(60)),
        options={"input_shape": (16, 3), "num_classes": 2},
    )


def images(options=None):
    """Dark images and bright ones."""
    rng = np.random.default_rng(1)

    def examples(count):
        labels = np.arange(count, dtype=np.int32) % 2
        return (rng.integers(0, 128, (count, 8, 8, 1)) + 127 * labels[:, None, None, None]).astype(np.uint8), labels

    return datasets.ArrayImages(
        name="tiny_images",
        title="Dark and bright",
        source="made by the tests",
        licence="none",
        class_names=("dark", "bright"),
        train_examples=128,
        test_examples=50,
        fingerprint="i",
        input_shape=(8, 8, 1),
        mean=(127.0,),
        std=(64.0,),
        load=lambda: datasets.Splits(*examples(128), *examples(50)),
        padding=0,
    )


@pytest.fixture(scope="module")
def tiny(registered, registered_data):
    """The two data sets and the network, by name."""
    with (
        registered_data("tiny_points", points, "point_classification"),
        registered_data("tiny_images", images, "image_classification"),
        registered(NETWORKS, "tiny_net", Network("tiny_net", tiny_net, "point_classification")),
    ):
        yield


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """All six tracks."""
    session = Session(tmp_path_factory.mktemp("results"), quiet=True)
    outcome = engine.run(BENCHMARK, session)
    assert outcome.failures == 0 and outcome.report.is_file()
    return session.results, outcome.scores


@pytest.mark.slow
def test_every_track_is_scored_on_the_data_it_takes(done):
    _, scores = done
    assert not [failure for score in scores.values() for failure in score.failures]
    for name in set(names()) - {"robustness"}:
        assert scores[name].scores["full_precision"] == pytest.approx(1)
        assert scores[name].scores["bnn"] > 0
    assert scores["architecture"].metric == "OM_arch (CNN, MLP)"
    table = scores["task"].table.set_index("algorithm")
    assert table["tiny_points accuracy (%)"]["full_precision"] > 80, "clouds that far apart are told from each other"
    assert scores["robustness"].conditions["network"] == "vgg_small@0.0625"
    for name in ("training", "complexity"):
        assert scores[name].conditions["network"] == "tiny_net"
    assert scores["complexity"].conditions["input"] == "16 x 3, 2 classes"
    assert "one example" in scores["complexity"].conditions["counted"]
    assert "interleaved" in scores["training"].conditions["step times"]


@pytest.mark.slow
def test_a_file_with_two_inputs_computes_what_keras_does(done):
    results, scores = done
    table = scores["inference"].table.set_index("algorithm")
    assert list(table["run on bits"]) == [0, 1]
    store = RunStore(results)
    for spec in TRACKS.get("inference").plan(ResolvedBenchmark(engine.stored_benchmark(results).benchmark)):
        parity = record.read(store.folder(spec) / record.FILE).parity
        assert parity.same and parity.median_difference < 1e-5 and parity.images == 60
        assert parity.keras_accuracy == parity.deployed_accuracy == pytest.approx(store.result(spec).accuracy)


@pytest.mark.slow
def test_the_title_names_data_and_networks(done):
    results, scores = done
    path = engine.write_report(list(scores.values()), ResolvedBenchmark(BENCHMARK), results)
    assert "tiny_points, tiny_images, tiny_net, vgg_small@0.0625" in path.read_text()
    alone = engine.write_report([scores["robustness"]], ResolvedBenchmark(BENCHMARK), results)
    assert "benchmark: tiny_images, vgg_small@0.0625" in alone.read_text()


@pytest.fixture
def run(tiny, tmp_path):
    """The folder of a run, with a network that nobody trained."""
    benchmark = ResolvedBenchmark(BENCHMARK)
    spec = benchmark.specs(benchmark.first)["bnn"]
    folder = RunStore(tmp_path).folder(spec)
    records.write(folder / "result.json", RunResult(spec.id, spec, "completed"))
    tf.keras.utils.set_random_seed(3)
    tiny_net("bnn", (16, 3), 2).save(folder / "model.keras")
    return folder


def predictions(*arguments):
    return CliRunner().invoke(predict.predict, list(map(str, arguments)), standalone_mode=False)


def test_predictions_are_what_the_network_says(run, tmp_path):
    answer = predictions(run, "--csv", tmp_path / "p.csv")
    assert answer.exception is None, answer.output
    inputs, labels = points().examples.test_inputs, points().examples.test_labels
    said = tf.keras.models.load_model(run / "model.keras", compile=False).predict(inputs, verbose=0)
    with open(tmp_path / "p.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["label"]) for row in rows] == said.argmax(axis=1).tolist()
    assert [row["class"] for row in rows] == [("near", "far")[label] for label in said.argmax(axis=1)]
    assert f"top-1 accuracy: {np.mean(said.argmax(axis=1) == labels):.4f}" in answer.output
    assert "60 test examples" in answer.output and "50 more in" in answer.output
    assert "12 test examples" in predictions(run, "--limit", 12).output


def test_predictions_of_other_data_are_refused(run):
    said = predictions(run, "--data", "tiny_images").exception
    assert isinstance(said, BibenchError) and "takes points 16 x 3, side 2" in str(said) and "8 x 8 x 1" in str(said)
    said = predictions(run / "model.keras").exception
    assert isinstance(said, BibenchError) and "--data" in str(said)
    three = tiny_net("bnn", (16, 3), 3)
    with pytest.raises(BibenchError, match="gives 3 numbers, and .* needs 2"):
        prediction.predictions(three, points())


def test_a_benchmark_without_images_leaves_the_robustness_track_out(tiny, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(engine, "train", lambda tracks, job: asked.append([track.name for track in tracks]) or [])
    session = Session(tmp_path, quiet=True, shard=(1, 1))
    engine.run(Benchmark(data=("tiny_points",), networks=("tiny_net",)), session)
    assert asked.pop() == ["task", "architecture", "training", "complexity", "inference"]
    assert "the robustness track is left out: it corrupts images" in capsys.readouterr().err
    engine.run(Benchmark(data=("tiny_points", "tiny_images")), session)
    assert asked.pop() == list(names())
