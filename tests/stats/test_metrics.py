from __future__ import annotations

import inspect
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest

from bibench_tf.stats import metrics
from bibench_tf.stats.metrics import Undefined

BAD_NUMBERS = [float("nan"), float("inf"), -0.1, None, "0.5"]


def close(value):
    return pytest.approx(value, rel=1e-12)


# --- hand-worked cases ------------------------------------------------------------------------------------


def test_quadratic_mean_by_hand():
    assert metrics.quadratic_mean([3, 4]) == close(math.sqrt(12.5))
    assert metrics.quadratic_mean([0.0, 0.0]) == 0.0
    assert metrics.quadratic_mean([1e200, 1e200]) == 1e200  # squares would overflow
    assert metrics.quadratic_mean([1e-200]) == 1e-200


def test_relative_accuracy_by_hand():
    assert metrics.relative_accuracy(0.6, 0.8) == close(0.75)
    assert metrics.relative_accuracy(60, 80) == close(0.75)
    assert metrics.relative_accuracy(0, 0.8) == 0


def test_task_by_hand():
    # task a: (0.5 + 0.7) / 2 = 0.6; task b: 0.8; sqrt((0.36 + 0.64) / 2)
    score = metrics.om_task({"a": [0.4, 0.7], "b": [0.4]}, {"b": [0.5], "a": [0.8, 1.0]})
    assert score == close(math.sqrt(0.5))


def test_arch_by_hand():
    # m = 0.6, 0.3, 0.6: sqrt((0.36 + 0.09 + 0.36) / 3)
    relative = {"cnn": [0.5, 0.7], "transformer": [0.3], "mlp": [0.6]}
    assert metrics.om_arch(relative) == close(math.sqrt(0.27))
    assert metrics.architecture_group_mean([0.5, 0.7]) == close(0.6)


def test_gap_by_hand():
    assert metrics.generalization_gap(0.8, 0.6) == close(0.25)
    assert metrics.generalization_gap(0.8, 0.0) == 1.0
    assert metrics.generalization_gap(0.8, 0.9) == 0.0  # better under corruption: no gap


def test_robust_by_hand():
    # noise: 0.1 / 0.2 = 0.5; blur: (0.3 / 0.1 + 0.2 / 0.2) / 2 = 2; sqrt((0.25 + 4) / 2)
    score = metrics.om_robust({"noise": 0.1, "blur": [0.3, 0.2]}, {"noise": [0.2], "blur": [0.1, 0.2]})
    assert score == close(math.sqrt(2.125))


def test_corruption_error_by_hand():
    # noise: (0.2 + 0.4) / (0.1 + 0.2) = 2; blur: 0.3 / 0.6 = 0.5
    own, baseline = {"noise": [0.2, 0.4], "blur": [0.3]}, {"blur": [0.6], "noise": [0.1, 0.2]}
    assert metrics.mean_corruption_error(own, baseline) == close(1.25)
    # The ratio of the sums, 0.9 / 0.3, and not the mean of the ratios, (0.5 + 8) / 2.
    own, baseline = {"noise": [0.1, 0.8]}, {"noise": [0.2, 0.1]}
    assert metrics.mean_corruption_error(own, baseline) == close(3.0)


def test_relative_corruption_error_by_hand():
    # clean 0.1 and 0.05; noise: (0.1 + 0.3) / (0.05 + 0.15) = 2; blur: 0.2 / 0.55
    own, baseline = {"noise": [0.2, 0.4], "blur": [0.3]}, {"noise": [0.1, 0.2], "blur": [0.6]}
    score = metrics.relative_mean_corruption_error(0.1, own, 0.05, baseline)
    assert score == close((2 + 0.2 / 0.55) / 2)
    # A corruption that helps the network counts as negative; only the sum over severities has to harm the baseline.
    score = metrics.relative_mean_corruption_error(0.5, {"fog": [0.4, 0.5]}, 0.2, {"fog": [0.1, 0.5]})
    assert score == close(-0.5)


