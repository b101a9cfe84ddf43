"""The command line as a user meets it: help, bad input, and a small benchmark from end to end."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bibench_tf import cli, corruptions, datasets, networks, recipes, tasks
from bibench_tf.benchmark.resolve import ResolvedBenchmark, settle, with_data_sets
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, names
from bibench_tf.results import records
from bibench_tf.training.session import Session


def bibench(*arguments, cwd=None, env=None):
    return subprocess.run(
        [sys.executable, "-m", "bibench_tf", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, **(env or {})},
    )


def refused(done, *words):
    """One sentence on stderr, exit code 2, no traceback, nothing on stdout."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("bibench: "), done.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("command", ["", *cli._COMMANDS, *names()])
def test_help_needs_no_tensorflow(command):
    script = (
        "import sys; from bibench_tf import cli\n"
        f"try: cli.main([{command!r}, '--help'][{not command}:])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'tensorflow', 'pandas', 'matplotlib'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage: bibench" in done.stdout
    if command:
        assert "Example" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["task", "--data", "cifar11"], ["data set 'cifar11'", "Did you mean 'cifar10'"]),
        (["task", "--algorithm", "bnm"], ["algorithm 'bnm'", "Did you mean 'bnn'", "reactnet"]),
        (["task", "--network", "resnet19"], ["network 'resnet19'", "resnet18"]),
        (["task", "--network", "resnet20@wide"], ["NAME@WIDTH"]),
        (["task", "--network", "resnet20@0"], ["width"]),
        (["task", "--recipe", "quik"], ["recipe 'quik'", "Did you mean 'quick'"]),
        (["task", "--data", "fashion_mini", "--network", "dfsmn"], ["No data set", "'dfsmn'", "keyword spotting"]),
        (
            ["architecture", "--data", "keywords_mini", "--architecture-networks", "resnet20"],
            ["'resnet20'", "--data"],
        ),
        (["robustness", "--data", "keywords_mini"], ["corrupts images", "keywords_mini"]),
        (["task", "--data", "fashion_mini", "--recipe", "bibench"], ["no recipe for 'fashion_mini'", "cifar10"]),
        (["task", "--data", "fashion_mini", "--bert-checkpoint", "."], ["vocab.txt", "--vocabulary"]),
        (
            ["task", "--data", "fashion_mini", "--vocabulary", __file__],
            ["--bert-checkpoint and --vocabulary are for texts"],
        ),
        (["predict", __file__, "--data", "fashion_mini"], ["test_cli.py", ".keras"]),
        (["predict", "."], ["--data"]),
        (["robustness", "--corruption", "fogg"], ["corruption 'fogg'"]),
        (["robustness", "--corruption", "all"], ["'saturate' needs colour images"]),
        (["robustness", "--corruption-source", "tfds"], ["no corrupted images of 'fashion_mini'", "cifar10"]),
        (["run", "--corruption-source", "CIFAR-10-C"], ["CIFAR-10-C lacks gaussian_noise.npy", "labels.npy"]),
        (["training", "--grid", "lion-1e-3-cosine"], ["'lion-1e-3-cosine'", "OPTIMIZER-RATE-SCHEDULE"]),
        (["task", "--plugin", "missing.py"], ["missing.py"]),
        (["report", "--results", "nowhere"], ["nowhere", "benchmark.json"]),
        (["status", "--results", "nowhere"], ["nowhere", "plan.json"]),
        (["count", "zoo:resnet18", "--input-shape", "4x4x3"], ["at least 8 x 8"]),
        (["count", "zoo:resnet81"], ["network 'resnet81'", "Did you mean 'resnet18'"]),
        (["count", "zoo:resnet18", "--convention", "hpl"], ["convention 'hpl'", "Did you mean 'hpi'"]),
        (["count", "zoo:resnet20@0.25", "--csv", f"{__file__}/a.csv"], ["Cannot write", "test_cli.py"]),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    refused(subprocess.CompletedProcess(arguments, end.value.code, *capsys.readouterr()), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_by_a_process_that_has_started_tensorflow_is_one_sentence_too(tmp_path):
    refused(bibench("task", "--network", "resnet19", cwd=tmp_path), "network 'resnet19'", "resnet18")
    assert list(tmp_path.iterdir()) == []


def test_missing_data_are_told_at_once_without_tensorflow_and_network(tmp_path):
    blocked = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    script = (
        "import sys; from bibench_tf import cli\n"
        "try: cli.main(['task', '--data', 'cifar10', '--data-dir', sys.argv[1]])\n"
        "except SystemExit as end: assert 'tensorflow' not in sys.modules; sys.exit(end.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **blocked},
    )
    refused(done, "cifar10", "--download", "--data-dir")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    refused(bibench("complexity", "--results", str(tmp_path / "file" / "results")), "Cannot write")


@pytest.mark.parametrize("kind", ["tasks", "datasets", "recipes", "corruptions"])
def test_lists_need_no_tensorflow(kind):
    script = (
        "import sys; from bibench_tf import cli\n"
        f"try: cli.main(['ls', {kind!r}])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    known = {
        "tasks": tasks.names(),
        "datasets": datasets.names(),
        "recipes": recipes.names(),
        "corruptions": corruptions.names(),
    }
    lines = done.stdout.splitlines()
    # Other tests of this process register data of their own.
    assert [line.split()[0] for line in lines] == [name for name in known[kind] if name != "tiny"]
    assert all(len(line.split()) > 1 for line in lines), "each has a description"


def test_lists_as_json_say_what_belongs_together():
    found = {}
    for kind in ("tasks", "datasets", "networks", "algorithms", "tracks"):
        done = bibench("ls", kind, "--json", "-")
        assert done.returncode == 0, done.stderr
        found[kind] = {row["name"]: row for row in json.loads(done.stdout)}
        assert all(row["description"].strip() for row in found[kind].values())
    assert found["tasks"]["image_classification"]["group"] == found["networks"]["resnet18"]["group"] == "cnn"
    assert found["networks"]["dfsmn"]["task"] == found["datasets"]["keywords_mini"]["task"] == "keyword_spotting"
    assert "keywords_mini" in found["tasks"]["keyword_spotting"]["data"].split(", ")
    assert found["tasks"]["image_classification"]["metric"] == "top-1 accuracy"
    assert found["tracks"]["task"]["metric"] == "OM_task" and list(found["tracks"]) == list(names())
    assert found["algorithms"]["bnn"]["paper"] == "arXiv:1602.02830"
    defaults = [row["network"].partition("@")[0] for row in found["tasks"].values()]
    assert set(defaults) <= set(found["networks"])


def test_the_default_networks_of_the_architecture_track_are_those_of_the_tasks():
    """So that the runs of both tracks are the same, but for the second convolutional network."""
    quick = settle(Benchmark(), Session("unused")).benchmark
    chosen = quick.options("architecture").networks
    assert set(chosen) - {setup.network for setup in quick.setups} == {"vgg_small@0.125"}
    assert {tasks.get(networks.task_of(name)).group for name in chosen} == {"cnn", "transformer", "mlp"}


def test_a_task_stands_for_its_data_inside_the_package():
    asked = ("detection", "shapes_mini", "point_classification", "voc_folder:detection")
    found = with_data_sets(Benchmark(data=asked)).data
    assert found == ("canvas_mini", "shapes_mini", "voc_folder:detection")
    every = ResolvedBenchmark(with_data_sets(Benchmark(data=tuple(tasks.names()))))
    assert [setup.task.key for setup in every.setups] == list(tasks.names())


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """All six tracks with two networks, as small as they get."""
    folder = tmp_path_factory.mktemp("benchmark")
    done = bibench("run", *OPTIONS, "--results", str(folder / "results"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "results", done


OPTIONS = [
    *("--data", "fashion_mini"),
    *("--network", "vgg_small@0.0625", "--architecture-networks", "vgg_small@0.0625,resnet20@0.125"),
    *("--algorithm", "xnor", "--epochs", "1", "--corruption", "contrast", "--corruption-images", "250"),
    *("--grid", "adam-2e-3-cosine,sgd-1e-1-step"),
]


@pytest.mark.slow
def test_all_six_tracks_are_scored_and_reported(benchmark):
    results, done = benchmark
    with open(results / "report" / "overall.csv") as stream:
        rows = {row["algorithm"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["full_precision", "xnor"]
    for track in names():
        title = TRACKS.get(track).title.lower()
        column = next(name for name in rows["xnor"] if track in name.lower() or title in name.lower())
        assert float(rows["full_precision"][column]) == pytest.approx(1)
        assert float(rows["xnor"][column]) > 0
    html = (results / "report" / "report.html").read_text()
    assert "Learning task" in html and "<svg" in html or "data:image" in html
    assert "step" in done.stderr, "long work shows progress"
    assert "Report:" in done.stdout and "XNOR-Net" in done.stdout


@pytest.mark.slow
def test_the_report_is_recomputed_from_the_folder(benchmark):
    results, _ = benchmark
    before = (results / "report" / "overall.csv").read_text()
    (results / "report" / "overall.csv").unlink()
    started = time.monotonic()
    done = bibench("report", "--results", str(results), "-q")
    assert done.returncode == 0 and done.stdout == ""
    assert (results / "report" / "overall.csv").read_text() == before
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_second_run_does_nothing_again(benchmark):
    results, _ = benchmark
    stamps = {path: path.stat().st_mtime_ns for path in (results / "runs").rglob("*.json")}
    done = bibench("run", *OPTIONS, "--results", str(results), "-q")
    assert done.returncode == 0 and done.stdout == ""
    assert {path: path.stat().st_mtime_ns for path in (results / "runs").rglob("*.json")} == stamps


def is_of_the_task_track(record):
    """Whether a run has the recipe itself, not another setting of the grid."""
    return "/" not in json.loads(record.read_text())["data"]["spec"]["recipe"]["name"]


@pytest.mark.slow
def test_a_damaged_record_is_named_and_not_scored(benchmark, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(benchmark[0], results)
    record = next(path for path in results.glob("runs/vgg_small-xnor-*/result.json") if is_of_the_task_track(path))
    record.write_text(record.read_text()[:200])
    done = bibench("report", "--results", str(results))
    assert done.returncode == 1, "something is missing"
    with open(results / "report" / "overall.csv") as stream:
        rows = {row["algorithm"]: row for row in csv.DictReader(stream)}
    task = next(name for name in rows["xnor"] if "task" in name.lower())
    assert rows["xnor"][task] == "" and float(rows["full_precision"][task]) == 1
    assert str(record) in (results / "report" / "report.md").read_text()
    assert "damaged" in bibench("status", "--results", str(results)).stdout


@pytest.mark.slow
def test_results_of_a_newer_version_are_refused(benchmark, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(benchmark[0], results)
    record = next(results.glob("runs/vgg_small-xnor-*/result.json"))
    content = json.loads(record.read_text())
    content["schema"] = records.SCHEMA + 1
    record.write_text(json.dumps(content))
    before = record.read_text()
    refused(bibench("report", "--results", str(results)), "newer", str(record))
    refused(bibench("run", *OPTIONS, "--results", str(results), "-q"), "newer")
    assert record.read_text() == before


@pytest.mark.slow
def test_an_interrupted_benchmark_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "bibench_tf", "task", "--algorithm", "bnn", "--results", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(Path(tmp_path).glob("runs/*/.lock")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on where it stopped" in stderr and "Traceback" not in stderr
