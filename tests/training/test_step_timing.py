"""Step times, interleaved, by a clock that the steps themselves move."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_data

from bibench_tf import datasets, networks, zoo
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.training import step_timing
from bibench_tf.training.step_timing import StepTimes


class Computer:
    """A clock, and steps that take time on it; `slowness` is what other programs make of a round."""

    def __init__(self):
        self.now_s = 0.0
        self.slowness = 1.0
        self.calls = []

    def clock(self):
        return self.now_s

    def step(self, name, *costs_ms):
        """A step that takes these times in turn, and the last one from then on."""
        remaining = list(costs_ms)

        def make():
            self.calls.append(name)
            cost_ms = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            self.now_s += 1e-3 * cost_ms * self.slowness

        return make


def test_ratios_are_of_the_same_round():
    """A computer that is ten times as slow in every second round changes the times, and no ratio."""
    computer = Computer()
    steps = {"full_precision": computer.step("full_precision", 10), "bnn": computer.step("bnn", 12)}

    def rounds(numbers):
        for number in numbers:
            computer.slowness = 10 if number % 2 else 1
            yield number

    rounds_ms = step_timing.measure_steps(steps, 4, rounds, computer.clock)
    assert rounds_ms == {
        "full_precision": pytest.approx((10, 100, 10, 100)),
        "bnn": pytest.approx((12, 120, 12, 120)),
    }
    found = step_timing.ratio(rounds_ms, "bnn", "full_precision")
    assert (found.low, found.median, found.high) == pytest.approx((1.2, 1.2, 1.2))


def test_warm_up_and_the_first_step_of_a_turn_do_not_count():
    computer = Computer()
    # Three to warm up; in each turn one that finds cold caches, and two that count, by the faster one.
    step = computer.step("bnn", 900, 800, 700, 500, 11, 10, 400, 20, 21)
    assert step_timing.measure_steps({"bnn": step}, 2, clock=computer.clock)["bnn"] == pytest.approx((10, 20))


def test_every_other_round_goes_backwards():
    computer = Computer()
    steps = {name: computer.step(name, 1) for name in "abc"}
    step_timing.measure_steps(steps, 2, clock=computer.clock)
    turns = computer.calls[3 * step_timing.WARM_UP_STEPS :: 3]
    assert sorted((turns[:3], turns[3:])) == [["a", "b", "c"], ["c", "b", "a"]]


def test_the_spread_of_a_ratio_are_the_quartiles_over_rounds():
    times = StepTimes("n", {}, 2, "adam", {"full_precision": (1.0,) * 5, "x": (1.0, 2.0, 3.0, 4.0, 50.0)}, "float32")
    found = step_timing.ratio(times.rounds_ms, "x")
    assert (found.low, found.median, found.high) == (2, 3, 4)
    assert step_timing.ratio(times.rounds_ms, "full_precision", baseline="x").median == pytest.approx(1 / 3)


def test_a_network_that_was_not_timed():
    times = StepTimes("n", {}, 2, "adam", {"bnn": (1.0,)}, "float32")
    with pytest.raises(BibenchError, match="'full_precision' was not timed, only those of bnn"):
        step_timing.ratio(times.rounds_ms, "bnn")
    with pytest.raises(BibenchError, match="at least one round"):
        step_timing.measure_steps({}, 0)


def test_networks_of_the_zoo_take_turns(tmp_path):
    seen = []

    def progress(rounds):
        seen.append(len(rounds))
        return rounds

    times = step_timing.measure(
        ("full_precision", "bnn"),
        tiny_data.tiny(),
        step_timing.Steps("vgg_small@0.0625", batch_size=4, optimizer="sgd"),
        rounds=2,
        progress=progress,
    )
    assert seen == [2]
    assert {name: len(found) for name, found in times.rounds_ms.items()} == {"full_precision": 2, "bnn": 2}
    assert min(min(found) for found in times.rounds_ms.values()) > 0
    assert (times.network, times.batch_size, times.precision) == ("vgg_small@0.0625", 4, "float32")
    records.write(tmp_path / "times.json", times)
    assert records.read(tmp_path / "times.json", StepTimes) == times


def test_networks_with_several_inputs_take_turns(monkeypatch):
    """A batch of a mapping and labels for each point, with the loss of their task."""
    inputs, labels = {"left": np.ones((6, 3, 2), np.float32), "right": np.ones((6, 4), np.float32)}, np.zeros((6, 3))
    data = datasets.ArrayDataset(
        "pairs", "Pairs", "made by the tests", "none", ("a", "b"), 6, 6, "point_classification",
        fingerprint="f",
        load=lambda: datasets.Examples(inputs, labels.astype(np.int32), inputs, labels.astype(np.int32)),
        options={"points": 3},
    )  # fmt: skip
    built = []

    def build(name, algorithm, width, points):
        left, right = tf.keras.Input((points, 2), name="left"), tf.keras.Input((4,), name="right")
        x = tf.keras.layers.Concatenate()([left, tf.keras.layers.RepeatVector(points)(right)])
        built.append(tf.keras.Model({"left": left, "right": right}, tf.keras.layers.Dense(2)(x)))
        return built[-1]

    monkeypatch.setattr(networks, "build", build)
    times = step_timing.measure(("full_precision",), data, step_timing.Steps("two", batch_size=2), rounds=2)
    assert len(times.rounds_ms["full_precision"]) == 2 and times.options == {"points": 3}
    bias = built[0].layers[-1].bias.numpy()
    assert bias[0] > 0 > bias[1], "the steps have learnt that all labels are 0"


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_step_trains(precision):
    """A timed step is a whole step: the loss of the same batch falls, and the constraint of the weights holds."""
    from bibench_tf.training import loop

    images, labels = np.random.default_rng(0).standard_normal((16, 8, 8, 1), np.float32), np.arange(16) % 4
    model = loop.in_precision(
        lambda: zoo.build("vgg_small", algorithm="bnn", input_shape=(8, 8, 1), num_classes=4, width=0.0625), precision
    )
    binary = [layer for layer in model.layers if type(layer).__name__ == "BinaryConv2D"]
    binary[0].kernel.assign(binary[0].kernel * 100)
    train = step_timing.training_function(model, "adam", precision)
    step = step_timing.step_on(train, images, labels)
    losses = [step() for _ in range(12)]
    assert losses[-1] < losses[0]
    assert np.abs(binary[0].kernel.numpy()).max() <= 1
    with pytest.raises(BibenchError, match="Unknown optimizer 'lion'"):
        step_timing.training_function(model, "lion")
