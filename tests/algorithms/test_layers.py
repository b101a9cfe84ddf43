"""The layers that algorithms make: shapes, equivalences, saving, schedules."""

import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.algorithms import ScheduleCallback
from bibench_tf.names import BIBENCH

BINARY = [key for key in algorithms.names() if key != "full_precision"]
KINDS = {
    "conv2d": ((8, 7, 16), lambda a: a.conv2d(6, 3, strides=2, groups=2, use_bias=True, name="layer")),
    "conv1d": ((9, 16), lambda a: a.conv1d(6, 3, dilation_rate=2, use_bias=True, name="layer")),
    "dense": ((5, 130), lambda a: a.dense(6, name="layer")),
}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def randomised(layer, rng):
    for weight in layer.weights:
        if weight.trainable:
            weight.assign(rng.normal(size=weight.shape).astype("float32"))
    return layer


@pytest.mark.parametrize("key", BIBENCH)
@pytest.mark.parametrize(
    "options",
    [{}, {"strides": 2}, {"padding": "valid"}, {"dilation_rate": 2}, {"groups": 4}, {"use_bias": True}],
)
def test_convolution_is_the_full_precision_one_fed_with_signs(key, options, rng):
    """Up to what an algorithm multiplies the output with, which does not depend on the operands' signs."""
    x = rng.normal(size=(2, 9, 8, 8)).astype("float32")
    layer = algorithms.get(key).conv2d(8, 3, **options)
    float_layer = algorithms.get("full_precision").conv2d(8, 3, **options)
    layer.build(x.shape)
    float_layer.build(x.shape)
    float_layer.kernel.assign(layer.kernel_quantizer(tf.constant(layer.kernel.numpy()), training=False))
    y = layer(x).numpy()
    expected = float_layer(np.where(x >= 0, 1.0, -1.0)).numpy()
    factor = 1.0
    if key == "xnor":
        factor = np.abs(x).mean((1, 2, 3), keepdims=True)
    if key == "recu":
        factor = layer.output_scale.numpy()
    np.testing.assert_allclose(y, factor * expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("key", BINARY)
@pytest.mark.parametrize("kind", KINDS)
def test_static_shape_is_the_real_one(key, kind, rng):
    shape, make = KINDS[kind]
    x = tf.keras.Input(shape)
    model = tf.keras.Model(x, make(algorithms.get(key))(x))
    for batch in (1, 5, 3):
        y = model.predict(rng.normal(size=(batch, *shape)), verbose=0)
        assert (
            y.shape
            == (batch, *model.output_shape[1:])
            == (batch, *model.layers[-1].compute_output_shape((None, *shape))[1:])
        )


@pytest.mark.parametrize("key", BINARY)
def test_rows_of_a_dense_layer_do_not_depend_on_each_other(key, rng):
    x = rng.normal(size=(4, 5, 12)).astype("float32")
    layer = algorithms.get(key).dense(3)
    np.testing.assert_allclose(layer(x), layer(x.reshape(20, 12)).numpy().reshape(4, 5, 3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(x)[1:2, 2:3], layer(x[1:2, 2:3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", algorithms.names())
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_and_loaded_layers_compute_the_same(key, suffix, rng, tmp_path):
    inputs = [tf.keras.Input(shape) for shape, _ in KINDS.values()]
    outputs = []
    for number, (x, (_, make)) in enumerate(zip(inputs, KINDS.values(), strict=True)):
        layer = make(algorithms.get(key))
        layer._name = f"layer{number}"
        outputs.append(layer(x))
    model = tf.keras.Model(inputs, outputs)
    for layer in model.layers:
        randomised(layer, rng)
    algorithms.update_schedules(model, 3, 10)
    model.save(tmp_path / f"model{suffix}")
    loaded = tf.keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    data = [rng.normal(size=(2, *shape)).astype("float32") for shape, _ in KINDS.values()]
    for training in (False, True):
        for before, after in zip(model(data, training=training), loaded(data, training=training), strict=True):
            np.testing.assert_array_equal(before, after)
    for before, after in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", BINARY)
def test_latent_weights_start_from_glorots_normal_distribution(key, kind):
    """As many positive as negative ones, of the variance 2 / (fan-in + fan-out)."""
    tf.keras.utils.set_random_seed(1)
    algorithm = algorithms.get(key)
    layer, shape, fans = {
        "conv2d": (algorithm.conv2d(64, 3), (1, 8, 8, 32), 9 * (32 + 64)),
        "conv1d": (algorithm.conv1d(64, 3), (1, 8, 96), 3 * (96 + 64)),
        "dense": (algorithm.dense(128), (1, 144), 144 + 128),
    }[kind]
    layer.build(shape)
    kernel = layer.kernel.numpy()
    assert kernel.size == 18_432
    assert kernel.std() == pytest.approx(np.sqrt(2 / fans), rel=0.03)
    assert abs(kernel.mean()) < 0.03 * kernel.std()
    # A normal distribution, cut at two deviations; an even one has no values beyond 1.73 deviations.
    assert 2 < np.abs(kernel).max() / kernel.std() < 2.4


def even(values, low, high):
    """Whether many values are from the even distribution between `low` and `high`."""
    values, middle, width = np.ravel(values), (low + high) / 2, high - low
    close = abs(values.mean() - middle) < 0.05 * width and values.std() == pytest.approx(width / 12**0.5, rel=0.05)
    return close and low <= values.min() and values.max() <= high


def test_further_weights_start_as_the_reference_has_them():
    """Learned scales, thresholds, noise modules and biases: other values would be another algorithm at first."""
    tf.keras.utils.set_random_seed(1)
    layers = {key: algorithms.get(key).conv2d(500, 3, use_bias=True) for key in ("recu", "xnorpp", "reactnet", "fda")}
    weights = {}
    for key, layer in layers.items():
        layer.build((1, 6, 7, 128))
        weights[key] = {weight.name.split("/")[-1].split(":")[0]: weight.numpy() for weight in layer.weights}
        assert not weights[key]["bias"].any()
    assert even(weights["recu"]["output_scale"], 0, 1) and weights["recu"]["tau"] == 1
    for name, size in (("output_scale", 500), ("height_scale", 6), ("width_scale", 7)):
        np.testing.assert_array_equal(weights["xnorpp"][name], np.ones(size))
    np.testing.assert_array_equal(weights["reactnet"]["input_shift"], np.zeros(128))
    fda = weights["fda"]
    assert (fda["input_schedule_alpha"], fda["input_schedule_n"]) == (np.float32(0.1), 9)
    # PyTorch's linear layers, by their fan-in: 9 x 128 weights of a filter to 18 hidden units, and back.
    for name, fan_in in (("fc1", 9 * 128), ("fc2", 18)):
        assert even(fda[f"weight_noise_{name}"], -(fan_in**-0.5), fan_in**-0.5), name


@pytest.mark.parametrize("key", BINARY)
def test_explicit_padding_adds_zeros_after_binarization(key, rng):
    x = rng.normal(size=(2, 6, 6, 4)).astype("float32")
    same = algorithms.get(key).conv2d(3, 3)
    explicit = algorithms.get(key).conv2d(3, 3, padding=1)
    same.build(x.shape)
    explicit.build(x.shape)
    explicit.set_weights(same.get_weights())
    np.testing.assert_allclose(explicit(x), same(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", BINARY)
def test_every_trainable_weight_gets_a_gradient(key, kind, rng):
    shape, make = KINDS[kind]
    layer = make(algorithms.get(key))
    x = tf.constant(rng.normal(size=(4, *shape)).astype("float32"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) ** 2)
    for weight, gradient in zip(layer.trainable_weights, tape.gradient(loss, layer.trainable_weights), strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), weight.name
        assert np.abs(gradient).max() > 0, weight.name


def state(layer):
    return {w.name.split("/")[-1]: float(w) for w in layer.non_trainable_weights}


def test_schedules_move_by_epoch():
    recu, fda = algorithms.get("recu").conv2d(4, 3), algorithms.get("fda").conv2d(4, 3)
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 2)), recu, fda, tf.keras.layers.GlobalAveragePooling2D()])
    assert state(recu) == {"tau:0": 1.0}
    assert state(fda)["input_schedule_alpha:0"] == pytest.approx(0.1)
    seen = []
    watch = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((state(recu), state(fda))))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4, 4, 2)), np.ones((4, 4)), epochs=4, verbose=0, callbacks=[ScheduleCallback(), watch])
    # The published anchors: 0.85 at the start, 0.9028557 half way; alpha ends at exactly 0, n at 9 + int(9 * 3 / 4).
    assert [s["tau:0"] for s, _ in seen] == pytest.approx([0.85, 0.87314, 0.902856, 0.941009], abs=1e-5)
    alphas = [0.05 * (1 + np.cos(np.pi * e / 4)) for e in (1, 2, 3, 4)]
    assert [s["weight_schedule_alpha:0"] for _, s in seen] == pytest.approx(alphas, abs=1e-7)
    assert [s["input_schedule_n:0"] for _, s in seen] == [9, 11, 13, 15]


