"""Model files made to do harm: a harmless file of each format, whose parts are replaced."""

from __future__ import annotations

import json
import zipfile

import h5py
import pytest
import tensorflow as tf

layers = tf.keras.layers


@pytest.fixture
def ran(tmp_path):
    """The file that the code in a hostile file would write; it must not be there at the end."""
    yield (path := tmp_path / "ran")
    assert not path.exists()


@pytest.fixture(scope="session")
def harmless(tmp_path_factory):
    """A folder with one small network as network.keras, network.h5 and the SavedModel network."""
    folder = tmp_path_factory.mktemp("harmless")
    tf.keras.utils.set_random_seed(2)
    row = layers.Input((3,), name="row")
    model = tf.keras.Model(row, layers.Dense(2, activation="relu", name="head")(row))
    model.save(folder / "network.keras")
    model.save(folder / "network.h5")
    model.save(folder / "network", save_format="tf")
    return folder


@pytest.fixture
def changed(harmless, tmp_path):
    """changed(suffix, change): a copy of the harmless file whose configuration was changed by a function."""

    def make(suffix, change):
        path = tmp_path / f"changed{suffix}"
        if suffix == ".h5":
            path.write_bytes((harmless / "network.h5").read_bytes())
            with h5py.File(path, "r+") as file:
                config = json.loads(file.attrs["model_config"])
                file.attrs["model_config"] = json.dumps(change(config) or config)
        else:
            with zipfile.ZipFile(harmless / "network.keras") as archive:
                content = {name: archive.read(name) for name in archive.namelist()}
            config = json.loads(content["config.json"])
            content["config.json"] = json.dumps(change(config) or config).encode()
            with zipfile.ZipFile(path, "w") as archive:
                for name, value in content.items():
                    archive.writestr(name, value)
        return path

    return make