def test_robust_where_neither_network_loses_anything():
    assert metrics.om_robust({"brightness": 0.0}, {"brightness": 0.0}) == 1.0
    assert metrics.om_robust({"brightness": [0.0, 0.1]}, {"brightness": [0.0, 0.2]}) == close(0.75)
    assert metrics.om_robust({"brightness": 0.0}, {"brightness": 0.1}) == 0.0


def test_train_by_hand():
    # times: (10/20 + 10/10) / 2 = 0.75; spreads: 0.1 / 0.2 = 0.5
    score = metrics.om_train([10, 10], [20, 10], [0.5, 0.7], [0.2, 0.6])
    assert score == close(math.sqrt((0.75**2 + 0.5**2) / 2))


@pytest.mark.parametrize("ddof", [0, 1])
def test_train_does_not_depend_on_the_kind_of_standard_deviation(ddof):
    fp, bi = [0.8, 0.7, 0.9, 0.75], [0.5, 0.3, 0.6, 0.2]
    expected = math.sqrt((0.4**2 + (np.std(fp, ddof=ddof) / np.std(bi, ddof=ddof)) ** 2) / 2)
    assert metrics.om_train([2], [5], fp, bi) == close(expected)


def test_ratios_by_hand():
    assert metrics.compression_ratio(64, 32) == close(64 / 33)
    assert metrics.compression_ratio(100, 0) == 32
    assert metrics.speedup_ratio(128, 64) == close(128 / 65)
    assert metrics.speedup_ratio(100, 0) == 64
    assert metrics.compression_ratio(7, 7) == metrics.speedup_ratio(7, 7) == 1


def test_comp_and_infer_by_hand():
    assert metrics.om_comp([10, 20], [20, 20]) == close(math.sqrt((15**2 + 20**2) / 2))
    # times: (8/2 + 6/3) / 2 = 3; sizes: (4/1 + 4/1) / 2 = 4
    assert metrics.om_infer([8, 6], [2, 3], [4, 4], [1, 1]) == close(math.sqrt((9 + 16) / 2))


def test_numpy_scalars_are_numbers():
    assert metrics.relative_accuracy(np.float32(0.5), np.float64(1.0)) == 0.5
    assert metrics.compression_ratio(np.int64(100), np.int64(0)) == 32
    assert metrics.om_robust({"noise": np.float32(0.5)}, {"noise": np.array([0.5, 1.0])[:1]}) == 1


# --- published anchor -------------------------------------------------------------------------------------


def resnet18_imagenet():
    """ResNet-18 at 224x224 as (name, weights, output pixels); batch normalization is 2 per channel."""
    layers = [("stem", 7 * 7 * 3 * 64, 112 * 112), ("stem norm", 2 * 64, 0)]
    channels = 64
    for stage, (filters, side) in enumerate([(64, 56), (128, 28), (256, 14), (512, 7)]):
        for block in range(2):
            layers += [
                ("conv3x3", 9 * channels * filters, side * side),
                ("norm", 2 * filters, 0),
                ("conv3x3", 9 * filters * filters, side * side),
                ("norm", 2 * filters, 0),
            ]
            if stage > 0 and block == 0:
                layers += [("shortcut", channels * filters, side * side), ("norm", 2 * filters, 0)]
            channels = filters
    return [*layers, ("head", 512 * 1000, 1), ("head bias", 1000, 0)]


@pytest.mark.parametrize(
    ("binary", "r_c", "r_s", "om_comp"),
    [
        ({"conv3x3"}, 11.161, 11.062, 11.112),
        ({"conv3x3", "shortcut"}, 13.273, 12.509, 12.897),
    ],
)
def test_resnet18_imagenet_anchor(binary, r_c, r_s, om_comp):
    layers = resnet18_imagenet()
    parameters = sum(weights for _, weights, _ in layers)
    macs = sum(weights * pixels for _, weights, pixels in layers)
    assert parameters == 11_689_512
    assert macs == 1_814_073_344
    rest = [layer for layer in layers if layer[0] not in binary]
    compression = metrics.compression_ratio(parameters, sum(weights for _, weights, _ in rest))
    speedup = metrics.speedup_ratio(macs, sum(weights * pixels for _, weights, pixels in rest))
    assert round(compression, 3) == r_c
    assert round(speedup, 3) == r_s
    assert round(metrics.om_comp([compression], [speedup]), 3) == om_comp


