"""The tracks that score trainings alone, on records written by hand."""

import dataclasses
import math

import pytest

from bibench_tf import records
from bibench_tf.benchmark import Benchmark
from bibench_tf.errors import BibenchError
from bibench_tf.runs import RunResult, RunStore
from bibench_tf.tracks import architecture, base, task, training

BENCHMARK = Benchmark(
    tasks=("fashion_mini", "cifar10"),
    architecture="resnet20",
    architectures=("resnet20", "vgg_small@0.25"),
    algorithms=("bnn", "recu"),
    grid=("adam-2e-3-cosine", "sgd-1e-1-step", "adam-1e-4-cosine"),
)


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


def put(store, spec, accuracy=None, step_time_ms=10.0, **fields):
    history = [{"epoch": 1, "accuracy": accuracy, "train_loss": 1.0}]
    completed = {"accuracy": accuracy, "best_accuracy": accuracy, "test_loss": 1.0, "history": history}
    data = {"name": spec.task, "fingerprint": "f" * 64, "train_examples": 10, "test_examples": 5}
    result = RunResult(
        run_id=spec.id,
        spec=dataclasses.asdict(spec),
        dataset=data,
        **{"status": "completed", "train_step_time_ms": step_time_ms, **completed, **fields},
    )
    records.write(store.folder(spec) / "result.json", result)


def fill(store, specs, accuracies):
    for algorithm, accuracy in accuracies.items():
        put(store, specs[algorithm], accuracy)


def test_task_score(store):
    fill(store, base.main_specs(BENCHMARK), {"full_precision": 0.8, "bnn": 0.6, "recu": 0.8})
    fill(store, base.main_specs(BENCHMARK, task="cifar10"), {"full_precision": 0.5, "bnn": 0.3, "recu": 0.4})
    score = task.score(BENCHMARK, store)
    expected = {
        "full_precision": 1.0,
        "bnn": math.sqrt((0.75**2 + 0.6**2) / 2),
        "recu": math.sqrt((1.0**2 + 0.8**2) / 2),
    }
    assert score.scores == pytest.approx(expected)
    assert list(score.table["fashion_mini accuracy (%)"]) == pytest.approx([80, 60, 80])
    assert not score.failures and score.complete
    assert "resnet20" not in score.table.columns[1]


def test_a_missing_a_failed_and_a_diverged_run_are_named_and_not_scored(store):
    specs = base.main_specs(BENCHMARK)
    fill(store, specs, {"full_precision": 0.8})
    put(store, specs["bnn"], status="diverged", error="the loss was not finite")
    put(store, specs["recu"], status="failed", error="no memory")
    score = task.score(dataclasses.replace(BENCHMARK, tasks=("fashion_mini",)), store)
    assert score.scores == {"full_precision": 1.0, "bnn": None, "recu": None}
    assert any("bnn" in line and "diverged" in line for line in score.failures)
    assert any("recu" in line and "no memory" in line for line in score.failures)
    both = task.score(BENCHMARK, store)
    assert set(both.scores.values()) == {None}, "a task without results leaves no whole score"
    assert sum("has not been trained" in line for line in both.failures) == 3


def test_without_the_baseline_nothing_is_scored(store):
    fill(store, base.main_specs(BENCHMARK), {"bnn": 0.6, "recu": 0.7})
    score = task.score(dataclasses.replace(BENCHMARK, tasks=("fashion_mini",)), store)
    assert set(score.scores.values()) == {None}


def test_architecture_gives_the_convolutional_part_and_says_so(store):
    fill(store, base.main_specs(BENCHMARK), {"full_precision": 0.8, "bnn": 0.6, "recu": 0.8})
    specs = base.main_specs(BENCHMARK, architecture="vgg_small@0.25")
    assert {spec.width for spec in specs.values()} == {0.25}
    fill(store, specs, {"full_precision": 0.5, "bnn": 0.4})
    score = architecture.score(BENCHMARK, store)
    assert score.scores["bnn"] == pytest.approx((0.75 + 0.8) / 2)
    assert score.scores["recu"] is None and score.failures
    assert not score.complete and "CNN" in score.metric


def test_training_score(store):
    accuracies = {"full_precision": (0.8, 0.7, 0.6), "bnn": (0.6, 0.4, 0.2), "recu": (0.5, 0.5, 0.5)}
    times_ms = {"full_precision": (10, 11, 12), "bnn": (20, 22, 30), "recu": (10, 10, 10)}
    for index, setting in enumerate(BENCHMARK.grid):
        for algorithm, spec in training.grid_specs(BENCHMARK, setting).items():
            put(store, spec, accuracies[algorithm][index], times_ms[algorithm][index])
    score = training.score(BENCHMARK, store)
    assert score.scores["full_precision"] == pytest.approx(1)
    # Median times 11 and 22; the spread of bnn is twice that of full precision.
    assert score.scores["bnn"] == pytest.approx(math.sqrt((0.5**2 + 0.5**2) / 2))
    assert score.scores["recu"] is None and any("recu" in line for line in score.failures), "its spread is zero"


def test_a_diverged_setting_leaves_no_training_score(store):
    for setting in BENCHMARK.grid:
        for algorithm, spec in training.grid_specs(BENCHMARK, setting).items():
            if algorithm == "bnn" and "sgd" in setting:
                put(store, spec, status="diverged", error="the loss was not finite")
            else:
                put(store, spec, 0.02 * len(setting))
    score = training.score(BENCHMARK, store)
    assert score.scores["bnn"] is None and score.scores["recu"] == pytest.approx(1)


def test_the_grid_shares_the_main_runs_and_follows_bibench():
    main = base.main_specs(BENCHMARK)
    shared = training.grid_specs(BENCHMARK, "adam-2e-3-cosine")
    assert shared == main, "the recipe's own setting is the main run"
    spec = training.grid_specs(BENCHMARK, "sgd-1e-1-step")["bnn"]
    recipe = spec.recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == ("sgd", 0.1, "step")
    assert (recipe.momentum, recipe.weight_decay, recipe.start) == (0.9, 1e-4, None)
    assert len({s.id for setting in BENCHMARK.grid for s in training.grid_specs(BENCHMARK, setting).values()}) == 9


@pytest.mark.parametrize("setting", ["adam", "adam-x-cosine", "lion-1e-3-cosine", "sgd-1e-1-linear", "sgd--1-step", ""])
def test_a_bad_setting_is_one_sentence(setting):
    with pytest.raises(BibenchError, match="OPTIMIZER-RATE-SCHEDULE"):
        training.grid_recipe(base.main_recipe(BENCHMARK), setting)


def test_the_baseline_of_a_recipe_with_a_start_is_that_start():
    benchmark = dataclasses.replace(BENCHMARK, recipe="bibench_cifar10", epochs=2)
    specs = base.main_specs(benchmark)
    assert specs["full_precision"].recipe.name == "bibench_cifar10_float"
    assert specs["bnn"].parent == specs["full_precision"]
    assert specs["bnn"].recipe.epochs == specs["full_precision"].recipe.epochs == 2
