"""The training track: BiBench's grid, the score by hand, seeds apart from settings, interleaved steps."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from bibench_tf import datasets, report
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE, BIBENCH
from bibench_tf.recipes import Recipe, learning_rate
from bibench_tf.results import environment, records, status
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.tracks.training_consumption import grid, retiming, scoring
from bibench_tf.training import loop, optimizers, queue, step_timing
from bibench_tf.training.session import Session

TRACK = TRACKS.get("training")
WHOLE = ResolvedBenchmark(
    Benchmark(
        data=("cifar10",),
        networks=("resnet18",),
        recipe="bibench_training",
        algorithms=BIBENCH,
        options={"training": {"grid": ("bibench",)}},
    )
)
GUIDE = Path(__file__).parents[2] / "docs" / "training.md"
# (optimizer, rate, schedule, weight decay), as the reference's configurations state them.
STATED = {
    (optimizer, rate, schedule, weight_decay)
    for optimizer, rate, weight_decay in (
        ("sgd", 1e-1, 1e-4),
        ("sgd", 1e-2, 1e-4),
        ("adam", 1e-3, 0),
        ("adam", 1e-4, 0),
    )
    for schedule in ("cosine", "step")
}
ASKED = Benchmark(
    data=("fashion_mini",),
    networks=("resnet20",),
    algorithms=("bnn",),
    seeds=2,
    options={"training": {"grid": ("adam-2e-3-cosine", "sgd-1e-1-step")}},
)
TWO = ResolvedBenchmark(ASKED)


def two(*settings, **changes):
    options = {"options": {"training": {"grid": settings}}} if settings else {}
    return ResolvedBenchmark(dataclasses.replace(ASKED, **options, **changes))


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


def put(store, spec, accuracy, step_time_ms=10.0, **fields):
    data = {"name": spec.dataset, "fingerprint": "f" * 64, "train_examples": 640, "test_examples": 5}
    figures = {"accuracy": accuracy, "best_accuracy": accuracy, "test_loss": 1.0, "train_step_time_ms": step_time_ms}
    result = RunResult(spec.id, spec, dataset=data, **{"status": "completed", **figures, **fields})
    records.write(store.folder(spec) / "result.json", result)


def fill(store, benchmark, accuracies, times_ms=None, **fields):
    """Records of all runs; accuracies and times are by algorithm, setting and seed."""
    for seed in benchmark.every_seed:
        for index, setting in enumerate(TRACK.settings(benchmark)):
            for algorithm, spec in TRACK.specs(benchmark, setting, seed).items():
                time_ms = times_ms[algorithm][index][seed] if times_ms else 10.0
                put(store, spec, accuracies[algorithm][index][seed], time_ms, **fields)


# Means over seeds: 0.8 and 0.6, spread 0.1; 0.5 and 0.1, spread 0.2.
ACCURACIES = {BASELINE: [[0.78, 0.82], [0.58, 0.62]], "bnn": [[0.45, 0.55], [0.15, 0.05]]}
TIMES_MS = {BASELINE: [[10, 8], [20, 16]], "bnn": [[15, 16], [40, 24]]}


def row(score, algorithm):
    return score.table.set_index("algorithm").loc[algorithm]


def test_bibenchs_grid_is_72_runs_each_as_stated():
    specs = TRACK.plan(WHOLE)
    assert len(specs) == len({spec.id for spec in specs}) == 72
    for algorithm in (BASELINE, *BIBENCH):
        of_algorithm = [spec.recipe for spec in specs if spec.algorithm == algorithm]
        stated = {(one.optimizer, one.learning_rate, one.schedule, one.weight_decay) for one in of_algorithm}
        assert len(of_algorithm) == 8 and stated == STATED
    for spec in specs:
        recipe = spec.recipe
        assert (spec.dataset, spec.network, spec.width, spec.seed) == ("cifar10", "resnet18", 1.0, 0)
        assert (recipe.epochs, recipe.batch_size, recipe.momentum) == (200, 128, 0.9)
        assert recipe.start is None and spec.parent is None and recipe.augment and not recipe.per_step
        rates = [learning_rate(recipe, epoch) / recipe.learning_rate for epoch in (0, 99, 100, 149, 150, 199)]
        if recipe.schedule == "step":
            assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
        else:
            assert rates == pytest.approx(
                [0.5 * (1 + math.cos(math.pi * e / 200)) for e in (0, 99, 100, 149, 150, 199)]
            )


def test_the_binary_networks_of_bibenchs_grid_have_hardtanh():
    import larq as lq

    from bibench_tf import zoo

    model = zoo.build("resnet18", algorithm="bnn", input_shape=(32, 32, 3), num_classes=10, width=0.0625)
    activations = [layer.activation for layer in model.layers if type(layer).__name__ == "Activation"]
    assert len(activations) == 1 + 16
    values = np.linspace(-3, 3, 13, dtype=np.float32)
    for activation in activations:
        np.testing.assert_array_equal(activation(values), lq.activations.hard_tanh(values))


def test_the_released_grid_differs_in_the_momentum_of_sgd_with_steps_alone():
    ours, released = (
        {setting: grid.recipe_for(WHOLE.first.recipe, setting) for setting in grid.GRIDS[name]}
        for name in ("bibench", "bibench-released")
    )
    for (setting, one), other in zip(ours.items(), released.values(), strict=True):
        plain = setting.startswith("sgd") and setting.endswith("step")
        assert other.momentum == (0.0 if plain else 0.9)
        assert dataclasses.replace(other, momentum=0.9, name=one.name) == one


def test_the_quick_grid_is_two_by_two_and_shares_the_quick_run():
    benchmark = ResolvedBenchmark(Benchmark())
    specs = [list(TRACK.specs(benchmark, setting, 0).values()) for setting in TRACK.settings(benchmark)]
    assert specs[0] == list(benchmark.specs(benchmark.first).values())
    recipes = [of_setting[0].recipe for of_setting in specs]
    assert [(one.optimizer, one.schedule) for one in recipes] == [
        ("adam", "cosine"),
        ("adam", "step"),
        ("sgd", "cosine"),
        ("sgd", "step"),
    ]
    # Within its one epoch the rate falls, and differently for both schedules.
    for recipe in recipes:
        assert recipe.epochs == 1 and recipe.per_step
        middle = learning_rate(recipe, 0.6) / recipe.learning_rate
        assert middle == pytest.approx(0.1 if recipe.schedule == "step" else 0.5 * (1 + math.cos(0.6 * math.pi)))


def test_a_rate_that_changes_from_step_to_step_does_so_while_training(monkeypatch, tmp_path):
    import tensorflow as tf

    from bibench_tf.datasets import ArrayImages, Splits

    images, labels = np.zeros((40, 4, 4, 1), np.uint8), np.arange(40, dtype=np.int32) % 2
    arrays = Splits(images, labels, images, labels)
    data = ArrayImages(
        name="zeros",
        title="Zeros",
        source="made by the tests",
        licence="none",
        input_shape=(4, 4, 1),
        class_names=("a", "b"),
        train_examples=40,
        test_examples=40,
        mean=(0.0,),
        std=(1.0,),
        fingerprint="f",
        load=lambda: arrays,
        padding=0,
    )
    used, made = {}, []
    for_recipe = optimizers.for_recipe
    monkeypatch.setattr(optimizers, "for_recipe", lambda recipe: made.append(for_recipe(recipe)) or made[-1])
    recipe = Recipe("tiny", epochs=2, batch_size=10, optimizer="sgd", learning_rate=1.0, schedule="step", augment=False)
    for per_step in (False, True):
        rates = used[per_step] = []
        (tmp_path / str(per_step)).mkdir()
        network = tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(4, 4, 1)), tf.keras.layers.Dense(2)])
        loop.train(
            loop.Trainee(network),
            data,
            dataclasses.replace(recipe, per_step=per_step, milestones=(0.25, 0.75)),
            seed=0,
            folder=tmp_path / str(per_step),
            hooks=loop.Hooks(on_step=lambda rates=rates: rates.append(float(made[-1].learning_rate))),
        )
    assert used[False] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])
    assert used[True] == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_a_grid_can_be_mixed_with_settings_and_names_each_once():
    settings = grid.expand(("adam-1e-3-cosine", "bibench", "radam-1e-3-constant"))
    assert settings[0] == "adam-1e-3-cosine" and len(settings) == 9 and settings[-1] == "radam-1e-3-constant"


@pytest.mark.parametrize("setting", ["sgd_plain-inf-step", "sgd-nan-step", "bibench-paper", "adam-1e-3-quick"])
def test_what_is_neither_a_setting_nor_a_grid_is_named(setting):
    with pytest.raises(BibenchError, match=f"'{setting}'.*bibench-released"):
        grid.recipe_for(WHOLE.first.recipe, setting)


def test_every_seed_is_planned_and_the_first_shared():
    specs = TRACK.plan(TWO)
    assert len(specs) == 2 * 2 * 2
    assert [spec.seed for spec in specs] == [0] * 4 + [1] * 4
    assert specs[:4] == TRACK.plan(two(seeds=1))
    assert {spec.seed for spec in TRACK.plan(two(seed=7, seeds=3))} == {7, 8, 9}


def test_status_lists_every_seed(tmp_path):
    planned = [status.Planned.of(spec) for spec in engine.planned([TRACK, TRACKS.get("robustness")], TWO)]
    rows = status.of(planned, tmp_path).runs
    assert len(rows) == 8, "the robustness track needs no seed but the first"
    assert sum("seed 1" in run.text for _, run in rows) == 4 and {state for state, _ in rows} == {"waiting"}


def test_the_score_of_two_seeds_by_hand(store):
    fill(store, TWO, ACCURACIES, TIMES_MS)
    score = TRACK.score(TWO, store)
    # Ratios of pairs: 1.5, 2, 2, 1.5, median 1.75; the spread of the means is twice that of full precision.
    assert score.scores["bnn"] == pytest.approx(math.sqrt(((1 / 1.75) ** 2 + 0.5**2) / 2))
    assert score.scores[BASELINE] == pytest.approx(1)
    found = row(score, "bnn")
    # One seed alone: spreads 0.1 and 0.15, ratios 1.5 and 2; 0.1 and 0.25, ratios 2 and 1.5.
    first = math.sqrt(((1 / 1.75) ** 2 + (0.1 / 0.15) ** 2) / 2)
    second = math.sqrt(((1 / 1.75) ** 2 + (0.1 / 0.25) ** 2) / 2)
    assert found["OM_train ±"] == pytest.approx(12.7062 * abs(first - second) / 2, rel=1e-4)
    assert found["accuracy mean (%)"] == pytest.approx(30)
    assert found["accuracy mean ± (points)"] == pytest.approx(0, abs=1e-9), "both seeds have the same mean"
    assert found["spread over settings (points)"] == pytest.approx(20)
    # Residuals +-5, mean square 100; means 50 and 10, variance 800, less 100 / 2. Within the settings 50.
    assert found["settings without seeds (points)"] == pytest.approx(math.sqrt(750))
    assert found["spread over seeds (points)"] == pytest.approx(math.sqrt(50))
    assert found["runs completed"] == 4 and not score.failures
    assert found["epoch (s)"] == pytest.approx(0.2), "ten steps of 20 ms, the median"


def test_one_seed_is_shown_as_one_seed(store):
    one = two(seeds=1)
    fill(store, one, ACCURACIES, TIMES_MS)
    score = TRACK.score(one, store)
    # Spreads 0.1 and 0.15, ratios 1.5 and 2.
    assert score.scores["bnn"] == pytest.approx(math.sqrt(((1 / 1.75) ** 2 + (0.1 / 0.15) ** 2) / 2))
    assert not [name for name in score.table if "±" in name or "rank" in name or "seeds" in name]
    notes = " ".join(score.notes)
    assert "One seed (0): there are no intervals and no ranks" in notes and "cannot be separated" in notes
    assert score.conditions["seed"] == "0" and len(score.charts) == 2
    assert not score.charts[0].intervals


def test_scores_that_overlap_share_their_ranks(store):
    benchmark = two(algorithms=("bnn", "xnor", "recu"))
    accuracies = {
        BASELINE: [[0.80, 0.80], [0.60, 0.60]],
        "bnn": [[0.50, 0.50], [0.25, 0.251]],
        "xnor": [[0.50, 0.50], [0.251, 0.25]],
        "recu": [[0.50, 0.50], [0.10, 0.101]],
    }
    fill(store, benchmark, accuracies)
    score = TRACK.score(benchmark, store)
    assert list(score.table["rank by OM_train"]) == ["1", "2-3", "2-3", "4"]


def test_the_strip_shows_a_dot_for_each_run_and_settings_apart(store):
    fill(store, TWO, ACCURACIES, TIMES_MS)
    strip, times, spreads = TRACK.score(TWO, store).charts
    assert strip.kind == "strip" and set(strip.series) == set(TRACK.settings(TWO))
    assert [x for x, _ in strip.series["sgd-1e-1-step"]] == [BASELINE, BASELINE, "bnn", "bnn"]
    assert [y for _, y in strip.series["sgd-1e-1-step"]] == pytest.approx([58, 62, 15, 5])
    assert dict(times.series["step time"]) == {BASELINE: 1.0, "bnn": 1.75}
    assert times.intervals["step time"][1] == ("bnn", 1.5, 2.0)
    assert dict(spreads.series["seeds"])["bnn"] == pytest.approx(math.sqrt(50))


def test_a_diverged_seed_leaves_no_score_and_no_spread(store):
    fill(store, TWO, ACCURACIES, TIMES_MS)
    lost = TRACK.specs(TWO, "sgd-1e-1-step", 1)["bnn"]
    put(store, lost, None, status="diverged", error="the loss was not finite")
    score = TRACK.score(TWO, store)
    found = row(score, "bnn")
    assert score.scores["bnn"] is None and score.scores[BASELINE] == pytest.approx(1)
    assert found["runs completed"] == 3 and found["accuracy mean (%)"] == pytest.approx((45 + 55 + 15) / 3)
    assert np.isnan([found["spread over settings (points)"], found["spread over seeds (points)"]]).all()
    (failure,) = score.failures
    assert "bnn" in failure and "sgd-1e-1-step, seed 1" in failure and "diverged" in failure


def test_runs_without_a_step_time_have_no_score_and_the_reason_is_given(store):
    fill(store, TWO, ACCURACIES, {BASELINE: [[10, 10]] * 2, "bnn": [[None, None]] * 2})
    score = TRACK.score(TWO, store)
    assert score.scores["bnn"] is None and any("no run with a known step time" in line for line in score.failures)


def test_energy_and_gpu_memory_are_shown_where_the_platform_tells_them(store):
    fill(store, TWO, ACCURACIES, TIMES_MS)
    score = TRACK.score(TWO, store)
    assert not [name for name in score.table if "energy" in name or "GPU" in name]
    assert score.conditions["energy"].startswith("not measured")
    fill(store, TWO, ACCURACIES, TIMES_MS, energy_j=12.5, peak_gpu_memory_mib=80.0)
    score = TRACK.score(TWO, store)
    assert row(score, "bnn")["energy of a run (J)"] == 12.5 and row(score, "bnn")["peak GPU memory (MiB)"] == 80
    assert "energy" not in score.conditions


@pytest.mark.parametrize(("grid", "complete"), [("quick", False), ("bibench", True), ("bibench-released", True)])
def test_only_bibenchs_settings_are_the_whole_track(grid, complete, store):
    assert TRACK.score(two(grid), store).complete is complete


def test_a_schedule_that_says_nothing_is_told(store):
    score = TRACK.score(two(recipe="cifar10_short", epochs=1), store)
    assert any("schedule alone are the same training" in note for note in score.notes)
    assert not any("same training" in note for note in TRACK.score(TWO, store).notes)


def retimed(benchmark, store, rounds_ms):
    recipe = benchmark.first.recipe
    options = {"input_shape": (28, 28, 1), "num_classes": 10}
    rounds_ms = {name: tuple(map(float, found)) for name, found in rounds_ms.items()}
    times = step_timing.StepTimes("resnet20", options, recipe.batch_size, recipe.optimizer, rounds_ms, "float32")
    path = retiming.path(store.root, benchmark.first)
    records.write(path, retiming.Retiming("fashion_mini", times))
    return path


def test_interleaved_steps_take_the_place_of_those_of_the_runs(store):
    fill(store, TWO, ACCURACIES, TIMES_MS)
    path = retimed(TWO, store, {BASELINE: (10, 20, 10), "bnn": (11, 24, 13)})
    score = TRACK.score(TWO, store)
    # The rounds' ratios are 1.1, 1.2 and 1.3.
    assert score.scores["bnn"] == pytest.approx(math.sqrt(((1 / 1.2) ** 2 + 0.5**2) / 2))
    found = row(score, "bnn")
    quartiles = [found[name] for name in ("lower quartile", "step / full precision", "upper quartile")]
    assert quartiles == pytest.approx([1.15, 1.2, 1.25])
    assert found["interleaved step (ms)"] == 13 and found["step (ms)"] == 20
    assert "interleaved" in score.conditions["step times"] and "3 rounds" in score.conditions["step times"]
    assert any("interleaved" in note for note in score.notes)
    # Of another batch size they are not these runs'.
    assert scoring._times(two(recipe="cifar10_short"), store, []) is None
    path.write_text(path.read_text().replace("24", "25"))
    score = TRACK.score(TWO, store)
    assert any(str(path) in line for line in score.failures)
    assert row(score, "bnn")["step / full precision"] == 1.75


def test_interleaved_times_that_lack_an_algorithm_are_not_used(store):
    fill(store, TWO, ACCURACIES, TIMES_MS)
    retimed(TWO, store, {BASELINE: (10, 20, 10)})
    score = TRACK.score(TWO, store)
    assert row(score, "bnn")["step / full precision"] == 1.75
    assert any("lack bnn" in line and "--retime" in line for line in score.failures)


def test_interleaved_times_are_measured_once_and_again_for_more_rounds_or_algorithms(monkeypatch, tmp_path):
    calls = []

    def measure(algorithms, data, steps, *, rounds, progress):
        calls.append((tuple(algorithms), rounds, steps.batch_size, steps.precision))
        rounds_ms = {name: tuple(10.0 for _ in progress(range(rounds))) for name in algorithms}
        options = data.network_options
        return step_timing.StepTimes(
            steps.network, options, steps.batch_size, steps.optimizer, rounds_ms, steps.precision
        )

    monkeypatch.setattr(step_timing, "measure", measure)
    session = Session(tmp_path, quiet=True)

    def retime(rounds, session=session, **changes):
        options = {"training": {"retime": True, "retime_rounds": rounds}}
        TRACK.measure(Job(two(options=options, **changes), session))

    TRACK.measure(Job(TWO, session))
    assert not calls, "nothing is timed unless it is asked for"
    for rounds in (3, 3, 5):
        retime(rounds)
    assert [call[1:] for call in calls] == [(3, 64, "float32"), (5, 64, "float32")]
    retime(3, dataclasses.replace(session, results=tmp_path / "mixed"), precision="mixed_bfloat16")
    assert calls[-1][1:] == (3, 64, "mixed_bfloat16")
    retime(3, algorithms=("bnn", "fda"))
    assert calls[-1][0] == (BASELINE, "bnn", "fda")
    (path,) = (tmp_path / retiming.FOLDER).glob("*.json")
    assert retiming.read(path).rounds == 3
    assert records.read_envelope(path)["environment"]["cpu"]


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """A function that asks for interleaved times and returns how often they were measured so far."""
    calls = []

    def measure(algorithms, data, steps, *, rounds, progress):
        calls.append(algorithms)
        rounds_ms = {name: (10.0 + len(calls),) * rounds for name in algorithms}
        options = dict(data.network_options)
        return step_timing.StepTimes(
            steps.network, options, steps.batch_size, steps.optimizer, rounds_ms, steps.precision
        )

    def ask():
        benchmark = two(options={"training": {"retime": True, "retime_rounds": 3}})
        TRACK.measure(Job(benchmark, Session(tmp_path, quiet=True)))
        return len(calls)

    monkeypatch.setattr(step_timing, "measure", measure)
    return ask


def test_a_damaged_record_of_times_is_set_aside(timed, tmp_path, capsys):
    """Notices that a damaged record is overwritten, and so lost."""
    assert (timed(), timed()) == (1, 1)
    (path,) = (tmp_path / retiming.FOLDER).glob("*.json")
    damaged = path.read_text().replace("11.0", "10.0")
    path.write_text(damaged)
    assert timed() == 2 and retiming.read(path).times.rounds_ms["bnn"] == (12.0,) * 3
    assert path.with_suffix(".json.damaged").read_text() == damaged
    said = capsys.readouterr().err
    assert str(path) in said and "measured again" in said and f"kept as {path.name}.damaged" in said


@pytest.mark.parametrize(
    "change",
    [{"cpu": "another CPU"}, {"cores": 1}, {"system": "Another system"}, {"packages": {"tensorflow": "2.99"}}],
)
def test_times_of_another_machine_are_measured_again(timed, monkeypatch, change):
    """Notices that the times in a folder that was moved, or of older packages, are printed as those of this machine."""
    assert (timed(), timed()) == (1, 1)
    described = environment.describe() | change
    monkeypatch.setattr(environment, "describe", lambda: described)
    assert (timed(), timed()) == (2, 2)


def test_times_for_other_inputs_are_measured_again(timed, monkeypatch):
    """Notices that times are kept by the name of the data set alone, whatever its images have become."""
    assert timed() == 1
    data = datasets.get("fashion_mini")
    larger = dataclasses.replace(data, input_shape=(32, 32, 1))
    monkeypatch.setattr(datasets, "get", lambda *arguments: larger)
    assert (timed(), timed()) == (2, 2)


@pytest.mark.parametrize("options", [{"xla": True}, {"steps_per_execution": 10}, {"has_neighbours": True}])
def test_runs_with_other_options_of_the_session_are_no_pair(store, options):
    """Notices the step time of a run with XLA beside that of a run without."""
    fill(store, TWO, ACCURACIES, TIMES_MS)
    for setting in TRACK.settings(TWO):
        for seed in TWO.every_seed:
            spec = TRACK.specs(TWO, setting, seed)["bnn"]
            put(store, spec, 0.4, 1.0, execution=options)
    score = TRACK.score(TWO, store)
    assert score.scores["bnn"] is None and score.scores[BASELINE] == pytest.approx(1)
    assert any(line.startswith("bnn: ") and "same machine" in line and "--retime" in line for line in score.failures)


def test_runs_of_other_machines_are_no_pair(store):
    """Notices step times of two computers in one ratio; the pairs of one computer still count."""
    fill(store, TWO, ACCURACIES, TIMES_MS)
    first, second = TRACK.settings(TWO)
    for seed in TWO.every_seed:
        spec = TRACK.specs(TWO, second, seed)["bnn"]
        result = store.result(spec)
        records.write(store.folder(spec) / "result.json", result, environment={"cpu": "another CPU"})
    # The pairs of the first setting: 15 / 10 and 16 / 8.
    assert row(TRACK.score(TWO, store), "bnn")["step / full precision"] == pytest.approx(1.75)
    for seed in TWO.every_seed:
        spec = TRACK.specs(TWO, first, seed)["bnn"]
        records.write(store.folder(spec) / "result.json", store.result(spec), environment={"cpu": "another CPU"})
    assert TRACK.score(TWO, store).scores["bnn"] is None


def test_the_report_of_seeds_is_written_in_all_forms(store, tmp_path):
    fill(store, TWO, ACCURACIES, TIMES_MS)
    score = TRACK.score(TWO, store)
    path = report.write([score], tmp_path / "report", title="Seeds", conditions={})
    assert "OM_train ±" in path.read_text() and "variance components" in path.read_text()
    text = report.to_text([score])
    assert "OM_train +-" in text and "OM_train ±" not in text.partition("\n\nThe score")[0].partition("Step times")[0]


def test_runs_of_other_settings_are_trained_only_once(tmp_path):
    benchmark = two("quick", "adam-2e-3-cosine")
    planned = queue.ordered([*TRACK.plan(benchmark), *benchmark.specs(benchmark.first).values()])
    assert len(planned) == 4 * 2 * 2


def test_the_example_of_the_guide(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(GUIDE), "exec"), {})
    assert "points over settings" in capsys.readouterr().out


def test_the_guide_names_every_grid_and_its_settings():
    text = GUIDE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in grid.GRIDS)