# --- properties -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_baseline_against_itself_scores_exactly_one(seed):
    draw = random.Random(seed)

    def some(low, high):
        return [draw.uniform(low, high) for _ in range(draw.randint(2, 7))]

    accuracies = {task: some(0.01, 1) for task in "abc"}
    assert metrics.om_task(accuracies, accuracies) == 1
    relative = {
        group: [metrics.relative_accuracy(value, value) for value in some(0.01, 1)]
        for group in metrics.ARCHITECTURE_GROUPS
    }
    assert metrics.om_arch(relative) == 1
    gaps = {"noise": [0.0, *some(0, 1)], "blur": draw.random(), "fog": 0.0}
    assert metrics.om_robust(gaps, gaps) == 1
    times, sizes, grid = some(1, 1e4), some(1, 1e8), some(0, 1)
    assert metrics.om_train(times, times, grid, grid) == 1
    assert metrics.om_infer(times, times, sizes[:1], sizes[:1]) == 1
    count = draw.randint(1, 10**12)
    assert metrics.om_comp([metrics.compression_ratio(count, count)], [metrics.speedup_ratio(count, count)]) == 1


# Each case scores a list of positive numbers; `direction` says which way the score moves when one of them
# grows.
MONOTONE = {
    "quadratic_mean": (metrics.quadratic_mean, (1, 1, 1)),
    "relative_accuracy": (lambda v: metrics.relative_accuracy(*v), (1, -1)),
    "om_task": (
        lambda v: metrics.om_task({"a": v[:2], "b": v[2:3]}, {"a": v[3:5], "b": v[5:]}),
        (1,) * 3 + (-1,) * 3,
    ),
    "architecture_group_mean": (metrics.architecture_group_mean, (1, 1)),
    "om_arch": (lambda v: metrics.om_arch({"cnn": v[:2], "transformer": v[2:3], "mlp": v[3:]}), (1, 1, 1, 1)),
    "generalization_gap": (lambda v: metrics.generalization_gap(v[0] + 10, v[1]), (1, -1)),
    "om_robust": (
        lambda v: metrics.om_robust({"noise": v[:2], "blur": v[2]}, {"noise": v[3:5], "blur": v[5]}),
        (1,) * 3 + (-1,) * 3,
    ),
    "mean_corruption_error": (
        lambda v: metrics.mean_corruption_error({"noise": v[:2], "blur": v[2:3]}, {"noise": v[3:5], "blur": v[5:]}),
        (1,) * 3 + (-1,) * 3,
    ),
    "relative_mean_corruption_error": (
        lambda v: metrics.relative_mean_corruption_error(
            v[0], {"noise": [10 + v[1], 10 + v[2]]}, v[3], {"noise": [10 + v[4], 10 + v[5]]}
        ),
        (-1, 1, 1, 1, -1, -1),
    ),
    "om_train times": (lambda v: metrics.om_train(v[:2], v[2:], [0.4, 0.5], [0.3, 0.5]), (1, 1, -1, -1)),
    "om_train spreads": (lambda v: metrics.om_train([1], [1], [0.5, 0.5 + v[0]], [0.5, 0.5 + v[1]]), (1, -1)),
    "compression_ratio": (lambda v: metrics.compression_ratio(v[0] + 10, v[1]), (1, -1)),
    "speedup_ratio": (lambda v: metrics.speedup_ratio(v[0] + 10, v[1]), (1, -1)),
    "om_comp": (lambda v: metrics.om_comp(v[:2], v[2:]), (1, 1, 1, 1)),
    "om_infer": (lambda v: metrics.om_infer(v[:2], v[2:4], v[4:6], v[6:]), (1, 1, -1, -1) * 2),
}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", MONOTONE)
def test_monotone_in_each_argument(name, seed):
    score, directions = MONOTONE[name]
    draw = random.Random(f"{name}{seed}")
    values = [draw.uniform(0.1, 5) for _ in directions]
    for index, direction in enumerate(directions):
        grown = list(values)
        grown[index] *= draw.uniform(1.01, 2)
        assert (score(grown) - score(values)) * direction > 0


