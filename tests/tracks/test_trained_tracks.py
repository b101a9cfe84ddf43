"""The tracks that score trainings alone, on records written by hand."""

import dataclasses
import math

import pytest

from bibench_tf.benchmark.resolve import ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.tracks.shared.conditions import training_conditions
from bibench_tf.tracks.training_consumption import grid

GRID = ("adam-2e-3-cosine", "sgd-1e-1-step", "adam-1e-4-cosine")
ASKED = Benchmark(
    data=("fashion_mini", "cifar10"),
    networks=("resnet20",),
    algorithms=("bnn", "recu"),
    options={"architecture": {"networks": ("resnet20", "vgg_small@0.25")}, "training": {"grid": GRID}},
)
BENCHMARK = ResolvedBenchmark(ASKED)
task, architecture, training = map(TRACKS.get, ("task", "architecture", "training"))


def asked(**changes):
    return ResolvedBenchmark(dataclasses.replace(ASKED, **changes))


def main_specs(benchmark, seed=None):
    return benchmark.specs(benchmark.first, seed)


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


def put(store, spec, accuracy=None, step_time_ms=10.0, **fields):
    history = [{"epoch": 1, "accuracy": accuracy, "train_loss": 1.0}]
    completed = {
        "accuracy": accuracy,
        "metric": "accuracy",
        "best_accuracy": accuracy,
        "test_loss": 1.0,
        "history": history,
    }
    data = {"name": spec.dataset, "fingerprint": "f" * 64, "train_examples": 10, "test_examples": 5}
    result = RunResult(
        run_id=spec.id,
        spec=spec,
        dataset=data,
        **{"status": "completed", "train_step_time_ms": step_time_ms, **completed, **fields},
    )
    records.write(store.folder(spec) / "result.json", result)


def fill(store, specs, accuracies):
    for algorithm, accuracy in accuracies.items():
        put(store, specs[algorithm], accuracy)


def test_task_score(store):
    fill(store, main_specs(BENCHMARK), {"full_precision": 0.8, "bnn": 0.6, "recu": 0.8})
    fill(store, BENCHMARK.specs(BENCHMARK.setups[1]), {"full_precision": 0.5, "bnn": 0.3, "recu": 0.4})
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


def test_the_best_epoch_is_shown_beside_the_last_and_not_scored(store):
    """The column has the accuracy of the best epoch, which the test split has picked; the score has the last one's."""
    benchmark = asked(data=("fashion_mini",))
    for algorithm, last, best in (("full_precision", 0.8, 0.9), ("bnn", 0.6, 0.7), ("recu", 0.4, 0.8)):
        put(store, main_specs(benchmark)[algorithm], last, best_accuracy=best)
    score = task.score(benchmark, store)
    assert score.scores == pytest.approx({"full_precision": 1, "bnn": 0.75, "recu": 0.5})
    assert list(score.table["fashion_mini accuracy (%)"]) == pytest.approx([80, 60, 40])
    assert list(score.table["fashion_mini best epoch (%)"]) == pytest.approx([90, 70, 80])


def test_a_missing_a_failed_and_a_diverged_run_are_named_and_not_scored(store):
    specs = main_specs(BENCHMARK)
    fill(store, specs, {"full_precision": 0.8})
    put(store, specs["bnn"], status="diverged", error="the loss was not finite")
    put(store, specs["recu"], status="failed", error="no memory")
    score = task.score(asked(data=("fashion_mini",)), store)
    assert score.scores == {"full_precision": 1.0, "bnn": None, "recu": None}
    assert any("bnn" in line and "diverged" in line for line in score.failures)
    assert any("recu" in line and "no memory" in line for line in score.failures)
    both = task.score(BENCHMARK, store)
    assert set(both.scores.values()) == {None}, "a task without results leaves no whole score"
    assert sum("has not been trained" in line for line in both.failures) == 3


def test_an_accuracy_that_is_not_a_number_is_no_accuracy_of_zero(store):
    """Notices `max(0, NaN)`, which is 0 in Python: the other algorithms would keep their scores, this one get 0."""
    fill(store, main_specs(BENCHMARK), {"full_precision": 0.8, "bnn": math.nan, "recu": 0.4})
    score = task.score(asked(data=("fashion_mini",)), store)
    assert score.scores == {"full_precision": 1.0, "bnn": None, "recu": 0.5}
    assert any(line.startswith("bnn: ") for line in score.failures)


def test_without_the_baseline_nothing_is_scored(store):
    fill(store, main_specs(BENCHMARK), {"bnn": 0.6, "recu": 0.7})
    score = task.score(asked(data=("fashion_mini",)), store)
    assert set(score.scores.values()) == {None}


