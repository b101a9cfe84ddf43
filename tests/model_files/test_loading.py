"""What the user may name as a model, and that no code in a file is run."""

from __future__ import annotations

import io
import json
import sys
import zipfile

import h5py
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, model_files
from bibench_tf.errors import BibenchError

layers = tf.keras.layers
IMAGES = np.random.default_rng(1).normal(size=(3, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    tf.keras.utils.set_random_seed(5)
    image = layers.Input((12, 12, 3), name="image")
    x = layers.Activation(lq.activations.hard_tanh)(layers.Conv2D(8, 3, name="stem")(image))
    x = layers.BatchNormalization()(algorithms.get("reactnet").conv2d(4, 3, name="binary")(x))
    model = tf.keras.Model(image, layers.Dense(4, name="head")(layers.Flatten()(x)))
    for weight in model.weights:
        weight.assign(weight + 0.3 * tf.abs(tf.random.normal(weight.shape)))
    return model


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model"])
def test_every_format_gives_the_same_network(model, tmp_path, name):
    path = tmp_path / name
    model.save(path, save_format="tf" if "." not in name else None)
    loaded = model_files.load(path)
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    assert type(loaded.get_layer("binary").input_quantizer).__name__ == "ShiftedSign"


def test_larqs_layers_are_known(tmp_path):
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "magnitude_aware_sign"}
    model = tf.keras.Sequential([layers.Input((12, 12, 3)), lq.layers.QuantConv2D(4, 3, **quantizers)])
    model.save(tmp_path / "larq.h5")
    np.testing.assert_array_equal(model_files.load(str(tmp_path / "larq.h5"))(IMAGES), model(IMAGES))


def test_networks_of_the_zoo():
    model = model_files.load("zoo:resnet20", algorithm="bnn", input_shape=(8, 8, 1), num_classes=3, width=0.5)
    assert model.output_shape == (None, 3)
    assert model.get_layer("stem_conv").filters == 8
    assert model_files.load("zoo:resnet20@0.25", algorithm="bnn", width=1.0).get_layer("stem_conv").filters == 4
    with pytest.raises(BibenchError, match="zoo:resnet20 needs an algorithm"):
        model_files.load("zoo:resnet20")
    with pytest.raises(BibenchError, match="Did you mean 'resnet20'"):
        model_files.load("zoo:resnet2", algorithm="bnn")


def test_a_run_folder_is_its_network(model, tmp_path):
    model.save(tmp_path / "model.keras")
    (tmp_path / "result.json").write_text("{}")
    np.testing.assert_array_equal(model_files.load(tmp_path)(IMAGES), model(IMAGES))


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model"])
def test_classes_are_found_by_the_name_of_their_package(tmp_path, name):
    @tf.keras.utils.register_keras_serializable("bibench_tf")
    class Doubled(layers.Layer):
        def call(self, values):
            return 2 * values

    row = layers.Input((3,))
    tf.keras.Model(row, Doubled()(row)).save(tmp_path / name, save_format="tf" if "." not in name else None)
    assert type(model_files.load(tmp_path / name).layers[-1]) is Doubled


def test_what_is_no_model(tmp_path, model):
    with pytest.raises(BibenchError, match="There is no model"):
        model_files.load(tmp_path / "none.keras")
    with pytest.raises(BibenchError, match="no saved_model.pb"):
        model_files.load(tmp_path)
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(BibenchError, match="neither a .keras file"):
        model_files.load(tmp_path / "text.keras")
    model.save_weights(tmp_path / "weights.h5")
    with pytest.raises(BibenchError, match="weights without a model"):
        model_files.load(tmp_path / "weights.h5")


def test_a_graph_without_keras_layers(tmp_path, model):
    model.export(tmp_path / "plain")
    assert model_files.plain_saved_model(tmp_path / "plain")
    with pytest.raises(BibenchError, match="without Keras layers: it can be converted"):
        model_files.load(tmp_path / "plain")


# Malicious files. Each would write into `ran` if anything of it was executed.
@pytest.fixture
def ran(tmp_path):
    yield (path := tmp_path / "ran")
    assert not path.exists()


def lambda_model(ran):
    row = layers.Input((3,), name="row")
    target = str(ran)

    def code(values):
        open(target, "w").close()
        return values

    model = tf.keras.Model(row, layers.Lambda(code, name="harmless")(row))
    ran.unlink()  # the code has run here, while the model was built
    return model


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model"])
def test_a_lambda_is_refused_in_every_format(tmp_path, ran, name):
    path = tmp_path / name
    lambda_model(ran).save(path, save_format="tf" if "." not in name else None)
    if ran.exists():
        ran.unlink()  # saving a graph traces it
    with pytest.raises(BibenchError, match="layer 'harmless' is a Lambda, which holds Python code"):
        model_files.load(path)


def test_an_hdf5_file_called_keras_is_still_looked_into(tmp_path, ran):
    lambda_model(ran).save(tmp_path / "model.h5")
    (tmp_path / "model.h5").rename(tmp_path / "model.keras")
    with pytest.raises(BibenchError, match="Lambda"):
        model_files.load(tmp_path / "model.keras")


def rewrite(path, change, extra=()):
    """Change the configuration in a .keras file by a function, and add files."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    change(config)
    content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in {**content, **dict(extra)}.items():
            archive.writestr(name, value)


@pytest.fixture
def dense_file(tmp_path):
    row = layers.Input((3,), name="row")
    tf.keras.Model(row, layers.Dense(2, activation="relu", name="head")(row)).save(tmp_path / "dense.keras")
    return tmp_path / "dense.keras"


def call_with_constants(config, item, *arguments):
    """Put a call of `item` with constants into a functional model: Keras would do it while it loads."""
    item = {**item, "name": "call", "inbound_nodes": [[["_CONSTANT_VALUE", -1, value, {}] for value in arguments]]}
    config["config"]["layers"].insert(1, item)


def test_a_python_function_by_module_and_name_is_refused(dense_file, ran, monkeypatch):
    def change(config):
        call = {"module": "pathlib", "class_name": "Path", "config": {}, "registered_name": "Path"}
        call_with_constants(config, call, str(ran))

    rewrite(dense_file, change)
    with pytest.raises(BibenchError, match="'Path' of the Python module 'pathlib'"):
        model_files.load(dense_file)


def test_a_module_is_not_imported_for_a_file(dense_file, tmp_path, ran, monkeypatch):
    (tmp_path / "payload.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    def change(config):
        config["config"]["layers"][1]["config"]["kernel_initializer"] = {
            "module": "payload",
            "class_name": "Thing",
            "config": {},
            "registered_name": None,
        }

    rewrite(dense_file, change)
    with pytest.raises(BibenchError, match="'Thing' of the Python module 'payload', which is not registered"):
        model_files.load(dense_file)
    assert "payload" not in sys.modules


@pytest.mark.parametrize("function", ["io.write_file", "io.gfile.rmtree", "keras.utils.get_file", "py_function"])
def test_functions_of_tensorflow_that_reach_files_are_refused(dense_file, ran, function):
    def change(config):
        layer = {"module": "keras.layers", "class_name": "TFOpLambda", "registered_name": "TFOpLambda"}
        call_with_constants(config, {**layer, "config": {"name": "call", "function": function}}, str(ran), "text")

    rewrite(dense_file, change)
    with pytest.raises(BibenchError, match=f"calls the TensorFlow function '{function}'"):
        model_files.load(dense_file)


def test_functions_of_keras_are_not_layers(dense_file):
    def change(config):
        layer = {"module": "keras.models", "class_name": "load_model", "registered_name": "load_model", "config": {}}
        call_with_constants(config, layer, "elsewhere.h5")

    rewrite(dense_file, change)
    with pytest.raises(BibenchError, match="'load_model' of the Python module 'keras.models'"):
        model_files.load(dense_file)


def test_operations_on_tensors_are_loaded(tmp_path):
    row = layers.Input((3,), name="row")
    model = tf.keras.Model(row, tf.concat([tf.math.exp(row) + 1.0, tf.nn.relu(row)], axis=-1))
    model.save(tmp_path / "operations.keras")
    rows = np.float32([[1, -2, 3]])
    np.testing.assert_array_equal(model_files.load(tmp_path / "operations.keras")(rows), model(rows))


def test_pickled_weights_are_refused(dense_file):
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([{"any": "object"}], dtype=object))
    rewrite(dense_file, lambda config: None, {"model.weights.npz": buffer.getvalue()})
    with pytest.raises(BibenchError, match=r"model.weights.npz', which can hold code"):
        model_files.load(dense_file)


def test_a_lambda_hidden_in_a_hand_made_hdf5_file(tmp_path):
    with h5py.File(tmp_path / "hidden.h5", "w") as file:
        inner = {"class_name": "Lambda", "config": {"name": "deep", "function": ["4w==", None, None]}}
        outer = {"class_name": "TimeDistributed", "config": {"name": "outer", "layer": inner}}
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [outer]}})
    with pytest.raises(BibenchError, match="layer 'deep' is a Lambda"):
        model_files.load(tmp_path / "hidden.h5")


def test_a_graph_that_writes_files_is_refused(tmp_path, ran):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((1, 3), tf.float32)])
    def serve(row):
        tf.io.write_file(str(ran), "text")
        return {"out": row}

    tf.saved_model.save(module, str(tmp_path / "writer"), serve)
    with pytest.raises(BibenchError, match="contains the operation WriteFile"):
        model_files.load(tmp_path / "writer")
    with pytest.raises(BibenchError, match="contains the operation WriteFile"):
        model_files.plain_saved_model(tmp_path / "writer")