def test_every_metric_has_a_monotone_case():
    functions = inspect.getmembers(metrics, inspect.isfunction)
    public = {name for name, one in functions if one.__module__ == metrics.__name__ and not name.startswith("_")}
    assert {name.split()[0] for name in MONOTONE} == public


@pytest.mark.parametrize("name", sorted({name.split()[0] for name in MONOTONE}))
def test_every_docstring_names_its_source(name):
    text = getattr(metrics, name).__doc__
    source = "arXiv 1903.12261" if "corruption_error" in name else "arXiv 2301.11233"
    assert source in text and "not verified word for word" in text


# --- undefined parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "score",
    [
        lambda bad: metrics.quadratic_mean([1, bad]),
        lambda bad: metrics.relative_accuracy(bad, 1),
        lambda bad: metrics.relative_accuracy(1, bad),
        lambda bad: metrics.om_task({"a": [bad]}, {"a": [1]}),
        lambda bad: metrics.om_task({"a": [1]}, {"a": [bad]}),
        lambda bad: metrics.architecture_group_mean([bad]),
        lambda bad: metrics.om_arch({"cnn": [1], "transformer": [1, bad], "mlp": [1]}),
        lambda bad: metrics.generalization_gap(bad, 1),
        lambda bad: metrics.generalization_gap(1, bad),
        lambda bad: metrics.om_robust({"noise": [bad]}, {"noise": 1}),
        lambda bad: metrics.om_robust({"noise": [1]}, {"noise": [bad]}),
        lambda bad: metrics.om_robust({"noise": None}, {"noise": [1]}),
        lambda bad: metrics.mean_corruption_error({"noise": [bad]}, {"noise": [1]}),
        lambda bad: metrics.mean_corruption_error({"noise": [1]}, {"noise": [bad]}),
        lambda bad: metrics.relative_mean_corruption_error(bad, {"noise": [1]}, 0, {"noise": [1]}),
        lambda bad: metrics.relative_mean_corruption_error(0, {"noise": [bad]}, 0, {"noise": [1]}),
        lambda bad: metrics.relative_mean_corruption_error(0, {"noise": [1]}, bad, {"noise": [1]}),
        lambda bad: metrics.relative_mean_corruption_error(0, {"noise": [1]}, 0, {"noise": [bad]}),
        lambda bad: metrics.om_train([bad], [1], [0, 1], [0, 1]),
        lambda bad: metrics.om_train([1], [bad], [0, 1], [0, 1]),
        lambda bad: metrics.om_train([1], [1], [0, bad], [0, 1]),
        lambda bad: metrics.om_train([1], [1], [0, 1], [0, bad]),
        lambda bad: metrics.compression_ratio(bad, 0),
        lambda bad: metrics.compression_ratio(1, bad),
        lambda bad: metrics.speedup_ratio(bad, 0),
        lambda bad: metrics.speedup_ratio(1, bad),
        lambda bad: metrics.om_comp([bad], [1]),
        lambda bad: metrics.om_comp([1], [bad]),
        lambda bad: metrics.om_infer([bad], [1], [1], [1]),
        lambda bad: metrics.om_infer([1], [1], [1], [bad]),
    ],
)
def test_numbers_that_are_not_are_refused(score, bad):
    with pytest.raises(Undefined):
        score(bad)