def test_architecture_gives_the_convolutional_part_and_says_so(store):
    fill(store, main_specs(BENCHMARK), {"full_precision": 0.8, "bnn": 0.6, "recu": 0.8})
    specs = BENCHMARK.specs(BENCHMARK.setup_of("vgg_small@0.25"))
    assert {spec.width for spec in specs.values()} == {0.25}
    fill(store, specs, {"full_precision": 0.5, "bnn": 0.4})
    score = architecture.score(BENCHMARK, store)
    assert score.scores["bnn"] == pytest.approx((0.75 + 0.8) / 2)
    assert score.scores["recu"] is None and score.failures
    assert not score.complete and "CNN" in score.metric


def test_training_score(store):
    accuracies = {"full_precision": (0.8, 0.7, 0.6), "bnn": (0.6, 0.4, 0.2), "recu": (0.5, 0.5, 0.5)}
    times_ms = {"full_precision": (10, 11, 12), "bnn": (20, 22, 30), "recu": (10, 10, 10)}
    for index, setting in enumerate(GRID):
        for algorithm, spec in training.specs(BENCHMARK, setting, 0).items():
            put(store, spec, accuracies[algorithm][index], times_ms[algorithm][index])
    score = training.score(BENCHMARK, store)
    assert score.scores["full_precision"] == pytest.approx(1)
    # Median times 11 and 22; the spread of bnn is twice that of full precision.
    assert score.scores["bnn"] == pytest.approx(math.sqrt((0.5**2 + 0.5**2) / 2))
    assert score.scores["recu"] is None and any("recu" in line for line in score.failures), "its spread is zero"


def test_a_diverged_setting_leaves_no_training_score(store):
    for setting in GRID:
        for algorithm, spec in training.specs(BENCHMARK, setting, 0).items():
            if algorithm == "bnn" and "sgd" in setting:
                put(store, spec, status="diverged", error="the loss was not finite")
            else:
                put(store, spec, 0.02 * len(setting))
    score = training.score(BENCHMARK, store)
    assert score.scores["bnn"] is None and score.scores["recu"] == pytest.approx(1)


def test_the_grid_shares_the_main_runs_and_follows_bibench():
    main = main_specs(BENCHMARK)
    shared = training.specs(BENCHMARK, "adam-2e-3-cosine", 0)
    assert shared == main, "the recipe's own setting is the main run"
    spec = training.specs(BENCHMARK, "sgd-1e-1-step", 0)["bnn"]
    recipe = spec.recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == ("sgd", 0.1, "step")
    assert (recipe.momentum, recipe.weight_decay, recipe.start) == (0.9, 1e-4, None)
    assert len({s.id for setting in GRID for s in training.specs(BENCHMARK, setting, 0).values()}) == 9


@pytest.mark.parametrize("setting", ["adam", "adam-x-cosine", "lion-1e-3-cosine", "sgd-1e-1-linear", "sgd--1-step", ""])
def test_a_bad_setting_is_one_sentence(setting):
    with pytest.raises(BibenchError, match="OPTIMIZER-RATE-SCHEDULE"):
        grid.recipe_for(BENCHMARK.first.recipe, setting)


def test_the_baseline_of_a_recipe_with_a_start_is_that_start():
    benchmark = asked(recipe="bibench_cifar10", epochs=2)
    specs = main_specs(benchmark)
    assert specs["full_precision"].recipe.name == "bibench_cifar10_float"
    assert specs["bnn"].parent == specs["full_precision"]
    assert specs["bnn"].recipe.epochs == specs["full_precision"].recipe.epochs == 2


# Two seeds: by algorithm the accuracies of seed 0 and 1.
SEEDS = {"full_precision": (0.79, 0.81), "bnn": (0.60, 0.602), "recu": (0.70, 0.701), "xnor": (0.5995, 0.6015)}


SEEDED = {
    "data": ("fashion_mini",),
    "algorithms": ("bnn", "recu", "xnor"),
    "seeds": 2,
    "options": {"architecture": {"networks": ("resnet20",)}},
}


def fill_seeds(store, accuracies):
    for seed in (0, 1):
        fill(
            store, main_specs(asked(**SEEDED), seed), {algorithm: both[seed] for algorithm, both in accuracies.items()}
        )


@pytest.fixture
def seeded(store):
    fill_seeds(store, SEEDS)
    return asked(**SEEDED), store


@pytest.mark.parametrize("track", [task, architecture], ids=lambda track: track.name)
def test_every_seed_is_planned(track, seeded):
    benchmark, _ = seeded
    specs = track.plan(benchmark)
    assert [spec.seed for spec in specs] == [0] * 4 + [1] * 4
    assert specs[:4] == track.plan(asked(**SEEDED | {"seeds": 1}))