def test_schedules_move_by_step():
    layer = algorithms.get("recu").dense(2)
    model = tf.keras.Sequential([tf.keras.Input((8,)), layer])
    model.compile("sgd", "mse")
    seen = []
    watch = tf.keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: seen.append(state(layer)["tau:0"]))
    model.fit(
        np.ones((8, 8)),
        np.ones((8, 2)),
        batch_size=2,
        verbose=0,
        callbacks=[ScheduleCallback(steps=4), watch],
    )
    assert seen == pytest.approx([0.85, 0.87314, 0.902856, 0.941009], abs=1e-5)


def test_latent_weights_of_bnn_stay_in_the_unit_interval(rng):
    layer = algorithms.get("bnn").conv2d(2, 3)
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 2)), layer, tf.keras.layers.GlobalAveragePooling2D()])
    model.compile(tf.keras.optimizers.SGD(100.0), "mse")
    x = rng.normal(size=(8, 4, 4, 2))
    model.fit(x, 9 * np.ones((8, 2)), epochs=2, verbose=0)
    assert np.abs(layer.kernel.numpy()).max() == 1.0


def test_xnorpp_scales_the_first_positions_where_the_size_is_open(rng):
    """As a layer of that size does, on images of two sizes."""
    open_layer = algorithms.get("xnorpp").conv2d(4, 3, strides=2)
    open_layer.build((None, None, None, 3))
    heights, widths = rng.uniform(0.5, 1.5, (2, 2000)).astype(np.float32)
    open_layer.set_weights([open_layer.get_weights()[0], np.full(4, 2.0), heights, widths])
    for height, width in ((6, 9), (11, 4)):
        x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
        fixed = algorithms.get("xnorpp").conv2d(4, 3, strides=2)
        fixed.build(x.shape)
        rows, columns = (height + 1) // 2, (width + 1) // 2
        fixed.set_weights([open_layer.get_weights()[0], np.full(4, 2.0), heights[:rows], widths[:columns]])
        for training in (False, True):
            np.testing.assert_allclose(open_layer(x, training=training), fixed(x, training=training), rtol=1e-6)
