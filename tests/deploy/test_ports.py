"""Files with integers or halves as inputs and outputs give the numbers of Keras, or are refused in a sentence."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from bibench_tf.deploy import conversion, interpreters, ports
from bibench_tf.deploy.ports import Port
from bibench_tf.deploy.targets import Settings, host
from bibench_tf.errors import BibenchError, InvalidOption

KINDS = {"int8": tf.int8, "uint8": tf.uint8, "int16": tf.int16}
# Below 0.5, so that all of them become 0 where they are cut to integers.
VALUES = np.random.default_rng(0).uniform(-0.45, 0.45, (200, 8)).astype(np.float32)
CLASSES = (VALUES.sum(axis=1) > 0).astype(int)


@pytest.fixture(scope="module")
def model():
    """A network that is right on all `VALUES`: the class is the sign of their sum."""
    value = tf.keras.Input((8,), name="value")
    head = tf.keras.layers.Dense(2, name="head", kernel_initializer=lambda *given, **options: [[-1.0, 1.0]] * 8)
    return tf.keras.Model(value, head(value))


@pytest.fixture(scope="module")
def files(model):
    """The network with float inputs around int8, and with inputs and outputs of each type of integers."""

    def convert(kind):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([value[np.newaxis]] for value in VALUES)
        sets = tf.lite.OpsSet
        wide = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide if kind == tf.int16 else sets.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = kind
        return converter.convert()

    return {name: convert(kind) for name, kind in {"float": tf.float32, **KINDS}.items()}


def changed(content, side, change):
    """The file with another quantization of its inputs or outputs."""
    file = schema.ModelT.InitFromPackedBuf(content, 0)
    main = file.subgraphs[0]
    for index in getattr(main, side):
        change(main.tensors[index])
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def without_scale(tensor):
    tensor.quantization = None


def scale_zero(tensor):
    tensor.quantization.scale = [0.0]


def scale_nan(tensor):
    tensor.quantization.scale = [float("nan")]


def two_scales(tensor):
    tensor.quantization.scale, tensor.quantization.zeroPoint = [0.1, 0.2], [0, 0]


@pytest.mark.parametrize("runtime", ["tflite", "lce"])
@pytest.mark.parametrize("kind", KINDS)
def test_floats_are_quantized_by_the_file_and_its_outputs_are_numbers(files, model, kind, runtime):
    """Notices a cast in place of a quantization (every accuracy would be near a half), and raw outputs."""
    given = interpreters.predict(files[kind], VALUES, runtime)
    expected = model.predict(VALUES, verbose=0)
    assert given.dtype == np.float32
    # Half a step for the input of each of 8 weights, the weights themselves, and half a step of the output.
    assert np.abs(given - expected).max() < 0.03 * np.ptp(expected)
    assert (given.argmax(axis=1) == CLASSES).mean() > 0.97


def test_integers_in_and_out_are_the_float_file_of_the_same_integers(files):
    """Notices another rounding, zero point or order of the two than TensorFlow Lite's own quantization has."""
    np.testing.assert_array_equal(
        interpreters.predict(files["int8"], VALUES), interpreters.predict(files["float"], VALUES)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_quantized_inputs_are_taken_as_they_are(files, kind):
    """Notices integers of the file's own type that are quantized a second time."""
    (port,), _ = ports.of(files[kind])
    by_hand = np.clip(np.rint(VALUES / port.scale) + port.zero_point, *_limits(port.kind)).astype(kind)
    np.testing.assert_array_equal(interpreters.predict(files[kind], by_hand), interpreters.predict(files[kind], VALUES))


def _limits(kind):
    return np.iinfo(kind).min, np.iinfo(kind).max


@pytest.mark.parametrize("change", [without_scale, scale_zero, scale_nan, two_scales])
@pytest.mark.parametrize("kind", KINDS)
def test_floats_for_a_file_without_a_usable_scale_are_refused(files, kind, change):
    """Notices a scale that is guessed, or integers that are cut from floats."""
    with pytest.raises(InvalidOption, match=f"takes {kind}, and the file has no scale"):
        interpreters.predict(changed(files[kind], "inputs", change), VALUES)


@pytest.mark.parametrize("change", [without_scale, scale_zero, two_scales])
def test_outputs_without_a_scale_are_refused(files, change):
    """Notices raw integers that are given as if they were logits."""
    with pytest.raises(InvalidOption, match="is int8, and the file has no scale for it"):
        interpreters.predict(changed(files["int8"], "outputs", change), VALUES)


def test_the_parameters_are_those_of_the_interpreter(files):
    """Notices a scale or zero point read from another tensor."""
    for kind in KINDS:
        details = tf.lite.Interpreter(model_content=files[kind])
        for found, expected in zip(
            ports.of(files[kind]), (details.get_input_details(), details.get_output_details()), strict=True
        ):
            ((port,), (detail,)) = found, expected
            assert (port.scale, port.zero_point) == pytest.approx(detail["quantization"])
            assert port.kind == detail["dtype"]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_beyond_the_range_become_its_ends(kind):
    """Notices integers that wrap around, such as 200 as int8 -56."""
    port = Port("x", np.dtype(kind), scale=0.5, zero_point=3)
    stored = port.stored(np.array([-1e9, 1e9, 0.0, 1.0]))
    assert stored.dtype == kind and stored.tolist() == [*_limits(kind), 3, 5]
    np.testing.assert_array_equal(port.numbers(stored[2:]), np.array([0.0, 1.0], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_have_no_integer(bad):
    """Notices NaN that becomes an integer without a word."""
    for kind, scale in (("int8", 0.5), ("int32", None)):
        with pytest.raises(InvalidOption, match="int"):
            Port("x", np.dtype(kind), scale).stored(np.array([0.0, bad]))


def test_types_are_converted_where_no_number_changes():
    """Notices token numbers that wrap around, and numbers that become infinite as halves."""
    tokens = Port("x", np.dtype("int32"))
    assert tokens.stored(np.array([1, 2], np.int64)).tolist() == [1, 2]
    assert tokens.stored(np.array([1.0, 2.0])).dtype == np.int32
    for other in (np.array([2**31]), np.array([0.5])):
        with pytest.raises(InvalidOption, match="cannot hold the numbers"):
            tokens.stored(other)
    pixels = Port("x", np.dtype("uint8"))
    assert pixels.stored(np.array([0, 255], np.int32)).dtype == np.uint8
    with pytest.raises(InvalidOption, match="cannot hold the numbers"):
        pixels.stored(np.array([-1]))
    half = Port("x", np.dtype("float16"))
    assert half.stored(np.array([0.1, np.nan], np.float32)).dtype == np.float16
    with pytest.raises(InvalidOption, match="cannot hold the numbers"):
        half.stored(np.array([1e5], np.float32))
    assert half.numbers(np.array([0.5], np.float16)).dtype == np.float32
    assert Port("x", np.dtype("int64")).numbers(np.array([7])).tolist() == [7]


def test_a_file_of_halves_gives_the_numbers_of_keras():
    """Notices halves that are taken for other numbers, or given to the caller as halves."""

    @tf.function(input_signature=[tf.TensorSpec((1, 3), tf.float16)])
    def double(x):
        return tf.cast(x, tf.float32) * 2.0

    content = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()]).convert()
    values = np.array([[0.5, -3.0, 100.25]], np.float32)
    np.testing.assert_array_equal(interpreters.predict(content, values), 2 * values)


def test_unknown_types_are_named(files):
    """Notices a type that is taken for another one."""

    def text(tensor):
        tensor.type = schema.TensorType.STRING

    with pytest.raises(BibenchError, match="has a type that is not supported"):
        ports.of(changed(files["int8"], "inputs", text))


def test_a_runner_takes_and_gives_numbers(files, model):
    """Notices that the runner in Keras' order cuts or refuses what `predict` quantizes."""
    run = conversion.runner(files["int8"], model, "tflite")
    np.testing.assert_array_equal(run([VALUES[:1]])[0], interpreters.predict(files["int8"], VALUES[:1]))


@pytest.mark.slow
def test_this_computer_times_such_files(files):
    """Notices inputs of a wrong type in the process that measures."""
    target = host.HostTarget()
    settings = Settings(warm_up_s=0, minimum_runs=2, minimum_s=0, rounds=1)
    try:
        assert set(target.measure({name: files[name] for name in KINDS}, settings)) == set(KINDS)
    finally:
        target.close()
