"""Damaged and deleted files of a results folder: the same command sets them aside, and does that part again."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest
import tiny_data

from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import settle
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.errors import BibenchError
from bibench_tf.results import index, records, status
from bibench_tf.results.runs import RunStore
from bibench_tf.training.session import Session

OPTIONS = {"robustness": {"corruptions": ("contrast",), "images": 20}}
ASKED = Benchmark(("tiny",), ("vgg_small@0.0625",), ("bnn",), epochs=1, options=OPTIONS)


def images(options=None):
    """Images that are learnt in a moment, large enough for every binary convolution, and enough for a batch."""
    small = tiny_data.tiny(train=256)

    def load():
        splits = small.load()
        larger = {name: getattr(splits, name).repeat(3, 1).repeat(3, 2) for name in ("train_images", "test_images")}
        return splits._replace(**larger)

    return dataclasses.replace(small, input_shape=(24, 24, 1), load=load)


@pytest.fixture(scope="module", autouse=True)
def data():
    """The data set `tiny` with these images."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_data.register(patch, "tiny", images)
        yield


def run(results: Path, *tracks: str) -> engine.Outcome:
    return engine.run(ASKED, Session(results, quiet=True), tracks)


def spec_of(algorithm: str, results: Path):
    resolved = settle(ASKED, Session(results)).benchmark
    return resolved.specs(resolved.first)[algorithm]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A results folder with the task and complexity tracks."""
    results = tmp_path_factory.mktemp("trained")
    assert run(results, "task", "complexity").failures == 0
    return results


@pytest.fixture
def results(trained, tmp_path) -> Path:
    """A copy of it, with the times of the files."""
    return shutil.copytree(trained, tmp_path / "results")


def flip(path: Path) -> None:
    """Change one digit of a number, and keep size and times, as a fault of a disk does."""
    before = path.stat()
    content = path.read_bytes()
    place = re.compile(rb": [0-2]").search(content, content.index(b'"data"')).end()
    path.write_bytes(content[: place - 1] + b"3" + content[place:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def same_outcome(results: Path, other: Path, algorithm: str = "bnn") -> bool:
    spec = spec_of(algorithm, results)
    return tiny_data.outcome(RunStore(results).result(spec)) == tiny_data.outcome(RunStore(other).result(spec))


@pytest.mark.parametrize("algorithm", ["bnn", "full_precision"])
def test_a_result_that_changed_under_its_old_time_is_made_again_in_one_command(results, trained, algorithm, capfd):
    """Notices a result that the index vouches for, though its numbers are wrong: it failed, command after command."""
    path = RunStore(results).folder(spec_of(algorithm, results)) / "result.json"
    flip(path)
    assert run(results, "task").failures == 0
    errors = capfd.readouterr().err
    assert f"bibench: {path} was changed after it was written" in errors
    assert "Its run is done again; the file is kept as result.json.damaged." in errors
    assert path.with_name("result.json.damaged").exists() and same_outcome(results, trained, algorithm)
    assert run(results, "task").failures == 0
    assert capfd.readouterr().err == ""


def test_a_report_leaves_a_damaged_result_and_the_next_command_makes_it_again(results, trained, capfd):
    """Notices a report that trains or renames, and one whose finding is forgotten."""
    spec = spec_of("bnn", results)
    path = RunStore(results).folder(spec) / "result.json"
    flip(path)
    assert RunStore(results).status(spec.folder) == "completed", "nobody has read it"
    session = Session(results, quiet=True)
    assert engine.rescore(session).failures == 1 and path.exists()
    assert status.of(status.read_plan(results), results).counts["damaged"] == 1
    assert run(results, "complexity").failures == 0 and path.exists(), "no track of this command needs it"
    assert run(results, "task").failures == 0 and same_outcome(results, trained)


def test_the_index_still_spares_reading_results(results, monkeypatch):
    """Notices a plan that reads every result: with 100,000 of them it takes minutes."""
    monkeypatch.setattr(records, "read", lambda *_: pytest.fail("a result was read"))
    store = RunStore(results)
    assert [store.status(spec_of(name, results).folder) for name in ("full_precision", "bnn")] == ["completed"] * 2
    assert all(line.size_bytes > 0 for line in index.read(store.runs).values())


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
def test_a_damaged_count_is_made_again(results, harm, capfd):
    """Notices a damaged record that is left for the score, which then lacks it in every command."""
    (path,) = (results / "complexity").glob("*-bnn-*.json")
    harm(path)
    assert run(results, "complexity").failures == 0
    assert ("It is counted again" in capfd.readouterr().err) == (harm is not Path.unlink)
    assert path.exists()


def test_a_damaged_benchmark_is_stored_again(results, capfd):
    """Notices a results folder of which no command can make use any more."""
    path = results / engine.FILE
    cut(path)
    with pytest.raises(BibenchError, match="not a readable record.* The command of the benchmark writes it again"):
        engine.rescore(Session(results, quiet=True))
    assert run(results, "task").failures == 0
    assert "The benchmark of this command takes its place; the file is kept as benchmark.json.damaged" in (
        capfd.readouterr().err
    )
    assert engine.stored_benchmark(results).tracks == ("task",)
    assert path.with_name("benchmark.json.damaged").exists()


def test_a_damaged_plan_says_how_it_comes_back(results):
    """Notices an error without a way out, and a plan that stays damaged."""
    planned = status.read_plan(results)
    cut(results / status.FILE)
    with pytest.raises(records.RecordError, match="is no plan .*the command of the benchmark writes it again"):
        status.read_plan(results)
    assert run(results, "task").failures == 0
    assert {entry.folder for entry in status.read_plan(results)} == {entry.folder for entry in planned}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A results folder with the robustness and inference tracks."""
    results = tmp_path_factory.mktemp("measured")
    assert run(results, "robustness", "inference").failures == 0
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("inference.json", cut),
        ("inference.json", flip),
        ("latency-host.json", cut),
        ("latency-host.json", flip),
        ("robustness.json", cut),
        ("model.tflite", cut),
        ("model.tflite", Path.unlink),
        ("model.keras", cut),
        ("model.keras", Path.unlink),
        ("result.json", flip),
    ],
)
def test_a_damaged_measurement_is_made_again(measured, tmp_path, name, harm, capfd):
    """Notices a record or a file that stays as it is, and a network that is lost but never trained again."""
    results = shutil.copytree(measured, tmp_path / "results")
    path = RunStore(results).folder(spec_of("bnn", results)) / name
    harm(path)
    if name == "model.keras":  # something is to be measured with it
        path.with_name("robustness.json").unlink()
        path.with_name("inference.json").unlink()
    assert run(results, "robustness", "inference").failures == 0
    errors = capfd.readouterr().err
    if name in ("model.keras", "result.json"):
        assert f"{path} " in errors and "Its run is done again" in errors and same_outcome(results, measured)
    elif name.endswith(".json"):
        assert f"{path} " in errors and "It is measured again" in errors
        assert path.with_name(f"{name}.damaged").exists()
    assert path.exists()
    assert run(results, "robustness", "inference").failures == 0
    assert capfd.readouterr().err == ""
