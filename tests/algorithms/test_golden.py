"""Every operator against the golden vectors of the reference, forward and backward."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS = {"react": "reactnet"}
NAMES = {
    "weight": "kernel",
    "bias": "bias",
    "channel_threshold": "input_shift",
    "alpha": "output_scale",
    "o_scale": "output_scale",
    "h_scale": "height_scale",
    "w_scale": "width_scale",
    "l_scale": "width_scale",
    "weight_noise.fc1.weight": "weight_noise_fc1",
    "weight_noise.fc2.weight": "weight_noise_fc2",
    "act_noise.fc1.weight": "input_noise_fc1",
    "act_noise.fc2.weight": "input_noise_fc2",
}
# What docs/fidelity.md says of fully connected layers: the quantities that differ by design, and no others.
DENSE_DEVIATIONS = {
    "xnor": {"y", "dx", "kernel"},  # the convolution's estimator: no centring, A left out of the gradient
    "dorefa": {"kernel"},  # the scale is left out of the gradient, as in the convolution
    "reactnet": {"y", "kernel"},  # the threshold acts in the forward pass
}


class Case:
    """One golden file in Keras' layout."""

    def __init__(self, path):
        self.vectors = np.load(path)
        self.meta = json.loads(str(self.vectors["meta_json"]))
        name, self.kind = path.stem.split("_")[:2]
        self.key = KEYS.get(name, name)

    def to_keras(self, name, value):
        if name in ("x", "g", "y", "dx"):
            return np.moveaxis(value, 1, -1) if self.kind != "linear" else value
        if name == "weight":
            return np.moveaxis(value, (0, 1), (-1, -2)) if value.ndim > 2 else value.T
        return value.T if ".fc" in name else value.ravel()

    def layer(self):
        algorithm, param = (
            algorithms.get(self.key),
            {k[6:]: k for k in self.vectors.files if k.startswith("param.")},
        )
        used_bias = "bias" in param and "bias" not in self.meta["unused_parameters"]
        filters = self.vectors["param.weight"].shape[0]
        if self.kind == "linear":
            layer = algorithm.dense(filters, use_bias=used_bias)
        else:
            layer = getattr(algorithm, self.kind)(
                filters,
                self.meta["kernel_size"],
                strides=self.meta["stride"],
                padding=self.meta["padding"],
                groups=self.meta["groups"],
                use_bias=used_bias,
            )
        layer.build(self.to_keras("x", self.vectors["x"]).shape)
        if self.meta["epoch"] is not None:
            algorithms.update_schedules(layer, self.meta["epoch"], self.meta["max_epochs"])
        weights = by_name(layer)
        for name, key in param.items():
            value = self.to_keras(name, self.vectors[key])
            if name == "bias" and not used_bias or value.size == 0:
                continue
            weight = weights[NAMES[name]]
            weight.assign(np.reshape(self.trim(value, weight), weight.shape))
        return layer

    @staticmethod
    def trim(value, weight):
        # The reference keeps 2000 slots for the scales of rows and columns, of which the output uses the first.
        return value[: weight.shape[0]] if value.size == 2000 else value

    def expected(self, mode):
        for key in self.vectors.files:
            if key.startswith(f"{mode}."):
                name = key[len(mode) + 1 :].removeprefix("grad.")
                yield NAMES.get(name, name), self.to_keras(name, self.vectors[key])


def by_name(layer):
    return {weight.name.split("/")[-1].split(":")[0]: weight for weight in layer.weights}


def run(case, layer, training):
    x, g = (tf.constant(case.to_keras(name, case.vectors[name])) for name in ("x", "g"))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(y * g)
    trainable = {name: weight for name, weight in by_name(layer).items() if weight.trainable}
    dx, gradients = tape.gradient(loss, (x, trainable))
    return {"y": y, "dx": dx, **gradients}


def worst(actual, expected):
    return np.abs(actual - expected).max() / (np.abs(expected).max() + 1e-12)


def files(kind):
    return [pytest.param(Case(path), id=path.stem) for path in sorted(GOLDEN.glob(f"*_{kind}_*.npz"))]


def deviations(case, mode):
    """The quantities of a golden file that the layer does not reproduce, and how many it was asked for."""
    got = run(case, case.layer(), training=mode == "train")
    differing, compared = set(), 0
    for name, expected in case.expected(mode):
        if expected.size == 0:
            continue  # parameters of a noise module without hidden units
        if expected.size == 2000:
            expected = Case.trim(expected, got[name])
        if worst(np.reshape(got[name], expected.shape), expected) >= 1e-5:
            differing.add(name)
        compared += 1
    return differing, compared


def test_all_vectors_are_here():
    assert len(list(GOLDEN.glob("*.npz"))) == 84


@pytest.mark.parametrize("case", files("conv2d") + files("conv1d"))
def test_convolution_in_training(case):
    differing, compared = deviations(case, "train")
    assert not differing and compared >= 3


# FDA's noise is off in inference here, and on in the reference.
@pytest.mark.parametrize("case", [each for each in files("conv2d") + files("conv1d") if each.values[0].key != "fda"])
def test_convolution_in_inference(case):
    expected = dict(case.expected("eval"))["y"]
    assert worst(run(case, case.layer(), training=False)["y"], expected) < 1e-5


@pytest.mark.parametrize("case", files("linear"))
def test_dense_in_training(case):
    differing, compared = deviations(case, "train")
    assert differing == DENSE_DEVIATIONS.get(case.key, set()) and compared >= 3


# The dense layers whose outputs differ from the reference by design (docs/fidelity.md), each by its formula.
def xnor_rows(x, weight, scale):
    """A of each row times s: without the reference's centring of the weights."""
    return np.abs(x).mean(axis=-1, keepdims=True) * (np.sign(x) @ np.sign(weight).T) * scale


def reactnet_rows(x, weight, scale, threshold):
    """The threshold acts in the forward pass."""
    return np.sign(x + threshold) @ np.sign(weight).T * scale


def fda_rows(x, weight, scale):
    """Without noise."""
    return np.sign(x) @ np.sign(weight).T * scale


DENSE_FORMULAS = {"xnor": xnor_rows, "reactnet": reactnet_rows, "fda": fda_rows}


def expected_of_rows(case):
    """The outputs [..., filters] in inference, float64 where a formula gives them."""
    vectors = case.vectors
    if case.key not in DENSE_FORMULAS:
        return vectors["eval.y"]
    weight = vectors["param.weight"].astype(np.float64)
    options = [vectors["param.channel_threshold"].ravel()] if case.key == "reactnet" else []
    y = DENSE_FORMULAS[case.key](vectors["x"].astype(np.float64), weight, np.abs(weight).mean(axis=1), *options)
    has_bias = "param.bias" in vectors.files and "bias" not in case.meta["unused_parameters"]
    return y + vectors["param.bias"] if has_bias else y


@pytest.mark.parametrize("case", files("linear"))
def test_dense_in_inference(case):
    """A dense layer that forgets a scale, a bias, a threshold or the sample that A belongs to answers otherwise."""
    expected = expected_of_rows(case)
    got = run(case, case.layer(), training=False)["y"]
    assert got.shape == expected.shape and worst(got, expected) < 1e-5