@pytest.mark.parametrize(
    ("track", "metric"), [(task, "OM_task"), (architecture, "CNN mean relative accuracy")], ids=["task", "architecture"]
)
def test_scores_of_seeds_by_hand(track, metric, seeded):
    benchmark, store = seeded
    score = track.score(benchmark, store)
    # The metric of the mean accuracies.
    means = {"full_precision": 0.8, "bnn": 0.601, "recu": 0.7005, "xnor": 0.6005}
    assert score.scores == pytest.approx({algorithm: mean / 0.8 for algorithm, mean in means.items()})
    table = score.table.set_index("algorithm")
    # With two seeds the jackknife is half the difference of the seeds' own scores, times t of one degree of freedom.
    expected = {key: 12.7062 * abs(one / 0.79 - two / 0.81) / 2 for key, (one, two) in SEEDS.items()}
    expected["full_precision"] = 0
    assert dict(table[f"{metric} ±"]) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    accuracy = next(name for name in table if "accuracy ±" in name)
    assert table[accuracy]["bnn"] == pytest.approx(12.7062 * 0.1, rel=1e-4), "points"
    assert score.conditions["seeds"] == "0, 1" and any("by the jackknife" in note for note in score.notes)


def test_ranks_tie_where_intervals_overlap(seeded):
    benchmark, store = seeded
    # Seeds that move with full precision: narrow intervals for the ratio, except that bnn and xnor overlap.
    shares = {"full_precision": (1, 1), "bnn": (0.751, 0.7505), "recu": (0.875, 0.875), "xnor": (0.75, 0.7505)}
    fill_seeds(store, {key: (0.79 * one, 0.81 * two) for key, (one, two) in shares.items()})
    table = task.score(benchmark, store).table.set_index("algorithm")
    assert dict(table["rank by OM_task"]) == {"full_precision": "1", "bnn": "3-4", "recu": "2", "xnor": "3-4"}


def test_a_seed_that_is_missing_leaves_no_score_and_is_named(seeded):
    benchmark, store = seeded
    put(store, main_specs(benchmark, 1)["bnn"], status="failed", error="no memory")
    score = task.score(benchmark, store)
    assert score.scores["bnn"] is None and score.scores["recu"] is not None
    row = score.table.set_index("algorithm").loc["bnn"]
    assert row[["rank by OM_task", "fashion_mini accuracy (%)"]].isna().all()
    assert any("bnn" in line and "seed 1" in line for line in score.failures)


@pytest.mark.parametrize("track", [task, architecture], ids=lambda track: track.name)
def test_one_seed_is_shown_as_one_seed(track, seeded):
    _, store = seeded
    score = track.score(asked(**SEEDED | {"seeds": 1}), store)
    assert not [name for name in score.table if "±" in name or "rank" in name]
    assert any("One seed (0)" in note for note in score.notes) and score.conditions["seed"] == "0"
    assert not [bounds for chart in score.charts for bounds in chart.intervals.values() if bounds]


@pytest.mark.parametrize("track", [task, architecture], ids=lambda track: track.name)
def test_charts_carry_the_intervals(track, seeded):
    chart = track.score(*seeded).charts[0]
    (bounds,) = chart.intervals.values()
    (points,) = chart.series.values()
    assert dict(points)["bnn"] == pytest.approx(60.1)
    low, high = {name: ends for name, *ends in bounds}["bnn"]
    assert (low, high) == pytest.approx((60.1 - 1.27062, 60.1 + 1.27062), rel=1e-5)


def test_curves_over_epochs_are_means_of_seeds(store):
    benchmark = asked(data=("fashion_mini",), algorithms=("bnn",), epochs=2, seeds=2)
    for seed in (0, 1):
        for spec in main_specs(benchmark, seed).values():
            history = [{"epoch": 1, "accuracy": 0.2 + 0.2 * seed}, {"epoch": 2, "accuracy": 0.5}]
            put(store, spec, 0.5, history=history)
    curves = task.score(benchmark, store).charts[-1]
    assert curves.series["bnn"] == [(1, pytest.approx(30)), (2, pytest.approx(50))]
    assert curves.intervals["bnn"][0] == (1, 0.0, 100.0), "within what an accuracy can be"
    assert curves.intervals["bnn"][1] == (2, pytest.approx(50), pytest.approx(50))


def test_other_tracks_say_that_their_networks_are_of_the_first_seed():
    benchmark = asked(seeds=3)
    assert training_conditions(benchmark, [], [benchmark.first])["seed"] == "0, the networks of the first of 3 seeds"