@pytest.mark.parametrize(
    "score",
    [
        lambda: metrics.quadratic_mean([]),
        lambda: metrics.relative_accuracy(1, 0),
        lambda: metrics.om_task({}, {}),
        lambda: metrics.om_task({"a": []}, {"a": []}),
        lambda: metrics.om_task({"a": [1]}, {"a": [0]}),
        lambda: metrics.om_task({"a": [1]}, {"a": [1], "b": [1]}),
        lambda: metrics.om_task({"a": [1], "b": [1]}, {"a": [1]}),
        lambda: metrics.om_task({"a": [1]}, {"a": [1, 1]}),
        lambda: metrics.architecture_group_mean([]),
        lambda: metrics.om_arch({"cnn": [1]}),
        lambda: metrics.om_arch({"cnn": [1], "transformer": [1], "mlp": []}),
        lambda: metrics.om_arch({"cnn": [1], "transformer": [1], "mlp": [1], "rnn": [1]}),
        lambda: metrics.generalization_gap(0, 0),
        lambda: metrics.om_robust({}, {}),
        lambda: metrics.om_robust({"noise": 0.1}, {"noise": 0}),
        lambda: metrics.om_robust({"noise": 0.1}, {"blur": 0.1}),
        lambda: metrics.om_robust({"noise": [0.1, 0.2]}, {"noise": [0.1]}),
        lambda: metrics.mean_corruption_error({}, {}),
        lambda: metrics.mean_corruption_error({"noise": [0.1]}, {"noise": [0]}),
        lambda: metrics.mean_corruption_error({"noise": [0.1]}, {"blur": [0.1]}),
        lambda: metrics.mean_corruption_error({"noise": [0.1, 0.2]}, {"noise": [0.1]}),
        lambda: metrics.mean_corruption_error({"noise": []}, {"noise": []}),
        lambda: metrics.relative_mean_corruption_error(0, {}, 0, {}),
        lambda: metrics.relative_mean_corruption_error(0, {"noise": [0.1]}, 0.1, {"noise": [0.1]}),
        lambda: metrics.relative_mean_corruption_error(0, {"noise": [0.1]}, 0.2, {"noise": [0.1]}),
        lambda: metrics.relative_mean_corruption_error(0, {"noise": [0.1]}, 0, {"blur": [0.1]}),
        lambda: metrics.relative_mean_corruption_error(0, {"noise": [0.1, 0.2]}, 0, {"noise": [0.1]}),
        lambda: metrics.om_train([], [], [0, 1], [0, 1]),
        lambda: metrics.om_train([1], [0], [0, 1], [0, 1]),
        lambda: metrics.om_train([1], [1], [0, 1], [0.1, 0.1]),
        lambda: metrics.om_train([1], [1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]),
        lambda: metrics.om_train([1], [1], [0.1], [0.2]),
        lambda: metrics.om_train([1], [1], [0, 1, 2], [0, 1]),  # one setting has failed
        lambda: metrics.compression_ratio(0, 0),
        lambda: metrics.compression_ratio(1, 2),
        lambda: metrics.speedup_ratio(0, 0),
        lambda: metrics.speedup_ratio(1, 2),
        lambda: metrics.om_comp([], []),
        lambda: metrics.om_comp([1], [1, 1]),
        lambda: metrics.om_infer([1], [0], [1], [1]),
        lambda: metrics.om_infer([1], [1], [1], [0]),
        lambda: metrics.om_infer([], [], [], []),
        lambda: metrics.om_infer([1, 1], [1], [1], [1]),
        lambda: metrics.relative_accuracy(1e308, 1e-308),  # no finite quotient
    ],
)
def test_undefined_parts_are_refused(score):
    with pytest.raises(Undefined, match=r"\.$"):
        score()


def test_the_message_names_the_part():
    with pytest.raises(Undefined, match="data set b"):
        metrics.om_task({"a": [1], "b": [1]}, {"a": [1], "b": [0]})
    with pytest.raises(Undefined, match="transformer"):
        metrics.om_arch({"cnn": [1], "mlp": [1]})
    with pytest.raises(Undefined, match="blur"):
        metrics.om_robust({"noise": 0.1, "blur": 0.1}, {"noise": 0.1, "blur": 0})


def test_the_guide_is_true(capsys):
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(example, {})
    assert f"# {capsys.readouterr().out.strip()}" in example
    assert f"1.2 and 0.4 give {metrics.quadratic_mean([1.2, 0.4]):.3f}" in " ".join(text.split())
    documented = dict(re.findall(r"^\|[^|]*\| (.*) \| `(.*)` \|$", text, re.M))
    known = {one.name: one.formula for one in vars(metrics).values() if isinstance(one, metrics.Metric)}
    assert len(known) == 8 and documented == known
